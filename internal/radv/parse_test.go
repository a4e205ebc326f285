package radv

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"uplinkd/internal/lifetime"
)

var (
	router1 = netip.MustParseAddr("fe80::a")
	prefixC = netip.MustParsePrefix("2001:db8:c::/64")
)

// rawRA returns an advertisement by hand: flags and router lifetime, then options.
func rawRA(flags byte, seconds uint16, options ...[]byte) packet {
	b := []byte{134, 0, 0, 0, 64, flags, byte(seconds >> 8), byte(seconds), 0, 0, 0, 0, 0, 0, 0, 0}
	return packet{from: router1, hopLimit: 255, data: append(b, slices.Concat(options...)...)}
}

func rawPrefix(p netip.Prefix, flags byte, valid, preferred uint32) []byte {
	b := []byte{3, 4, byte(p.Bits()), flags}
	b = binary.BigEndian.AppendUint32(b, valid)
	b = binary.BigEndian.AppendUint32(b, preferred)
	return append(append(b, 0, 0, 0, 0), p.Addr().AsSlice()...)
}

func rawServers(seconds uint32, servers ...string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{25, byte(1 + 2*len(servers)), 0, 0}, seconds)
	for _, s := range servers {
		b = append(b, netip.MustParseAddr(s).AsSlice()...)
	}
	return b
}

// rawNames pads names, already in wire form, to an option.
func rawNames(seconds uint32, names string) []byte {
	names += strings.Repeat("\x00", (8-len(names)%8)%8)
	return append(binary.BigEndian.AppendUint32([]byte{31, byte(1 + len(names)/8), 0, 0}, seconds), names...)
}

// rawPREF64 has the prefix in its first 12 octets, and the scaled lifetime with the length's code as they are on the wire.
func rawPREF64(scaled uint16, prefix string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{38, 2}, scaled)
	return append(b, netip.MustParseAddr(prefix).AsSlice()[:12]...)
}

// rawPortal pads a URI to an option.
func rawPortal(uri string) []byte {
	uri += strings.Repeat("\x00", (14-len(uri)%8)%8)
	return append([]byte{37, byte((2 + len(uri)) / 8)}, uri...)
}

func TestParsePREF64(t *testing.T) {
	const hour = 3600 // a multiple of 8
	for _, c := range []struct {
		name   string
		option []byte
		want   []timed[netip.Prefix]
	}{
		{"96", rawPREF64(hour, "64:ff9b::"), []timed[netip.Prefix]{{netip.MustParsePrefix("64:ff9b::/96"), in(time.Hour)}}},
		{"64", rawPREF64(hour|1, "2001:db8:1:2::"), []timed[netip.Prefix]{{netip.MustParsePrefix("2001:db8:1:2::/64"), in(time.Hour)}}},
		{"56", rawPREF64(hour|2, "2001:db8:1:200::"), []timed[netip.Prefix]{{netip.MustParsePrefix("2001:db8:1:200::/56"), in(time.Hour)}}},
		{"48", rawPREF64(hour|3, "2001:db8:1::"), []timed[netip.Prefix]{{netip.MustParsePrefix("2001:db8:1::/48"), in(time.Hour)}}},
		{"40", rawPREF64(hour|4, "2001:db8:100::"), []timed[netip.Prefix]{{netip.MustParsePrefix("2001:db8:100::/40"), in(time.Hour)}}},
		{"32", rawPREF64(hour|5, "2001:db8::"), []timed[netip.Prefix]{{netip.MustParsePrefix("2001:db8::/32"), in(time.Hour)}}},
		{"bits behind the length", rawPREF64(hour|5, "2001:db8:ffff::"), []timed[netip.Prefix]{{netip.MustParsePrefix("2001:db8::/32"), in(time.Hour)}}},
		{"the longest lifetime", rawPREF64(0xfff8, "64:ff9b::"), []timed[netip.Prefix]{{netip.MustParsePrefix("64:ff9b::/96"), in(65528 * time.Second)}}},
		{"withdrawn", rawPREF64(0, "64:ff9b::"), []timed[netip.Prefix]{{netip.MustParsePrefix("64:ff9b::/96"), lifetime.Deadline{}}}},
		{"code 6", rawPREF64(hour|6, "64:ff9b::"), nil},
		{"code 7", rawPREF64(hour|7, "64:ff9b::"), nil},
		{"multicast", rawPREF64(hour, "ff02::"), nil},
		{"link-local", rawPREF64(hour, "fe80::"), nil},
		{"unspecified", rawPREF64(hour, "::"), nil},
		{"IPv4-mapped", rawPREF64(hour, "::ffff:0:0"), nil},
		{"too short", []byte{38, 1, 0x0e, 0x10, 0, 0x64, 0xff, 0x9b}, nil},
		{"too long", append([]byte{38, 3}, append(rawPREF64(hour, "64:ff9b::")[2:], make([]byte, 8)...)...), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := parseAdvertisement(rawRA(0, 1800, c.option), start)
			if err != nil || !slices.Equal(a.pref64, c.want) {
				t.Errorf("%v, %v; want %v", a.pref64, err, c.want)
			}
		})
	}
}

func TestParsePortal(t *testing.T) {
	for _, c := range []struct {
		name   string
		option []byte
		want   string
		heard  bool
	}{
		{"plain", rawPortal("https://portal.example/api"), "https://portal.example/api", true},
		{"no portal", rawPortal("urn:ietf:params:capport:unrestricted"), "", true},
		{"script", rawPortal("javascript://portal.example"), "", false},
		{"escape", rawPortal("https://portal.example/\x1b[31m"), "", false},
		{"NUL inside", rawPortal("https://portal.example/\x00x"), "", false},
		{"empty", rawPortal(""), "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := parseAdvertisement(rawRA(0, 1800, c.option), start)
			if err != nil || (a.portal != nil) != c.heard || c.heard && *a.portal != c.want {
				t.Errorf("%v, %v; want %q", a.portal, err, c.want)
			}
		})
	}
}

func TestParseMAC(t *testing.T) {
	for _, c := range []struct {
		option []byte
		want   string
	}{
		{[]byte{1, 1, 2, 0, 0, 0, 1, 2}, "02:00:00:00:01:02"},
		{make8(1, 1), ""}, // all zeros
		{append(make8(1, 2), make([]byte, 8)...), ""},
		{[]byte{2, 1, 2, 0, 0, 0, 1, 2}, ""}, // of a target
	} {
		if a, err := parseAdvertisement(rawRA(0, 1800, c.option), start); err != nil || a.mac != c.want {
			t.Errorf("% x: %q, %v; want %q", c.option, a.mac, err, c.want)
		}
	}
}

// make8 is an option of zeros.
func make8(kind, length byte) []byte { return []byte{kind, length, 0, 0, 0, 0, 0, 0} }

func TestParseAdvertisement(t *testing.T) {
	a, err := parseAdvertisement(rawRA(0xc8, 1800, // M, O, preference high
		[]byte{1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}, // a link-layer address of length 2: mdlayher/ndp refuses the message
		[]byte{24, 1, 0, 0x10, 0, 0, 0, 1},                          // route information with the reserved preference: likewise
		rawPrefix(prefixA, 0xc0, 7200, 3600),
		rawPrefix(prefixC, 0x90, 7200, 3600),
		rawPrefix(prefixB, 0xc0, 10, 20), // preferred for longer than valid
		rawPrefix(netip.MustParsePrefix("fe80::/64"), 0xc0, 7200, 3600),
		rawPREF64(1800, "64:ff9b::"),
		rawServers(600, "2001:db8::53", "fe80::53", "::1", "ff02::1"),
		[]byte{25, 2, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8}, // half an address
		rawNames(900, "\x03lan\x07example\x00\x04HOME\x00"),
		rawNames(900, "\x05ab"),          // label past the end
		rawNames(900, "\x04a;rm\x00"),    // not a host name
		rawNames(900, "\x03bad\xc0\x00"), // compression
		[]byte{253, 1, 0, 0, 0, 0, 0, 0}, // unknown
	), start)
	if err != nil {
		t.Fatal(err)
	}
	want := advertisement{
		from: router1, managed: true, other: true, preference: high, routerUntil: in(30 * time.Minute),
		prefixes: []Prefix{{Prefix: prefixA, OnLink: true, Autonomous: true, PreferredUntil: in(time.Hour), ValidUntil: in(2 * time.Hour)},
			{Prefix: prefixC, OnLink: true, PreferPD: true, PreferredUntil: in(time.Hour), ValidUntil: in(2 * time.Hour)}},
		pref64: []timed[netip.Prefix]{{netip.MustParsePrefix("64:ff9b::/96"), in(30 * time.Minute)}},
		dns:    []timed[netip.Addr]{{netip.MustParseAddr("2001:db8::53"), in(10 * time.Minute)}},
		search: []timed[string]{{"lan.example", in(15 * time.Minute)}, {"home", in(15 * time.Minute)}},
	}
	opts := cmp.AllowUnexported(advertisement{}, timed[netip.Addr]{}, timed[string]{}, timed[netip.Prefix]{})
	if diff := cmp.Diff(want, a, opts, cmp.Comparer(func(a, b lifetime.Deadline) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestParsePreference(t *testing.T) {
	for flags, want := range map[byte]preference{0: medium, 0x08: high, 0x18: low, 0x10: medium} { // RFC 4191 §2.1: reserved means medium
		a, err := parseAdvertisement(rawRA(flags, 1800), start)
		if err != nil || a.preference != want {
			t.Errorf("flags %#x: preference %d, %v; want %d", flags, a.preference, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := func(change func(*packet)) packet {
		p := rawRA(0, 1800, rawPrefix(prefixA, 0xc0, 7200, 3600))
		change(&p)
		return p
	}
	for _, c := range []struct {
		name string
		p    packet
		want string
	}{
		{"global source", good(func(p *packet) { p.from = netip.MustParseAddr("2001:db8::1") }), "not link-local"},
		{"hop limit", good(func(p *packet) { p.hopLimit = 254 }), "hop limit 254"},
		{"code", good(func(p *packet) { p.data[1] = 1 }), "code 1"},
		{"type", good(func(p *packet) { p.data[0] = 133 }), "none"},
		{"short", good(func(p *packet) { p.data = p.data[:15] }), "none"},
		{"option of length 0", good(func(p *packet) { p.data = append(p.data, 1, 0, 0, 0, 0, 0, 0, 0) }), "length 0"},
		{"option past the end", good(func(p *packet) { p.data = append(p.data, 1, 2, 0, 0, 0, 0, 0, 0) }), "8 are left"},
		{"one byte left", good(func(p *packet) { p.data = append(p.data, 1) }), "length 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parseAdvertisement(c.p, start); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestParseSolicitation(t *testing.T) {
	host := netip.MustParseAddr("fe80::5")
	link := []byte{1, 1, 2, 0, 0, 0, 1, 1}
	head := []byte{133, 0, 0, 0, 0, 0, 0, 0}
	for _, c := range []struct {
		name string
		p    packet
		want string // part of the error; "" when it is valid
	}{
		{"from an address", packet{host, 255, slices.Concat(head, link)}, ""},
		{"from nowhere", packet{netip.IPv6Unspecified(), 255, head}, ""},
		{"from nowhere with a link-layer address", packet{netip.IPv6Unspecified(), 255, slices.Concat(head, link)}, "unspecified"},
		{"hop limit", packet{host, 64, head}, "hop limit 64"},
		{"code", packet{host, 255, []byte{133, 9, 0, 0, 0, 0, 0, 0}}, "code 9"},
		{"short", packet{host, 255, head[:7]}, "none"},
		{"option of length 0", packet{host, 255, slices.Concat(head, []byte{1, 0})}, "length 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, err := parseSolicitation(c.p)
			switch {
			case c.want == "" && (err != nil || from != c.p.from):
				t.Errorf("from %s, %v", from, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// FuzzRA feeds the receive path: no input may break it, and what passes must be bounded and safe to print.
func FuzzRA(f *testing.F) {
	f.Add(rawRA(0, 1800).data)
	f.Add(rawRA(0xd8, 0, rawPrefix(prefixA, 0xc0, 7200, 3600), rawServers(600, "2001:db8::53"), rawNames(900, "\x03lan\x00")).data)
	f.Add(rawRA(0, 9000, rawServers(lifetime.Infinity, "2001:db8::53"), rawNames(0, "\x01a\x01b\x00")).data)
	f.Add(rawRA(0, 1800, rawPREF64(1800, "64:ff9b::"), rawPREF64(3, "2001:db8::"), rawPortal("https://portal.example/")).data)
	f.Add(rawRA(0, 1800, rawPREF64(1806, "64:ff9b::"), rawPortal("http://a\x00b"), []byte{1, 1, 2, 0, 0, 0, 1, 2}, rawPrefix(prefixA, 0xd0, 1, 1)).data)
	f.Add(rawRA(0, 1, []byte{1, 0, 0, 0, 0, 0, 0, 0}).data)
	f.Add(rawRA(0, 1, append([]byte{25, 33, 0, 0}, make([]byte, 260)...)).data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := parseSolicitation(packet{router1, 255, data}); err == nil && data[0] != typeSolicitation {
			t.Error("a solicitation of another type")
		}
		a, err := parseAdvertisement(packet{router1, 255, data}, start)
		if err != nil {
			return
		}
		if len(a.prefixes) > maxHeardPrefixes || len(a.dns) > maxHeardServers || len(a.search) > maxHeardDomains || len(a.pref64) > maxHeardPREF64 {
			t.Fatalf("unbounded: %d prefixes, %d servers, %d names, %d PREF64", len(a.prefixes), len(a.dns), len(a.search), len(a.pref64))
		}
		for _, p := range a.pref64 {
			if p.value != p.value.Masked() || !p.value.Addr().IsGlobalUnicast() || !slices.Contains(lengthsPREF64[:], p.value.Bits()) {
				t.Errorf("PREF64 %s", p.value)
			}
		}
		if a.portal != nil && strings.ContainsFunc(*a.portal, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"<>\\^`{|}", r) }) {
			t.Errorf("captive portal %q", *a.portal)
		}
		if strings.Trim(a.mac, "0123456789abcdef:") != "" {
			t.Errorf("MAC address %q", a.mac)
		}
		for _, s := range a.search {
			if strings.Trim(s.value, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
				t.Errorf("search domain %q", s.value)
			}
		}
		for _, p := range a.prefixes {
			if p.Prefix != p.Prefix.Masked() || p.PreferredUntil.Compare(p.ValidUntil) > 0 {
				t.Errorf("prefix %+v", p)
			}
		}
		var tab table
		tab.hear(a)
		tab.expire(start)
		if a.routerUntil.IsZero() == (len(tab.facts().Routers) == 1) {
			t.Errorf("router until %s, facts %+v", a.routerUntil, tab.facts())
		}
		if fa := tab.facts(); len(fa.MACs) != len(fa.Routers) || fa.Invitation == Silence {
			t.Errorf("facts %+v", fa)
		}
	})
}
