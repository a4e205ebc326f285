// Package anyip is for servers and clients on a router that has whole prefixes as its own addresses (AnyIP: `ip -6 route
// add local 2001:db8:0:1::/64 dev lo table local`, or a downstream of uplinkd with kind = "service").
//
// A TCP server needs nothing: it listens on [::], and LocalAddr of a connection is the address that the client asked for.
// UDP is different: the kernel answers from the address of the outgoing interface unless told otherwise for every packet,
// and refuses to be told an address that is on no interface. ListenUDP does what is needed. Dial connects from any address
// of a prefix, and Control is the same for sockets that the caller opens.
//
// No privilege is needed, as IPV6_FREEBIND is open to everybody; IPV6_TRANSPARENT, which the manual pages recommend, needs
// CAP_NET_ADMIN or CAP_NET_RAW. The package sets up no routes, and does not check that there are any: without a local
// route nothing arrives. It is for Linux, and for IPv6 only. docs/anyip.md has the same recipe for other languages.
package anyip

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Control lets a socket be bound to, and send from, any address. It is for the Control field of net.ListenConfig and
// net.Dialer. A listener made with it may be bound to an address of a prefix that the router has not got yet.
func Control(network, address string, c syscall.RawConn) error {
	return set(c, "IPV6_FREEBIND", unix.IPV6_FREEBIND)
}

func set(c syscall.RawConn, name string, option int) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, option, 1) }); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt "+name, err)
}

// Dial connects to address, such as "[2001:db8::1]:80", from a local address that no interface needs to have. The network
// is "tcp6" or "udp6"; "tcp" and "udp" mean the same here.
func Dial(ctx context.Context, network string, from netip.Addr, address string) (net.Conn, error) {
	if !from.Is6() || from.Is4In6() {
		return nil, fmt.Errorf("dial %s from %v: not an IPv6 address", address, from)
	}
	d := net.Dialer{Control: Control}
	switch strings.TrimSuffix(network, "6") {
	case "tcp":
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	case "udp":
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	default:
		return nil, fmt.Errorf("dial %s %s from %v: %w", network, address, from, net.UnknownNetworkError(network))
	}
	return d.DialContext(ctx, strings.TrimSuffix(network, "6")+"6", address)
}

// Random returns an address of an IPv6 prefix, all with the same chance. The one with nothing but zeros behind the prefix
// is among them: it is the subnet-router anycast address (RFC 4291 §2.6.1), which is not special in a local route.
func Random(p netip.Prefix) netip.Addr {
	var a [16]byte
	_, _ = rand.Read(a[:]) // never fails, says its documentation
	fixed := p.Addr().As16()
	for i := range a {
		free := byte(0xff >> min(max(p.Bits()-i*8, 0), 8)) // bits of this byte that are behind the prefix
		a[i] = fixed[i]&^free | a[i]&free
	}
	return netip.AddrFrom16(a)
}
