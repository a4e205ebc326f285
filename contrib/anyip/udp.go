package anyip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// UDPConn is an unconnected UDP socket for which the local address is a property of each packet. Its methods may be
// called from several goroutines at once.
type UDPConn struct{ conn *net.UDPConn }

// ListenUDP opens a UDP socket on address, usually "[::]:53". It receives what is for any address of this machine. Each
// control sets further options before the socket is bound: SO_REUSEPORT for several sockets, SO_BINDTODEVICE for one
// interface.
func ListenUDP(ctx context.Context, address string, control ...func(network, address string, c syscall.RawConn) error) (*UDPConn, error) {
	lc := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		if err := Control(network, address, c); err != nil {
			return err
		}
		// Before bind, so that no packet comes without its destination.
		if err := set(c, "IPV6_RECVPKTINFO", unix.IPV6_RECVPKTINFO); err != nil {
			return err
		}
		for _, f := range control {
			if err := f(network, address, c); err != nil {
				return err
			}
		}
		return nil
	}}
	conn, err := lc.ListenPacket(ctx, "udp6", address)
	if err != nil {
		return nil, err
	}
	return &UDPConn{conn.(*net.UDPConn)}, nil
}

// ReadFrom receives a packet: from is the sender, to the address that it was sent to. to has a zone (the number of the
// interface) where it is link-local, and may be multicast.
func (c *UDPConn) ReadFrom(b []byte) (n int, from netip.AddrPort, to netip.Addr, err error) {
	// Room for more than PKTINFO: options that the caller has set bring control messages too.
	var oob [256]byte
	n, oobn, flags, from, err := c.conn.ReadMsgUDPAddrPort(b, oob[:])
	if err != nil {
		return 0, netip.AddrPort{}, netip.Addr{}, err
	}
	var m ipv6.ControlMessage
	parseErr := m.Parse(oob[:oobn])
	to, ok := netip.AddrFromSlice(m.Dst)
	if parseErr != nil || flags&unix.MSG_CTRUNC != 0 || !ok {
		return n, from, netip.Addr{}, fmt.Errorf("receive from %v: no IPV6_PKTINFO among the control messages", from)
	}
	if to.IsLinkLocalUnicast() || to.IsLinkLocalMulticast() {
		to = to.WithZone(strconv.Itoa(m.IfIndex))
	}
	return n, from, to, nil
}

// WriteTo sends a packet to an address from another one: for an answer, those that ReadFrom gave. An answer to multicast
// gets the source address that the kernel chooses, and so does from = netip.Addr{}.
func (c *UDPConn) WriteTo(b []byte, to netip.AddrPort, from netip.Addr) (int, error) {
	var oob []byte
	if from.IsValid() && !from.IsMulticast() && !from.IsUnspecified() {
		m := ipv6.ControlMessage{Src: from.AsSlice()}
		if from.Zone() != "" {
			index, err := strconv.Atoi(from.Zone())
			if err != nil {
				return 0, fmt.Errorf("send to %v from %v: the zone is not the number of an interface", to, from)
			}
			m.IfIndex = index // else 0: routes decide on the interface, which need not be the one of the question
		}
		oob = m.Marshal()
	}
	n, _, err := c.conn.WriteMsgUDPAddrPort(b, oob, to)
	return n, err
}

// LocalAddr is what the socket is bound to.
func (c *UDPConn) LocalAddr() netip.AddrPort { return c.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// SetDeadline bounds reads and writes as net.Conn describes.
func (c *UDPConn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// SyscallConn gives access to the socket for further options.
func (c *UDPConn) SyscallConn() (syscall.RawConn, error) { return c.conn.SyscallConn() }

// Close closes the socket and ends calls that wait.
func (c *UDPConn) Close() error { return c.conn.Close() }
