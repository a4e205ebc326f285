package client

import (
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
	"uplinkd/pd/udp"
)

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
	index int
	buf   [65536]byte // a datagram is never longer
	oob   [128]byte
}

// openSocket opens a socket whose messages have the DSCP and the socket priority.
func openSocket(l kernel.Link, dscp uint8, priority int) (conn, error) {
	options := []udp.Option{
		{Name: "IPV6_MULTICAST_IF", Level: unix.IPPROTO_IPV6, Option: unix.IPV6_MULTICAST_IF, Value: l.Index},
		{Name: "IPV6_MULTICAST_LOOP", Level: unix.IPPROTO_IPV6, Option: unix.IPV6_MULTICAST_LOOP, Value: 0},
	}
	if dscp != 0 {
		options = append(options, udp.Option{Name: "IPV6_TCLASS", Level: unix.IPPROTO_IPV6, Option: unix.IPV6_TCLASS, Value: int(dscp) << 2})
	}
	if priority != 0 {
		options = append(options, udp.Option{Name: "SO_PRIORITY", Level: unix.SOL_SOCKET, Option: unix.SO_PRIORITY, Value: priority})
	}
	c, err := udp.Listen(l, udp.ClientPort, options...)
	if err != nil {
		return nil, err
	}
	return &socket{UDPConn: c, index: l.Index}, nil
}

// Send multicasts to all servers on the link. The zone is left out, the socket has it.
func (s *socket) Send(b []byte) error {
	_, err := s.WriteToUDPAddrPort(b, netip.AddrPortFrom(udp.AllServers, udp.ServerPort))
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
		if to, ok := udp.Destination(s.oob[:noob], s.index); ok {
			from = netip.AddrPortFrom(from.Addr().WithZone(""), from.Port())
			return packet{s.buf[:n], at, from, to}, nil
		}
	}
}
