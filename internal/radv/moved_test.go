package radv

import (
	"net/netip"
	"testing"
	"time"

	"uplinkd/internal/kernel"
)

// What hosts are told of a link-local address that is gone, at each advertisement that they get.
func TestMoved(t *testing.T) {
	a, b, none := netip.MustParseAddr("fe80::a"), netip.MustParseAddr("fe80::b"), netip.Addr{}
	var f former
	for i, step := range []struct {
		own    netip.Addr
		others []netip.Addr
		index  int
		mac    string
		router bool
		leave  netip.Addr
	}{
		{a, nil, 1, "x", true, none},
		{a, nil, 1, "x", true, none},
		{b, nil, 1, "y", true, a}, // another address: said three times
		{b, nil, 1, "y", true, a},
		{b, nil, 1, "y", true, a},
		{b, nil, 1, "y", true, none},
		{a, nil, 2, "y", true, b},
		{b, nil, 3, "y", true, a}, // it is back: the other one is gone now
		{b, []netip.Addr{a}, 3, "y", true, none},
		{b, nil, 3, "y", true, none},
		{a, []netip.Addr{b}, 3, "y", true, none}, // one that is set by hand on the same interface,
		{b, nil, 3, "y", true, none},             // and taken off: another router may have it now
		{b, nil, 3, "y", false, none},            // no default router any more
		{a, nil, 4, "z", true, none},             // so nobody has to be told
	} {
		link := kernel.Link{Index: step.index, MAC: step.mac, LinkLocal: step.own, OtherLinkLocal: step.others}
		if got := f.moved(link, step.router); got != step.leave {
			t.Errorf("step %d: leave %s, want %s", i, got, step.leave)
		}
	}
}

// TestKernelMovedRouter gives the link another MAC address and has it down and up, so that it gets another link-local address. The
// host has the new one as its default router, and not the old one, which would stay for half an hour.
func TestKernelMovedRouter(t *testing.T) {
	router, host := pair(t, "router", "host")
	s := sends(t, router, announce(time.Now(), prefixA))
	was := router.LinkLocal("lan0")
	shows(t, host, "-6 route show default", "default via "+was.String()+" dev eth0 proto ra")
	router.IP("link set lan0 down")
	router.IP("link set lan0 address 02:00:00:00:00:77")
	router.IP("link set lan0 up")
	s.SetLink(linkOf(t, router, "lan0"))
	shows(t, host, "-6 route show default", "via fe80::ff:fe00:77 dev eth0")
	shows(t, host, "-6 route show default", "!via "+was.String())
}
