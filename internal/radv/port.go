package radv

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"uplinkd/internal/bucket"
	"uplinkd/internal/kernel"
)

// conn is a raw ICMPv6 socket on one link. Close makes a blocked Receive return with an error.
type conn interface {
	Receive(b []byte) (n int, from netip.Addr, hopLimit int, err error)
	Send(b []byte, to netip.Addr) error
	Close() error
}

// Bounds of a port.
const (
	maxPacket   = 16 << 10               // longer messages are discarded
	firstPause  = 100 * time.Millisecond // before a failed socket is opened again; doubles
	longPause   = 30 * time.Second
	readBurst   = 20                    // messages read without pause
	readSpacing = 10 * time.Millisecond // between the messages of a flood; the kernel drops the rest
)

// port keeps a socket open on a link while it is wanted and the link can be used. It belongs to the goroutine of a task;
// a second goroutine, which lives as long as the socket, only reads.
type port[T any] struct {
	open  func(kernel.Link) (conn, error)
	parse func(packet) (T, error)
	log   *slog.Logger

	link   kernel.Link
	conn   conn       // nil while closed
	in     chan T     // valid messages; nil while closed
	failed chan error // one error, when reading has ended; nil while closed
	stop   chan struct{}

	openedAt time.Time
	pause    time.Duration // the last one
	retryAt  time.Time     // not to be opened before
}

// setLink takes over what is known of the link. It closes the socket, and reports true, if the socket would have to be
// another one from now on.
func (p *port[T]) setLink(l kernel.Link) (restarted bool) {
	o := p.link
	p.link = l
	same := o.Name == l.Name && o.Index == l.Index && o.LinkLocal == l.LinkLocal && o.IsUsable() == l.IsUsable()
	if same {
		return false
	}
	p.close()
	p.pause, p.retryAt = 0, time.Time{}
	return true
}

// want opens the socket or closes it. It reports whether the socket was opened by this call.
func (p *port[T]) want(on bool, now time.Time) (opened bool) {
	if !on || !p.link.IsUsable() {
		p.close()
		return false
	}
	if p.conn != nil || p.retryAt.After(now) {
		return false
	}
	c, err := p.open(p.link)
	if err != nil {
		p.fail(fmt.Errorf("open an ICMPv6 socket on dev %s (ifindex %d): %w", p.link.Name, p.link.Index, err), now)
		return false
	}
	if p.pause > 0 {
		p.log.Info("ICMPv6 socket is open again", "interface", p.link.Name)
	}
	p.conn, p.openedAt = c, now
	p.in, p.failed, p.stop = make(chan T), make(chan error, 1), make(chan struct{})
	go p.read(c, p.in, p.failed, p.stop)
	return true
}

// fail closes the socket because of err, and plans to open it again.
func (p *port[T]) fail(err error, now time.Time) {
	if p.conn != nil && now.Sub(p.openedAt) > longPause {
		p.pause = 0
	}
	p.close()
	level := slog.LevelDebug
	if p.pause == 0 {
		level = slog.LevelWarn
	}
	p.pause = min(max(firstPause, 2*p.pause), longPause)
	wait := p.pause + rand.N(p.pause/4)
	p.retryAt = now.Add(wait)
	p.log.Log(context.Background(), level, "router advertisements are interrupted", "interface", p.link.Name, "err", err, "retry_in", wait)
}

// retry returns when the socket should be opened again; the zero time when nothing waits.
func (p *port[T]) retry() time.Time {
	if p.conn != nil || !p.link.IsUsable() {
		return time.Time{}
	}
	return p.retryAt
}

// send sends b; an error closes the socket and plans to open it again.
func (p *port[T]) send(b []byte, to netip.Addr, now time.Time) bool {
	if p.conn == nil {
		return false
	}
	if err := p.conn.Send(b, to); err != nil {
		p.fail(fmt.Errorf("send to %s on dev %s: %w", to, p.link.Name, err), now)
		return false
	}
	return true
}

// close closes the socket if it is open, and waits until nothing reads from it.
func (p *port[T]) close() {
	if p.conn == nil {
		return
	}
	close(p.stop)
	if err := p.conn.Close(); err != nil {
		p.log.Debug("close an ICMPv6 socket", "interface", p.link.Name, "err", err)
	}
	<-p.failed
	p.conn, p.in, p.failed, p.stop = nil, nil, nil, nil
}

// read hands over valid messages until the socket fails or is closed, and then closes failed. It reads a flood slowly, so
// that one host cannot keep the router's processor busy.
func (p *port[T]) read(c conn, in chan<- T, failed chan<- error, stop <-chan struct{}) {
	defer close(failed)
	pace := bucket.New(readBurst, readSpacing)
	b := make([]byte, maxPacket)
	for {
		n, from, hopLimit, err := c.Receive(b)
		if err != nil {
			failed <- err
			return
		}
		if wait := pace.Wait(time.Now()); wait > 0 {
			select {
			case <-time.After(wait):
			case <-stop:
				return
			}
		}
		pace.Take(time.Now())
		if n == len(b) {
			continue // cut off
		}
		m, err := p.parse(packet{from: from, hopLimit: hopLimit, data: b[:n]})
		if err != nil {
			p.log.Debug("message ignored", "from", from, "err", err)
			continue
		}
		select {
		case in <- m:
		case <-stop:
			return
		}
	}
}
