package isp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sync/errgroup"

	"uplinkd/pd"
	"uplinkd/pd/wire"
)

// Run answers until ctx is done, closes the sockets and returns nil. It ends without a word to anybody, as after a power
// failure; call StopRA before for an orderly retreat.
func (p *Provider) Run(ctx context.Context) error {
	p.mu.Lock()
	s := p.sockets
	p.mu.Unlock()
	if s == nil {
		return errors.New("provider: Run before Open")
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.serveDHCP(ctx, s) })
	g.Go(func() error { return p.serveRS(ctx, s) })
	g.Go(func() error { p.serveTimers(ctx); return nil })
	g.Go(func() error {
		<-ctx.Done()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.sockets = nil
		return s.Close()
	})
	return g.Wait()
}

// retry reports whether to read again after err. The pause keeps a persistent error from burning the processor.
func retry(ctx context.Context, err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(100 * time.Millisecond):
		return true
	}
}

func (p *Provider) serveDHCP(ctx context.Context, s *sockets) error {
	buf := make([]byte, 65536)
	for {
		n, from, err := s.dhcp.ReadFromUDPAddrPort(buf)
		switch {
		case err == nil:
			p.receive(s, from.Addr().WithZone(""), buf[:n])
		case ctx.Err() != nil:
			return nil
		case !retry(ctx, err):
			return fmt.Errorf("provider: receive on port %d: %w", serverPort, err)
		}
	}
}

// receive answers one datagram. The interceptors run unlocked, so that they may use the Provider.
func (p *Provider) receive(s *sockets, from netip.Addr, datagram []byte) {
	req, err := wire.Decode(datagram)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil || !from.IsLinkLocalUnicast() {
		p.counts.Malformed++
		p.log("dropped %d octets from %s: %v", len(datagram), from, err)
		return
	}
	p.counts.Seen[req.Type]++
	e := Exchange{At: time.Now(), From: from, Request: req}
	defer func() { p.note(e) }()
	if p.silent {
		return
	}
	reply, routes := p.server.handle(e.At, from, req)
	p.route(routes)
	p.kick()
	intercept, raw := p.intercept, p.interceptRaw
	p.mu.Unlock()
	datagrams, err := answer(req, &reply, intercept, raw)
	p.mu.Lock()
	if err != nil {
		p.log("%s from %s: %v", req.Type, from, err)
	}
	if e.Reply = reply; len(datagrams) == 0 {
		return
	}
	for _, d := range datagrams {
		if err := s.send(from, d); err != nil {
			p.log("send to %s: %v", from, err)
			continue
		}
		if e.Sent++; e.Sent == 1 {
			e.SentAt = time.Now()
		}
		p.counts.Sent[sentType(d)]++
	}
}

// answer encodes a reply, after the interceptors have had their way. A reply that is not sent loses its Type.
func answer(req pd.Message, reply *pd.Message, intercept func(pd.Message, *pd.Message) bool,
	raw func(pd.Message, []byte) [][]byte) (datagrams [][]byte, err error) {
	if intercept != nil && !intercept(req, reply) {
		reply.Type = 0
	}
	var encoded []byte
	if reply.Type != 0 {
		if encoded, err = wire.Encode(*reply); err != nil {
			return nil, err
		}
		datagrams = [][]byte{encoded}
	}
	if raw != nil {
		datagrams = raw(req, encoded)
	}
	return datagrams, nil
}

// sentType is the message type of a datagram, which need not be a message.
func sentType(datagram []byte) pd.MessageType {
	if len(datagram) == 0 {
		return 0
	}
	return pd.MessageType(datagram[0])
}

func (p *Provider) serveRS(ctx context.Context, s *sockets) error {
	buf := make([]byte, 65536)
	for {
		n, cm, from, err := s.ra.ReadRaw(buf)
		switch {
		case err == nil:
			if n >= 8 && buf[0] == byte(ipv6.ICMPTypeRouterSolicitation) && cm != nil && cm.HopLimit == 255 {
				p.solicited(from.WithZone(""))
			}
		case ctx.Err() != nil:
			return nil
		case !retry(ctx, err):
			return fmt.Errorf("provider: receive Router Solicitations: %w", err)
		}
	}
}

// solicited answers the sender alone if it has an address already (RFC 4861 §6.2.6 allows it), else everybody.
func (p *Provider) solicited(from netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts.RS++
	if !from.IsLinkLocalUnicast() {
		from = allNodes
	}
	p.sendRA(false, from)
}

// serveTimers sends RAs at once, at every interval and when kicked by a change, and forgets bindings in time.
func (p *Provider) serveTimers(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-p.changed:
		}
		timer.Reset(p.tick(time.Now()))
	}
}

// tick does what is due and returns how long nothing will be.
func (p *Provider) tick(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.route(p.server.expire(now))
	if !p.nextRA.After(now) {
		p.sendRA(false, allNodes)
		p.nextRA = now.Add(p.server.cfg.RA.Interval)
	}
	wait := p.nextRA.Sub(now)
	if at, ok := p.server.next(); ok {
		wait = min(wait, at.Sub(now))
	}
	return max(wait, time.Millisecond)
}
