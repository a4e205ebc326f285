package e2e

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/netlab"
)

// echoPort is where the far server sends back what it gets, by UDP and TCP.
const echoPort = "7"

// echo makes far answer probes until the end of the test.
func (s *site) echo() {
	s.t.Helper()
	var packets net.PacketConn
	var streams net.Listener
	err := s.far.Do(func() (err error) {
		if packets, err = net.ListenPacket("udp6", "[::]:"+echoPort); err != nil {
			return err
		}
		streams, err = net.Listen("tcp6", "[::]:"+echoPort)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { packets.Close(); streams.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := packets.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = packets.WriteTo(buf[:n], from)
			}
		}
	}()
	go echoStreams(streams)
}

// echoStreams sends back what comes by TCP, until the listener is closed.
func echoStreams(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
	}
}

// probeEvery is the pace of a stream, probeWait how long an answer is waited for.
const (
	probeEvery = 10 * time.Millisecond
	probeWait  = time.Second
)

// probe is one packet of a stream and what came of it.
type probe struct {
	sent     time.Time
	source   netip.Addr // the kernel's choice; invalid if it had none
	answered bool
	failure  string // what the socket said
}

// sight is what the host's own addresses were from a moment on: whether each is deprecated.
type sight struct {
	at        time.Time
	addresses map[netip.Addr]bool
}

// stream sends a probe from a host every 10 ms, each from a socket of its own, so that the kernel chooses a source anew,
// as it does for every new connection. It also notes when the host's addresses change.
type stream struct {
	stop, ended chan struct{}
	err         error
	waiting     sync.WaitGroup

	mu     sync.Mutex
	probes []*probe
	sights []sight
}

func startStream(t *testing.T, host *netlab.NS, dev string) *stream {
	t.Helper()
	p := &stream{stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		p.err = host.Do(func() error { return p.run(dev) })
	}()
	t.Cleanup(p.end)
	return p
}

// end ends the stream when the last answer is there or waited for in vain.
func (p *stream) end() {
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	<-p.ended
	p.waiting.Wait()
}

func (p *stream) run(dev string) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return nil
		case <-tick.C:
		}
		if err := p.look(dev); err != nil {
			return err
		}
		p.send()
	}
}

// send sends one probe. The socket is made on this very thread: other threads are in other namespaces.
func (p *stream) send() {
	one := &probe{sent: time.Now()}
	p.mu.Lock()
	p.probes = append(p.probes, one)
	p.mu.Unlock()
	c, err := net.Dial("udp6", net.JoinHostPort(farAddress, echoPort))
	if err != nil {
		p.note(one, netip.Addr{}, false, err)
		return
	}
	source := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	if _, err = c.Write([]byte("probe")); err != nil {
		c.Close()
		p.note(one, source, false, err)
		return
	}
	p.waiting.Go(func() {
		defer c.Close()
		_ = c.SetReadDeadline(one.sent.Add(probeWait))
		_, err := c.Read(make([]byte, 16))
		p.note(one, source, err == nil, err)
	})
}

func (p *stream) note(one *probe, source netip.Addr, answered bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one.source, one.answered = source, answered
	if err != nil {
		one.failure = err.Error()
		var errno syscall.Errno
		if errors.As(err, &errno) {
			one.failure = errno.Error()
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			one.failure = "no answer"
		}
	}
}

// look notes what addresses the host has, if they have changed: reading a file is cheap enough to do it every 10 ms.
func (p *stream) look(dev string) error {
	text, err := os.ReadFile("/proc/thread-self/net/if_inet6")
	if err != nil {
		return err
	}
	now := sight{at: time.Now(), addresses: map[netip.Addr]bool{}}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line) // address, ifindex, length, scope, flags, name
		if len(f) != 6 || f[5] != dev || f[3] != "00" {
			continue
		}
		b, err := hex.DecodeString(f[0])
		if err != nil {
			return err
		}
		flags, err := strconv.ParseUint(f[4], 16, 32)
		if err != nil {
			return err
		}
		a, _ := netip.AddrFromSlice(b)
		now.addresses[a] = flags&unix.IFA_F_DEPRECATED != 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.sights); n == 0 || fmt.Sprint(p.sights[n-1].addresses) != fmt.Sprint(now.addresses) {
		p.sights = append(p.sights, now)
	}
	return nil
}

// sent returns the probes so far; those of the last second may still be answered.
func (p *stream) sent() []probe {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]probe, len(p.probes))
	for i, one := range p.probes {
		list[i] = *one
	}
	return list
}

// usedSince is when the first probe was sent after a moment that had a source for which accept is true and was answered.
func (p *stream) usedSince(after time.Time, accept func(netip.Addr) bool) (at time.Time, ok bool) {
	for _, one := range p.sent() {
		if !one.sent.Before(after) && one.answered && accept(one.source) {
			return one.sent, true
		}
	}
	return at, false
}

// flicker is for how long a deprecated address may look preferred upon an advertisement: Linux takes the flag off and leaves
// it to a work queue to set it again (addrconf_prefix_rcv_add_addr). Up to 0.2 s were seen on a busy machine.
const flicker = 500 * time.Millisecond

// deprecatedSince is when the host's addresses for which accept is true were all deprecated or gone for the last time,
// to stay so.
func (p *stream) deprecatedSince(accept func(netip.Addr) bool) (at time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, s := range p.sights {
		usable := false
		for a, deprecated := range s.addresses {
			usable = usable || accept(a) && !deprecated
		}
		switch {
		case usable && ok && i+1 < len(p.sights) && p.sights[i+1].at.Sub(s.at) < flicker:
		case usable:
			ok = false
		case !ok:
			at, ok = s.at, true
		}
	}
	return at, ok
}

// tally are the probes sent in a span of time.
type tally struct {
	sent, lost int
	gap        time.Duration // the longest time without an answered probe
	failures   map[string]int
}

func (p *stream) tally(from, to time.Time) tally {
	r := tally{failures: map[string]int{}}
	last := from
	for _, one := range p.sent() {
		if one.sent.Before(from) || !one.sent.Before(to) {
			continue
		}
		r.sent++
		if !one.answered {
			r.lost++
			r.failures[one.failure]++
			continue
		}
		r.gap, last = max(r.gap, one.sent.Sub(last)), one.sent
	}
	if r.sent > 0 {
		r.gap = max(r.gap, to.Sub(last))
	}
	return r
}

// session is a TCP connection of the host that is there before a renumbering. It says something all the time: one that waits
// for an answer which was lost on the way has nothing to send again, and so cannot be told that it has ended.
type session struct {
	source netip.Addr
	conn   net.Conn
	ended  chan struct{}

	mu   sync.Mutex
	last time.Time // when the far side was heard last
	err  error     // that ended it, at
	at   time.Time
}

func startSession(t *testing.T, host *netlab.NS) *session {
	t.Helper()
	c := &session{ended: make(chan struct{})}
	err := host.Do(func() (err error) {
		c.conn, err = net.Dial("tcp6", net.JoinHostPort(farAddress, echoPort))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.source = c.conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr()
	t.Cleanup(c.close)
	go func() { defer close(c.ended); c.talk() }()
	return c
}

func (c *session) close() { c.conn.Close(); <-c.ended }

// talk sends octets and hears their echo, until the connection ends.
func (c *session) talk() {
	for {
		_, err := c.conn.Write([]byte{0})
		_ = c.conn.SetReadDeadline(time.Now().Add(5 * probeEvery))
		for err == nil {
			if _, err = c.conn.Read(make([]byte, 64)); err == nil {
				c.mu.Lock()
				c.last = time.Now()
				c.mu.Unlock()
			}
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			c.mu.Lock()
			c.err, c.at = err, time.Now()
			c.mu.Unlock()
			return
		}
	}
}

// outcome is for how long there was no answer, and the error with which it ended, nil while it lives.
func (c *session) outcome() (silent time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.at.Sub(c.last), c.err
	}
	return time.Since(c.last), nil
}

// text is a line per kind of failure.
func (r tally) text() string {
	var b bytes.Buffer
	for why, n := range r.failures {
		fmt.Fprintf(&b, "%d × %s; ", n, why)
	}
	return b.String()
}
