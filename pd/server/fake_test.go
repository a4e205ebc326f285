package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/pd"
	"uplinkd/pd/wire"
)

var lan = kernel.Link{Name: "lan0", Index: 4, Up: true, Carrier: true, LinkLocal: netip.MustParseAddr("fe80::1")}

// fakeConn is a fake: a socket made of channels.
type fakeConn struct {
	link   kernel.Link
	in     chan arrival
	closed chan struct{}

	mu   sync.Mutex
	sent []sentMessage
	err  error // of Send
}

type sentMessage struct {
	pd.Message
	to netip.Addr
	at time.Duration // since the lab began
}

func (c *fakeConn) Recv() ([]byte, netip.Addr, error) {
	select {
	case a := <-c.in:
		return a.data, a.from, a.failed
	case <-c.closed:
		return nil, netip.Addr{}, net.ErrClosed
	}
}

func (c *fakeConn) Close() error { close(c.closed); return nil }

func (c *fakeConn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// lab is a running server with fakes around it. It lives in a synctest bubble, so waiting costs nothing.
type lab struct {
	*Server
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
	begin  time.Time
	lender func(context.Context, Ask) ([]Loan, error)

	mu       sync.Mutex
	log      bytes.Buffer
	openErr  error
	opened   []time.Duration
	conns    []*fakeConn
	kept     [][]Client
	failures []string
}

func (l *lab) Lend(ctx context.Context, a Ask) ([]Loan, error) { return l.lender(ctx, a) }

// lendFirst lends first for 1000 and 2000 seconds to every IA.
func lendFirst(_ context.Context, a Ask) (loans []Loan, err error) {
	now := time.Now()
	for _, ia := range a.IAs {
		l := loan(ia.IAID, first, 0, 0)
		l.PreferredUntil, l.ValidUntil = until(now, 1000), until(now, 2000)
		loans = append(loans, l)
	}
	return loans, nil
}

// inLab runs f with a server on lan that delegates.
func inLab(t *testing.T, f func(*lab), saved ...Client) {
	synctest.Test(t, func(t *testing.T) {
		l := &lab{t: t, ended: make(chan error, 1), begin: time.Now(), lender: lendFirst}
		l.Server = New(Config{Downstream: "lan", ServerID: routerID, Lender: l, Saved: saved,
			Keep: func(c []Client) { l.locked(func() { l.kept = append(l.kept, c) }) }, Observe: l.observe,
			Logger: slog.New(slog.NewTextHandler(&l.log, nil))})
		l.Server.open = l.openFake
		l.Server.jitter = noJitter
		ctx, cancel := context.WithCancel(t.Context())
		l.cancel = cancel
		go func() { l.ended <- l.Run(ctx) }()
		l.SetLink(lan)
		l.Set(told)
		synctest.Wait()
		f(l)
		cancel()
		if err := <-l.ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		for _, c := range l.conns {
			if !c.isClosed() {
				t.Error("a socket was left open")
			}
		}
	})
}

func (l *lab) locked(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *lab) observe(failure string) { l.locked(func() { l.failures = append(l.failures, failure) }) }

func (l *lab) openFake(k kernel.Link) (conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened = append(l.opened, time.Since(l.begin))
	if l.openErr != nil {
		return nil, l.openErr
	}
	c := &fakeConn{link: k, in: make(chan arrival, 10000), closed: make(chan struct{})}
	l.conns = append(l.conns, c)
	return labConn{c, l}, nil
}

// labConn is a fakeConn that knows when its lab began.
type labConn struct {
	*fakeConn
	lab *lab
}

func (c labConn) Send(b []byte, to netip.Addr) error {
	m, err := wire.Decode(b)
	if err != nil || len(m.Faults) > 0 {
		return errors.Join(err, errors.New("the server sends what its own codec finds fault with"))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.sent = append(c.sent, sentMessage{m, to, time.Since(c.lab.begin)})
	return nil
}

// conn is the newest socket.
func (l *lab) conn() *fakeConn {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) == 0 {
		l.t.Fatal("no socket was opened")
	}
	return l.conns[len(l.conns)-1]
}

func (l *lab) receives(m pd.Message) { l.receivesFrom(inner, m) }

func (l *lab) receivesFrom(from netip.Addr, m pd.Message) {
	l.t.Helper()
	b, err := wire.Encode(m)
	if err != nil {
		l.t.Fatal(err)
	}
	l.conn().in <- arrival{data: b, from: from}
}

// sent is what the newest socket has sent so far.
func (l *lab) sent() []sentMessage {
	l.t.Helper()
	synctest.Wait()
	c := l.conn()
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]sentMessage(nil), c.sent...)
}

// answer is the answer to m.
func (l *lab) answer(m pd.Message) pd.Message {
	l.t.Helper()
	before := len(l.sent())
	l.receives(m)
	after := l.sent()
	if len(after) != before+1 {
		l.t.Fatalf("%d answers to %s", len(after)-before, wire.Text(m))
	}
	last := after[before]
	if last.to != inner || last.XID != m.XID {
		l.t.Fatalf("%s to %s, is no answer to %s", wire.Text(last.Message), last.to, wire.Text(m))
	}
	return last.Message
}

func (l *lab) keptLast() []Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.kept) == 0 {
		return nil
	}
	return l.kept[len(l.kept)-1]
}
