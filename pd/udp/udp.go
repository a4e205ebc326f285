// Package udp opens the UDP sockets of DHCPv6, each for one interface: client and server have the same to get right before
// the first packet. It knows no messages.
package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

// UDP ports of DHCPv6 (RFC 9915 §7.2).
const (
	ClientPort = 546
	ServerPort = 547
)

// AllServers is All_DHCP_Relay_Agents_and_Servers (RFC 9915 §7.1).
var AllServers = netip.MustParseAddr("ff02::1:2")

// Option is a socket option with its name for error messages.
type Option struct {
	Name                 string
	Level, Option, Value int
}

// Listen binds a port on l. It binds the unspecified address and the device: binding the link-local address fails while it is
// tentative, and would end with it (systemd#3264, odhcp6c#55).
func Listen(l kernel.Link, port uint16, more ...Option) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = setOptions(int(fd), l, more) }); cerr != nil {
			return cerr
		}
		return err
	}}
	c, err := lc.ListenPacket(context.Background(), "udp6", netip.AddrPortFrom(netip.IPv6Unspecified(), port).String())
	if err != nil {
		return nil, bindError(l, port, err)
	}
	return c.(*net.UDPConn), nil
}

// setOptions runs before bind, so that no packet of another interface can get into the queue.
func setOptions(fd int, l kernel.Link, more []Option) error {
	if err := unix.BindToDevice(fd, l.Name); err != nil {
		return fmt.Errorf("SO_BINDTODEVICE: %w", err)
	}
	for _, o := range append([]Option{
		{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
		{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, // one socket per interface
		{"IPV6_RECVPKTINFO", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
	}, more...) {
		if err := unix.SetsockoptInt(fd, o.Level, o.Option, o.Value); err != nil {
			return optionError(o, err)
		}
	}
	return nil
}

// optionError hides the EPERM of SO_PRIORITY from bindError, whose hint is about another capability.
func optionError(o Option, err error) error {
	if o.Level == unix.SOL_SOCKET && o.Option == unix.SO_PRIORITY && errors.Is(err, unix.EPERM) { // socket(7)
		return fmt.Errorf("socket priority above 6 needs CAP_NET_ADMIN: %s %d", o.Name, o.Value)
	}
	return fmt.Errorf("%s: %w", o.Name, err)
}

func bindError(l kernel.Link, port uint16, err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		hint = ": run as root or with CAP_NET_BIND_SERVICE"
	case errors.Is(err, unix.EADDRINUSE):
		rival := map[uint16]string{ClientPort: "client", ServerPort: "server"}[port]
		hint = ": another DHCPv6 " + rival + " has it; stop that one or keep it off the interface"
	}
	return fmt.Errorf("listen on udp [::]:%d dev %s: %w%s", port, l.Name, Plain(err), hint)
}

// Plain drops what package net puts before an error: operation and addresses, which the caller says better.
func Plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// Destination is where a datagram was sent to, which may be a group: the kernel gives a socket that is bound to no address
// what arrives for any group that the host is in, such as ff02::1. ok is false for those of other interfaces.
func Destination(oob []byte, index int) (to netip.Addr, ok bool) {
	var cm ipv6.ControlMessage
	if err := cm.Parse(oob); err != nil || cm.IfIndex != index || len(cm.Dst) != net.IPv6len {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(cm.Dst)), true
}
