package server

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"uplinkd/internal/bucket"
	"uplinkd/internal/kernel"
	"uplinkd/pd/udp"
)

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

// openSocket opens a socket and joins the group of servers on l.
func openSocket(l kernel.Link) (conn, error) {
	c, err := udp.Listen(l, udp.ServerPort)
	if err != nil {
		return nil, err
	}
	group := net.UDPAddrFromAddrPort(netip.AddrPortFrom(udp.AllServers, 0))
	if err := ipv6.NewPacketConn(c).JoinGroup(&net.Interface{Index: l.Index, Name: l.Name}, group); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("join %s on dev %s: %w", udp.AllServers, l.Name, udp.Plain(err))
	}
	return &socket{UDPConn: c, index: l.Index}, nil
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
		to, ok := udp.Destination(s.oob[:noob], s.index)
		if ok && to == udp.AllServers && src.IsLinkLocalUnicast() && flags&unix.MSG_TRUNC == 0 {
			return s.buf[:n], src, nil
		}
	}
}

// Send leaves the zone out, the socket has it.
func (s *socket) Send(b []byte, to netip.Addr) error {
	_, err := s.WriteToUDPAddrPort(b, netip.AddrPortFrom(to, udp.ClientPort))
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
	pace := bucket.New(readBurst, readSpacing)
	for {
		data, from, err := l.Recv()
		if wait := pace.Wait(time.Now()); wait > 0 {
			select {
			case <-time.After(wait):
			case <-l.stop:
				return
			}
		}
		pace.Take(time.Now())
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
