package wire

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"uplinkd/pd"
)

// opt returns the octets of one option.
func opt(code uint16, data ...string) string {
	body := strings.Join(data, "")
	return u16(code) + u16(uint16(len(body))) + body
}

func u16(v uint16) string { return string(binary.BigEndian.AppendUint16(nil, v)) }
func u32(v uint32) string { return string(binary.BigEndian.AppendUint32(nil, v)) }

// iapd and iaprefix are options with these contents, then whatever options.
func iapd(t1, t2 uint32, options ...string) string {
	return opt(25, u32(1), u32(t1), u32(t2), strings.Join(options, ""))
}

func iaprefix(preferred, valid uint32, bits byte, addr string, options ...string) string {
	a := netip.MustParseAddr(addr).As16()
	return opt(26, u32(preferred), u32(valid), string([]byte{bits}), string(a[:]), strings.Join(options, ""))
}

func iana(t1, t2 uint32, options ...string) string {
	return opt(3, u32(2), u32(t1), u32(t2), strings.Join(options, ""))
}

func iaaddr(preferred, valid uint32, addr string, options ...string) string {
	a := netip.MustParseAddr(addr).As16()
	return opt(5, string(a[:]), u32(preferred), u32(valid), strings.Join(options, ""))
}

const serverID = "\x00\x02\x00\x0a\x00\x03\x00\x01\x02\x00\x00\x00\x02\x01"

// good is what must survive next to every malformed option.
var good = iapd(1800, 2880, iaprefix(3600, 7200, 56, "2001:db8:100::"))

// TestFaults feeds one malformed thing at a time, followed by a good IA_PD that must survive, and compares the faults.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name, options string
		faults        []string
	}{
		{"nothing wrong", serverID, nil},
		{"unknown options, also twice", opt(99, "\x00") + opt(99, "\xff") + opt(65535), nil},
		{"empty DUID", opt(2), []string{"Server Identifier dropped: 0 octets, want 3 to 130"}},
		{"long DUID", opt(1, strings.Repeat("x", 131)), []string{"Client Identifier dropped: 131 octets, want 3 to 130"}},
		{"DUID-LLT too short for its type is opaque", opt(2, "\x00\x01\x00"), nil},
		{"two Server IDs", serverID + opt(2, "other"), []string{"second Server Identifier dropped"}},
		{"two Client IDs", opt(1, "abc") + opt(1, "abc"), []string{"second Client Identifier dropped"}},
		{"preference without value", opt(7), []string{"Preference dropped: 0 octets, want 1"}},
		{"elapsed time of three octets", opt(8, "abc"), []string{"Elapsed Time dropped: 3 octets, want 2"}},
		{"rapid commit with content", opt(14, "x"), []string{"Rapid Commit dropped: 1 octets, want 0"}},
		{"SOL_MAX_RT too small", opt(82, u32(59)), []string{"SOL_MAX_RT dropped: 59 s, want 60 to 86400"}},
		{"INF_MAX_RT too large", opt(83, u32(86401)), []string{"INF_MAX_RT dropped: 86401 s, want 60 to 86400"}},
		{"SOL_MAX_RT short", opt(82, "\x01"), []string{"SOL_MAX_RT dropped: 1 octets, want 4"}},
		{"odd ORO", opt(6, "\x00\x17\x00"), []string{"Option Request: last octet of 3 dropped"}},
		{"huge ORO", opt(6, strings.Repeat("\x00\x17", 30000)), []string{"Option Request: more than 128 codes: the rest dropped"}},
		{"status of one octet", opt(13, "\x00"), []string{"Status Code dropped: 1 octets, want at least 2"}},
		{"IA_PD cut short", opt(25, "1234"), []string{"IA_PD dropped: 4 octets, want at least 12"}},
		{"T1 after T2", iapd(2, 1, iaprefix(1, 1, 64, "2001:db8::")), []string{"IA_PD 0x00000001 dropped: T1 2 s is after T2 1 s"}},
		{"IAPREFIX cut short", iapd(0, 0, opt(26, "1234")), []string{"IA_PD 0x00000001: IAPREFIX dropped: 4 octets, want at least 25"}},
		{"IA_PD with truncated contents", iapd(0, 0, "\x00\x1a\x00\x19abc"),
			[]string{"IA_PD 0x00000001: IAPREFIX dropped: announces 25 octets, 3 left"}},
		{"IA_PD with stray octets", iapd(0, 0, "\x00"), []string{"IA_PD 0x00000001: 1 stray octets at the end"}},
		{"length 0", iapd(0, 0, iaprefix(1, 1, 0, "2001:db8::")),
			[]string{"IA_PD 0x00000001: IAPREFIX 2001:db8::/0 dropped: length out of 1 to 128"}},
		{"length 129", iapd(0, 0, iaprefix(1, 1, 129, "2001:db8::")),
			[]string{"IA_PD 0x00000001: IAPREFIX 2001:db8::/129 dropped: length out of 1 to 128"}},
		{"preferred over valid", iapd(0, 0, iaprefix(2, 1, 56, "2001:db8::")),
			[]string{"IA_PD 0x00000001: IAPREFIX 2001:db8::/56 dropped: preferred lifetime 2 s is longer than valid lifetime 1 s"}},
		{"multicast", iapd(0, 0, iaprefix(1, 1, 16, "ff02::")),
			[]string{"IA_PD 0x00000001: IAPREFIX ff02::/16 dropped: overlaps multicast ff00::/8"}},
		{"link-local", iapd(0, 0, iaprefix(1, 1, 64, "fe80::")),
			[]string{"IA_PD 0x00000001: IAPREFIX fe80::/64 dropped: overlaps link-local fe80::/10"}},
		{"half the Internet", iapd(0, 0, iaprefix(1, 1, 1, "8000::")),
			[]string{"IA_PD 0x00000001: IAPREFIX 8000::/1 dropped: overlaps multicast ff00::/8"}},
		{"a hint from a server", iapd(0, 0, iaprefix(1, 1, 56, "::")),
			[]string{"IA_PD 0x00000001: IAPREFIX ::/56 dropped: contains the unspecified or the loopback address"}},
		{"loopback", iapd(0, 0, iaprefix(1, 1, 128, "::1")),
			[]string{"IA_PD 0x00000001: IAPREFIX ::1/128 dropped: contains the unspecified or the loopback address"}},
		{"IPv4-mapped", iapd(0, 0, iaprefix(1, 1, 120, "::ffff:192.0.2.0")),
			[]string{"IA_PD 0x00000001: IAPREFIX ::ffff:192.0.2.0/120 dropped: overlaps the IPv4-mapped addresses ::ffff:0:0/96"}},
		{"6to4", iapd(0, 0, iaprefix(1, 1, 48, "2002:c000:201::")),
			[]string{"IA_PD 0x00000001: IAPREFIX 2002:c000:201::/48 dropped: overlaps 6to4 2002::/16"}},
		{"a continent", iapd(0, 0, iaprefix(1, 1, 12, "2610::")),
			[]string{"IA_PD 0x00000001: IAPREFIX 2610::/12 dropped: shorter than /29, which no provider delegates"}},
		{"not allocated", iapd(0, 0, iaprefix(1, 1, 48, "4001:db8::")),
			[]string{"IA_PD 0x00000001: IAPREFIX 4001:db8::/48 dropped: outside of 2000::/3 and fc00::/7"}},
		{"bad status inside IAPREFIX", iapd(0, 0, iaprefix(1, 1, 56, "2001:db8::", opt(13))),
			[]string{"IA_PD 0x00000001: IAPREFIX 2001:db8::/56: Status Code dropped: 0 octets, want at least 2"}},
		{"two statuses inside IA_PD", iapd(0, 0, opt(13, "\x00\x06"), opt(13, "\x00\x00")),
			[]string{"IA_PD 0x00000001: second Status Code dropped"}},
		{"DNS of odd length", opt(23, strings.Repeat("\x20", 17)), []string{"DNS Servers: last 1 octets of 17 dropped"}},
		{"DNS not a server", opt(23, strings.Repeat("\x00", 16), strings.Repeat("\x00", 15), "\x01", strings.Repeat("\xff", 16)),
			[]string{"DNS Servers: :: dropped: not the address of a server", "DNS Servers: ::1 dropped: not the address of a server",
				"DNS Servers: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff dropped: not the address of a server"}},
		{"DNS not a server, for ever", opt(23, strings.Repeat("\xff", 16*65)), append(slices.Repeat(
			[]string{"DNS Servers: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff dropped: not the address of a server"}, 15), "more faults not shown")},
		{"one DNS server for ever", opt(23, strings.Repeat("\x20", 16*65)),
			[]string{"DNS Servers: more than 64 good or bad addresses: the rest dropped"}},
		{"name with escape", opt(24, "\x04a\x1b[2\x00\x02ok\x00"),
			[]string{"Domain Search List: name dropped: octet 0x1b is not allowed in a host name"}},
		{"dot inside a label", opt(24, "\x03a.b\x00"),
			[]string{"Domain Search List: name dropped: octet 0x2e is not allowed in a host name"}},
		{"label with hyphen first", opt(24, "\x02-a\x00"),
			[]string{"Domain Search List: name dropped: a label begins or ends with a hyphen"}},
		{"compressed name", opt(24, "\x01a\x00\xc0\x00"),
			[]string{"Domain Search List: label type 0xc0: compression is not allowed, the rest dropped"}},
		{"label beyond the end", opt(24, "\x09a"), []string{"Domain Search List: label of 9 octets, 1 left: the rest dropped"}},
		{"name without end", opt(24, "\x01a"), []string{"Domain Search List: name without end dropped"}},
		{"root", opt(24, "\x00"), []string{"Domain Search List: name dropped: the root is not a host name"}},
		{"name too long", opt(24, strings.Repeat("\x3f"+strings.Repeat("a", 63), 4), "\x00"),
			[]string{"Domain Search List: name dropped: longer than 253 octets"}},
		{"bad names beyond the limit", opt(24, strings.Repeat("\x00", 33)), append(slices.Repeat(
			[]string{"Domain Search List: name dropped: the root is not a host name"}, 15), "more faults not shown")},
		{"too many names", opt(24, strings.Repeat("\x01a\x00", 33)),
			[]string{"Domain Search List: more than 32 names: the rest dropped"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Decode([]byte("\x07\x00\x00\x01" + c.options + good))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.faults, m.Faults); d != "" {
				t.Error(d)
			}
			var last pd.IAPD
			if n := len(m.IAPDs); n > 0 {
				last = m.IAPDs[n-1]
			}
			if d := cmp.Diff(reply.IAPDs[0], last, equate); d != "" {
				t.Error("the good IA_PD behind it did not survive:\n" + d)
			}
		})
	}
}

func TestFaultsAtTheEnd(t *testing.T) {
	for _, c := range []struct{ tail, fault string }{
		{"\x00", "1 stray octets at the end"},
		{"\x00\x19\x00\xff\x00", "IA_PD dropped: announces 255 octets, 1 left"},
		{"\x00\x63\xff\xff", "option 99 dropped: announces 65535 octets, 0 left"},
		{opt(56, strings.Repeat("\x00\x09\x00\x00", 255)), "more than 256 options: the rest dropped"},
	} {
		m, err := Decode([]byte("\x07\x00\x00\x01" + good + c.tail))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{c.fault}, m.Faults); d != "" || len(m.IAPDs) != 1 {
			t.Errorf("%d IA_PDs, want 1; faults: %s", len(m.IAPDs), d)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for octets, want := range map[string]string{
		"":                 "decode DHCPv6 message: truncated header: 0 of 4 octets",
		"\x07\x00\x00":     "decode DHCPv6 message: truncated header: 3 of 4 octets",
		"\x00\x00\x00\x00": "decode DHCPv6 message: type unknown (0) is not a message between client and server",
		"\x0d\x00\x00\x00": "decode DHCPv6 message: type RELAY-REPL is not a message between client and server",
		"\xff\x00\x00\x00": "decode DHCPv6 message: type unknown (255) is not a message between client and server",
		"\x07\x00\x00\x00" + strings.Repeat("\x00", 65532): "decode DHCPv6 message: 65536 octets, want at most 65535",
	} {
		if _, err := Decode([]byte(octets)); err == nil || err.Error() != want {
			t.Errorf("got error %v, want %s", err, want)
		}
	}
}

func TestDecodeNormalises(t *testing.T) {
	m, err := Decode([]byte("\x07\x00\x00\x01" +
		iapd(0, 1, iaprefix(0, 0, 56, "2001:db8::7"), iaprefix(0, 1, 56, "2001:db8:0:100::")) +
		opt(13, "\x00\x01", " out of \x1b[31mprefixes\r\n\xff\u202e"+strings.Repeat("ä", 300)) +
		opt(23, strings.Repeat("\x20", 32))))
	if err != nil {
		t.Fatal(err)
	}
	// T1 = 0 with T2 > 0 is allowed (quirk Q17), a withdrawal (valid = 0) is not a fault (Q16), host bits are masked,
	// a server named twice counts once.
	text := "out of ?[31mprefixes????" + strings.Repeat("ä", 300)
	want := pd.Message{
		Type: pd.Reply, XID: 1,
		Status: pd.Status{Code: pd.UnspecFail, Text: strings.TrimSpace((" " + text)[:199])},
		IAPDs: []pd.IAPD{{IAID: 1, T2: 1, Prefixes: []pd.IAPrefix{
			{Prefix: netip.MustParsePrefix("2001:db8::/56")},
			{Prefix: netip.MustParsePrefix("2001:db8:0:100::/56"), Valid: 1},
		}}},
		Info: pd.Info{DNS: []netip.Addr{netip.MustParseAddr("2020:2020:2020:2020:2020:2020:2020:2020")}},
	}
	if d := cmp.Diff(want, m, equate); d != "" {
		t.Error(d)
	}
}

func TestDecodeBounds(t *testing.T) {
	prefixes := func(n int) string {
		var b strings.Builder
		for i := range n {
			a := netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i)})
			b.WriteString(iaprefix(1, 1, 48, a.String()))
		}
		return b.String()
	}
	m, err := Decode([]byte("\x07\x00\x00\x01" + iapd(0, 0, prefixes(40)) + iapd(0, 0, prefixes(40)) + iapd(0, 0)))
	if err != nil {
		t.Fatal(err)
	}
	parts := len(m.IAPDs)
	for _, ia := range m.IAPDs {
		parts += len(ia.Prefixes)
	}
	if parts != 64 {
		t.Errorf("%d IA_PDs and prefixes, want 64", parts)
	}
	if n := len(m.Faults); n != 16 || m.Faults[15] != "more faults not shown" {
		t.Errorf("%d faults, want 16: %q", n, m.Faults)
	}
	m, err = Decode([]byte("\x07\x00\x00\x01" + opt(23, strings.Repeat("\x20\x01\x0d\xb8", 4*64))))
	if err != nil || len(m.DNS) != 1 || m.Faults != nil {
		t.Errorf("64 times the same DNS server: %d servers, faults %q, error %v", len(m.DNS), m.Faults, err)
	}
}

// TestDecodeWork fills a datagram with each kind of rubbish. How often memory is allocated stands for the work that it
// makes: no kind makes more than 256 options can.
func TestDecodeWork(t *testing.T) {
	const room = 65000
	fill := func(s string) string { return strings.Repeat(s, room/len(s)) }
	for name, options := range map[string]string{
		"unknown options":            fill(opt(999)),
		"repeated options":           fill(opt(14)),
		"IA_PDs":                     fill(iapd(0, 0)),
		"IA_PDs with T1 after T2":    fill(iapd(2, 1)),
		"IA_PDs cut short":           fill(opt(25)),
		"prefixes":                   iapd(0, 0, fill(iaprefix(1, 1, 56, "2001:db8::"))),
		"prefixes not delegable":     iapd(0, 0, fill(iaprefix(1, 1, 56, "fe80::"))),
		"options inside a prefix":    iapd(0, 0, iaprefix(1, 1, 56, "2001:db8::", fill(opt(13)))),
		"one prefix in each IA_PD":   fill(iapd(0, 0, iaprefix(2, 1, 56, "2001:db8::"))),
		"bad names":                  opt(24, fill("\x01!\x00")),
		"roots":                      opt(24, fill("\x00")),
		"one name of many labels":    opt(24, fill("\x01a")),
		"one name of bad labels":     opt(24, fill("\x01!")),
		"addresses of no DNS server": opt(23, fill("\xff")),
		"one DNS server repeated":    opt(23, fill("\x20\x01\x0d\xb8")),
		"requested options":          opt(6, fill("\x00\x17")),
		"IA_NAs":                     fill(opt(3, strings.Repeat("\x00", 12))),
		"addresses not assignable":   opt(3, strings.Repeat("\x00", 12), fill(opt(5, strings.Repeat("\x00", 24)))),
		"NTP options":                fill(opt(56)),
		"NTP suboptions":             opt(56, fill("\x00\x09\x00\x00")),
		"NTP addresses":              opt(56, fill("\x00\x01\x00\x10"+strings.Repeat("\xff", 16))),
		"NTP names":                  opt(56, fill("\x00\x03\x00\x03\x01a\x00")),
		"addresses of no SNTP":       opt(31, fill("\xff")),
		"names of an AFTR":           opt(64, fill("\x01!\x00")),
		"captive portal":             opt(103, fill("\x1b")),
		"MAP-E containers":           fill(opt(94)),
		"Authentication options":     fill(opt(11)),
		"status text":                opt(13, fill("\x1b")),
		"DUID":                       opt(1, fill("x")),
	} {
		t.Run(name, func(t *testing.T) {
			b := []byte("\x07\x00\x00\x01" + options)
			if n := testing.AllocsPerRun(1, func() {
				if _, err := Decode(b); err != nil {
					t.Error(err)
				}
			}); n > 2000 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
