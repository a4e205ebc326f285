package anyip

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/netlab"
)

const (
	delegation = "2001:db8:0:200::/56" // all of it comes in at wan0
	lan        = "2001:db8:0:201::/64" // of which this is where lanHost sits,
	unused     = "2001:db8:0:2aa::/64" // and this nowhere
	lanHost    = "2001:db8:0:201::10"
)

// listenTCP is a server that says who it is and which address it was asked for.
func (s *site) listenTCP(ns *netlab.NS, port, name string) {
	s.t.Helper()
	var l net.Listener
	s.in(ns, func() (err error) { l, err = net.Listen("tcp6", "[::]:"+port); return err })
	s.serveTCP(l, name)
}

func (s *site) serveTCP(l net.Listener, name string) {
	s.t.Cleanup(func() { l.Close() })
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			_, _ = io.WriteString(c, name+" "+c.LocalAddr().(*net.TCPAddr).IP.String())
			_ = c.Close()
		}
	}()
}

// askTCP is what a server tells the client, or why it tells nothing.
func (s *site) askTCP(address, port string) (answer string) {
	s.t.Helper()
	s.in(s.client, func() error {
		ctx, cancel := context.WithTimeout(s.t.Context(), limit)
		defer cancel()
		c, err := new(net.Dialer).DialContext(ctx, "tcp6", net.JoinHostPort(address, port))
		if err == nil {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(limit))
			var b []byte
			b, err = io.ReadAll(c)
			answer = string(b)
		}
		if err != nil {
			answer = err.Error()
		}
		return nil
	})
	return answer
}

// want compares who answers on an address.
func (s *site) want(address, port, name string) {
	s.t.Helper()
	got := s.askTCP(address, port)
	if name == "unreachable" && strings.HasSuffix(got, "network is unreachable") {
		return
	}
	if got != name+" "+address {
		s.t.Errorf("[%s]:%s: %q, want an answer of %s", address, port, got, name)
	}
}

// TestBySubnet is AnyIP by subnet: one local route.
func TestBySubnet(t *testing.T) {
	s := newSite(t)
	s.listenTCP(s.router, "80", "router")
	list := addresses(service, 100)
	s.router.IP("-6 route add unreachable %s", service)
	s.want(list[5].String(), "80", "unreachable")
	s.router.IP(byService)
	for _, a := range list {
		s.want(a.String(), "80", "router")
	}
	s.router.IP("-6 route del local %s dev lo table local", service)
	s.want(list[5].String(), "80", "unreachable")
}

// TestOnLink shows what AnyIP does not do by itself: on a link where hosts believe the prefix to be, nobody answers
// neighbour solicitations for it, unless the kernel is told to for that very address.
func TestOnLink(t *testing.T) {
	s := newSite(t)
	s.listenTCP(s.router, "80", "router")
	s.router.IP(byService)
	s.client.IP("-6 route add %s dev eth0", service)
	a := addresses(service, 3)[2].String()
	if got := s.askTCP(a, "80"); !strings.HasSuffix(got, "no route to host") {
		t.Errorf("on-link without proxy: %q", got)
	}
	s.router.Sysctl("net.ipv6.conf.all.forwarding", "1")
	s.router.Sysctl("net.ipv6.conf.wan0.proxy_ndp", "1")
	s.router.IP("-6 neigh add proxy %s dev wan0", a)
	s.want(a, "80", "router")
}

// forwarding is site with a host on a LAN of the router, which has a subnet of the delegation. The rest of it is unreachable for
// what comes in at wan0, by the table and rules of uplinkd.
func forwarding(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	host := s.lab.NS("host")
	host.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	s.lab.Veth(s.router, "lan0", host, "eth0")
	s.router.Sysctl("net.ipv6.conf.all.forwarding", "1")
	router := netip.MustParsePrefix(lan).Addr().Next()
	s.router.IP("-6 address add %s/64 dev lan0 nodad", router)
	s.router.IP("-6 route add unreachable %s metric 2147483647 table 1001", delegation)
	s.router.IP("-6 rule add lookup main suppress_prefixlength 0 pref 1000")
	s.router.IP("-6 rule add iif wan0 lookup 1001 suppress_prefixlength 0 pref 9001")
	host.IP("-6 address add %s/64 dev eth0 nodad", lanHost)
	host.IP("-6 route add default via %s", router)
	for _, port := range []string{"80", "81"} {
		s.listenTCP(s.router, port, "router")
		s.listenTCP(host, port, "host")
	}
	s.listenTCP(host, "82", "host")
	s.want(lanHost, "80", "host")
	s.want(lanHost, "82", "host")
	s.want(router.String(), "80", "router")
	s.want(addresses(unused, 3)[2].String(), "80", "unreachable")
	return s
}

// TestByInterface is AnyIP by interface: whatever comes in there is for the router, but for what has a throw route.
func TestByInterface(t *testing.T) {
	s := forwarding(t)
	s.router.IP("-6 route add local default dev lo table 100")
	s.router.IP("-6 rule add iif wan0 lookup 100 pref 999")
	s.want(lanHost, "80", "router") // hijacked
	if got := s.askTCP(lanHost, "82"); !strings.HasSuffix(got, "connection refused") {
		s.t.Errorf("a port that only the host has open: %q", got)
	}
	s.router.IP("-6 route add throw %s table 100", lan)
	s.want(lanHost, "80", "host")
	s.want(lanHost, "82", "host")
	for _, a := range addresses(unused, 20) {
		s.want(a.String(), "80", "router")
	}
	s.want("2001:db8:0:201::1", "80", "router") // its own address in the LAN, by the table local
	s.want(routerAddr, "80", "router")
}

// TestByInterfaceOrder puts the rule behind, between and before those of uplinkd: by the one with priority 1000 it prefers
// connected networks, by those from 9001 on unused space is unreachable.
func TestByInterfaceOrder(t *testing.T) {
	s := forwarding(t)
	a := addresses(unused, 3)[2].String()
	s.router.IP("-6 route add local default dev lo table 100")
	s.router.IP("-6 rule add iif wan0 lookup 100 pref 9002")
	s.want(a, "80", "unreachable")
	s.want(lanHost, "80", "host")
	s.router.IP("-6 rule add iif wan0 lookup 100 pref 1001")
	s.want(a, "80", "router")
	s.want(lanHost, "80", "host")
	s.router.IP("-6 rule add iif wan0 lookup 100 pref 999")
	s.want(a, "80", "router")
	s.want(lanHost, "80", "router")
	s.router.IP("-6 route add throw %s table 100", lan)
	s.want(lanHost, "80", "host")
	s.want(a, "80", "router")
}

// TestByInterfaceLinkLocal shows that the rule leaves alone what the link itself needs: neighbour discovery and
// link-local traffic are found in the table local, which comes first.
func TestByInterfaceLinkLocal(t *testing.T) {
	s := forwarding(t)
	s.router.IP("-6 route add local default dev lo table 100")
	s.router.IP("-6 rule add iif wan0 lookup 100 pref 999")
	s.client.IP("-6 neigh flush dev eth0")
	s.want(routerAddr, "80", "router")
	// A connection that the router opens: the answer comes in at wan0 and is for an address that the router has.
	var l net.Listener
	s.in(s.client, func() (err error) { l, err = net.Listen("tcp6", "[::]:80"); return err })
	s.serveTCP(l, "client")
	var got []byte
	s.in(s.router, func() error {
		c, err := net.DialTimeout("tcp6", net.JoinHostPort(clientAddr, "80"), limit)
		if err == nil {
			defer c.Close()
			got, err = io.ReadAll(c)
		}
		return err
	})
	if string(got) != "client "+clientAddr {
		t.Errorf("from the router: %q", got)
	}
}

// TestByMark is AnyIP by mark: only what a packet filter has marked is for the router.
func TestByMark(t *testing.T) {
	netlab.NeedProgram(t, "nft", "nftables")
	s := forwarding(t)
	s.router.IP("-6 route add local default dev lo table 100")
	s.router.IP("-6 rule add fwmark 100 lookup 100 pref 999")
	s.router.Run("nft", "add table inet anyip")
	s.router.Run("nft", "add chain inet anyip incoming { type filter hook prerouting priority mangle ; }")
	s.router.Run("nft", "add rule inet anyip incoming iifname wan0 ip6 daddr "+delegation+" tcp dport 80 meta mark set 100")
	a := addresses(unused, 3)[2].String()
	s.want(a, "80", "router")
	s.want(a, "81", "unreachable")
	s.want(lanHost, "81", "host")
	s.want(lanHost, "80", "router") // hijacked: the mark asks for a port only
	s.router.IP("-6 route add throw %s table 100", lan)
	s.want(lanHost, "80", "host")
	s.want(a, "80", "router")
}
