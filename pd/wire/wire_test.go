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
	"pgregory.net/rapid"

	"uplinkd/pd"
)

var equate = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

// reply is a Reply as a provider sends it.
var reply = pd.Message{
	Type:     pd.Reply,
	XID:      0xabcdef,
	ClientID: "\x00\x03\x00\x01\x02\x00\x00\x00\x01\x01",
	ServerID: "\x00\x01\x00\x01\x2a\x2b\x2c\x2d\x02\x00\x00\x00\x02\x01",
	IAPDs: []pd.IAPD{{IAID: 1, T1: 1800, T2: 2880, Prefixes: []pd.IAPrefix{
		{Prefix: netip.MustParsePrefix("2001:db8:100::/56"), Preferred: 3600, Valid: 7200},
	}}},
	SolMaxRT:     7200,
	DNS:          []netip.Addr{netip.MustParseAddr("2001:db8::53"), netip.MustParseAddr("2001:db8::54")},
	DomainSearch: []string{"example.com", "lan.example.net"},
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
			Type: pd.Advertise, XID: 1, Preference: 255, SolMaxRT: 3600, DomainSearch: []string{"a.example"},
			DNS: []netip.Addr{netip.MustParseAddr("2001:db8::1")}, Status: pd.Status{Code: pd.NoPrefixAvail, Text: "no"},
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
		{pd.Message{Type: pd.Reply, DNS: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
			"encode Reply: DNS server 192.0.2.1: not an IPv6 address"},
		{pd.Message{Type: pd.Reply, DNS: []netip.Addr{{}}}, "encode Reply: DNS server invalid IP: not an IPv6 address"},
		{pd.Message{Type: pd.Reply, DomainSearch: []string{"a..b"}},
			`encode Reply: domain name "a..b": a label has 0 octets, want 1 to 63`},
		{pd.Message{Type: pd.Reply, DomainSearch: []string{long}},
			`encode Reply: domain name "` + long + `": a label has 64 octets, want 1 to 63`},
		{pd.Message{Type: pd.Request, IAPDs: []pd.IAPD{{IAID: 3, Prefixes: []pd.IAPrefix{{}}}}},
			"encode Request: IA_PD 3: IAPREFIX with neither prefix nor hint (length 0, want 1 to 128)"},
		{pd.Message{Type: pd.Request, IAPDs: []pd.IAPD{{Prefixes: []pd.IAPrefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}}}},
			"encode Request: IA_PD 0: IAPREFIX 192.0.2.0/24: not an IPv6 prefix"},
		{pd.Message{Type: pd.Reply, Status: pd.Status{Text: strings.Repeat("x", 40000)}},
			"encode Reply: status text of 40000 octets, want at most 32767"},
		{pd.Message{Type: pd.Reply, IAPDs: []pd.IAPD{{Prefixes: slices.Repeat(reply.IAPDs[0].Prefixes, 2500)}}},
			"encode Reply: IA_PD 0: 72512 octets, want at most 65535"},
		{pd.Message{Type: pd.Reply, IAPDs: slices.Repeat(reply.IAPDs, 2000)}, "encode Reply: 90004 octets, want at most 65535"},
	} {
		_, err := Encode(c.m)
		if err == nil || err.Error() != c.want {
			t.Errorf("got error %v, want %s", err, c.want)
		}
	}
}

// messages generates messages that survive Decode unchanged.
func messages() *rapid.Generator[pd.Message] {
	duid := rapid.Custom(func(t *rapid.T) pd.DUID {
		return pd.DUID(rapid.SliceOfN(rapid.Byte(), 3, 130).Draw(t, "duid"))
	})
	status := rapid.Custom(func(t *rapid.T) pd.Status {
		return pd.Status{
			Code: pd.StatusCode(rapid.Uint16().Draw(t, "code")),
			Text: rapid.StringMatching(`([a-z0-9äß]([a-z ,.]{0,60}[a-z])?)?`).Draw(t, "text"),
		}
	})
	iapd := rapid.Custom(func(t *rapid.T) pd.IAPD {
		t2 := rapid.Uint32().Draw(t, "T2")
		ia := pd.IAPD{IAID: rapid.Uint32().Draw(t, "IAID"), T2: t2, Status: status.Draw(t, "status")}
		if t2 > 0 {
			ia.T1 = rapid.Uint32Range(0, t2).Draw(t, "T1")
		}
		for range rapid.IntRange(0, 4).Draw(t, "prefixes") {
			addr := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"))
			addr[0], addr[1] = 0x20|addr[0]&0x1f, addr[1]|4 // global, not 6to4
			valid := rapid.Uint32().Draw(t, "valid")
			ia.Prefixes = append(ia.Prefixes, pd.IAPrefix{
				Prefix:    netip.PrefixFrom(netip.AddrFrom16(addr), rapid.IntRange(16, 128).Draw(t, "bits")).Masked(),
				Preferred: rapid.Uint32Range(0, valid).Draw(t, "preferred"),
				Valid:     valid,
				Status:    status.Draw(t, "status"),
			})
		}
		return ia
	})
	maxRT := rapid.OneOf(rapid.Just(uint32(0)), rapid.Uint32Range(60, 86400))
	return rapid.Custom(func(t *rapid.T) pd.Message {
		m := pd.Message{
			Type:        pd.MessageType(rapid.IntRange(1, 11).Draw(t, "type")),
			XID:         rapid.Uint32Range(0, 0xffffff).Draw(t, "xid"),
			ClientID:    duid.Draw(t, "client"),
			ServerID:    duid.Draw(t, "server"),
			Elapsed:     time.Duration(rapid.Uint16().Draw(t, "elapsed")) * 10 * time.Millisecond,
			Preference:  rapid.Byte().Draw(t, "preference"),
			RapidCommit: rapid.Bool().Draw(t, "rapid"),
			Status:      status.Draw(t, "status"),
			IAPDs:       rapid.SliceOfN(iapd, 0, 4).Draw(t, "iapds"),
			ORO:         rapid.SliceOfN(rapid.Uint16(), 0, 8).Draw(t, "oro"),
			SolMaxRT:    maxRT.Draw(t, "sol"),
			InfMaxRT:    maxRT.Draw(t, "inf"),
			DomainSearch: rapid.SliceOfN(rapid.StringMatching(`[a-z0-9_]{1,20}(\.[A-Za-z]([a-z-]{0,30}[0-9])?){0,3}`), 0, 4).
				Draw(t, "search"),
		}
		for i := range rapid.IntRange(0, 4).Draw(t, "dns") {
			m.DNS = append(m.DNS, netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: byte(i + 1)}))
		}
		if fromClient(m.Type) && rapid.Bool().Draw(t, "hint") {
			hint := pd.IAPrefix{HintLen: rapid.Uint8Range(1, 128).Draw(t, "length")}
			m.IAPDs = append(m.IAPDs, pd.IAPD{IAID: 1, Prefixes: []pd.IAPrefix{hint}})
		}
		return m
	})
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := messages().Draw(t, "message")
		b, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(m, got, equate, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
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
