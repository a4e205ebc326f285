package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

// UDP ports of DHCPv6 (RFC 9915 §7.2).
const (
	clientPort = 546
	serverPort = 547
)

// allServers is All_DHCP_Relay_Agents_and_Servers (RFC 9915 §7.1).
var allServers = netip.MustParseAddr("ff02::1:2")

// packet is one received datagram. data is valid until the next Recv.
type packet struct {
	data []byte
	at   time.Time // when it was read
	from netip.AddrPort
	to   netip.Addr // an address of ours or a group
}

// conn is what the client needs of a socket on one link. Close ends a Recv that is waiting.
type conn interface {
	Send([]byte) error
	Recv() (packet, error)
	Close() error
}

// socket is the conn of the real world: UDP port 546 on one interface.
type socket struct {
	*net.UDPConn
	link kernel.Link
	buf  [65536]byte // a datagram is never longer
	oob  [128]byte
}

// openSocket binds port 546 on l. It binds the unspecified address and the device: binding the link-local address fails
// while it is tentative, and would end with it (systemd#3264, odhcp6c#55).
func openSocket(l kernel.Link, dscp uint8, priority int) (conn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = setOptions(int(fd), l, dscp, priority) }); cerr != nil {
			return cerr
		}
		return err
	}}
	c, err := lc.ListenPacket(context.Background(), "udp6", netip.AddrPortFrom(netip.IPv6Unspecified(), clientPort).String())
	if err != nil {
		return nil, bindError(l, err)
	}
	return &socket{UDPConn: c.(*net.UDPConn), link: l}, nil
}

// setOptions runs before bind, so that no packet of another interface can get into the queue.
func setOptions(fd int, l kernel.Link, dscp uint8, priority int) error {
	if err := unix.BindToDevice(fd, l.Name); err != nil {
		return fmt.Errorf("SO_BINDTODEVICE: %w", err)
	}
	options := []socketOption{
		{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
		{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, // one socket per uplink
		{"IPV6_RECVPKTINFO", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
		{"IPV6_MULTICAST_IF", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, l.Index},
		{"IPV6_MULTICAST_LOOP", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0},
	}
	if dscp != 0 {
		options = append(options, socketOption{"IPV6_TCLASS", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, int(dscp) << 2})
	}
	if priority != 0 {
		options = append(options, socketOption{"SO_PRIORITY", unix.SOL_SOCKET, unix.SO_PRIORITY, priority})
	}
	for _, o := range options {
		err := unix.SetsockoptInt(fd, o.level, o.option, o.value)
		if o.option == unix.SO_PRIORITY && o.level == unix.SOL_SOCKET && errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%w %d", errPriority, priority)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	return nil
}

type socketOption struct {
	name                 string
	level, option, value int
}

// errPriority is what SO_PRIORITY above 6 gives without CAP_NET_ADMIN (socket(7)).
var errPriority = errors.New("socket priority above 6 needs CAP_NET_ADMIN: SO_PRIORITY")

func bindError(l kernel.Link, err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		hint = ": run as root or with CAP_NET_BIND_SERVICE"
	case errors.Is(err, unix.EADDRINUSE):
		hint = ": another DHCPv6 client has it; stop that one or keep it off the interface"
	}
	return fmt.Errorf("listen on udp [::]:%d dev %s: %w%s", clientPort, l.Name, plain(err), hint)
}

// plain drops what package net puts before an error: operation and addresses, which the caller says better.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// Send multicasts to all servers on the link. The zone is left out, the socket has it.
func (s *socket) Send(b []byte) error {
	_, err := s.WriteToUDPAddrPort(b, netip.AddrPortFrom(allServers, serverPort))
	return err
}

// Recv returns the next datagram that has come in through this link. Source address and port do not matter: servers answer
// from other ports than 547 (opnsense/core#7527) and from global addresses (openwrt/firewall4#81).
func (s *socket) Recv() (packet, error) {
	for {
		n, noob, _, from, err := s.ReadMsgUDPAddrPort(s.buf[:], s.oob[:])
		if err != nil {
			return packet{}, err
		}
		at := time.Now()
		if to, ok := destination(s.oob[:noob], s.link.Index); ok {
			from = netip.AddrPortFrom(from.Addr().WithZone(""), from.Port())
			return packet{s.buf[:n], at, from, to}, nil
		}
	}
}

// destination is where a datagram was sent to, which may be a group: the kernel gives a socket that is bound to no address
// what arrives for any group that the host is in, such as ff02::1. ok is false for those of other interfaces.
func destination(oob []byte, index int) (to netip.Addr, ok bool) {
	var cm ipv6.ControlMessage
	if err := cm.Parse(oob); err != nil || cm.IfIndex != index || len(cm.Dst) != net.IPv6len {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(cm.Dst)), true
}
