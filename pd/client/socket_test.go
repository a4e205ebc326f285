package client

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
	"uplinkd/internal/netlab"
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
		c, err = openSocket(l)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// udp opens a UDP socket in n on the address.
func udp(t *testing.T, n *netlab.NS, address string) *net.UDPConn {
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

	server := udp(t, provider, "[::]:547")
	if err := ipv6.NewPacketConn(server).JoinGroup(&net.Interface{Index: isp0.Index}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(allServers, 0))); err != nil {
		t.Fatal(err)
	}
	first, second := testOpen(t, router, wan0), testOpen(t, router, wan1)

	if err := first.Send([]byte("solicit")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, from, err := server.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != "solicit" || from.Addr().WithZone("") != wan0.LinkLocal || from.Port() != clientPort {
		t.Fatalf("server got %q from %s: %v, want it from %s port %d", buf[:n], from, err, wan0.LinkLocal, clientPort)
	}

	// Multicast does not count, the packet behind it does, from whatever port it comes. wan1 hears neither.
	elsewhere := udp(t, provider, "[::]:1547")
	if err := ipv6.NewPacketConn(elsewhere).SetMulticastInterface(&net.Interface{Index: isp0.Index}); err != nil {
		t.Fatal(err)
	}
	if _, err := elsewhere.WriteToUDPAddrPort([]byte("multicast"), netip.MustParseAddrPort("[ff02::1]:546")); err != nil {
		t.Fatal(err)
	}
	if _, err := elsewhere.WriteToUDPAddrPort([]byte("reply"), from); err != nil {
		t.Fatal(err)
	}
	if p, err := first.Recv(); err != nil || string(p.data) != "reply" || p.at.IsZero() {
		t.Errorf("got %q, %v, want the reply", p.data, err)
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
	udp(t, router, "[::]:546") // an exclusive one, like that of some other clients
	for _, c := range []struct {
		link kernel.Link
		want string
	}{
		{gone, "listen on udp [::]:546 dev wan9: SO_BINDTODEVICE: no such device"},
		{wan0, "listen on udp [::]:546 dev wan0: bind: address already in use: another DHCPv6 client has it; stop that one or keep it off the interface"},
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
	err := bindError(wan0, &net.OpError{Op: "listen", Err: syscall.EACCES})
	if want := "listen on udp [::]:546 dev wan0: permission denied: run as root or with CAP_NET_BIND_SERVICE"; err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestAccept(t *testing.T) {
	info := func(index int, dst string) []byte {
		cm := ipv6.ControlMessage{IfIndex: index, Src: net.ParseIP(dst)} // Marshal puts Src where Parse finds Dst
		return cm.Marshal()
	}
	for _, c := range []struct {
		name string
		oob  []byte
		want bool
	}{
		{"unicast", info(4, "fe80::1"), true},
		{"another interface", info(5, "fe80::1"), false},
		{"multicast", info(4, "ff02::1"), false},
		{"nothing", nil, false},
		{"cut short", info(4, "fe80::1")[:unix.SizeofCmsghdr+4], false},
	} {
		if got := accept(c.oob, 4); got != c.want {
			t.Errorf("%s: accepted %v, want %v", c.name, got, c.want)
		}
	}
}
