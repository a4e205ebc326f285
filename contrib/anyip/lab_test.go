package anyip

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/netlab"
)

func TestMain(m *testing.M) { netlab.TestMain(m) }

const (
	service    = "2001:db8:0:100::/64" // routed to the router, which has it whole
	routerAddr = "2001:db8:0:1::1"     // of the router's interface, the wrong source of an answer
	clientAddr = "2001:db8:0:1::2"
	byService  = "-6 route add local " + service + " dev lo table local"
	limit      = 10 * time.Second // for anything that has to happen at all
)

// site is a client and a router between which nothing is but a link; the client sends everything to the router.
type site struct {
	t              *testing.T
	lab            *netlab.Lab
	client, router *netlab.NS
}

func newSite(t *testing.T) *site {
	t.Helper()
	t.Parallel()
	l := netlab.New(t)
	s := &site{t: t, lab: l, client: l.NS("client"), router: l.NS("router")}
	for _, ns := range []*netlab.NS{s.client, s.router} {
		ns.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	}
	l.Veth(s.client, "eth0", s.router, "wan0")
	s.client.IP("-6 address add %s/64 dev eth0 nodad", clientAddr)
	s.router.IP("-6 address add %s/64 dev wan0 nodad", routerAddr)
	s.client.IP("-6 route add default via %s", routerAddr)
	return s
}

// in runs f in a namespace. Sockets that f opens stay there.
func (s *site) in(ns *netlab.NS, f func() error) {
	s.t.Helper()
	if err := ns.Do(f); err != nil {
		s.t.Fatalf("%s: %v", ns.Name, err)
	}
}

// addresses are n of a prefix: the lowest, the highest, and others by chance.
func addresses(prefix string, n int) []netip.Addr {
	p := netip.MustParsePrefix(prefix)
	last := p.Addr().As16()
	for i := p.Bits() / 8; i < 16; i++ {
		last[i] = 0xff
	}
	list := []netip.Addr{p.Addr(), netip.AddrFrom16(last)}
	for len(list) < n {
		list = append(list, Random(p))
	}
	return list
}

// unprivileged gives up all capabilities of the calling thread.
func unprivileged() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}
