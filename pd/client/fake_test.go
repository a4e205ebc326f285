package client

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/pd"
	"uplinkd/pd/udp"
	"uplinkd/pd/wire"
)

const (
	clientID = pd.DUID("\x00\x03\x00\x01\x02\x00\x00\x00\x01\x01")
	serverID = pd.DUID("\x00\x03\x00\x01\x02\x00\x00\x00\x02\x01")
)

var (
	assigned  = netip.MustParseAddr("2001:db8::546")
	delegated = netip.MustParsePrefix("2001:db8:100::/56")
	wan       = kernel.Link{Name: "wan0", Index: 4, Up: true, Carrier: true, LinkLocal: netip.MustParseAddr("fe80::1")}
)

// fakeConn is a fake: a socket made of a channel, with a scripted server at its other end. The server is a function
// that answers a message at once; what it returns is queued for Recv.
type fakeConn struct {
	link    kernel.Link
	server  func(pd.Message) []pd.Message
	in      chan []byte
	packets chan packet // the same, with addresses
	fail    chan error  // makes Recv fail
	closed  chan struct{}

	mu      sync.Mutex
	sent    []pd.Message
	sendErr error
}

var errFakeRead = errors.New("fake read error")

func (c *fakeConn) Send(b []byte) error {
	m, err := wire.Decode(b)
	if err != nil || len(m.Faults) > 0 {
		return errors.Join(err, errors.New("the client sends what its own codec finds fault with"))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sendErr != nil {
		return c.sendErr
	}
	c.sent = append(c.sent, m)
	for _, answer := range c.server(m) {
		b, err := wire.Encode(answer)
		if err != nil {
			return err
		}
		c.in <- b
	}
	return nil
}

func (c *fakeConn) Recv() (packet, error) {
	select {
	case b := <-c.in:
		return packet{b, time.Now(), netip.AddrPortFrom(netip.MustParseAddr("fe80::2"), udp.ServerPort), c.link.LinkLocal}, nil
	case p := <-c.packets:
		return p, nil
	case err := <-c.fail:
		return packet{}, err
	case <-c.closed:
		return packet{}, net.ErrClosed
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

func (c *fakeConn) change(f func(*fakeConn)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
}

// messages are the types of what was sent, in order.
func (c *fakeConn) messages() (types []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.sent {
		types = append(types, m.Type.String())
	}
	return types
}

// silent never answers.
func silent(pd.Message) []pd.Message { return nil }

// granting answers everything as a well-behaved server does that has one prefix and one address.
func granting(m pd.Message) []pd.Message {
	a := pd.Message{Type: pd.Reply, XID: m.XID, ClientID: m.ClientID, ServerID: serverID}
	switch m.Type {
	case pd.Solicit:
		a.Type = pd.Advertise
	case pd.Release, pd.Decline:
		return []pd.Message{a}
	}
	for _, ia := range m.IAPDs {
		a.IAPDs = append(a.IAPDs, pd.IAPD{IAID: ia.IAID, T1: 1800, T2: 2880,
			Prefixes: []pd.IAPrefix{{Prefix: delegated, Preferred: 3600, Valid: 7200}}})
	}
	for _, ia := range m.IANAs {
		a.IANAs = append(a.IANAs, pd.IANA{IAID: ia.IAID, T1: 1800, T2: 2880,
			Addresses: []pd.IAAddress{{Address: assigned, Preferred: 3600, Valid: 7200}}})
	}
	return []pd.Message{a}
}

// refusing has no prefixes.
func refusing(m pd.Message) []pd.Message {
	a := pd.Message{Type: pd.Advertise, XID: m.XID, ClientID: m.ClientID, ServerID: serverID}
	for _, ia := range m.IAPDs {
		a.IAPDs = append(a.IAPDs, pd.IAPD{IAID: ia.IAID, Status: pd.Status{Code: pd.NoPrefixAvail, Text: "none left"}})
	}
	return []pd.Message{a}
}

// lab is a running client with fakes around it. It lives in a synctest bubble, so waiting costs nothing.
type lab struct {
	*Client
	t      *testing.T
	server func(pd.Message) []pd.Message
	log    bytes.Buffer
	cancel context.CancelFunc
	ended  chan error
	begin  time.Time

	mu      sync.Mutex
	offset  clocks // what the clocks show
	openErr error
	opened  []time.Duration // since begin
	conns   []*fakeConn
	updates []Update
	sentAt  []int // for every update: how many messages had been sent on the newest conn
}

func start(t *testing.T, server func(pd.Message) []pd.Message, change ...func(*Config)) *lab {
	return startWith(t, server, func(*Client) {}, change...)
}

// startWith is start with a change of the client itself.
func startWith(t *testing.T, server func(pd.Message) []pd.Message, with func(*Client), change ...func(*Config)) *lab {
	l := &lab{t: t, server: server, ended: make(chan error, 1), begin: time.Now()}
	cfg := Config{
		Uplink:      "fiber",
		Machine:     pd.Config{ClientID: clientID, PDs: []pd.PDConfig{{IAID: 7}}},
		ReportAfter: 15 * time.Second,
		Logger:      slog.New(slog.NewTextHandler(&l.log, nil)),
		Observe:     l.observe,
	}
	for _, f := range change {
		f(&cfg)
	}
	l.Client = New(cfg)
	l.Client.open = l.openFake
	l.Client.clocks = func() (clocks, bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.offset, true
	}
	with(l.Client)
	ctx, cancel := context.WithCancel(t.Context())
	l.cancel = cancel
	go func() { l.ended <- l.Run(ctx) }()
	t.Cleanup(l.stop)
	return l
}

// jump changes what the clocks show, as a suspended system or a clock that is set does.
func (l *lab) jump(boot, wall time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offset.boot += boot
	l.offset.wall += wall
}

// stop ends Run and checks what must hold at every end.
func (l *lab) stop() {
	l.cancel()
	if err := <-l.ended; err != nil {
		l.t.Errorf("Run: %v", err)
	}
	l.ended <- nil // so that stop may be called by the test, too
	for _, c := range l.conns {
		if !c.isClosed() {
			l.t.Error("a socket was left open")
		}
	}
}

func (l *lab) openFake(k kernel.Link) (conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened = append(l.opened, time.Since(l.begin))
	if l.openErr != nil {
		return nil, l.openErr
	}
	c := &fakeConn{link: k, server: l.server, in: make(chan []byte, 100), packets: make(chan packet, 1), fail: make(chan error, 1), closed: make(chan struct{})}
	l.conns = append(l.conns, c)
	return c, nil
}

func (u Update) hasPrefixes() bool { return len(u.Lease.Prefixes) > 0 }

func (l *lab) observe(u Update) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.updates = append(l.updates, u)
	n := 0
	if len(l.conns) > 0 {
		n = len(l.conns[len(l.conns)-1].messages())
	}
	l.sentAt = append(l.sentAt, n)
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

func (l *lab) all() []Update {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Update(nil), l.updates...)
}

func (l *lab) latest() Update {
	u := l.all()
	return u[len(u)-1]
}
