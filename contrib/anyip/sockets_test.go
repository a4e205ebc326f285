package anyip

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

const plain = 0 // no option

// asked is where the client of these tests sends its question to.
var asked = netip.MustParseAddrPort("[2001:db8:0:100:1:2:3:4]:5353")

// sockets is what docs/anyip.md says about UDP sockets, a line each: how a socket is prepared, and from where the kernel
// then sends an answer to what came for an address of a local route.
var sockets = []struct {
	name         string
	option       int  // IPV6_...
	sysctl       bool // net.ipv6.ip_nonlocal_bind=1
	bound        bool // to the address, else to [::]
	info         bool // the answer is sent with IPV6_PKTINFO
	unprivileged bool
	setsockopt   error // from setsockopt
	bind, send   error
	source       string // of the answer
}{
	{name: "wildcard", source: routerAddr},
	{name: "wildcard, IPV6_TRANSPARENT", option: unix.IPV6_TRANSPARENT, source: routerAddr},
	{name: "wildcard, IPV6_FREEBIND", option: unix.IPV6_FREEBIND, source: routerAddr},
	{name: "wildcard, ip_nonlocal_bind", sysctl: true, source: routerAddr},
	{name: "wildcard, IPV6_PKTINFO", info: true, send: unix.EINVAL},
	{name: "wildcard, IPV6_TRANSPARENT, IPV6_PKTINFO", option: unix.IPV6_TRANSPARENT, info: true, source: asked.Addr().String()},
	{name: "wildcard, IPV6_FREEBIND, IPV6_PKTINFO", option: unix.IPV6_FREEBIND, info: true, source: asked.Addr().String()},
	{name: "wildcard, ip_nonlocal_bind, IPV6_PKTINFO", sysctl: true, info: true, source: asked.Addr().String()},
	{name: "bound", bound: true, bind: unix.EADDRNOTAVAIL},
	{name: "bound, IPV6_TRANSPARENT", option: unix.IPV6_TRANSPARENT, bound: true, source: asked.Addr().String()},
	{name: "bound, IPV6_FREEBIND", option: unix.IPV6_FREEBIND, bound: true, source: asked.Addr().String()},
	{name: "bound, ip_nonlocal_bind", sysctl: true, bound: true, source: asked.Addr().String()},
	{name: "unprivileged, IPV6_TRANSPARENT", unprivileged: true, option: unix.IPV6_TRANSPARENT, setsockopt: unix.EPERM},
	{name: "unprivileged, wildcard, IPV6_FREEBIND, IPV6_PKTINFO", unprivileged: true, option: unix.IPV6_FREEBIND, info: true, source: asked.Addr().String()},
	{name: "unprivileged, bound, IPV6_FREEBIND", unprivileged: true, option: unix.IPV6_FREEBIND, bound: true, source: asked.Addr().String()},
}

// TestSockets shows that the recipe for UDP servers is what the kernel does, the wrong ways included: a later kernel that
// makes one of them right is worth knowing of.
func TestSockets(t *testing.T) {
	s := newSite(t)
	s.router.IP(byService)
	for _, c := range sockets {
		t.Run(c.name, func(t *testing.T) {
			s.router.Sysctl("net.ipv6.ip_nonlocal_bind", map[bool]string{false: "0", true: "1"}[c.sysctl])
			var server int
			s.in(s.router, func() error {
				if c.unprivileged {
					if err := unprivileged(); err != nil {
						return os.NewSyscallError("capset", err)
					}
				}
				var err error
				server, err = open(c.option)
				if !errors.Is(err, c.setsockopt) {
					t.Errorf("setsockopt: %v, want %v", err, c.setsockopt)
				}
				to := netip.AddrPortFrom(netip.IPv6Unspecified(), asked.Port())
				if c.bound {
					to = asked
				}
				err = bind(server, to)
				for range 200 { // a program that another test is starting may have the last socket until it is executed
					if !errors.Is(err, unix.EADDRINUSE) {
						break
					}
					time.Sleep(10 * time.Millisecond)
					err = bind(server, to)
				}
				if !errors.Is(err, c.bind) {
					t.Errorf("bind %v: %v, want %v", to, err, c.bind)
				}
				return nil
			})
			defer unix.Close(server)
			if c.setsockopt == nil && c.bind == nil {
				s.ask(t, server, c.info, c.send, c.source)
			}
		})
	}
}

// ask sends a question to the server's socket, answers it there, and compares the source of the answer.
func (s *site) ask(t *testing.T, server int, info bool, want error, source string) {
	t.Helper()
	var client int
	s.in(s.client, func() (err error) { client, err = open(plain); return err })
	defer unix.Close(client)
	if err := unix.Sendto(client, []byte("question"), 0, socketAddress(asked)); err != nil {
		t.Fatalf("send to %v: %v", asked, err)
	}
	var b [64]byte
	_, from, err := unix.Recvfrom(server, b[:], 0)
	if err != nil {
		t.Fatalf("receive the question: %v", err)
	}
	var oob []byte
	if info {
		oob = (&ipv6.ControlMessage{Src: asked.Addr().AsSlice()}).Marshal()
	}
	if err := unix.Sendmsg(server, []byte("answer"), oob, from, 0); !errors.Is(err, want) {
		t.Errorf("send the answer: %v, want %v", err, want)
	}
	if want != nil {
		return
	}
	_, from, err = unix.Recvfrom(client, b[:], 0)
	if err != nil {
		t.Fatalf("receive the answer: %v", err)
	}
	if got := netip.AddrFrom16(from.(*unix.SockaddrInet6).Addr).String(); got != source {
		t.Errorf("the answer came from %s, want %s", got, source)
	}
}

// open returns a UDP socket with an option, which gives up receiving after a while.
func open(option int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	timeout := unix.NsecToTimeval(limit.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return fd, err
	}
	if option == plain {
		return fd, nil
	}
	return fd, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, option, 1)
}

func bind(fd int, a netip.AddrPort) error { return unix.Bind(fd, socketAddress(a)) }

func socketAddress(a netip.AddrPort) *unix.SockaddrInet6 {
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}
