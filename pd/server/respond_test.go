package server

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/pd/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	routerID pd.DUID = "\x00\x03\x00\x01\x02\x00\x00\x00\x01\x01"
	innerID  pd.DUID = "\x00\x03\x00\x01\x02\x00\x00\x00\x02\x01"
	otherID  pd.DUID = "\x00\x03\x00\x01\x02\x00\x00\x00\x03\x01"
)

var (
	begin = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	inner = netip.MustParseAddr("fe80::ff:fe00:201")

	first  = netip.MustParsePrefix("2001:db8:1:10::/64")
	second = netip.MustParsePrefix("2001:db8:2:10::/64")
	old    = netip.MustParsePrefix("2001:db8:dead:10::/64")
)

// told is a service in which everything has a value.
var told = Service{
	Mode: Delegating,
	Info: pd.Info{
		DNS:          []netip.Addr{netip.MustParseAddr("fd00::53")},
		DomainSearch: []string{"home.example"},
		NTP:          []netip.Addr{netip.MustParseAddr("fd00::123")},
		NTPNames:     []string{"ntp.home.example"},
		SNTP:         []netip.Addr{netip.MustParseAddr("fd00::124")},
		AFTR:         "aftr.example", CaptivePortal: "https://portal.example/",
		Resolvers: []pd.Resolver{{Priority: 1, Name: "dot.home.example", Addresses: []netip.Addr{netip.MustParseAddr("fd00::53")}}},
	},
}

func serving(m Mode) Service { s := told; s.Mode = m; return s }

func loan(iaid uint32, p netip.Prefix, preferred, valid uint32) Loan {
	return Loan{IAID: iaid, Prefix: p, PreferredUntil: lifetime.After(begin, preferred), ValidUntil: lifetime.After(begin, valid)}
}

func stale(iaid uint32, p netip.Prefix) Loan { return Loan{IAID: iaid, Prefix: p, Stale: true} }

// message is one of a client that has sent its identifier.
func message(t pd.MessageType, ias ...pd.IAPD) pd.Message {
	m := pd.Message{Type: t, XID: 0x123456, ClientID: innerID, IAPDs: ias}
	switch t {
	case pd.Request, pd.Renew, pd.Release, pd.Decline:
		m.ServerID = routerID
	}
	return m
}

func with(m pd.Message, change func(*pd.Message)) pd.Message { change(&m); return m }

func iapd(iaid uint32, prefixes ...netip.Prefix) pd.IAPD {
	ia := pd.IAPD{IAID: iaid}
	for _, p := range prefixes {
		ia.Prefixes = append(ia.Prefixes, pd.IAPrefix{Prefix: p})
	}
	return ia
}

var addressed = []pd.IANA{{IAID: 1, Addresses: []pd.IAAddress{{Address: netip.MustParseAddr("2001:db8:1::5")}}}}

// conversations are questions with what the Lender says to them. The answers are in testdata/answers.txt.
var conversations = []struct {
	name    string
	service Service
	ask     pd.Message
	loans   []Loan
}{
	{"solicit", told, message(pd.Solicit, iapd(1)), []Loan{loan(1, first, 1000, 2000)}},
	{"solicit with a length hint", told, message(pd.Solicit, pd.IAPD{IAID: 1, Prefixes: []pd.IAPrefix{{HintLen: 60}}}), []Loan{loan(1, first, 1000, 2000)}},
	{"solicit with a wish: what is not granted is not stale", told, message(pd.Solicit, iapd(1, old)), []Loan{loan(1, first, 1000, 2000), stale(1, old)}},
	{"solicit: one prefix per delegation, times of the shortest", told, message(pd.Solicit, iapd(1)), []Loan{loan(1, first, 1000, 2000), loan(1, second, 600, 700)}},
	{"solicit for two IAs, one of which gets something", told, message(pd.Solicit, iapd(1), iapd(2)), []Loan{loan(2, second, 600, 700)}},
	{"solicit: no prefix left", told, message(pd.Solicit, iapd(1)), nil},
	{"solicit: no prefix left, and how long to wait for one is asked for", told, with(message(pd.Solicit, iapd(1)), func(m *pd.Message) { m.ORO = []uint16{82} }), nil},
	{"solicit for a prefix and an address", told, with(message(pd.Solicit, iapd(1)), func(m *pd.Message) { m.IANAs = []pd.IANA{{IAID: 1}} }), []Loan{loan(1, first, 1000, 2000)}},
	{"solicit for an address only", told, with(message(pd.Solicit), func(m *pd.Message) { m.IANAs = []pd.IANA{{IAID: 1}} }), nil},
	{"solicit with rapid commit", told, with(message(pd.Solicit, iapd(1)), func(m *pd.Message) { m.RapidCommit = true }), []Loan{loan(1, first, 1000, 2000)}},
	{"solicit with rapid commit, no prefix left: other servers have their chance", told, with(message(pd.Solicit, iapd(1)), func(m *pd.Message) { m.RapidCommit = true }), nil},
	{"solicit on a stateless downstream", serving(Stateless), message(pd.Solicit, iapd(1)), nil},
	{"solicit with a server identifier", told, with(message(pd.Solicit, iapd(1)), func(m *pd.Message) { m.ServerID = routerID }), nil},
	{"solicit without a client identifier", told, with(message(pd.Solicit, iapd(1)), func(m *pd.Message) { m.ClientID = "" }), nil},
	{"solicit of this router", told, with(message(pd.Solicit, iapd(1)), func(m *pd.Message) { m.ClientID = routerID }), nil},
	{"solicit for nothing", told, message(pd.Solicit), nil},

	{"request", told, message(pd.Request, iapd(1, first)), []Loan{loan(1, first, 1000, 2000)}},
	{"request with SOL_MAX_RT asked for", told, with(message(pd.Request, iapd(1, first)), func(m *pd.Message) { m.ORO = []uint16{82} }), []Loan{loan(1, first, 1000, 2000)}},
	{"request of another prefix than there is", told, message(pd.Request, iapd(1, old)), []Loan{loan(1, first, 1000, 2000)}},
	{"request: no prefix left", told, message(pd.Request, iapd(1, first)), nil},
	{"request for another server", told, with(message(pd.Request, iapd(1)), func(m *pd.Message) { m.ServerID = otherID }), nil},
	{"request on a downstream that delegates no more", serving(Stateless), message(pd.Request, iapd(1, first)), nil},
	{"request with an IA twice", told, message(pd.Request, iapd(1), iapd(1, old)), []Loan{loan(1, first, 1000, 2000)}},

	{"renew", told, message(pd.Renew, iapd(1, first)), []Loan{loan(1, first, 1000, 2000)}},
	{"renew: limits of RFC 9096", told, message(pd.Renew, iapd(1, first)), []Loan{{IAID: 1, Prefix: first, PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()}}},
	{"renew: configured limit", Service{Mode: Delegating, MaxValid: 90}, message(pd.Renew, iapd(1, first)), []Loan{loan(1, first, 1000, 2000)}},
	{"renew: never more than what is left, down to the second", told, message(pd.Renew, iapd(1, first)), []Loan{{IAID: 1, Prefix: first, PreferredUntil: lifetime.Until(begin.Add(1900 * time.Millisecond)), ValidUntil: lifetime.Until(begin.Add(9999 * time.Millisecond))}}},
	{"renew after a renumbering: new, deprecated, gone", told, message(pd.Renew, iapd(1, first, old)), []Loan{loan(1, second, 1000, 2000), loan(1, first, 0, 300), stale(1, old)}},
	{"renew: a prefix that nobody knows is stale beside one that is lent", told, message(pd.Renew, iapd(1, first, old)), []Loan{loan(1, first, 1000, 2000)}},
	{"renew: only deprecated prefixes", told, message(pd.Renew, iapd(1, first)), []Loan{loan(1, first, 0, 300)}},
	{"renew: all is gone", told, message(pd.Renew, iapd(1, old)), []Loan{stale(1, old)}},
	{"renew: a loan that is over counts as stale", told, message(pd.Renew, iapd(1, old)), []Loan{loan(1, old, 0, 0)}},
	{"renew without a binding", told, message(pd.Renew, iapd(1, old)), nil},
	{"renew of an IA that is still wanted", told, message(pd.Renew, iapd(1, first), iapd(2)), []Loan{loan(1, first, 1000, 2000)}},
	{"renew with addresses", told, with(message(pd.Renew, iapd(1, first)), func(m *pd.Message) { m.IANAs = append(addressed, pd.IANA{IAID: 2}) }), []Loan{loan(1, first, 1000, 2000)}},
	{"renew on a downstream that delegates no more", serving(Stateless), message(pd.Renew, iapd(1, first)), []Loan{stale(1, first)}},
	{"renew for another server", told, with(message(pd.Renew, iapd(1)), func(m *pd.Message) { m.ServerID = otherID }), nil},

	{"rebind", told, message(pd.Rebind, iapd(1, first)), []Loan{loan(1, first, 1000, 2000)}},
	{"rebind with an address of another server", told, with(message(pd.Rebind, iapd(1, first)), func(m *pd.Message) { m.IANAs = addressed }), []Loan{loan(1, first, 1000, 2000)}},
	{"rebind of what was ours", told, message(pd.Rebind, iapd(1, old)), []Loan{stale(1, old)}},
	{"rebind of another server's client", told, message(pd.Rebind, iapd(1, old)), nil},
	{"rebind with a server identifier", told, with(message(pd.Rebind, iapd(1)), func(m *pd.Message) { m.ServerID = routerID }), nil},

	{"release", told, message(pd.Release, iapd(1, first)), []Loan{loan(1, first, 1000, 2000)}},
	{"release of what was not lent", told, with(message(pd.Release, iapd(1, old)), func(m *pd.Message) { m.IANAs = addressed }), nil},
	{"decline", told, with(message(pd.Decline, iapd(1, first)), func(m *pd.Message) { m.IANAs = addressed }), nil},
	{"confirm", told, with(message(pd.Confirm), func(m *pd.Message) { m.IANAs = addressed }), nil},

	{"information-request for everything", serving(Stateless), with(message(pd.InformationRequest), func(m *pd.Message) { m.ORO = []uint16{23, 24, 31, 32, 56, 64, 82, 83, 103, 144} }), nil},
	{"information-request for DNS", told, with(message(pd.InformationRequest), func(m *pd.Message) { m.ORO = []uint16{23} }), nil},
	{"information-request of nobody", serving(Stateless), with(message(pd.InformationRequest), func(m *pd.Message) { m.ClientID, m.ORO = "", []uint16{23, 32} }), nil},
	{"information-request for this server", told, with(message(pd.InformationRequest), func(m *pd.Message) { m.ServerID = routerID }), nil},
	{"information-request for another server", told, with(message(pd.InformationRequest), func(m *pd.Message) { m.ServerID = otherID }), nil},
	{"information-request with an IA", told, message(pd.InformationRequest, iapd(1)), nil},
	{"request for DNS too, the refresh time is for stateless clients", told, with(message(pd.Request, iapd(1, first)), func(m *pd.Message) { m.ORO = []uint16{23, 32} }), []Loan{loan(1, first, 1000, 2000)}},

	{"a server's message", told, message(pd.Reply, iapd(1, first)), nil},
}

// TestAnswers compares what is asked of the Lender and what is answered with a golden file.
func TestAnswers(t *testing.T) {
	var b strings.Builder
	for _, c := range conversations {
		fmt.Fprintf(&b, "## %s\n> %s\n", c.name, wire.Text(c.ask))
		r := responder{downstream: "lan", id: routerID, service: c.service}
		if why := r.refused(c.ask); why != "" {
			fmt.Fprintf(&b, "< nothing: %s\n\n", why)
			continue
		}
		if a, ok := r.ask(c.ask, inner); ok {
			fmt.Fprintf(&b, "lend %s for %s via %s", a.Verb, a.Client, a.Via)
			for _, ia := range a.IAs {
				fmt.Fprintf(&b, " IA %d length %d of %v", ia.IAID, ia.Length, ia.Prefixes)
			}
			b.WriteByte('\n')
		} else if len(c.loans) > 0 {
			t.Errorf("%s: the Lender is not asked", c.name)
		}
		if reply := r.answer(begin, c.ask, c.loans); reply.Type != 0 {
			fmt.Fprintf(&b, "< %s\n\n", wire.Text(reply))
		} else {
			b.WriteString("< nothing\n\n")
		}
	}
	golden(t, "answers.txt", b.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("%s differs (-want +got); go test ./pd/server -update rewrites it\n%s", path, d)
	}
}
