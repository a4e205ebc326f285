package server

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

// maxDatagram is the longest message that is looked at; a client's stays below 1500.
const maxDatagram = 4096

// conn is what a Server needs of a socket on one link. Close ends a Recv that is waiting.
type conn interface {
	// Recv returns the next message that was sent to all servers. data is valid until the next Recv.
	Recv() (data []byte, from netip.Addr, err error)
	// Send sends to the port of clients.
	Send(data []byte, to netip.Addr) error
	Close() error
}

// socket is the conn of the real world: UDP port 547 on one interface.
type socket struct {
	*net.UDPConn
	index int
	buf   [maxDatagram]byte
	oob   [128]byte
}

// openSocket binds port 547 on l: the device, not its link-local address, which may be tentative or change.
func openSocket(l kernel.Link) (conn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = setOptions(int(fd), l) }); cerr != nil {
			return cerr
		}
		return err
	}}
	c, err := lc.ListenPacket(context.Background(), "udp6", netip.AddrPortFrom(netip.IPv6Unspecified(), serverPort).String())
	if err != nil {
		return nil, bindError(l, err)
	}
	group := net.UDPAddrFromAddrPort(netip.AddrPortFrom(allServers, 0))
	if err := ipv6.NewPacketConn(c).JoinGroup(&net.Interface{Index: l.Index, Name: l.Name}, group); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("join %s on dev %s: %w", allServers, l.Name, plain(err))
	}
	return &socket{UDPConn: c.(*net.UDPConn), index: l.Index}, nil
}

// setOptions runs before bind, so that no packet of another interface can get into the queue.
func setOptions(fd int, l kernel.Link) error {
	if err := unix.BindToDevice(fd, l.Name); err != nil {
		return fmt.Errorf("SO_BINDTODEVICE: %w", err)
	}
	for _, o := range []struct {
		name                 string
		level, option, value int
	}{
		{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
		{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, // one socket per downstream
		{"IPV6_RECVPKTINFO", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.option, o.value); err != nil {
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
		hint = ": another DHCPv6 server has it; stop that one or keep it off the interface"
	}
	return fmt.Errorf("listen on udp [::]:%d dev %s: %w%s", serverPort, l.Name, plain(err), hint)
}

// plain drops what package net puts before an error: operation and addresses, which the caller says better.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// Recv passes over what was sent to an address of the router (the Server Unicast option is gone, RFC 9915 §21.12) or to
// another group that the host is in, and what comes from elsewhere than the link.
func (s *socket) Recv() ([]byte, netip.Addr, error) {
	for {
		n, noob, flags, from, err := s.ReadMsgUDPAddrPort(s.buf[:], s.oob[:])
		if err != nil {
			return nil, netip.Addr{}, err
		}
		src := from.Addr().WithZone("")
		if flags&unix.MSG_TRUNC == 0 && src.IsLinkLocalUnicast() && toServers(s.oob[:noob], s.index) {
			return s.buf[:n], src, nil
		}
	}
}

// toServers reports whether a datagram was sent to allServers on the interface with that index.
func toServers(oob []byte, index int) bool {
	var cm ipv6.ControlMessage
	if err := cm.Parse(oob); err != nil || cm.IfIndex != index {
		return false
	}
	to, ok := netip.AddrFromSlice(cm.Dst)
	return ok && to == allServers
}

// Send leaves the zone out, the socket has it.
func (s *socket) Send(b []byte, to netip.Addr) error {
	_, err := s.WriteToUDPAddrPort(b, netip.AddrPortFrom(to, clientPort))
	return err
}

// arrival is what the reader of a socket has to say: a message or the error that ended it.
type arrival struct {
	data   []byte
	from   netip.Addr
	failed error
}

// Bounds of the work that the hosts on a link can make for us: messages read at once, and then one per readSpacing. The
// queue is the kernel's, which is bounded and drops the newest.
const (
	readBurst   = 100
	readSpacing = 10 * time.Millisecond
)

// listener is an open socket with the goroutine that reads it.
type listener struct {
	conn
	arrivals chan arrival
	stop     chan struct{}
	done     chan struct{}
}

func listen(c conn) *listener {
	l := &listener{conn: c, arrivals: make(chan arrival), stop: make(chan struct{}), done: make(chan struct{})}
	go l.read()
	return l
}

func (l *listener) read() {
	defer close(l.done)
	pace := bucket{size: readBurst, period: readSpacing}
	for {
		data, from, err := l.Recv()
		if wait := pace.wait(time.Now()); wait > 0 {
			select {
			case <-time.After(wait):
			case <-l.stop:
				return
			}
		}
		pace.take(time.Now())
		a := arrival{data: append([]byte(nil), data...), from: from, failed: err}
		select {
		case l.arrivals <- a:
		case <-l.stop:
			return
		}
		if err != nil {
			return
		}
	}
}

// close closes the socket and waits for the reader to end.
func (l *listener) close() error {
	close(l.stop)
	err := l.Close()
	<-l.done
	return err
}
