package server

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/bucket"
	"uplinkd/internal/kernel"
	"uplinkd/pd"
	"uplinkd/pd/udp"
	"uplinkd/pd/wire"
)

// Waiting times between attempts to open the socket.
const (
	minRetry = time.Second
	maxRetry = 30 * time.Second
)

const (
	lendTimeout = 5 * time.Second // clients ask again by then
	idle        = time.Hour

	// Reconfigure messages sent at once, and the pause after each further one (RFC 9915 §14.1).
	sendBurst   = 50
	sendSpacing = 20 * time.Millisecond

	// Log lines that the hosts on the link can cause.
	logBurst   = 5
	logSpacing = 10 * time.Second
)

// run is the state of Server.Run; only its goroutine touches it.
type run struct {
	*Server
	responder responder
	clients   *clients
	log       *slog.Logger
	link      kernel.Link
	sock      *listener // nil: closed
	retryAt   time.Time // when to open the socket again; zero: not wanted
	retry     time.Duration
	failure   string // observed last
	sending   bucket.Bucket
	logging   bucket.Bucket
	notShown  int
}

func newRun(s *Server, now time.Time) *run {
	return &run{
		Server:    s,
		responder: responder{downstream: s.cfg.Downstream, id: s.cfg.ServerID},
		clients:   newClients(s.cfg.Saved, now, s.jitter),
		log:       s.cfg.Logger.With("downstream", s.cfg.Downstream),
		sending:   bucket.New(sendBurst, sendSpacing),
		logging:   bucket.New(logBurst, logSpacing),
	}
}

func (r *run) wanted() bool { return r.responder.service.Mode != Off && r.link.IsUsable() }

// takeMail takes over what SetLink, Set and Changed left.
func (r *run) takeMail(now time.Time) {
	m := r.take()
	if m.link.Index != r.link.Index || m.link.Name != r.link.Name {
		r.close()
		r.retryAt, r.retry = time.Time{}, 0
	}
	r.link, r.responder.service = m.link, m.service
	if m.changed {
		r.clients.changed(now)
	}
	switch {
	case !r.wanted():
		r.close()
		r.retryAt, r.retry = time.Time{}, 0
		r.fails("")
	case r.sock == nil && r.retryAt.IsZero():
		r.openSocket(now)
	}
	r.tick(now)
}

func (r *run) openSocket(now time.Time) {
	r.retryAt = time.Time{}
	c, err := r.open(r.link)
	if err != nil {
		r.broken(err.Error(), now)
		return
	}
	r.sock = listen(c)
	r.fails("")
}

// broken notes what is wrong with the socket and when to open it again.
func (r *run) broken(failure string, now time.Time) {
	if failure != r.failure { // not every 30 s again
		r.log.Warn("DHCPv6 server socket failed, trying again", "err", failure)
	}
	r.retry = min(max(2*r.retry, minRetry), maxRetry)
	r.retryAt = now.Add(r.retry)
	r.fails(failure)
}

func (r *run) fails(failure string) {
	if failure != r.failure {
		r.failure = failure
		r.cfg.Observe(failure)
	}
}

func (r *run) close() {
	if r.sock == nil {
		return
	}
	if err := r.sock.close(); err != nil {
		r.log.Debug("close a DHCPv6 server socket", "interface", r.link.Name, "err", udp.Plain(err))
	}
	r.sock = nil
}

// arrivals is where the reader delivers; nil, which blocks for ever, without a socket.
func (r *run) arrivals() <-chan arrival {
	if r.sock == nil {
		return nil
	}
	return r.sock.arrivals
}

// wakeAt is when tick has something to do.
func (r *run) wakeAt(now time.Time) time.Time {
	at := now.Add(idle)
	if t, ok := r.clients.wake(r.sock != nil); ok && t.Before(at) {
		at = t
	}
	if soonest := now.Add(r.sending.Wait(now)); at.Before(soonest) {
		at = soonest // more are due than may be sent
	}
	if !r.retryAt.IsZero() && r.retryAt.Before(at) {
		at = r.retryAt
	}
	return at
}

// tick does what is due.
func (r *run) tick(now time.Time) {
	if !r.retryAt.IsZero() && !now.Before(r.retryAt) {
		r.openSocket(now)
	}
	r.clients.expire(now)
	for r.sock != nil && r.sending.Wait(now) == 0 {
		c := r.clients.due(now)
		if c == nil {
			return
		}
		r.sending.Take(now)
		r.reconfigure(now, c)
	}
}

// reconfigure asks c to renew. What cannot be sent is as good as lost on the way: it is repeated.
func (r *run) reconfigure(now time.Time, c *client) {
	b, err := r.clients.reconfigure(c, r.cfg.ServerID, now)
	if err == nil {
		err = r.sock.Send(b, c.Via)
	}
	if err != nil {
		r.warn(now, "DHCPv6 Reconfigure not sent", "client", c.ID, "via", c.Via, "err", udp.Plain(err))
		return
	}
	r.log.Debug("DHCPv6 Reconfigure sent", "client", c.ID, "via", c.Via, "try", c.tries)
}

// receive answers one message.
func (r *run) receive(ctx context.Context, a arrival) {
	now := time.Now()
	if a.failed != nil {
		r.close()
		r.broken("receive on udp [::]:547 dev "+r.link.Name+": "+udp.Plain(a.failed).Error(), now)
		return
	}
	r.retry = 0
	m, err := wire.Decode(a.data)
	if err != nil {
		r.log.Debug("DHCPv6 packet dropped", "from", a.from, "err", err)
		return
	}
	if a.from == r.link.LinkLocal || slices.Contains(r.link.OtherLinkLocal, a.from) { // nothing could be routed to it
		r.warn(now, "a DHCPv6 message has this router's own address as its source: somebody on the link forges it, or the link has a loop",
			"interface", r.link.Name, "from", a.from, "message", m.Type)
		return
	}
	if m.ClientID == r.cfg.ServerID {
		r.warn(now, "a DHCPv6 client has this router's own DUID: is an uplink connected to this downstream, or the router's state copied?", "from", a.from)
		return
	}
	if why := r.responder.refused(m); why != "" {
		r.log.Debug("DHCPv6 message not answered", "from", a.from, "message", m.Type, "err", why)
		return
	}
	loans, err := r.ask(ctx, m, a.from)
	if err != nil {
		if ctx.Err() == nil {
			r.warn(now, "DHCPv6 message not answered", "from", a.from, "message", m.Type, "err", err)
		}
		return
	}
	now = time.Now() // the Lender may have taken its time
	reply := r.responder.answer(now, m, loans)
	if reply.Type == 0 {
		return
	}
	r.clients.agree(now, m, a.from, &reply)
	r.responder.hasten(&reply)
	r.send(now, m, a.from, reply)
}

// ask asks the Lender, if m is about prefixes.
func (r *run) ask(ctx context.Context, m pd.Message, from netip.Addr) ([]Loan, error) {
	a, ok := r.responder.ask(m, from)
	if !ok {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lendTimeout)
	defer cancel()
	return r.cfg.Lender.Lend(ctx, a)
}

func (r *run) send(now time.Time, m pd.Message, to netip.Addr, reply pd.Message) {
	b, err := wire.Encode(reply)
	if err == nil {
		err = r.sock.Send(b, to)
	}
	if err != nil {
		r.warn(now, "DHCPv6 message not sent", "message", reply.Type, "to", to, "err", udp.Plain(err))
		return
	}
	// Afterwards: the log must not hold up the answer.
	for _, ia := range reply.IAPDs {
		if ia.Status.Code == pd.NoPrefixAvail { // RFC 9818: exhaustion is logged
			r.warn(now, "no prefix left for an inner router", "client", m.ClientID, "via", to)
			break
		}
	}
	if len(m.Faults) > 0 {
		r.warn(now, "parts of a DHCPv6 message dropped", "from", to, "message", m.Type, "faults", m.Faults)
	}
	r.log.Debug("DHCPv6 message answered", "from", to, "message", m.Type, "with", reply.Type)
}

// warn logs what hosts on the link can cause, or counts it for the next line.
func (r *run) warn(now time.Time, message string, args ...any) {
	if !r.logging.Try(now) {
		r.notShown++
		return
	}
	if r.notShown > 0 {
		args = append(args, "not_shown", r.notShown)
		r.notShown = 0
	}
	r.log.Warn(message, args...)
}
