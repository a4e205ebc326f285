package server

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv6"

	"uplinkd/internal/kernel"
	"uplinkd/internal/netlab"
	"uplinkd/pd/udp"
)

func open(t *testing.T, n *netlab.NS, l kernel.Link) conn {
	t.Helper()
	var c conn
	if err := n.Do(func() (err error) {
		c, err = openSocket(l)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

// plainUDP opens a plain UDP socket in n that sends multicast through dev.
func plainUDP(t *testing.T, n *netlab.NS, address, dev string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	index := linkOf(t, n, dev).Index
	if err := n.Do(func() (err error) {
		if c, err = net.ListenUDP("udp6", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address))); err != nil {
			return err
		}
		return ipv6.NewPacketConn(c).SetMulticastInterface(&net.Interface{Index: index})
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSocket wants what was sent to all servers from a link-local address of this link, and nothing else: not what was sent
// to the router's addresses or to another group it is in, from a global address, too long, or on another downstream.
func TestSocket(t *testing.T) {
	lab := netlab.New(t)
	router, hosts := lab.NS("router"), lab.NS("hosts")
	for _, n := range []*netlab.NS{router, hosts} {
		n.Sysctl("net.ipv6.conf.all.accept_dad", "0")
		n.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	}
	lab.Veth(router, "lan0", hosts, "eth0")
	lab.Veth(router, "lan1", hosts, "eth1")
	router.IP("-6 addr add 2001:db8::1/64 dev lan0")
	hosts.IP("-6 addr add 2001:db8::2/64 dev eth0")
	lan0 := linkOf(t, router, "lan0")
	c := open(t, router, lan0)
	other := open(t, router, linkOf(t, router, "lan1"))

	send := func(from *net.UDPConn, to, text string) {
		t.Helper()
		if _, err := from.WriteToUDPAddrPort([]byte(text), netip.MustParseAddrPort(to)); err != nil {
			t.Fatalf("send %.20q to %s: %v", text, to, err)
		}
	}
	eth0 := plainUDP(t, hosts, "[::]:1546", "eth0") // any source port will do (RFC 9915 §7.2)
	global := plainUDP(t, hosts, "[2001:db8::2]:1548", "eth0")
	send(eth0, "[2001:db8::1]:547", "unicast")
	send(eth0, "[ff02::1]:547", "all nodes")
	send(global, "[ff02::1:2]:547", "global source")
	send(plainUDP(t, hosts, "[::]:1547", "eth1"), "[ff02::1:2]:547", "lan1")
	send(eth0, "[ff02::1:2]:547", strings.Repeat("x", maxDatagram+1))
	send(eth0, "[ff02::1:2]:547", "solicit")
	from := linkOf(t, hosts, "eth0").LinkLocal
	if data, src, err := c.Recv(); err != nil || string(data) != "solicit" || src != from {
		t.Fatalf("got %.40q from %s, %v, want \"solicit\" from %s", data, src, err, from)
	}
	if data, _, err := other.Recv(); err != nil || string(data) != "lan1" {
		t.Errorf("lan1 got %.40q, %v", data, err)
	}

	client := plainUDP(t, hosts, "[::]:546", "eth0")
	if err := c.Send([]byte("reply"), from); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, src, err := client.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != "reply" || src.Addr().WithZone("") != lan0.LinkLocal || src.Port() != udp.ServerPort {
		t.Errorf("client got %q from %s, %v, want it from %s port 547", buf[:n], src, err, lan0.LinkLocal)
	}
	go func() { _ = other.Close() }()
	if data, _, err := other.Recv(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %q, %v, want nothing until it is closed", data, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestSocketErrors(t *testing.T) {
	lab := netlab.New(t)
	router := lab.NS("router")
	lab.Veth(router, "lan0", lab.NS("hosts"), "eth0")
	lan0 := linkOf(t, router, "lan0")
	plainUDP(t, router, "[::]:547", "lan0") // an exclusive one, like that of some other servers
	for _, c := range []struct {
		link kernel.Link
		want string
	}{
		{kernel.Link{Name: "lan9", Index: 99}, "listen on udp [::]:547 dev lan9: SO_BINDTODEVICE: no such device"},
		{lan0, "listen on udp [::]:547 dev lan0: bind: address already in use: another DHCPv6 server has it; stop that one or keep it off the interface"},
	} {
		err := router.Do(func() error {
			opened, err := openSocket(c.link)
			if err == nil {
				err = opened.Close()
			}
			return err
		})
		if err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// TestMembership wants the group to be left with the socket, and to be joined again by the next one, over a link that goes
// down and comes up again.
func TestMembership(t *testing.T) {
	s := newSite(t, told)
	joined := func(want bool) {
		t.Helper()
		netlab.Eventually(t, patience, "the membership of ff02::1:2", func() (bool, string) {
			out := s.router.IP("-6 maddr show dev tr0")
			return slices.Contains(strings.Fields(out), udp.AllServers.String()) == want, out
		})
	}
	joined(true)
	link := linkOf(t, s.router, "tr0")
	s.router.IP("link set tr0 down")
	s.server.SetLink(kernel.Link{Name: link.Name, Index: link.Index})
	joined(false)
	s.router.IP("link set tr0 up")
	s.server.SetLink(linkOf(t, s.router, "tr0"))
	joined(true)
	s.server.Set(Service{})
	joined(false)
}
