package anyip

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listenUDP opens an unprivileged UDPConn on the router that answers each packet with the address that it was sent to.
func (s *site) listenUDP(address string) *UDPConn {
	s.t.Helper()
	var conn *UDPConn
	s.in(s.router, func() (err error) {
		if err := unprivileged(); err != nil {
			return err
		}
		conn, err = ListenUDP(context.Background(), address)
		return err
	})
	s.t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			_, from, to, err := conn.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, err = conn.WriteTo([]byte(to.String()), from, to)
			}
			if err != nil {
				s.t.Errorf("server: %v", err)
			}
		}
	}()
	return conn
}

// TestUDP asks many addresses by connected sockets, which take an answer from no other address.
func TestUDP(t *testing.T) {
	s := newSite(t)
	s.router.IP(byService)
	conn := s.listenUDP("[::]:5353")
	if got := conn.LocalAddr().Port(); got != 5353 {
		t.Errorf("LocalAddr has port %d", got)
	}
	for _, a := range append(addresses(service, 100), netip.MustParseAddr(routerAddr)) {
		var c net.Conn
		s.in(s.client, func() (err error) { c, err = net.Dial("udp6", net.JoinHostPort(a.String(), "5353")); return err })
		_ = c.SetDeadline(time.Now().Add(limit))
		b := make([]byte, 100)
		_, err := c.Write([]byte("who are you?"))
		n := 0
		if err == nil {
			n, err = c.Read(b)
		}
		if got := string(b[:n]); got != a.String() || err != nil {
			t.Errorf("asked %v, answer from there: %q, %v", a, got, err)
		}
		_ = c.Close()
	}
}

// TestUDPOnLink asks where AnyIP plays no part, but a server on [::] is asked too: link-local addresses, which mean
// nothing without their interface, and multicast, which must not become the source of an answer.
func TestUDPOnLink(t *testing.T) {
	s := newSite(t)
	s.listenUDP("[::]:5353")
	ll := s.router.LinkLocal("wan0").String()
	s.client.LinkLocal("eth0")
	var client net.PacketConn
	index := 0
	s.in(s.client, func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		index = ifi.Index
		client, err = net.ListenPacket("udp6", "[::]:0")
		return err
	})
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(limit))
	for _, to := range []string{ll, "ff02::1"} {
		b := make([]byte, 100)
		_, err := client.WriteTo([]byte("?"), &net.UDPAddr{IP: net.ParseIP(to), Port: 5353, Zone: strconv.Itoa(index)})
		if err != nil {
			t.Fatalf("send to %s: %v", to, err)
		}
		n, from, err := client.ReadFrom(b)
		if err != nil {
			t.Fatalf("answer of %s: %v", to, err)
		}
		if got := from.(*net.UDPAddr).IP.String(); got != ll || !strings.HasPrefix(string(b[:n]), to+"%") {
			t.Errorf("asked %s, answer %q from %s, want it from %s", to, b[:n], got, ll)
		}
	}
}

// TestDial connects from many addresses of the prefix without privileges: the other side sees them, and answers arrive.
func TestDial(t *testing.T) {
	s := newSite(t)
	s.router.IP(byService)
	var l net.Listener
	var u net.PacketConn
	s.in(s.client, func() (err error) {
		if l, err = net.Listen("tcp6", "[::]:80"); err == nil {
			u, err = net.ListenPacket("udp6", "[::]:80")
		}
		return err
	})
	defer l.Close()
	defer u.Close()
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			_, _ = io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
			_ = c.Close()
		}
	}()
	go func() {
		b := make([]byte, 100)
		for _, from, err := u.ReadFrom(b); err == nil; _, from, err = u.ReadFrom(b) {
			_, _ = u.WriteTo([]byte(from.(*net.UDPAddr).IP.String()), from)
		}
	}()
	for _, network := range []string{"tcp", "udp6"} {
		for _, a := range addresses(service, 20)[2:] {
			var got string
			s.in(s.router, func() error {
				if err := unprivileged(); err != nil {
					return err
				}
				c, err := Dial(t.Context(), network, a, net.JoinHostPort(clientAddr, "80"))
				if err != nil {
					return err
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(limit))
				if network == "udp6" {
					_, _ = c.Write([]byte("who am I?"))
				}
				b := make([]byte, 100)
				n, err := c.Read(b)
				got = string(b[:n])
				return err
			})
			if got != a.String() {
				t.Errorf("%s from %v arrived from %s", network, a, got)
			}
		}
	}
}

func TestDialRefuses(t *testing.T) {
	ctx := context.Background()
	for _, from := range []netip.Addr{{}, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1")} {
		if _, err := Dial(ctx, "tcp", from, "[2001:db8::1]:80"); err == nil || !strings.Contains(err.Error(), "not an IPv6 address") {
			t.Errorf("from %v: %v", from, err)
		}
	}
	if _, err := Dial(ctx, "unix", netip.IPv6Loopback(), "/x"); !errors.As(err, new(net.UnknownNetworkError)) {
		t.Errorf("network unix: %v", err)
	}
}

// TestListenEarly binds servers to one address of a prefix that nobody has yet. They answer as soon as it is there.
func TestListenEarly(t *testing.T) {
	s := newSite(t)
	a := asked.Addr().String()
	var l net.Listener
	s.in(s.router, func() (err error) {
		if _, err := net.Listen("tcp6", net.JoinHostPort(a, "80")); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Errorf("without Control: %v, want %v", err, unix.EADDRNOTAVAIL)
		}
		lc := net.ListenConfig{Control: Control}
		l, err = lc.Listen(t.Context(), "tcp6", net.JoinHostPort(a, "80"))
		return err
	})
	s.serveTCP(l, "early")
	s.listenUDP(asked.String())
	s.router.IP(byService)
	if got := s.askTCP(a, "80"); got != "early "+a {
		t.Errorf("answer: %q", got)
	}
}

// TestListenUDPControl hands options to the socket before it is bound: two sockets share a port by SO_REUSEPORT.
func TestListenUDPControl(t *testing.T) {
	s := newSite(t)
	reusePort := func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); e != nil {
			return e
		}
		return err
	}
	s.in(s.router, func() error {
		for range 2 {
			c, err := ListenUDP(t.Context(), "[::]:53", reusePort)
			if err != nil {
				return err
			}
			defer c.Close()
		}
		if _, err := ListenUDP(t.Context(), "[::]:53"); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("without SO_REUSEPORT: %v, want %v", err, unix.EADDRINUSE)
		}
		refused := errors.New("refused")
		if _, err := ListenUDP(t.Context(), "[::]:54", func(string, string, syscall.RawConn) error { return refused }); !errors.Is(err, refused) {
			t.Errorf("control that fails: %v", err)
		}
		return nil
	})
}

// TestRandom looks at the bits: those of the prefix stay, all others are seen as 0 and as 1.
func TestRandom(t *testing.T) {
	for _, text := range []string{"2001:db8::/32", "2001:db8:0:100::/64", "2001:db8:0:100:8000::/65", "2001:db8::7/128", "fd00::/7"} {
		p := netip.MustParsePrefix(text)
		var ones, zeros [16]byte
		for range 200 {
			a := Random(p)
			if !p.Contains(a) {
				t.Fatalf("%v is not in %v", a, p)
			}
			for i, b := range a.As16() {
				ones[i] |= b
				zeros[i] |= ^b
			}
		}
		for i := p.Bits(); i < 128; i++ {
			if bit := byte(0x80 >> (i % 8)); ones[i/8]&zeros[i/8]&bit == 0 {
				t.Errorf("%v: bit %d never changes", p, i)
			}
		}
	}
}
