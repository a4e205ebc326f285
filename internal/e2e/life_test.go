package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/kernel"
)

// TestLife is the life of a lease against servers of other people: bound, renewed, lost with the server, back with it.
func TestLife(t *testing.T) {
	forServers(t, func(t *testing.T, v server) {
		s := newSite(t, true)
		s.route(pool)
		s.startRadvd()
		running := v.start(s, brief)
		s.configure(smallest)
		log := subscribe(t, s.router)
		s.start()

		g := s.delegation(pool)
		s.hostAddress(pool, "preferred", preferred)
		s.reach()
		s.unusedIsUnreachable(g.Prefix)
		s.renewsInPlace(g.Prefix, log)

		if err := running.Stop(); err != nil {
			t.Logf("%s ended with %v", v.name, err)
		}
		s.expires(g.Prefix, log)

		v.start(s, brief)
		s.delegation(pool)
		s.hostAddress(pool, "preferred", preferred)
		s.reach()
	})
}

// unusedIsUnreachable asks for an address in a part of the delegation that no downstream has. Without the aggregate
// (RFC 7084 WPD-5) the packet would go back and forth between provider and router until its hop limit is used up.
func (s *site) unusedIsUnreachable(delegation netip.Prefix) {
	s.t.Helper()
	// The answers come from the router's only global address, once duplicate address detection is through.
	s.eventually("a usable address on lan0", func() (bool, string) { return len(addresses(s.router, "lan0")) > 0, "none" })
	unused := delegation.Addr().As16()
	unused[7], unused[15] = 0x77, 1
	target := netip.AddrFrom16(unused).String()
	before := s.packets("wan0")
	const pings = 3
	out := output(s.far, "ping", "-6", "-n", "-c", fmt.Sprint(pings), "-i", "0.2", "-W", "1", target)
	if n := strings.Count(out, "Destination unreachable"); n != pings || strings.Contains(out, "exceeded") {
		s.t.Errorf("%d pings to %s, which nobody has:\n%s", pings, target, out)
	}
	// Per ping one packet in and one out, beside a few of neighbour discovery, DHCPv6 and RAs. A loop makes 60 of each.
	if n := s.packets("wan0") - before; n > pings*2+30 {
		s.t.Errorf("%d pings to %s made %d packets on wan0: they loop", pings, target, n)
	}
}

// packets counts what an interface of the router has sent and received.
func (s *site) packets(dev string) int {
	s.t.Helper()
	var links []struct {
		Stats struct {
			RX, TX struct{ Packets int }
		} `json:"stats64"`
	}
	out := s.router.IP("-json -statistics link show dev %s", dev)
	if err := json.Unmarshal([]byte(out), &links); err != nil || len(links) != 1 {
		s.t.Fatalf("ip -json -statistics link: %v\n%s", err, out)
	}
	return links[0].Stats.RX.Packets + links[0].Stats.TX.Packets
}

// renewsInPlace watches two renewals: nothing of the delegation is ever taken away, and the address stays the same
// object, which the kernel tells by the time of its creation.
func (s *site) renewsInPlace(delegation netip.Prefix, log *notifications) {
	s.t.Helper()
	born := map[netip.Prefix]uint32{}
	check := func() {
		for _, m := range about(log.take(), delegation) {
			if m.Gone {
				s.t.Errorf("while the lease was being renewed: %s", m.Text)
			}
			if m.Kind == "address" && born[m.Prefix] == 0 {
				born[m.Prefix] = m.Born
			}
			if m.Kind == "address" && born[m.Prefix] != m.Born {
				s.t.Errorf("the address was made anew: %s, created at %d and at %d", m.Text, born[m.Prefix], m.Born)
			}
		}
	}
	check()
	var last time.Time
	for renewals := -1; renewals < 2; renewals++ { // the first time seen is not a renewal
		s.eventually("a renewal", func() (bool, string) {
			st := s.statusNow()
			at := st.Uplinks[0].Client.Received
			if at == nil || at.Equal(last) {
				return false, fmt.Sprintf("%+v", st.Uplinks[0].Client)
			}
			last = *at
			return true, ""
		})
	}
	check()
	if len(born) == 0 {
		s.t.Error("no address of the delegation was seen to be written")
	}
}

// expires watches the end of a lease whose server is silent: the host's address is deprecated, then everything goes, in
// the order of kernel.Phase backwards, and not before the lease is over.
func (s *site) expires(delegation netip.Prefix, log *notifications) {
	s.t.Helper()
	log.take()
	until, err := time.Parse(time.RFC3339, s.delegation(pool).Valid.Until)
	if err != nil {
		s.t.Fatal(err)
	}
	s.hostAddress(delegation.String(), "deprecated", deprecated)
	if early := gone(about(log.take(), delegation)); time.Now().Before(until.Add(-2*time.Second)) && len(early) > 0 {
		s.t.Errorf("gone before the end of the lease at %s:\n%s", until, show(early))
	}
	var all []notification
	s.eventually("the kernel to have nothing of "+delegation.String(), func() (bool, string) {
		all = append(all, about(log.take(), delegation)...)
		left := s.rowsOf(delegation)
		return left == "", left
	})
	if now := time.Now(); now.Before(until.Add(-2 * time.Second)) {
		s.t.Errorf("the lease was over at %s, before its end at %s", now, until)
	}
	s.inOrder(append(all, about(log.take(), delegation)...))
	s.eventually("the host to have no address of "+delegation.String(), func() (bool, string) {
		list := addresses(s.host, "eth0")
		return !slices.ContainsFunc(list, func(a address) bool { return delegation.Contains(a.Local) }), fmt.Sprint(list)
	})
}

// inOrder checks the deletions of one delegation. The address may be taken away by the kernel itself, at the same time.
func (s *site) inOrder(all []notification) {
	s.t.Helper()
	var phases []kernel.Phase
	seen := map[kernel.Phase]bool{}
	for _, m := range gone(all) {
		if m.Proto != kernel.Protocol {
			continue // the kernel's local and anycast routes of an address
		}
		p := phaseOf(m)
		phases = append(phases, p)
		seen[p] = true
	}
	backwards := slices.IsSortedFunc(phases, func(a, b kernel.Phase) int { return int(b) - int(a) })
	if !backwards || len(seen) != 4 {
		s.t.Errorf("phases in which the delegation went: %v, want address, rule, route, aggregate:\n%s", phases, show(all))
	}
	for i, m := range all {
		if !m.Gone && m.Proto == kernel.Protocol && len(gone(all[:i])) > 0 {
			s.t.Errorf("%s, after the delegation had begun to go:\n%s", m.Text, show(all))
		}
	}
}

func phaseOf(m notification) kernel.Phase {
	switch {
	case m.Kind == "address":
		return kernel.PhaseAddress
	case m.Kind == "rule":
		return kernel.PhaseRule
	case m.Type == uint8(kernel.Unreachable):
		return kernel.PhaseAggregate
	}
	return kernel.PhaseRoute
}

// rowsOf is what the kernel has of uplinkd's that mentions the prefix.
func (s *site) rowsOf(prefix netip.Prefix) string {
	s.t.Helper()
	state, err := s.kernel.Read(context.Background(), kernel.Scope{})
	if err != nil {
		s.t.Fatal(err)
	}
	var b strings.Builder
	for _, r := range state.Routes {
		if prefix.Overlaps(r.Dst) && r.Dst.Bits() >= prefix.Bits() {
			b.WriteString(r.Text(time.Now()) + "\n")
		}
	}
	for _, r := range state.Rules {
		if r.From.IsValid() && prefix.Overlaps(r.From) && r.From.Bits() >= prefix.Bits() {
			b.WriteString(r.Text(time.Now()) + "\n")
		}
	}
	for _, a := range state.Addresses {
		if prefix.Contains(a.Prefix.Addr()) {
			b.WriteString(a.Text(time.Now()) + "\n")
		}
	}
	return b.String()
}

// TestRenumbering restarts the server with another pool. Kea answers the next Renew with the new prefix and the old one
// with lifetimes 0; ISC dhcpd answers NoBinding and delegates the new one alone, so that what to do with the old one is
// the client's own decision.
func TestRenumbering(t *testing.T) {
	forServers(t, func(t *testing.T, v server) {
		s := newSite(t, false)
		s.route(pool)
		s.route(newPool)
		s.startRadvd()
		running := v.start(s, brief)
		s.configure(smallest)
		s.start()
		s.delegation(pool)
		old := s.hostAddress(pool, "preferred", preferred)
		s.reach()

		_ = running.Stop()
		v.start(s, offer{pool: newPool, preferred: 60, valid: 90, t1: 20, t2: 40})
		s.delegation(newPool)
		s.hostAddress(newPool, "preferred", preferred)
		s.eventually("the old address to be deprecated or gone", func() (bool, string) {
			list := addresses(s.host, "eth0")
			return !slices.ContainsFunc(list, func(a address) bool { return a.Local == old.Local && !a.Deprecated }), fmt.Sprint(list)
		})
		s.reach()
	})
}
