package isp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

var (
	start  = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	router = netip.MustParseAddr("fe80::ff:fe00:101")
)

const clientID pd.DUID = "\x00\x03\x00\x01\x02\x00\x00\x00\x01\x01"

// conversation is a server with one client, whose routes are noted.
type conversation struct {
	t      *testing.T
	s      server
	now    time.Time
	routes []string
}

func converse(t *testing.T, cfg Config) *conversation {
	t.Helper()
	cfg.Interface = "up0"
	if !cfg.Pool.IsValid() {
		cfg.Pool = netip.MustParsePrefix("2001:db8:1100::/40")
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return &conversation{t: t, s: newServer(cfg), now: start}
}

func (c *conversation) note(routes []route) {
	for _, r := range routes {
		c.routes = append(c.routes, fmt.Sprintf("%v %s via %s", r.add, r.prefix, r.via))
	}
}

// say sends a message with the IA_PD 1 that lists prefixes, and returns the reply.
func (c *conversation) say(typ pd.MessageType, prefixes ...netip.Prefix) pd.Message {
	c.t.Helper()
	req := pd.Message{Type: typ, XID: 0x123456, ClientID: clientID}
	switch typ {
	case pd.Request, pd.Renew, pd.Release:
		req.ServerID = c.s.cfg.ServerID
	}
	ia := pd.IAPD{IAID: 1}
	for _, p := range prefixes {
		ia.Prefixes = append(ia.Prefixes, pd.IAPrefix{Prefix: p})
	}
	req.IAPDs = []pd.IAPD{ia}
	return c.tell(req)
}

func (c *conversation) tell(req pd.Message) pd.Message {
	reply, routes := c.s.handle(c.now, router, req)
	c.note(routes)
	return reply
}

// bind has the client bound, and returns its prefix.
func (c *conversation) bind() netip.Prefix {
	c.t.Helper()
	reply := c.say(pd.Request)
	if len(reply.IAPDs) != 1 || len(reply.IAPDs[0].Prefixes) != 1 {
		c.t.Fatalf("reply to Request: %+v", reply)
	}
	c.routes = nil
	return reply.IAPDs[0].Prefixes[0].Prefix
}

// text is the addresses and prefixes of a reply with preferred and valid lifetimes, and its status codes.
func text(m pd.Message) string {
	var b strings.Builder
	b.WriteString(m.Type.String())
	if m.Status.Code != pd.Success {
		fmt.Fprintf(&b, " %s", m.Status.Code)
	}
	for _, ia := range m.IANAs {
		if ia.Status.Code != pd.Success {
			fmt.Fprintf(&b, " %s", ia.Status.Code)
		}
		for _, a := range ia.Addresses {
			fmt.Fprintf(&b, " %s %d/%d", a.Address, a.Preferred, a.Valid)
		}
	}
	for _, ia := range m.IAPDs {
		if ia.Status.Code != pd.Success {
			fmt.Fprintf(&b, " %s", ia.Status.Code)
		}
		for _, p := range ia.Prefixes {
			fmt.Fprintf(&b, " %s %d/%d", p.Prefix, p.Preferred, p.Valid)
			if p.Exclude.IsValid() {
				fmt.Fprintf(&b, " but %s", p.Exclude)
			}
		}
	}
	return b.String()
}

func (c *conversation) want(got pd.Message, want string, routes ...string) {
	c.t.Helper()
	if diff := cmp.Diff(want, text(got)); diff != "" {
		c.t.Errorf("reply (-want +got):\n%s", diff)
	}
	slices.Sort(c.routes)
	slices.Sort(routes)
	if diff := cmp.Diff(routes, c.routes, cmpopts.EquateEmpty()); diff != "" {
		c.t.Errorf("routes (-want +got):\n%s", diff)
	}
	c.routes = nil
}

func TestFourMessages(t *testing.T) {
	c := converse(t, Config{Preference: 255, DNS: []netip.Addr{netip.MustParseAddr("2001:db8:f::53")}})
	solicit := pd.Message{Type: pd.Solicit, XID: 0xabcdef, ClientID: clientID, ORO: []uint16{pd.OptDNSServers},
		RapidCommit: true, IAPDs: []pd.IAPD{{IAID: 7}}}
	advertise := c.tell(solicit)
	p := advertise.IAPDs[0].Prefixes[0].Prefix
	if p.Bits() != 56 || !c.s.cfg.Pool.Overlaps(p) || p != p.Masked() {
		t.Fatalf("offered %s, want a /56 from %s", p, c.s.cfg.Pool)
	}
	want := pd.Message{Type: pd.Advertise, XID: 0xabcdef, ClientID: clientID, ServerID: defaultServerID, Preference: 255,
		Info:  pd.Info{DNS: c.s.cfg.DNS},
		IAPDs: []pd.IAPD{{IAID: 7, T1: 1500, T2: 2400, Prefixes: []pd.IAPrefix{{Prefix: p, Preferred: 3000, Valid: 4000}}}}}
	if diff := cmp.Diff(want, advertise, equate); diff != "" {
		t.Errorf("Advertise (-want +got):\n%s", diff)
	}
	if len(c.s.prefixes.list()) != 0 {
		t.Error("an Advertise has made a binding")
	}

	request := solicit
	request.Type, request.ServerID = pd.Request, advertise.ServerID
	want.Type, want.Preference = pd.Reply, 0
	if diff := cmp.Diff(want, c.tell(request), equate); diff != "" {
		t.Errorf("Reply (-want +got):\n%s", diff)
	}
	binding := Binding{clientID, 7, p, lifetime.After(start, 4000), router}
	if diff := cmp.Diff([]Binding{binding}, c.s.prefixes.list(), equate); diff != "" {
		t.Errorf("bindings (-want +got):\n%s", diff)
	}
}

var equate = cmp.Options{cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b lifetime.Deadline) bool { return a == b })}

func TestRapidCommit(t *testing.T) {
	c := converse(t, Config{RapidCommit: true})
	solicit := pd.Message{Type: pd.Solicit, ClientID: clientID, IAPDs: []pd.IAPD{{IAID: 1}}}
	if got := c.tell(solicit); got.Type != pd.Advertise || got.RapidCommit {
		t.Errorf("not asked for: %+v", got)
	}
	solicit.RapidCommit = true
	got := c.tell(solicit)
	if got.Type != pd.Reply || !got.RapidCommit || len(c.s.prefixes.list()) != 1 {
		t.Errorf("asked for: %+v", got)
	}
}

func TestRenewExtends(t *testing.T) {
	c := converse(t, Config{Preferred: 20, Valid: 30})
	p := c.bind()
	route := fmt.Sprintf("true %s via %s", p, router)
	c.now = c.now.Add(29 * time.Second)
	c.want(c.say(pd.Renew, p), fmt.Sprintf("Reply %s 20/30", p), route)
	c.now = c.now.Add(29 * time.Second)
	c.want(c.say(pd.Rebind, p), fmt.Sprintf("Reply %s 20/30", p), route)
}

func TestBindingExpires(t *testing.T) {
	c := converse(t, Config{Preferred: 20, Valid: 30})
	p := c.bind()
	if at, ok := c.s.next(); !ok || !at.Equal(start.Add(30*time.Second)) {
		t.Errorf("next change at %v, %v", at, ok)
	}
	c.now = c.now.Add(30 * time.Second)
	c.want(c.say(pd.Renew, p), "Reply NoBinding", fmt.Sprintf("false %s via %s", p, router))
	if _, ok := c.s.next(); ok {
		t.Error("something is due without bindings")
	}
}

func TestUnknownPrefixGetsLifetimesZero(t *testing.T) {
	c := converse(t, Config{})
	p, other := c.bind(), netip.MustParsePrefix("2001:db8:9900::/56")
	c.want(c.say(pd.Renew, other, p), fmt.Sprintf("Reply %s 3000/4000 %s 0/0", p, other), fmt.Sprintf("true %s via %s", p, router))
}

func TestRelease(t *testing.T) {
	c := converse(t, Config{})
	p := c.bind()
	c.want(c.say(pd.Release, p), "Reply", fmt.Sprintf("false %s via %s", p, router))
	c.want(c.say(pd.Release, p), "Reply NoBinding")
}

func TestForget(t *testing.T) {
	c := converse(t, Config{})
	p := c.bind()
	c.note(c.s.forget())
	c.want(c.say(pd.Rebind, p), "Reply NoBinding", fmt.Sprintf("false %s via %s", p, router))
}

func TestFlashRenumbering(t *testing.T) {
	c := converse(t, Config{})
	p := c.bind()
	c.note(c.s.prefixes.renumber(netip.MustParsePrefix("2001:db8:1200::/40"), 56, lifetime.After(c.now, 0), c.now))
	got := c.say(pd.Renew, p)
	q := got.IAPDs[0].Prefixes[0].Prefix
	if !netip.MustParsePrefix("2001:db8:1200::/40").Overlaps(q) {
		t.Errorf("new prefix %s is not from the new pool", q)
	}
	c.want(got, fmt.Sprintf("Reply %s 3000/4000 %s 0/0", q, p),
		fmt.Sprintf("false %s via %s", p, router), fmt.Sprintf("true %s via %s", q, router))
	c.want(c.say(pd.Renew, q), fmt.Sprintf("Reply %s 3000/4000", q), fmt.Sprintf("true %s via %s", q, router))
}

func TestGracefulRenumbering(t *testing.T) {
	c := converse(t, Config{})
	p := c.bind()
	c.note(c.s.prefixes.renumber(netip.MustParsePrefix("2001:db8:1200::/40"), 56, lifetime.After(c.now, 100), c.now))
	c.now = c.now.Add(40 * time.Second)
	got := c.say(pd.Renew, p)
	q := got.IAPDs[0].Prefixes[0].Prefix
	old, new := fmt.Sprintf("%s via %s", p, router), fmt.Sprintf("%s via %s", q, router)
	c.want(got, fmt.Sprintf("Reply %s 3000/4000 %s 0/60", q, p), "true "+old, "true "+new)
	if at, ok := c.s.next(); !ok || !at.Equal(start.Add(100*time.Second)) {
		t.Errorf("next change at %v, %v", at, ok)
	}
	c.now = c.now.Add(60 * time.Second)
	c.want(c.say(pd.Renew, q), fmt.Sprintf("Reply %s 3000/4000 %s 0/0", q, p), "false "+old, "true "+new)
	c.want(c.say(pd.Renew, q), fmt.Sprintf("Reply %s 3000/4000", q), "true "+new)
}

func TestSilentRenumbering(t *testing.T) {
	c := converse(t, Config{})
	p := c.bind()
	c.note(c.s.prefixes.abandon(netip.MustParsePrefix("2001:db8:1200::/40"), 56))
	got := c.say(pd.Renew, p)
	q := got.IAPDs[0].Prefixes[0].Prefix
	c.want(got, fmt.Sprintf("Reply %s 3000/4000", q), fmt.Sprintf("false %s via %s", p, router), fmt.Sprintf("true %s via %s", q, router))

	c.note(c.s.prefixes.abandon(netip.MustParsePrefix("2001:db8:1100::/40"), 56)) // a prefix that returns is mentioned again
	c.want(c.say(pd.Renew, q), fmt.Sprintf("Reply %s 3000/4000", p), fmt.Sprintf("false %s via %s", q, router), fmt.Sprintf("true %s via %s", p, router))
	c.want(c.say(pd.Renew, q), fmt.Sprintf("Reply %s 3000/4000", p), fmt.Sprintf("true %s via %s", p, router))
}

func TestPoolIsUsedUp(t *testing.T) {
	c := converse(t, Config{Pool: netip.MustParsePrefix("2001:db8:1100::/55")})
	seen := map[netip.Prefix]bool{}
	for iaid := range uint32(3) {
		got := c.tell(pd.Message{Type: pd.Request, ClientID: clientID, ServerID: defaultServerID, IAPDs: []pd.IAPD{{IAID: iaid}}})
		if iaid == 2 {
			c.routes = nil
			c.want(got, "Reply NoPrefixAvail")
			continue
		}
		seen[got.IAPDs[0].Prefixes[0].Prefix] = true
	}
	want := map[netip.Prefix]bool{netip.MustParsePrefix("2001:db8:1100::/56"): true,
		netip.MustParsePrefix("2001:db8:1100:100::/56"): true}
	if diff := cmp.Diff(want, seen, equate); diff != "" {
		t.Errorf("delegated (-want +got):\n%s", diff)
	}
	c.want(c.tell(pd.Message{Type: pd.Solicit, ClientID: "\x00\x04other", IAPDs: []pd.IAPD{{}}}), "Advertise NoPrefixAvail")
}

// TestLengthChanges renumbers within a pool to longer and to shorter prefixes, while the old ones are valid: nobody gets a part
// of them.
func TestLengthChanges(t *testing.T) {
	pool := netip.MustParsePrefix("2001:db8:1100::/48")
	c := converse(t, Config{Pool: pool})
	var had []netip.Prefix
	for i, length := range []int{56, 60, 52, 64, 54} {
		if i > 0 {
			c.note(c.s.prefixes.renumber(pool, length, lifetime.After(c.now, 1000), c.now))
		}
		p := c.say(pd.Request).IAPDs[0].Prefixes[0].Prefix
		if p.Bits() != length || slices.ContainsFunc(had, p.Overlaps) {
			t.Errorf("delegated %s, want a /%d without a part of %v", p, length, had)
		}
		had = append(had, p)
	}
	c.note(c.s.prefixes.renumber(pool, 48, lifetime.After(c.now, 1000), c.now))
	c.routes = nil
	c.want(c.say(pd.Request), "Reply NoPrefixAvail")
}

// TestPrefixIsStable wants a client to get its prefix again after everything has been forgotten.
func TestPrefixIsStable(t *testing.T) {
	a, b := converse(t, Config{}), converse(t, Config{})
	p := a.bind()
	if q := b.bind(); q != p {
		t.Errorf("another server: %s, before: %s", q, p)
	}
	a.s.forget()
	if q := a.bind(); q != p {
		t.Errorf("after forget: %s, before: %s", q, p)
	}
}

func TestNotAnswered(t *testing.T) {
	for name, m := range map[string]pd.Message{
		"Solicit with a server":      {Type: pd.Solicit, ClientID: clientID, ServerID: defaultServerID, IAPDs: []pd.IAPD{{}}},
		"Solicit without client":     {Type: pd.Solicit, IAPDs: []pd.IAPD{{}}},
		"Solicit without IA_PD":      {Type: pd.Solicit, ClientID: clientID},
		"Request to another server":  {Type: pd.Request, ClientID: clientID, ServerID: clientID, IAPDs: []pd.IAPD{{}}},
		"Renew to nobody":            {Type: pd.Renew, ClientID: clientID, IAPDs: []pd.IAPD{{}}},
		"Rebind with a server":       {Type: pd.Rebind, ClientID: clientID, ServerID: defaultServerID, IAPDs: []pd.IAPD{{}}},
		"Confirm":                    {Type: pd.Confirm, ClientID: clientID},
		"Information-request for PD": {Type: pd.InformationRequest, IAPDs: []pd.IAPD{{}}},
		"message of a server":        {Type: pd.Reply, ClientID: clientID, ServerID: defaultServerID},
	} {
		c := converse(t, Config{})
		if got := c.tell(m); got.Type != 0 || len(c.s.prefixes.list()) != 0 {
			t.Errorf("%s: answered by %+v", name, got)
		}
	}
}

func TestInformationRequest(t *testing.T) {
	c := converse(t, Config{DomainSearch: []string{"isp.example"}, SolMaxRT: 600})
	got := c.tell(pd.Message{Type: pd.InformationRequest, ORO: []uint16{pd.OptDomainList, pd.OptSolMaxRT}})
	want := pd.Message{Type: pd.Reply, ServerID: defaultServerID, Info: pd.Info{DomainSearch: []string{"isp.example"}}, SolMaxRT: 600}
	if diff := cmp.Diff(want, got, equate); diff != "" {
		t.Errorf("Reply (-want +got):\n%s", diff)
	}
}

func TestConfigRefused(t *testing.T) {
	pool := netip.MustParsePrefix("2001:db8:1100::/40")
	for want, cfg := range map[string]Config{
		"no interface":                {Pool: pool},
		"neither a pool":              {Interface: "up0"},
		"cannot exclude a /56":        {Interface: "up0", Pool: pool, Exclude: 56},
		"want an IPv6 prefix of at":   {Interface: "up0", Addresses: netip.MustParsePrefix("2001:db8::/113")},
		"is not an IPv6 prefix":       {Interface: "up0", Pool: netip.MustParsePrefix("192.0.2.0/24")},
		"want a length from 40 to 72": {Interface: "up0", Pool: pool, Length: 39},
		"want 3 to 130":               {Interface: "up0", Pool: pool, ServerID: "x"},
		"is longer than valid":        {Interface: "up0", Pool: pool, Preferred: 2, Valid: 1},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func TestInfiniteLifetimes(t *testing.T) {
	c := converse(t, Config{Preferred: lifetime.Infinity})
	got := c.say(pd.Request).IAPDs[0]
	if got.T1 != lifetime.Infinity || got.T2 != lifetime.Infinity || got.Prefixes[0].Valid != lifetime.Infinity {
		t.Errorf("IA_PD %+v", got)
	}
	if _, ok := c.s.next(); ok {
		t.Error("an infinite binding ends")
	}
}
