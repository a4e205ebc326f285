package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/internal/kernel"
)

// TestOnLinkOnAnotherUplink has a router on one uplink announce who its neighbours are: some that it has, the network of the
// far server, the host, the whole Internet, and everything. From addresses of the other uplink all of them are reached by that one, and
// from its own addresses its neighbours directly.
func TestOnLinkOnAnotherUplink(t *testing.T) {
	t.Parallel()
	const neighbour = "3fff:b::99" // on the rogue's link; and somebody in the Internet has the same one
	s, host, lan := besideDSL(t)
	s.far.IP("-6 address add %s/128 dev lo", neighbour)
	s.isp.IP("-6 route add %s via %s dev core0", neighbour, farAddress)
	far, _ := netip.MustParseAddr(farAddress).Prefix(64)
	link := netip.MustParsePrefix("3fff:b::/64")

	rogue := s.rogue(forever, func(p *isp.Provider) {
		list := []isp.RAPrefix{{Prefix: link, Autonomous: true}, {Prefix: far}, {Prefix: lan}, {Prefix: netip.PrefixFrom(host, 128)}, {Prefix: netip.MustParsePrefix("2000::/3")}, {Prefix: netip.MustParsePrefix("::/0")}}
		for i := range list {
			list[i].OnLink, list[i].Preferred, list[i].Valid = true, 30000, 40000
		}
		p.SetRA(isp.RA{Interval: time.Second, Prefixes: list})
	})
	rogue.IP("-6 address add %s/64 dev up1 nodad", neighbour)
	const roguePool = "2001:db8:2200::/40"
	rogue.IP("-6 route add %s via %s dev up1", roguePool, s.router.LinkLocal("wan1"))
	s.eventually("the kernel to believe the rogue's RA", func() (bool, string) {
		text := s.router.IP("-6 route show dev wan1 proto kernel")
		return strings.Count(text, "expires") == 6, text
	})
	s.reachFrom(host)
	s.pings(s.host, neighbour, "-I", host.String())
	s.pings(s.far, host.String())
	own := s.hostAddress(roguePool, "preferred", preferred).Local
	s.pings(s.host, neighbour, "-I", own.String())
	if way := s.router.IP("-6 route get %s from %s iif lan0", neighbour, own); !strings.Contains(way, " dev wan1 ") || strings.Contains(way, " via ") {
		t.Errorf("from its own addresses the uplink's neighbours are reached by %s", way)
	}
	s.pings(s.router, neighbour)
	on := addresses(s.router, "wan1")
	i := slices.IndexFunc(on, func(a address) bool { return link.Contains(a.Local) })
	if i < 0 {
		t.Fatalf("addresses on wan1: %v", on)
	}
	s.pings(s.router, neighbour, "-I", on[i].Local.String())

	log := subscribe(t, s.router)
	s.end(syscall.SIGKILL)
	s.start()
	s.awaitHealthy()
	s.eventually("both leases to be confirmed", func() (bool, string) {
		for _, u := range s.statusNow().Uplinks {
			if u.Client.State != "bound" {
				return false, u.Client.State
			}
		}
		return true, ""
	})
	s.reconciles(1)
	if heard := written(log.take()); len(heard) > 0 {
		t.Errorf("a restart wrote to the kernel:\n%s", show(heard))
	}
}

// TestCrowdedLink has a router on one uplink announce more than uplinkd looks at, among the rest the two halves of the network of the
// other uplink's hosts: they stay reachable.
func TestCrowdedLink(t *testing.T) {
	t.Parallel()
	s, host, lan := besideDSL(t)
	upper := lan.Addr().As16()
	upper[8] = 0x80
	list := []isp.RAPrefix{{Prefix: netip.PrefixFrom(lan.Addr(), 65)}, {Prefix: netip.PrefixFrom(netip.AddrFrom16(upper), 65)}}
	for i := range kernel.MaxOnLink {
		list = append(list, isp.RAPrefix{Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte{0x3f, 0xff, 1, byte(i)}), 64)})
	}
	for i := range list {
		list[i].OnLink, list[i].Preferred, list[i].Valid = true, 30000, 40000
	}
	var p *isp.Provider
	s.rogue(forever, func(rogue *isp.Provider) { p = rogue })
	half := len(list) / 2 // a packet holds no more
	for _, part := range [][]isp.RAPrefix{list[half:], list[:half]} {
		p.SetRA(isp.RA{Interval: time.Second, Prefixes: part})
		s.eventually(fmt.Sprintf("the kernel to believe %d prefixes more", len(part)), func() (bool, string) {
			text := s.router.IP("-6 route show dev wan1 proto kernel")
			return strings.Contains(text, part[0].Prefix.Masked().Addr().String()), text
		})
	}
	s.awaitProblem("too-many-on-link")
	s.pings(s.far, host.String())
	s.reachFrom(host)
}
