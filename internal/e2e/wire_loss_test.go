package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/internal/netlab"
	"uplinkd/pd"
)

// lossy drops packets in a namespace by a rule of nft until the function returned is called, which tells how many it was.
func (s *site) lossy(ns *netlab.NS, hook, rule string) (mend func() (dropped string)) {
	s.t.Helper()
	netlab.NeedProgram(s.t, "nft", "nftables")
	path := s.write("lossy.nft", fmt.Sprintf("table ip6 lossy {\n counter dropped { }\n chain c {\n  type filter hook %s; policy accept;\n  %s counter name dropped drop\n }\n}\n",
		hook, rule))
	ns.Run("nft", "-f", path)
	return func() string {
		s.t.Helper()
		out := ns.Run("nft", "list", "counter", "ip6", "lossy", "dropped")
		ns.Run("nft", "delete", "table", "ip6", "lossy")
		_, out, _ = strings.Cut(out, "packets ")
		n, _, _ := strings.Cut(out, " ")
		return n
	}
}

// repeats checks that the last two messages of a type are one exchange (RFC 9915 §15, §16.1): the same transaction id,
// and a time that has gone on.
func (v *simulated) repeats(t *testing.T, typ pd.MessageType) {
	t.Helper()
	var found []pd.Message
	netlab.Eventually(t, 10*time.Second, "two "+typ.String()+" in the provider's record", func() (bool, string) {
		found = nil
		for _, e := range v.Exchanges() {
			if e.Request.Type == typ {
				found = append(found, e.Request)
			}
		}
		return len(found) >= 2, fmt.Sprint(len(found))
	})
	first, second := found[len(found)-2], found[len(found)-1]
	if first.XID != second.XID || first.Elapsed >= second.Elapsed {
		t.Errorf("%s %06x after %s was not repeated as it is: %06x after %s", typ, first.XID, first.Elapsed, second.XID, second.Elapsed)
	}
}

// TestLostReply loses the Replies of servers of other people: the client repeats itself, and is answered again with the
// same lease.
func TestLostReply(t *testing.T) {
	t.Parallel()
	forServers(t, func(t *testing.T, p server) {
		s := newSite(t, false)
		p.start(s, long)
		w := s.witness()
		const replies = "udp dport 546 @th,64,8 7" // the octet after the UDP header is the message type
		mend := s.lossy(s.isp, "output priority 0", replies)
		s.configure(strings.Replace(fourMessages, "release = true", "release = false", 1))
		s.start()
		s.awaitSeen(w, pd.Request, 2)
		s.holds(onLAN(nil))
		if n := mend(); n == "0" {
			t.Error("no Reply was lost")
		}
		w.repeats(t, pd.Request)
		addresses, delegations := s.awaitHeld(1, 1)
		h := onLAN(addresses, delegations...)
		s.holds(h)
		s.reach()

		log := subscribe(t, s.router)
		mend = s.lossy(s.isp, "output priority 0", replies)
		s.renew()
		s.awaitSeen(w, pd.Renew, 2)
		s.holds(h)
		if n := mend(); n == "0" {
			t.Error("no Reply to a Renew was lost")
		}
		w.repeats(t, pd.Renew)
		s.awaitSeen(w, pd.Renew, 3)
		s.eventually("the Renew to be answered", func() (bool, string) {
			c := s.uplink().Client
			return c.State == "bound" && c.Failure == "", c.State + " " + c.Failure
		})
		s.holds(h)
		for _, g := range gone(log.take()) {
			t.Errorf("by lost Replies: %s", g.Text)
		}
		w.noStorm(t, 10)
	})
}

// TestLostFragment has a Reply that is longer than the link's MTU, and loses all of its fragments but the first.
func TestLostFragment(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v := s.simulate(withAddresses(isp.Config{}))
	v.InterceptRaw(func(_ pd.Message, reply []byte) [][]byte {
		if reply == nil {
			return nil
		}
		const code, size = 65001, 4000 // an option that nobody knows
		reply = append(slices.Clone(reply), code>>8, code&0xff, size>>8, size&0xff)
		return [][]byte{append(reply, make([]byte, size)...)}
	})
	// Before anything puts the fragments together: NF_IP6_PRI_CONNTRACK_DEFRAG is -400.
	mend := s.lossy(s.router, "prerouting priority -450", "iifname \"wan0\" frag frag-off > 0")
	s.configure(prompt)
	s.start()
	s.awaitSeen(v, pd.Solicit, 2)
	s.holds(onLAN(nil))
	if n := mend(); n == "0" {
		t.Error("no fragment was lost")
	}
	v.repeats(t, pd.Solicit)
	addresses, delegations := s.awaitHeld(1, 1)
	h := onLAN(addresses, delegations...)
	s.holds(h)
	s.reach()

	mend = s.lossy(s.router, "prerouting priority -450", "iifname \"wan0\" frag frag-off > 0")
	s.renew()
	s.awaitSeen(v, pd.Renew, 2)
	s.holds(h)
	if n := mend(); n == "0" {
		t.Error("no fragment of a Reply to a Renew was lost")
	}
	v.repeats(t, pd.Renew)
	s.awaitSeen(v, pd.Renew, 3)
	s.awaitHealthy()
	s.holds(h)
	v.noStorm(t, 10)
}
