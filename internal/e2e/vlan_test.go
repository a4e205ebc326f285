package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"uplinkd/internal/netlab"
)

// TestVLANs has the provider on VLAN 832, which wants priority 6 in each DHCPv6 message, and networks on VLANs of one port,
// numbered by their VLAN ids. Stock kernels have VLANs, those of many test machines have none: docs/development.md says how
// this runs on one of Debian's.
func TestVLANs(t *testing.T) {
	t.Parallel()
	netlab.NeedProgram(t, "nft", "nftables")
	s := newSite(t, false)
	netlab.NeedLinkType(t, s.router, "vlan")
	tagged(s.isp, "up0", 832, "")
	tagged(s.router, "wan0", 832, "egress-qos-map 6:6")
	s.isp.IP("-6 address add 2001:db8:1:1::1/64 dev up0 nodad")
	s.isp.Run("nft", `add table netdev bng; add chain netdev bng in { type filter hook ingress device up0-trunk priority 0; };
		add rule netdev bng in vlan type ip6 udp dport 547 vlan pcp != 6 counter drop`)
	for _, id := range []int{7, 20} {
		s.host.IP("link add link eth0 name eth0.%d type vlan id %d", id, id)
		s.host.IP("link set eth0.%d up", id)
	}
	lan := func(id int) string {
		s.router.IP("link add link lan0 name lan0.%d type vlan id %d", id, id)
		s.router.IP("link set lan0.%d up", id)
		return section(id)
	}
	s.simulate(forever)
	uplink := "[uplink.fiber]\ninterface = \"wan0\"\ndhcpv6 = { delay = false, priority = 6 }\n"
	seven, twenty := lan(7), lan(20)
	s.configure(uplink + seven + twenty)
	s.start()
	s.awaitHealthy()
	g := s.delegation(pool).Prefix
	s.onVLAN(g, 7)
	s.onVLAN(g, 20)

	before := s.kernelText()
	s.end(syscall.SIGTERM)
	s.configure(uplink + twenty + seven)
	s.start()
	s.awaitHealthy()
	if now, writes := s.kernelText(), s.statusNow().Counters.KernelWrites; now != before || writes > 0 {
		t.Errorf("with the sections in another order there are %d writes, and the kernel has\n%sinstead of\n%s", writes, now, before)
	}

	s.router.IP("link del lan0.20")
	s.configure(uplink + twenty + seven + section(66))
	s.hangup()
	lan(20) // another index
	lan(66) // late
	s.onVLAN(g, 20)
	s.eventually("lan0.66 to be numbered", func() (bool, string) {
		list := addresses(s.router, "lan0.66")
		return len(list) == 1 && list[0].Local == numbered(g, 66).Addr().Next(), fmt.Sprint(list)
	})
	s.awaitHealthy()
	if rules := s.isp.Run("nft", "list table netdev bng"); !strings.Contains(rules, "counter packets 0 ") {
		t.Errorf("messages without priority 6:\n%s", rules)
	}
}

func section(id int) string {
	return fmt.Sprintf("[downstream.v%d]\ninterface = \"lan0.%d\"\nsubnet = \"vlan\"\n", id, id)
}

// tagged puts VLAN id of what dev leads to under the name of dev.
func tagged(ns *netlab.NS, dev string, id int, options string) {
	ns.IP("link set %s down", dev)
	ns.IP("link set %s name %s-trunk", dev, dev)
	ns.IP("link set %s-trunk up", dev)
	ns.IP("link add link %s-trunk name %s type vlan id %d %s", dev, dev, id, options)
	ns.IP("link set %s up", dev)
	ns.LinkLocal(dev)
}

// numbered is subnet id of a /48 or /56 delegation.
func numbered(g netip.Prefix, id int) netip.Prefix {
	a := g.Addr().As16()
	a[6], a[7] = a[6]|byte(id>>8), a[7]|byte(id)
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// onVLAN waits until the host has an address on a VLAN, out of the subnet that has its number, and reaches far from there.
func (s *site) onVLAN(g netip.Prefix, id int) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("the host to be in %s on VLAN %d", numbered(g, id), id), func() (bool, string) {
		list := addresses(s.host, fmt.Sprintf("eth0.%d", id))
		for _, a := range list {
			if numbered(g, id).Contains(a.Local) {
				out := output(s.host, "ping", "-6", "-n", "-c", "1", "-W", "1", "-I", fmt.Sprintf("eth0.%d", id), farAddress)
				return strings.Contains(out, " 1 received"), out
			}
		}
		st, _ := s.status()
		return false, fmt.Sprint(list, st.Problems)
	})
}
