package wire

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"uplinkd/pd"
)

// TestExclude has the example of RFC 6603 §4.3 and the ends of what the format holds. Encoder and decoder must agree with
// octets that were computed by hand.
func TestExclude(t *testing.T) {
	for _, c := range []struct{ prefix, exclude, octets string }{
		{"2001:db8:dead:bee0::/59", "2001:db8:dead:beef::/64", "\x40\x78"},
		{"2001:db8::/56", "2001:db8:0:ff::/64", "\x40\xff"},
		{"2001:db8::/56", "2001:db8::/64", "\x40\x00"},
		{"2001:db8::/48", "2001:db8:0:1234::/64", "\x40\x12\x34"},
		{"2001:db8::/47", "2001:db8:1:8000::/64", "\x40\xc0\x00\x00"},
		{"2001:db8::/63", "2001:db8:0:1::/64", "\x40\x80"},
		{"2001:db8::/64", "2001:db8::1/128", "\x80\x00\x00\x00\x00\x00\x00\x00\x01"},
		{"2000::/3", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "\x80" + strings.Repeat("\xff", 15) + "\xf8"},
	} {
		p, exclude := netip.MustParsePrefix(c.prefix), netip.MustParsePrefix(c.exclude)
		if got := string(encodeExclude(p, exclude)); got != c.octets {
			t.Errorf("encode %s without %s: %x, want %x", p, exclude, got, c.octets)
		}
		var d decoder
		if got := d.exclude("", p, []byte(c.octets)); got != exclude || d.m.Faults != nil {
			t.Errorf("decode %x in %s: %s, want %s; faults %q", c.octets, p, got, exclude, d.m.Faults)
		}
	}
	var d decoder // bits beyond the length are padding
	if got := d.exclude("", netip.MustParsePrefix("2001:db8:dead:bee0::/59"), []byte("\x40\x7f")); got.String() != "2001:db8:dead:beef::/64" {
		t.Errorf("padding: %s", got)
	}
}

// TestExcludeReversed has subnet ids of several octets in the wrong order: they are read as the RFC has it, and it is told
// where it shows.
func TestExcludeReversed(t *testing.T) {
	for _, c := range []struct {
		prefix, octets, read string
		told                 bool
	}{
		{"2001:db8::/47", "\x40\x00\x00\xc0", "2001:db8:0:1::/64", true}, // meant: 2001:db8:1:8000::/64
		{"2001:db8::/47", "\x40\xc0\x00\x00", "2001:db8:1:8000::/64", false},
		{"2001:db8::/52", "\x40\x30\x12", "2001:db8:0:301::/64", true}, // meant: 2001:db8:0:123::/64
		{"2001:db8::/52", "\x40\x12\x30", "2001:db8:0:123::/64", false},
		{"2001:db8::/52", "\x40\x1f\x1f", "2001:db8:0:1f1::/64", false},  // rubbish behind it in both orders
		{"2001:db8::/48", "\x40\x34\x12", "2001:db8:0:3412::/64", false}, // nothing shows
		{"2001:db8::/59", "\x40\x7f", "2001:db8:0:f::/64", false},        // one octet has no order
		{"2000::/16", "\x7d" + strings.Repeat("\x00", 13) + "\xf8", "2000::f8/125", false},
		{"2000::/16", "\x7d\xf8" + strings.Repeat("\x00", 12) + "\xff", "2000:f800::f8/125", true},
	} {
		var d decoder
		if got := d.exclude("", netip.MustParsePrefix(c.prefix), []byte(c.octets)); got.String() != c.read {
			t.Errorf("%x in %s: read %s, want %s", c.octets, c.prefix, got, c.read)
		}
		want := "Prefix Exclude: read as " + c.read + ", but the octets of its subnet id seem to be in reverse order"
		if told := len(d.m.Faults) == 1 && d.m.Faults[0] == want; told != c.told || !told && len(d.m.Faults) > 0 {
			t.Errorf("%x in %s: faults %q", c.octets, c.prefix, d.m.Faults)
		}
	}
}

// TestExcludeFaults: whatever is wrong with a Prefix Exclude option, the prefix stays.
func TestExcludeFaults(t *testing.T) {
	for _, c := range []struct{ options, fault string }{
		{opt(67), "Prefix Exclude dropped: 0 octets, want 2 to 17"},
		{opt(67, "\x40"), "Prefix Exclude dropped: 1 octets, want 2 to 17"},
		{opt(67, strings.Repeat("\x40", 18)), "Prefix Exclude dropped: 18 octets, want 2 to 17"},
		{opt(67, "\x3b\x78"), "Prefix Exclude dropped: length 59 is not inside the prefix"},
		{opt(67, "\x00\x78"), "Prefix Exclude dropped: length 0 is not inside the prefix"},
		{opt(67, "\x81\x78"), "Prefix Exclude dropped: length 129 is not inside the prefix"},
		{opt(67, "\xff", strings.Repeat("\xff", 16)), "Prefix Exclude dropped: length 255 is not inside the prefix"},
		{opt(67, "\x40\x78\x00"), "Prefix Exclude dropped: 3 octets, want 2 for length 64"},
		{opt(67, "\x80\x78"), "Prefix Exclude dropped: 2 octets, want 10 for length 128"},
		{opt(67, "\x40\x78") + opt(67, "\x40\x70"), "second Prefix Exclude dropped"},
	} {
		m, err := Decode([]byte("\x07\x00\x00\x01" + iapd(0, 0, iaprefix(1, 2, 59, "2001:db8:dead:bee0::", c.options))))
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"IA_PD 0x00000001: IAPREFIX 2001:db8:dead:bee0::/59: " + c.fault}
		if d := cmp.Diff(want, m.Faults); d != "" {
			t.Error(d)
		}
		if len(m.IAPDs) != 1 || len(m.IAPDs[0].Prefixes) != 1 || m.IAPDs[0].Prefixes[0].Valid != 2 {
			t.Errorf("%s: the prefix did not survive: %+v", c.fault, m.IAPDs)
		}
	}
	m, err := Decode([]byte("\x01\x00\x00\x01" + iapd(0, 0, iaprefix(0, 0, 56, "::", opt(67, "\x40\x78")))))
	if err != nil || len(m.Faults) != 1 || m.IAPDs[0].Prefixes[0] != (pd.IAPrefix{HintLen: 56}) {
		t.Errorf("in a hint: %+v, %v", m, err)
	}
}

// TestInfoFaults is TestFaults for what servers tell besides prefixes.
func TestInfoFaults(t *testing.T) {
	address := strings.Repeat("\x20", 16)
	one := []netip.Addr{netip.AddrFrom16([16]byte([]byte(address)))}
	auth := opt(11, "\x03\x01\x00", strings.Repeat("\x00", 8), "\x01", strings.Repeat("k", 16))
	const alpn = "\x00\x01\x00\x04\x03dot" // SvcParams
	dot := "\x00\x01\x00\x0d\x03dot\x07example\x00\x00\x10" + address + alpn
	for _, c := range []struct {
		name, options string
		want          pd.Info
		faults        []string
	}{
		{"NTP: all kinds in one option", opt(56, opt(1, address), opt(2, address), opt(3, "\x03ntp\x00"), opt(9, "?")),
			pd.Info{NTP: one, NTPNames: []string{"ntp"}}, nil},
		{"NTP: the same twice", opt(56, opt(1, address)) + opt(56, opt(1, address)) + opt(56, opt(3, "\x01a\x00")) + opt(56, opt(3, "\x01a\x00")),
			pd.Info{NTP: one, NTPNames: []string{"a"}}, nil},
		{"NTP: multicast as unicast", opt(56, opt(1, "\xff\x05", strings.Repeat("\x00", 14))), pd.Info{},
			[]string{"NTP Server: ff05:: dropped: not the address of a server"}},
		{"NTP: short address", opt(56, opt(1, "1")) + opt(56, opt(1, address)), pd.Info{NTP: one}, []string{"NTP Server dropped: 1 octets, want 16"}},
		{"NTP: suboption too long", opt(56, "\x00\x01\x00\xff"), pd.Info{},
			[]string{"NTP Server: suboption 1 announces 255 octets, 0 left: the rest dropped"}},
		{"NTP: stray octets", opt(56, "\x00\x01"), pd.Info{}, []string{"NTP Server: 2 stray octets at the end"}},
		{"NTP: empty name", opt(56, opt(3)), pd.Info{}, []string{"NTP Server dropped: no name in it"}},
		{"NTP: two names", opt(56, opt(3, "\x01a\x00\x01b\x00")), pd.Info{NTPNames: []string{"a"}},
			[]string{"NTP Server: more than 1 names: the rest dropped"}},
		{"SNTP", opt(31, address, "x"), pd.Info{SNTP: one}, []string{"SNTP Servers: last 1 octets of 17 dropped"}},
		{"AFTR-Name", opt(64, "\x04aftr\x07example\x00"), pd.Info{AFTR: "aftr.example"}, nil},
		{"AFTR-Name twice", opt(64, "\x01a\x00") + opt(64, "\x01b\x00"), pd.Info{AFTR: "a"}, []string{"second AFTR-Name dropped"}},
		{"AFTR-Name empty", opt(64), pd.Info{}, []string{"AFTR-Name dropped: no name in it"}},
		{"AFTR-Name with escape", opt(64, "\x04a\x1b[2\x00"), pd.Info{},
			[]string{"AFTR-Name: name dropped: octet 0x1b is not allowed in a host name"}},
		{"AFTR-Name compressed", opt(64, "\xc0\x00"), pd.Info{},
			[]string{"AFTR-Name: label type 0xc0: compression is not allowed, the rest dropped"}},
		{"portal", opt(103, "HTTPS://portal.example:8443/api?x=%20#y"), pd.Info{CaptivePortal: "HTTPS://portal.example:8443/api?x=%20#y"}, nil},
		{"portal as a C string", opt(103, "http://[2001:db8::1]/\x00"), pd.Info{CaptivePortal: "http://[2001:db8::1]/"}, nil},
		{"no portal", opt(103, "urn:ietf:params:capport:unrestricted"), pd.Info{}, nil},
		{"portal: script", opt(103, "javascript://x"), pd.Info{}, []string{"Captive Portal dropped: neither http nor https"}},
		{"portal: empty", opt(103), pd.Info{}, []string{"Captive Portal dropped: neither http nor https"}},
		{"portal: no host", opt(103, "http:///x"), pd.Info{}, []string{"Captive Portal dropped: no host"}},
		{"portal: nothing behind", opt(103, "http://"), pd.Info{}, []string{"Captive Portal dropped: no host"}},
		{"portal: space", opt(103, "http://a b"), pd.Info{}, []string{"Captive Portal dropped: a character that is not allowed in a URI"}},
		{"portal: newline", opt(103, "http://a\n"), pd.Info{}, []string{"Captive Portal dropped: a character that is not allowed in a URI"}},
		{"portal: NUL inside", opt(103, "http://a\x00b"), pd.Info{}, []string{"Captive Portal dropped: a character that is not allowed in a URI"}},
		{"portal: not ASCII", opt(103, "http://ä"), pd.Info{}, []string{"Captive Portal dropped: a character that is not allowed in a URI"}},
		{"portal: too long", opt(103, "http://"+strings.Repeat("a", 2042)), pd.Info{}, []string{"Captive Portal dropped: 2049 octets, want at most 2048"}},
		{"encrypted DNS", opt(144, dot), pd.Info{Resolvers: []pd.Resolver{{Priority: 1, Name: "dot.example", Addresses: one, Params: []byte(alpn)}}}, nil},
		{"encrypted DNS: two, one by name only", opt(144, "\x00\x02\x00\x03\x01a\x00") + opt(144, dot), pd.Info{Resolvers: []pd.Resolver{{Priority: 2, Name: "a"},
			{Priority: 1, Name: "dot.example", Addresses: one, Params: []byte(alpn)}}}, nil},
		{"encrypted DNS: an address on the provider's link", opt(144, "\x00\x01\x00\x03\x01a\x00\x00\x20\xfe\x80", strings.Repeat("\x00", 13), "\x01", address, alpn),
			pd.Info{Resolvers: []pd.Resolver{{Priority: 1, Name: "a", Addresses: one, Params: []byte(alpn)}}}, nil},
		{"encrypted DNS: alias", opt(144, "\x00\x00", dot[2:]), pd.Info{}, []string{"Encrypted DNS dropped: priority 0 (AliasMode), which is not for this option"}},
		{"encrypted DNS: empty", opt(144), pd.Info{}, []string{"Encrypted DNS dropped: the name is cut short"}},
		{"encrypted DNS: long name", opt(144, "\x00\x01\x00\x04\x01a\x00"), pd.Info{}, []string{"Encrypted DNS dropped: the name is cut short"}},
		{"encrypted DNS: no name", opt(144, "\x00\x01\x00\x00"), pd.Info{}, []string{"Encrypted DNS dropped: no name in it"}},
		{"encrypted DNS: escape", opt(144, "\x00\x01\x00\x04\x02\x1b[\x00"), pd.Info{}, []string{"Encrypted DNS: name dropped: octet 0x1b is not allowed in a host name"}},
		{"encrypted DNS: long addresses", opt(144, "\x00\x01\x00\x03\x01a\x00\x00\x11", address), pd.Info{}, []string{"Encrypted DNS dropped: the addresses are cut short"}},
		{"encrypted DNS: no address", opt(144, "\x00\x01\x00\x03\x01a\x00\x00\x00", alpn), pd.Info{}, []string{"Encrypted DNS dropped: parameters without addresses"}},
		{"encrypted DNS: long parameter", opt(144, dot, "\x00\x03\x00\x03\x00\x00"), pd.Info{}, []string{"Encrypted DNS dropped: the last parameter is cut short"}},
		{"encrypted DNS: order", opt(144, dot, "\x00\x01\x00\x00"), pd.Info{}, []string{"Encrypted DNS dropped: parameter 1 comes after 1"}},
		{"encrypted DNS: too much", opt(144, dot, "\x00\x07\x01\x00", strings.Repeat("x", 256)), pd.Info{}, []string{"Encrypted DNS dropped: 268 octets of parameters, want at most 255"}},
		{"containers", opt(94, "\x1b[2J") + opt(95) + opt(96, "lw"),
			pd.Info{S46: []pd.Option{{Code: 94, Data: []byte("\x1b[2J")}, {Code: 95, Data: []byte{}}, {Code: 96, Data: []byte("lw")}}}, nil},
		{"container too long", opt(94, strings.Repeat("x", 4097)) + opt(94, "m"), pd.Info{S46: []pd.Option{{Code: 94, Data: []byte("m")}}},
			[]string{"MAP-E container dropped: more than 8 containers or 4096 octets"}},
		{"unknown option too long", opt(17, strings.Repeat("x", 4097)) + opt(17, "m"), pd.Info{Unknown: []pd.Option{{Code: 17, Data: []byte("m")}}},
			[]string{"option 17 and maybe others dropped: more than 32 unknown options or 4096 octets of them"}},
		{"unknown options too long in sum", opt(17, strings.Repeat("x", 4095)) + opt(18, "mm") + opt(19999, "m") + opt(20000, "m"),
			pd.Info{Unknown: []pd.Option{{Code: 17, Data: []byte(strings.Repeat("x", 4095))}, {Code: 19999, Data: []byte("m")}}},
			[]string{"option 18 and maybe others dropped: more than 32 unknown options or 4096 octets of them"}},
		{"containers too long in sum", opt(94, strings.Repeat("x", 4095)) + opt(95, "mm"),
			pd.Info{S46: []pd.Option{{Code: 94, Data: []byte(strings.Repeat("x", 4095))}}},
			[]string{"MAP-T container dropped: more than 8 containers or 4096 octets"}},
		{"refresh time short", opt(32, "1"), pd.Info{}, []string{"Information Refresh Time dropped: 1 octets, want 4"}},
		{"reconfigure to what is not allowed", opt(19, "\x03"), pd.Info{}, []string{"Reconfigure Message dropped: type 3, want 5, 6 or 11"}},
		{"reconfigure accept with content", opt(20, "x"), pd.Info{}, []string{"Reconfigure Accept dropped: 1 octets, want 0"}},
		{"auth short", opt(11, "1234567890"), pd.Info{}, []string{"Authentication dropped: 10 octets, want 11 to 1035"}},
		{"auth three times", auth + auth + auth, pd.Info{}, []string{"Authentication dropped: option number 2 of its kind",
			"Authentication dropped: option number 3 of its kind"}},
		{"IA_NA cut short", opt(3, "1"), pd.Info{}, []string{"IA_NA dropped: 1 octets, want at least 12"}},
		{"IA_NA with T1 after T2", iana(2, 1), pd.Info{}, []string{"IA_NA 0x00000002 dropped: T1 2 s is after T2 1 s"}},
		{"IAADDR cut short", iana(0, 0, opt(5, "1")), pd.Info{}, []string{"IA_NA 0x00000002: IAADDR dropped: 1 octets, want at least 24"}},
		{"IAADDR link-local", iana(0, 0, iaaddr(1, 1, "fe80::1")), pd.Info{}, []string{"IA_NA 0x00000002: IAADDR fe80::1 dropped: overlaps link-local fe80::/10"}},
		{"IAADDR multicast", iana(0, 0, iaaddr(1, 1, "ff02::1")), pd.Info{}, []string{"IA_NA 0x00000002: IAADDR ff02::1 dropped: overlaps multicast ff00::/8"}},
		{"IAADDR loopback", iana(0, 0, iaaddr(1, 1, "::1")), pd.Info{},
			[]string{"IA_NA 0x00000002: IAADDR ::1 dropped: contains the unspecified or the loopback address"}},
		{"IAADDR preferred over valid", iana(0, 0, iaaddr(2, 1, "2001:db8::1")), pd.Info{},
			[]string{"IA_NA 0x00000002: IAADDR 2001:db8::1 dropped: preferred lifetime 2 s is longer than valid lifetime 1 s"}},
		{"IAADDR outside of its place", iaaddr(1, 1, "2001:db8::1"), pd.Info{}, nil},
		{"IA_NA inside IA_NA", iana(0, 0, iana(0, 0, iaaddr(1, 1, "2001:db8::1"))), pd.Info{}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Decode([]byte("\x07\x00\x00\x01" + c.options + good))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.faults, m.Faults); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(c.want, m.Info, equate); d != "" {
				t.Error(d)
			}
			if len(m.IAPDs) != 1 || !cmp.Equal(m.IAPDs[0], reply.IAPDs[0], equate) {
				t.Errorf("the good IA_PD behind it did not survive: %+v", m.IAPDs)
			}
			if m.Auth != nil || m.ReconfMsg != 0 || m.ReconfAccept || m.InfoRefresh != 0 {
				t.Errorf("kept what is faulty: %+v", m)
			}
			for _, ia := range m.IANAs {
				if len(ia.Addresses) > 0 {
					t.Errorf("kept what is faulty: %+v", ia)
				}
			}
		})
	}
}

func TestClassFaults(t *testing.T) {
	for _, c := range []struct{ options, fault string }{
		{opt(15, "\x00\x05abc"), "User Class: value of 5 octets, 3 left: the rest dropped"},
		{opt(15, "\x00"), "User Class: 1 stray octets at the end"},
		{opt(15, strings.Repeat("\x00\x00", 17)), "User Class: more than 16 values: the rest dropped"},
		{opt(16, "abc"), "Vendor Class dropped: 3 octets, want at least 4"},
		{strings.Repeat(opt(16, "abcd"), 17), "Vendor Class dropped: more than 16"},
	} {
		m, err := Decode([]byte("\x01\x00\x00\x01" + c.options + good))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{c.fault}, m.Faults); d != "" || len(m.IAPDs) != 1 {
			t.Errorf("%d IA_PDs, want 1; %s", len(m.IAPDs), d)
		}
	}
}

func TestInfoBounds(t *testing.T) {
	var many strings.Builder
	for i := range 40 {
		addr := netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: byte(i + 1)}).AsSlice()
		many.WriteString(opt(56, opt(1, string(addr)), opt(3, "\x02a"+string(rune('a'+i%26))+"\x00")))
		many.WriteString(opt(uint16(1000+i), strings.Repeat("x", i)))
		many.WriteString(opt(96, "lw"))
	}
	m, err := Decode([]byte("\x07\x00\x00\x01" + many.String()))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.NTP) != 16 || len(m.NTPNames) != 16 || len(m.S46) != 8 || len(m.Unknown) != 32 || len(m.Faults) != 16 {
		t.Errorf("%d NTP servers, %d names, %d containers, %d unknown options, %d faults", len(m.NTP), len(m.NTPNames), len(m.S46),
			len(m.Unknown), len(m.Faults))
	}
}
