package isp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"uplinkd/pd"
)

var onLink = netip.MustParsePrefix("2001:db8:1:1::/64")

// sayNA sends a message with the IA_NA 1 that lists addresses, and returns the reply.
func (c *conversation) sayNA(typ pd.MessageType, addresses ...netip.Addr) pd.Message {
	c.t.Helper()
	req := pd.Message{Type: typ, XID: 0x123456, ClientID: clientID}
	switch typ {
	case pd.Request, pd.Renew, pd.Release, pd.Decline:
		req.ServerID = c.s.cfg.ServerID
	}
	ia := pd.IANA{IAID: 1}
	for _, a := range addresses {
		ia.Addresses = append(ia.Addresses, pd.IAAddress{Address: a})
	}
	req.IANAs = []pd.IANA{ia}
	return c.tell(req)
}

// lease has the client lease an address, and returns it.
func (c *conversation) lease() netip.Addr {
	c.t.Helper()
	reply := c.sayNA(pd.Request)
	if len(reply.IANAs) != 1 || len(reply.IANAs[0].Addresses) != 1 {
		c.t.Fatalf("reply to Request: %+v", reply)
	}
	return reply.IANAs[0].Addresses[0].Address
}

func TestAddress(t *testing.T) {
	c := converse(t, Config{Addresses: onLink, Preferred: 20, Valid: 30})
	a := c.lease()
	if last := a.As16(); !onLink.Contains(a) || last[12] == 0 && last[13] == 0 && last[14] < 16 {
		t.Errorf("leased %s, want an address of %s but none of the first %d", a, onLink, ownAddresses)
	}
	c.want(c.sayNA(pd.Solicit), fmt.Sprintf("Advertise %s 20/30", a))
	c.now = c.now.Add(29 * time.Second)
	c.want(c.sayNA(pd.Renew, a), fmt.Sprintf("Reply %s 20/30", a))
	other := netip.MustParseAddr("2001:db8:1:1::7")
	c.want(c.sayNA(pd.Rebind, a, other), fmt.Sprintf("Reply %s 20/30 %s 0/0", a, other))
	if b := c.s.addresses.list(); len(b) != 1 || b[0].Prefix != netip.PrefixFrom(a, 128) {
		t.Errorf("leases: %v", b)
	}
	c.want(c.sayNA(pd.Release, a), "Reply")
	c.want(c.sayNA(pd.Renew, a), "Reply NoBinding")
	a = c.lease()
	if at, ok := c.s.next(); !ok || !at.Equal(c.now.Add(30*time.Second)) {
		t.Errorf("next change at %v, %v", at, ok)
	}
	c.now = c.now.Add(30 * time.Second)
	c.want(c.sayNA(pd.Renew, a), "Reply NoBinding")
}

// TestAddressAndPrefixes wants IAs to be independent of each other, those with the same IAID too.
func TestAddressAndPrefixes(t *testing.T) {
	c := converse(t, Config{Addresses: onLink})
	req := pd.Message{Type: pd.Request, ClientID: clientID, ServerID: defaultServerID, IANAs: []pd.IANA{{IAID: 1}},
		IAPDs: []pd.IAPD{{IAID: 1}, {IAID: 2}}}
	got := c.tell(req)
	if len(got.IANAs) != 1 || len(got.IAPDs) != 2 || got.IAPDs[0].Prefixes[0].Prefix == got.IAPDs[1].Prefixes[0].Prefix {
		t.Fatalf("Reply %+v", got)
	}
	if len(c.routes) != 2 {
		t.Errorf("routes %v, want one per prefix and none for the address", c.routes)
	}
	c.routes = nil
	a := got.IANAs[0].Addresses[0].Address
	c.want(c.sayNA(pd.Release, a), "Reply")
	if n := len(c.s.prefixes.list()); n != 2 {
		t.Errorf("%d prefixes are left when the address was released", n)
	}
}

// TestOneKindOnly asks for both kinds where only one is to be had.
func TestOneKindOnly(t *testing.T) {
	both := pd.Message{Type: pd.Solicit, ClientID: clientID, IANAs: []pd.IANA{{IAID: 1}}, IAPDs: []pd.IAPD{{IAID: 1}}}
	c := converse(t, Config{})
	p := c.bind()
	c.want(c.tell(both), fmt.Sprintf("Advertise NoAddrsAvail %s 3000/4000", p))

	cfg, err := Config{Interface: "up0", Addresses: onLink}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	c = &conversation{t: t, s: newServer(cfg), now: start}
	a := c.lease()
	c.want(c.tell(both), fmt.Sprintf("Advertise %s 3000/4000 NoPrefixAvail", a))
}

func TestConfirm(t *testing.T) {
	c := converse(t, Config{Addresses: onLink})
	a := c.lease()
	c.want(c.sayNA(pd.Confirm, a), "Reply")
	c.want(c.sayNA(pd.Confirm, netip.MustParseAddr("2001:db8:1:1::7")), "Reply") // whose it is does not matter
	c.want(c.sayNA(pd.Confirm, a, netip.MustParseAddr("2001:db8:9:9::7")), "Reply NotOnLink")
	if got := c.sayNA(pd.Confirm); got.Type != 0 {
		t.Errorf("a Confirm without addresses is answered by %+v", got)
	}
	if got := converse(t, Config{}).sayNA(pd.Confirm, a); got.Type != 0 {
		t.Errorf("a Confirm is answered by %+v, of a server without addresses", got)
	}
}

func TestDecline(t *testing.T) {
	c := converse(t, Config{Addresses: onLink})
	a := c.lease()
	c.want(c.sayNA(pd.Decline, a), "Reply")
	if b := c.s.addresses.list(); len(b) != 0 {
		t.Errorf("leases: %v after the Decline", b)
	}
	c.want(c.sayNA(pd.Decline, a), "Reply NoBinding")
	if other := c.lease(); other == a {
		t.Errorf("%s is leased again after it was declined", a)
	}
	c.want(c.sayNA(pd.Release), "Reply")
	c.s.forget()
	if other := c.lease(); other == a {
		t.Errorf("%s is leased again after it was declined and all bindings were lost", a)
	}

	p := c.bind() // a Decline of a prefix does not exist
	c.tell(pd.Message{Type: pd.Decline, ClientID: clientID, ServerID: defaultServerID,
		IAPDs: []pd.IAPD{{IAID: 1, Prefixes: []pd.IAPrefix{{Prefix: p}}}}})
	if b := c.s.prefixes.list(); len(b) != 1 {
		t.Errorf("prefixes: %v after a Decline of %s", b, p)
	}
}

func TestExclude(t *testing.T) {
	c := converse(t, Config{Exclude: 64})
	p := c.bind()
	c.want(c.say(pd.Solicit), fmt.Sprintf("Advertise %s 3000/4000", p))
	knows := pd.Message{Type: pd.Solicit, ClientID: clientID, ORO: []uint16{pd.OptPDExclude}, IAPDs: []pd.IAPD{{IAID: 1}}}
	c.want(c.tell(knows), fmt.Sprintf("Advertise %s 3000/4000 but %s", p, netip.PrefixFrom(p.Addr(), 64)))
}

func TestInformationRefresh(t *testing.T) {
	c := converse(t, Config{InfoRefresh: 1200, InfMaxRT: 300})
	oro := []uint16{pd.OptInfoRefresh, pd.OptInfMaxRT}
	got := c.tell(pd.Message{Type: pd.InformationRequest, ClientID: clientID, ORO: oro})
	if got.InfoRefresh != 1200 || got.InfMaxRT != 300 {
		t.Errorf("Reply %+v", got)
	}
	got = c.tell(pd.Message{Type: pd.Solicit, ClientID: clientID, ORO: oro, IAPDs: []pd.IAPD{{}}})
	if got.InfoRefresh != 0 || got.InfMaxRT != 300 {
		t.Errorf("Advertise %+v", got)
	}
}

// TestKey wants a key in the Reply with which a client begins and in no other message, and none for those who ask for none.
func TestKey(t *testing.T) {
	c := converse(t, Config{})
	req := pd.Message{Type: pd.Request, ClientID: clientID, ServerID: defaultServerID, IAPDs: []pd.IAPD{{IAID: 1}}}
	if got := c.tell(req); got.ReconfAccept || got.Auth != nil || len(c.s.keys) != 0 {
		t.Errorf("not asked for: %+v", got)
	}
	req.ReconfAccept = true
	first := c.tell(req)
	if a := first.Auth; !first.ReconfAccept || a == nil || a.Protocol != 3 || a.Algorithm != 1 || a.RDM != 0 || len(a.Info) != 17 || a.Info[0] != 1 {
		t.Fatalf("Reply %+v", first)
	}
	second := c.tell(req)
	if diff := cmp.Diff(first.Auth.Info, second.Auth.Info); diff != "" || second.Auth.Replay <= first.Auth.Replay {
		t.Errorf("another key, or replay value %d after %d:\n%s", second.Auth.Replay, first.Auth.Replay, diff)
	}
	for _, typ := range []pd.MessageType{pd.Renew, pd.Rebind, pd.Solicit} {
		req.Type, req.ServerID = typ, ""
		if typ == pd.Renew {
			req.ServerID = defaultServerID
		}
		if got := c.tell(req); !got.ReconfAccept || got.Auth != nil {
			t.Errorf("%s is answered by %+v", typ, got)
		}
	}
	req.Type, req.ServerID = pd.Release, defaultServerID
	if c.tell(req); len(c.s.keys) != 0 {
		t.Error("the key has survived a Release")
	}
}
