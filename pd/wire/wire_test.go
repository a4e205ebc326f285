package wire

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"uplinkd/pd"
)

// equate leaves out Raw, which TestRaw is about.
var equate = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.IgnoreFields(pd.Message{}, "Raw")}

// reply is a Reply as a provider sends it.
var reply = pd.Message{
	Type:     pd.Reply,
	XID:      0xabcdef,
	ClientID: "\x00\x03\x00\x01\x02\x00\x00\x00\x01\x01",
	ServerID: "\x00\x01\x00\x01\x2a\x2b\x2c\x2d\x02\x00\x00\x00\x02\x01",
	IAPDs: []pd.IAPD{{IAID: 1, T1: 1800, T2: 2880, Prefixes: []pd.IAPrefix{
		{Prefix: netip.MustParsePrefix("2001:db8:100::/56"), Preferred: 3600, Valid: 7200},
	}}},
	SolMaxRT: 7200,
	Info: pd.Info{
		DNS:          []netip.Addr{netip.MustParseAddr("2001:db8::53"), netip.MustParseAddr("2001:db8::54")},
		DomainSearch: []string{"example.com", "lan.example.net"},
	},
}

func TestDecodeReply(t *testing.T) {
	b, err := Encode(reply)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(reply, got, equate); d != "" {
		t.Error(d)
	}
	clear(b) // the reader reuses its buffer
	if d := cmp.Diff(reply, got, equate); d != "" {
		t.Error("decoded message refers to the buffer:\n" + d)
	}
}

func TestRaw(t *testing.T) {
	b := []byte("\x0a\x00\x00\x00" + opt(40000, "abc") + opt(94, "map") + opt(11, strings.Repeat("a", 28)))
	m, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(b)
	clear(b) // the reader reuses its buffer
	if !bytes.Equal(m.Raw, want) {
		t.Errorf("got %x, want %x", m.Raw, want)
	}
	clear(m.Raw) // computing a digest over it with the field zeroed must not change what was decoded
	if string(m.Unknown[0].Data) != "abc" || string(m.S46[0].Data) != "map" || string(m.Auth.Info) != strings.Repeat("a", 17) {
		t.Errorf("options refer to Raw: %+v", m)
	}
}

// An Information Refresh Time of 0 is there, so it is not the 0 of pd.Message that means absent (RFC 9915 §21.23).
func TestRefreshTimeZero(t *testing.T) {
	for octets, want := range map[string]uint32{u32(0): 600, u32(1): 1, u32(0xffffffff): 0xffffffff} {
		m, err := Decode([]byte("\x07\x00\x00\x01" + opt(32, octets)))
		if err != nil || m.InfoRefresh != want || m.Faults != nil {
			t.Errorf("%x: %d, %q, %v, want %d", octets, m.InfoRefresh, m.Faults, err, want)
		}
	}
}

// The octets were put together by hand from RFC 9915 §8, §21 and RFC 3646, so that encoder and decoder cannot agree on
// a common mistake.
func TestEncodeOctets(t *testing.T) {
	for _, c := range []struct {
		name string
		m    pd.Message
		want string
	}{
		{"solicit with hint", pd.Message{
			Type: pd.Solicit, XID: 0x010203, ClientID: "\x00\x03\x00\x01\x02\x00\x00\x00\x01\x01", RapidCommit: true,
			Elapsed: time.Second, ORO: []uint16{pd.OptDNSServers, pd.OptSolMaxRT},
			IAPDs: []pd.IAPD{{IAID: 7, Prefixes: []pd.IAPrefix{{HintLen: 56}}}},
		}, "\x01\x01\x02\x03" +
			"\x00\x01\x00\x0a\x00\x03\x00\x01\x02\x00\x00\x00\x01\x01" +
			"\x00\x0e\x00\x00" +
			"\x00\x08\x00\x02\x00\x64" +
			"\x00\x06\x00\x04\x00\x17\x00\x52" +
			"\x00\x19\x00\x29\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x00" +
			"\x00\x1a\x00\x19\x00\x00\x00\x00\x00\x00\x00\x00\x38" + strings.Repeat("\x00", 16)},
		{"elapsed time saturates", pd.Message{Type: pd.Renew, Elapsed: 700 * time.Second},
			"\x05\x00\x00\x00" + "\x00\x08\x00\x02\xff\xff"},
		{"elapsed time below zero", pd.Message{Type: pd.Renew, Elapsed: -time.Second},
			"\x05\x00\x00\x00" + "\x00\x08\x00\x02\x00\x00"},
		{"advertise", pd.Message{
			Type: pd.Advertise, XID: 1, Preference: 255, SolMaxRT: 3600, Status: pd.Status{Code: pd.NoPrefixAvail, Text: "no"},
			Info: pd.Info{DomainSearch: []string{"a.example"}, DNS: []netip.Addr{netip.MustParseAddr("2001:db8::1")}},
		}, "\x02\x00\x00\x01" +
			"\x00\x07\x00\x01\xff" +
			"\x00\x52\x00\x04\x00\x00\x0e\x10" +
			"\x00\x17\x00\x10\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01" +
			"\x00\x18\x00\x0b\x01a\x07example\x00" +
			"\x00\x0d\x00\x04\x00\x06no"},
		{"lifetimes for ever", pd.Message{Type: pd.Reply, IAPDs: []pd.IAPD{{IAID: 1, T1: 0xffffffff, T2: 0xffffffff,
			Prefixes: []pd.IAPrefix{{Prefix: netip.MustParsePrefix("2001:db8::/32"), Preferred: 0xffffffff, Valid: 0xffffffff}}}}},
			"\x07\x00\x00\x00" +
				"\x00\x19\x00\x29\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff" +
				"\x00\x1a\x00\x19\xff\xff\xff\xff\xff\xff\xff\xff\x20\x20\x01\x0d\xb8" + strings.Repeat("\x00", 12)},
		{"IA_NA", pd.Message{Type: pd.Reply, IANAs: []pd.IANA{{IAID: 2, T1: 1, T2: 2, Addresses: []pd.IAAddress{
			{Address: netip.MustParseAddr("2001:db8::7"), Preferred: 3, Valid: 4, Status: pd.Status{Code: pd.NotOnLink}}}}}},
			"\x07\x00\x00\x00" +
				"\x00\x03\x00\x2e\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x02" +
				"\x00\x05\x00\x1e\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x07\x00\x00\x00\x03\x00\x00\x00\x04" +
				"\x00\x0d\x00\x02\x00\x04"},
		{"reconfigure", pd.Message{Type: pd.Reconfigure, ReconfMsg: pd.Rebind, ReconfAccept: true,
			Auth: &pd.Auth{Protocol: 3, Algorithm: 1, Replay: 0x0102030405060708, Info: []byte("\x02digest")}},
			"\x0a\x00\x00\x00" + "\x00\x13\x00\x01\x06" + "\x00\x14\x00\x00" +
				"\x00\x0b\x00\x12\x03\x01\x00\x01\x02\x03\x04\x05\x06\x07\x08\x02digest"},
		{"classes and raw options", pd.Message{Type: pd.InformationRequest, UserClass: [][]byte{[]byte("a"), []byte("bc")},
			VendorClass: []pd.VendorClass{{Enterprise: 32473, Data: [][]byte{[]byte("v")}}}, Extra: []pd.Option{{Code: 65001, Data: []byte("x")}}},
			"\x0b\x00\x00\x00" + "\x00\x08\x00\x02\x00\x00" + "\x00\x0f\x00\x07\x00\x01a\x00\x02bc" +
				"\x00\x10\x00\x07\x00\x00\x7e\xd9\x00\x01v" + "\xfd\xe9\x00\x01x"},
		{"what servers tell", pd.Message{Type: pd.Reply, InfMaxRT: 60, InfoRefresh: 600, Info: pd.Info{
			SNTP: []netip.Addr{netip.MustParseAddr("2001:db8::1")}, NTP: []netip.Addr{netip.MustParseAddr("2001:db8::2")},
			NTPNames: []string{"ntp.example"}, AFTR: "aftr.example", CaptivePortal: "https://portal.example/",
			Resolvers: []pd.Resolver{{Priority: 7, Name: "dot.example", Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::3")}, Params: []byte("\x00\x03\x00\x02\x03\x55")},
				{Priority: 8, Name: "doh.example"}},
			S46: []pd.Option{{Code: pd.OptS46MapE, Data: []byte("m")}}, Unknown: []pd.Option{{Code: 17, Data: []byte("u")}}}},
			"\x07\x00\x00\x00" + "\x00\x53\x00\x04\x00\x00\x00\x3c" + "\x00\x20\x00\x04\x00\x00\x02\x58" +
				"\x00\x1f\x00\x10\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01" +
				"\x00\x38\x00\x14\x00\x01\x00\x10\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x02" +
				"\x00\x38\x00\x11\x00\x03\x00\x0d\x03ntp\x07example\x00" +
				"\x00\x40\x00\x0e\x04aftr\x07example\x00" +
				"\x00\x67\x00\x17https://portal.example/" +
				"\x00\x90\x00\x29\x00\x07\x00\x0d\x03dot\x07example\x00\x00\x10\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x03\x00\x03\x00\x02\x03\x55" +
				"\x00\x90\x00\x11\x00\x08\x00\x0d\x03doh\x07example\x00" +
				"\x00\x5e\x00\x01m" + "\x00\x11\x00\x01u"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Encode(c.m)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, []byte(c.want)) {
				t.Errorf("got\n%x, want\n%x", got, c.want)
			}
		})
	}
}

func TestEncodeRefuses(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, c := range []struct {
		m    pd.Message
		want string
	}{
		{pd.Message{}, "encode message: type 0 is not a message between client and server"},
		{pd.Message{Type: 12}, "encode message: type 12 is not a message between client and server"},
		{pd.Message{Type: pd.Solicit, XID: 1 << 24}, "encode Solicit: transaction id 0x1000000 has more than 24 bits"},
		{pd.Message{Type: pd.Solicit, ClientID: "ab"}, "encode Solicit: Client Identifier of 2 octets, want 3 to 130"},
		{pd.Message{Type: pd.Reply, Info: pd.Info{DNS: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}},
			"encode Reply: DNS server 192.0.2.1: not an IPv6 address"},
		{pd.Message{Type: pd.Reply, Info: pd.Info{DNS: []netip.Addr{{}}}}, "encode Reply: DNS server invalid IP: not an IPv6 address"},
		{pd.Message{Type: pd.Reply, Info: pd.Info{NTP: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}},
			"encode Reply: NTP server 192.0.2.1: not an IPv6 address"},
		{pd.Message{Type: pd.Reply, Info: pd.Info{AFTR: "."}}, `encode Reply: domain name ".": a label has 0 octets, want 1 to 63`},
		{pd.Message{Type: pd.Reply, Info: pd.Info{NTPNames: []string{""}}}, `encode Reply: domain name "": a label has 0 octets, want 1 to 63`},
		{pd.Message{Type: pd.Reply, IANAs: []pd.IANA{{IAID: 4, Addresses: []pd.IAAddress{{}}}}},
			"encode Reply: IA_NA 0x00000004: IAADDR invalid IP: not an IPv6 address"},
		{pd.Message{Type: pd.Reply, IAPDs: []pd.IAPD{{IAID: 4, Prefixes: []pd.IAPrefix{
			{Prefix: netip.MustParsePrefix("2001:db8::/56"), Exclude: netip.MustParsePrefix("2001:db8:1::/64")}}}}},
			"encode Reply: IA_PD 0x00000004: IAPREFIX 2001:db8::/56: Prefix Exclude 2001:db8:1::/64 is not inside it"},
		{pd.Message{Type: pd.Reply, IAPDs: []pd.IAPD{{IAID: 4, Prefixes: []pd.IAPrefix{
			{Prefix: netip.MustParsePrefix("2001:db8::/56"), Exclude: netip.MustParsePrefix("2001:db8::/56")}}}}},
			"encode Reply: IA_PD 0x00000004: IAPREFIX 2001:db8::/56: Prefix Exclude 2001:db8::/56 is not inside it"},
		{pd.Message{Type: pd.Solicit, Extra: []pd.Option{{Code: 65001, Data: make([]byte, 65536)}}},
			"encode Solicit: 65550 octets, want at most 65535"},
		{pd.Message{Type: pd.Solicit, UserClass: [][]byte{make([]byte, 65536)}}, "encode Solicit: 65552 octets, want at most 65535"},
		{pd.Message{Type: pd.Reply, Info: pd.Info{DomainSearch: []string{"a..b"}}},
			`encode Reply: domain name "a..b": a label has 0 octets, want 1 to 63`},
		{pd.Message{Type: pd.Reply, Info: pd.Info{DomainSearch: []string{long}}},
			`encode Reply: domain name "` + long + `": a label has 64 octets, want 1 to 63`},
		{pd.Message{Type: pd.Request, IAPDs: []pd.IAPD{{IAID: 3, Prefixes: []pd.IAPrefix{{}}}}},
			"encode Request: IA_PD 0x00000003: IAPREFIX with neither prefix nor hint (length 0, want 1 to 128)"},
		{pd.Message{Type: pd.Request, IAPDs: []pd.IAPD{{Prefixes: []pd.IAPrefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}}}},
			"encode Request: IA_PD 0x00000000: IAPREFIX 192.0.2.0/24: not an IPv6 prefix"},
		{pd.Message{Type: pd.Reply, Status: pd.Status{Text: strings.Repeat("x", 40000)}},
			"encode Reply: status text of 40000 octets, want at most 32767"},
		{pd.Message{Type: pd.Reply, IAPDs: []pd.IAPD{{Prefixes: slices.Repeat(reply.IAPDs[0].Prefixes, 2500)}}},
			"encode Reply: IA_PD 0x00000000: 72512 octets, want at most 65535"},
		{pd.Message{Type: pd.Reply, IAPDs: slices.Repeat(reply.IAPDs, 2000)}, "encode Reply: 90004 octets, want at most 65535"},
	} {
		_, err := Encode(c.m)
		if err == nil || err.Error() != c.want {
			t.Errorf("got error %v, want %s", err, c.want)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	for b.Loop() {
		if _, err := Encode(reply); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	octets, err := Encode(reply)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Decode(octets); err != nil {
			b.Fatal(err)
		}
	}
}
