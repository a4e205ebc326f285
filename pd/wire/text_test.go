package wire

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"uplinkd/pd"
)

func TestText(t *testing.T) {
	for _, c := range []struct {
		name string
		m    pd.Message
		want string
	}{
		{"reply", reply, "Reply xid 0xabcdef client 00:03:00:01:02:00:00:00:01:01 server 00:01:00:01:2a:2b:2c:2d:02:00:00:00:02:01 " +
			"IA_PD 0x00000001 T1 1800 T2 2880 2001:db8:100::/56 3600/7200 SOL_MAX_RT 7200 dns 2001:db8::53 dns 2001:db8::54 " +
			"search example.com search lan.example.net"},
		{"solicit", pd.Message{Type: pd.Solicit, XID: 0x1a2b, Elapsed: 1230 * time.Millisecond, RapidCommit: true, ReconfAccept: true,
			ORO: []uint16{pd.OptDNSServers, pd.OptSolMaxRT, 65001}, UserClass: [][]byte{[]byte("a\x1b")},
			VendorClass: []pd.VendorClass{{Enterprise: 32473, Data: [][]byte{[]byte("v 1")}}},
			Extra:       []pd.Option{{Code: 65002, Data: []byte("\x01\xff")}},
			IANAs:       []pd.IANA{{IAID: 2}}, IAPDs: []pd.IAPD{{IAID: 7, Prefixes: []pd.IAPrefix{{HintLen: 56}}}}},
			"Solicit xid 0x001a2b elapsed 1.23s rapid-commit reconfigure-accept IA_NA 0x00000002 T1 0 T2 0 IA_PD 0x00000007 T1 0 T2 0 hint ::/56 " +
				`requests (DNS Servers, SOL_MAX_RT, option 65001) user-class "a\x1b" vendor-class 32473 "v 1" option 65002 2 octets 01ff`},
		{"everything a server tells", pd.Message{Type: pd.Advertise, Preference: 255, Status: pd.Status{Code: pd.NoPrefixAvail, Text: `none "left"`},
			IANAs: []pd.IANA{{IAID: 2, T1: 1, T2: 0xffffffff, Status: pd.Status{Code: 99},
				Addresses: []pd.IAAddress{{Address: netip.MustParseAddr("2001:db8::7"), Preferred: 3, Valid: 0xffffffff}}}},
			IAPDs: []pd.IAPD{{IAID: 7, Prefixes: []pd.IAPrefix{{Prefix: netip.MustParsePrefix("2001:db8:dead:bee0::/59"),
				Exclude: netip.MustParsePrefix("2001:db8:dead:beef::/64"), Preferred: 1, Valid: 2, Status: pd.Status{Code: pd.NoBinding}}}}},
			InfMaxRT: 60, InfoRefresh: 0xffffffff, Info: pd.Info{NTP: []netip.Addr{netip.MustParseAddr("2001:db8::1")},
				NTPNames: []string{"ntp.example"}, SNTP: []netip.Addr{netip.MustParseAddr("2001:db8::2")}, AFTR: "aftr.example",
				CaptivePortal: "https://portal.example/", Resolvers: []pd.Resolver{{Priority: 1, Name: "dot.example", Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::3")}}}, S46: []pd.Option{{Code: 94, Data: []byte(strings.Repeat("m", 65))}},
				Unknown: []pd.Option{{Code: 17}}}, Faults: []string{"second IAPREFIX dropped"}},
			`Advertise xid 0x000000 preference 255 status NoPrefixAvail "none \"left\"" ` +
				"IA_NA 0x00000002 T1 1 T2 forever status 99 2001:db8::7 3/forever " +
				"IA_PD 0x00000007 T1 0 T2 0 2001:db8:dead:bee0::/59 1/2 exclude 2001:db8:dead:beef::/64 status NoBinding INF_MAX_RT 60 refresh forever " +
				"ntp 2001:db8::1 ntp ntp.example sntp 2001:db8::2 aftr aftr.example captive-portal https://portal.example/ " +
				"encrypted-dns dot.example=2001:db8::3 " +
				"option 94 (MAP-E container) 65 octets " + strings.Repeat("6d", 64) + " ... option 17 (Vendor Options) 0 octets " +
				`fault "second IAPREFIX dropped"`},
		{"the key is not shown", pd.Message{Type: pd.Reply, Auth: &pd.Auth{Protocol: 3, Algorithm: 1, Replay: 5, Info: []byte("\x01secret")}},
			"Reply xid 0x000000 auth protocol 3 algorithm 1 rdm 0 replay 5 key"},
		{"reconfigure", pd.Message{Type: pd.Reconfigure, ReconfMsg: pd.Renew, Auth: &pd.Auth{Protocol: 3, Info: []byte("\x02digest")}},
			"Reconfigure xid 0x000000 reconfigure Renew auth protocol 3 algorithm 0 rdm 0 replay 0 digest"},
		{"nothing", pd.Message{}, "unknown xid 0x000000 elapsed 0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Text(c.m); got != c.want {
				t.Errorf("got\n%s, want\n%s", got, c.want)
			}
		})
	}
	hostile := pd.Message{Type: pd.Reply, Info: pd.Info{DomainSearch: []string{"a\x1b[2J\nb"}, AFTR: strings.Repeat("ä", 5000)}}
	if got := Text(hostile); len(got) > maxText || !strings.Contains(got, "search a?[2J?b ") {
		t.Errorf("%d octets: %.80q", len(got), got)
	}
}

func TestOptionName(t *testing.T) {
	for code, want := range map[uint16]string{1: "Client Identifier", 67: "Prefix Exclude", 82: "SOL_MAX_RT", 65001: "option 65001", 0: "option 0"} {
		if got := optionName(code); got != want {
			t.Errorf("%d: %q, want %q", code, got, want)
		}
	}
}
