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
func openSocket(l kernel.Link) (conn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = setOptions(int(fd), l) }); cerr != nil {
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
func setOptions(fd int, l kernel.Link) error {
	if err := unix.BindToDevice(fd, l.Name); err != nil {
		return fmt.Errorf("SO_BINDTODEVICE: %w", err)
	}
	for _, o := range []struct {
		name               string
		level, opt, option int
	}{
		{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
		{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, // one socket per uplink
		{"IPV6_RECVPKTINFO", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
		{"IPV6_MULTICAST_IF", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, l.Index},
		{"IPV6_MULTICAST_LOOP", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.option); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	return nil
}

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

// Recv returns the next datagram that was sent to this host on this link. Source address and port do not matter: servers
// answer from other ports than 547 (opnsense/core#7527) and from global addresses (openwrt/firewall4#81).
func (s *socket) Recv() (packet, error) {
	for {
		n, noob, _, _, err := s.ReadMsgUDPAddrPort(s.buf[:], s.oob[:])
		if err != nil {
			return packet{}, err
		}
		if at := time.Now(); accept(s.oob[:noob], s.link.Index) {
			return packet{s.buf[:n], at}, nil
		}
	}
}

// accept checks the packet information of a datagram: it has come in through the interface with this index and was not
// sent to a group (RFC 9915 §16: SHOULD NOT accept).
func accept(oob []byte, index int) bool {
	var cm ipv6.ControlMessage
	if err := cm.Parse(oob); err != nil {
		return false
	}
	return cm.IfIndex == index && len(cm.Dst) == net.IPv6len && !cm.Dst.IsMulticast()
}
