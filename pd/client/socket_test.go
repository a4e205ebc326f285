package client

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
	"uplinkd/internal/netlab"
	"uplinkd/pd/udp"
)

func TestMain(m *testing.M) { netlab.TestMain(m) }

// testLink returns the facts about an interface of n as a reader of the kernel would.
func testLink(t *testing.T, n *netlab.NS, name string) kernel.Link {
	t.Helper()
	l := kernel.Link{Name: name, Up: true, Carrier: true, LinkLocal: n.LinkLocal(name)}
	if err := n.Do(func() error {
		i, err := net.InterfaceByName(name)
		if err == nil {
			l.Index = i.Index
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return l
}

func testOpen(t *testing.T, n *netlab.NS, l kernel.Link) conn {
	t.Helper()
	var c conn
	if err := n.Do(func() (err error) {
		c, err = openSocket(l, 46, 6)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// plainUDP opens a UDP socket in n on the address.
func plainUDP(t *testing.T, n *netlab.NS, address string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	if err := n.Do(func() (err error) {
		c, err = net.ListenUDP("udp6", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSocket talks to a plain UDP socket at the other end of a wire; two uplinks of the router share port 546.
func TestSocket(t *testing.T) {
	lab := netlab.New(t)
	router, provider := lab.NS("router"), lab.NS("provider")
	lab.Veth(router, "wan0", provider, "isp0")
	lab.Veth(router, "wan1", provider, "isp1")
	wan0, wan1 := testLink(t, router, "wan0"), testLink(t, router, "wan1")
	isp0 := testLink(t, provider, "isp0")

	server := plainUDP(t, provider, "[::]:547")
	if err := ipv6.NewPacketConn(server).JoinGroup(&net.Interface{Index: isp0.Index}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(udp.AllServers, 0))); err != nil {
		t.Fatal(err)
	}
	first, second := testOpen(t, router, wan0), testOpen(t, router, wan1)

	if err := first.Send([]byte("solicit")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, from, err := server.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != "solicit" || from.Addr().WithZone("") != wan0.LinkLocal || from.Port() != udp.ClientPort {
		t.Fatalf("server got %q from %s: %v, want it from %s port %d", buf[:n], from, err, wan0.LinkLocal, udp.ClientPort)
	}

	// Multicast is told from unicast, and the source port does not matter. wan1 hears neither.
	elsewhere := plainUDP(t, provider, "[::]:1547")
	if err := ipv6.NewPacketConn(elsewhere).SetMulticastInterface(&net.Interface{Index: isp0.Index}); err != nil {
		t.Fatal(err)
	}
	if _, err := elsewhere.WriteToUDPAddrPort([]byte("multicast"), netip.MustParseAddrPort("[ff02::1]:546")); err != nil {
		t.Fatal(err)
	}
	if _, err := elsewhere.WriteToUDPAddrPort([]byte("reply"), from); err != nil {
		t.Fatal(err)
	}
	source := netip.AddrPortFrom(isp0.LinkLocal, 1547)
	for _, want := range []packet{
		{data: []byte("multicast"), from: source, to: netip.MustParseAddr("ff02::1")},
		{data: []byte("reply"), from: source, to: wan0.LinkLocal},
	} {
		if p, err := first.Recv(); err != nil || string(p.data) != string(want.data) || p.at.IsZero() || p.from != want.from || p.to != want.to {
			t.Errorf("got %q from %s to %s, %v, want %+v", p.data, p.from, p.to, err, want)
		}
	}
	go func() { second.Close() }()
	if p, err := second.Recv(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("wan1 got %q, %v, want nothing until it is closed", p.data, err)
	}
}

func TestSocketErrors(t *testing.T) {
	lab := netlab.New(t)
	router, provider := lab.NS("router"), lab.NS("provider")
	lab.Veth(router, "wan0", provider, "isp0")
	wan0 := testLink(t, router, "wan0")
	gone := kernel.Link{Name: "wan9", Index: 99}
	plainUDP(t, router, "[::]:546") // an exclusive one, like that of some other clients
	for _, c := range []struct {
		link kernel.Link
		want string
	}{
		{gone, "listen on udp [::]:546 dev wan9: SO_BINDTODEVICE: no such device"},
		{wan0, "listen on udp [::]:546 dev wan0: bind: address already in use: another DHCPv6 client has it; stop that one or keep it off the interface"},
	} {
		err := router.Do(func() error {
			opened, err := openSocket(c.link, 0, 0)
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

// TestMarks looks at the traffic class on the wire; the priority can be seen only on the socket.
func TestMarks(t *testing.T) {
	lab := netlab.New(t)
	router, provider := lab.NS("router"), lab.NS("provider")
	lab.Veth(router, "wan0", provider, "isp0")
	isp0 := testLink(t, provider, "isp0")
	server := ipv6.NewPacketConn(plainUDP(t, provider, "[::]:547"))
	if err := server.JoinGroup(&net.Interface{Index: isp0.Index}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(udp.AllServers, 0))); err != nil {
		t.Fatal(err)
	}
	if err := server.SetControlMessage(ipv6.FlagTrafficClass, true); err != nil {
		t.Fatal(err)
	}
	c := testOpen(t, router, testLink(t, router, "wan0")).(*socket)
	if err := c.Send([]byte("solicit")); err != nil {
		t.Fatal(err)
	}
	_, cm, _, err := server.ReadFrom(make([]byte, 100))
	if err != nil || cm.TrafficClass != 46<<2 {
		t.Errorf("traffic class of %+v, %v, want DSCP 46", cm, err)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	priority := 0
	if err := errors.Join(raw.Control(func(fd uintptr) {
		priority, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY)
	}), err); err != nil || priority != 6 {
		t.Errorf("priority %d, %v, want 6", priority, err)
	}
}
