package e2e

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"uplinkd/internal/isp"
	"uplinkd/pd"
)

// twoLANs wants a /64 for each of two networks.
const twoLANs = `
[uplink.fiber]
interface = "wan0"
dhcpv6.delay = false
dhcpv6.prefixes = [{ length = 64 }, { length = 64 }]

[downstream.lan]
interface = "lan0"

[downstream.guests]
interface = "lan1"
`

// TestSeveralPrefixes has a provider that delegates one /64 per IA_PD.
func TestSeveralPrefixes(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	s.lab.Veth(s.router, "lan1", s.host, "eth1", "02:00:00:00:03:01", "02:00:00:00:03:02")
	v := s.simulate(withAddresses(isp.Config{Length: 64}))
	s.configure(twoLANs)
	s.start()
	leased, delegations := s.awaitHeld(1, 2)
	s.awaitHealthy()
	s.oneEach(leased, delegations)
	s.reach()
	v.asks(t, pd.Solicit, 1, 2)
	text := s.kernelText()

	s.renew()
	s.awaitSeen(v, pd.Renew, 1)
	v.asks(t, pd.Renew, 1, 2)
	s.awaitHealthy()
	s.oneEach(leased, delegations)
	if now := s.kernelText(); s.networks(now) != s.networks(text) {
		t.Errorf("networks have swapped their prefixes, before:\n%safter:\n%s", text, now)
	}
	v.noStorm(t, 4)
}

// oneEach wants each delegation to be the subnet of one of the two networks.
func (s *site) oneEach(leased []netip.Addr, delegations []netip.Prefix) {
	s.t.Helper()
	on := func(dev string) netip.Prefix {
		var p netip.Prefix
		s.eventually("one address on "+dev, func() (bool, string) {
			list := addresses(s.router, dev)
			if len(list) == 1 {
				p = netip.PrefixFrom(list[0].Local, list[0].Bits).Masked()
			}
			return len(list) == 1, s.kernelText()
		})
		return p
	}
	subnets := map[netip.Prefix]string{on("lan0"): "lan0", on("lan1"): "lan1"}
	for p := range subnets {
		if !slices.Contains(delegations, p) || len(subnets) != 2 {
			s.t.Errorf("subnets %v of delegations %v", subnets, delegations)
		}
	}
	s.holds(holding{leased, delegations, subnets}, "lan0", "lan1")
}

// networks are the addresses of the networks in a text of the kernel, without lifetimes.
func (s *site) networks(text string) string {
	var found []string
	for _, line := range strings.Split(text, "\n") {
		if a, _, ok := strings.Cut(line, " valid_lft"); ok && strings.Contains(a, " dev lan") {
			found = append(found, a)
		}
	}
	return strings.Join(found, "\n")
}

// TestPrefixExclude leaves the part of a delegation alone that the provider wants for the link (RFC 6603).
func TestPrefixExclude(t *testing.T) {
	t.Parallel()
	s, _ := bound(t, isp.Config{Exclude: 64}, prompt)
	_, delegations := s.held()
	excluded := netip.PrefixFrom(delegations[0].Addr(), 64)
	list := addresses(s.router, "lan0")
	if len(list) != 1 || excluded.Contains(list[0].Local) || !delegations[0].Contains(list[0].Local) {
		t.Fatalf("lan0 has %v of %v without %v", list, delegations, excluded)
	}
	subnet := netip.PrefixFrom(list[0].Local, 64).Masked()
	s.holds(holding{nil, delegations, map[netip.Prefix]string{subnet: "lan0"}})
}
