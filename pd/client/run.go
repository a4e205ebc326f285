package client

import (
	"cmp"
	crand "crypto/rand"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/pd"
	"uplinkd/pd/trace"
	"uplinkd/pd/udp"
	"uplinkd/pd/wire"
)

// Waiting times between attempts to open the socket.
const (
	minRetry = time.Second
	maxRetry = 30 * time.Second
)

const (
	idle    = time.Minute           // the longest time between ticks: nothing else notices that the system was suspended
	minTick = 10 * time.Millisecond // between ticks: an error in the machine must not turn into a busy loop
)

// run is the state of Client.Run; only its goroutine touches it. The machine's link is up while there is a socket and the
// client is at rest neither because it waits for Begin nor after a Release.
type run struct {
	*Client
	log      *slog.Logger
	rnd      *rand.Rand
	machine  machine
	clock    clocks // at the latest checkClocks
	link     kernel.Link
	sock     *listener // nil: closed
	awaited  awaited
	retryAt  time.Time // when to open the socket again; zero: not wanted
	retry    time.Duration
	ticked   time.Time // when tick was last called
	reportAt time.Time
	reported bool
	waits    bool            // for Begin
	released bool            // at rest after a Release
	waiting  []chan struct{} // callers of Release
	failure  string          // of the latest exchange, one about bindings before others
	failedOf pd.MessageType  // the message of that exchange
	note     string          // of the latest partial grant
	noted    map[string]bool // partial grants that are in the log
	trouble  string          // with the socket
	remote   limiter         // for log lines that others on the link can cause
	sending  limiter         // for log lines about sending
	taken    limiter         // for log lines about addresses that others have
	last     Update
}

func newRun(c *Client) *run {
	// Transaction ids should be unpredictable (RFC 9915 §16.1), hence a cryptographic generator with a random seed.
	var seed [32]byte
	crand.Read(seed[:]) // never fails
	now := time.Now()
	r := &run{
		Client:   c,
		log:      c.cfg.Logger.With("uplink", c.cfg.Uplink),
		rnd:      rand.New(rand.NewChaCha8(seed)),
		reportAt: now.Add(c.cfg.ReportAfter),
		remote:   newLimiter(),
		sending:  newLimiter(),
		taken:    newLimiter(),
	}
	r.machine = c.newMachine(c.cfg.Saved, c.cfg.Window, now, r.rnd)
	// What is held has to be verified when the link comes up (RFC 9915 §18.2.12), whatever routers say.
	r.waits = c.cfg.WaitingFor != "" && !r.machine.Lease().Held()
	r.clock, _ = c.clocks()
	return r
}

// wake is when tick has something to do.
func (r *run) wake() time.Time {
	at := time.Now().Add(idle)
	earlier := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	if t, ok := r.machine.Deadline(); ok {
		earlier(t)
	}
	if !r.retryAt.IsZero() {
		earlier(r.retryAt)
	}
	if !r.reported {
		earlier(r.reportAt)
	}
	if soonest := r.ticked.Add(minTick); at.Before(soonest) {
		return soonest
	}
	return at
}

func (r *run) tick() {
	now := time.Now()
	r.ticked = now
	if !r.reported && !now.Before(r.reportAt) {
		r.reported = true
	}
	if !r.retryAt.IsZero() && !now.Before(r.retryAt) {
		r.openSocket()
	}
	r.step(pd.Input{Kind: pd.InputTimer})
}

func (r *run) setLink(l kernel.Link) {
	old := r.link
	r.link = l
	switch {
	case !l.IsUsable():
		r.shut()
		r.trouble = ""
		r.observeChange()
	case !old.IsUsable(), old.Index != l.Index, old.Name != l.Name:
		r.shut()
		r.retry = 0
		r.openSocket()
	case old.LinkLocal != l.LinkLocal: // RFC 9915 §18.2.12: a sign of another network
		r.doubt("link-local address changed from " + old.LinkLocal.String() + " to " + l.LinkLocal.String())
	}
}

// openSocket opens the socket, or sees to it that it is tried again.
func (r *run) openSocket() {
	r.retryAt = time.Time{}
	c, err := r.open(r.link)
	if err != nil {
		r.broken(err.Error())
		return
	}
	r.sock = listen(c, &r.awaited, r.log)
	r.trouble = ""
	r.linkUp()
}

// linkUp tells the machine that packets can be sent, if they may be.
func (r *run) linkUp() {
	if r.sock == nil || r.waits || r.released {
		r.observeChange()
		return
	}
	r.step(pd.Input{Kind: pd.InputLinkUp})
}

// beginNow ends the wait for Begin.
func (r *run) beginNow() {
	if r.waits {
		r.waits = false
		r.linkUp()
	}
}

// broken notes what is wrong with the socket and when to open it again.
func (r *run) broken(trouble string) {
	if trouble != r.trouble { // not every 30 s again
		r.log.Warn("DHCPv6 socket failed, trying again", "err", trouble)
	}
	r.trouble = trouble
	r.retry = min(max(2*r.retry, minRetry), maxRetry)
	r.retryAt = time.Now().Add(r.retry)
	r.observeChange()
}

// shut closes the socket and tells the machine.
func (r *run) shut() {
	r.retryAt = time.Time{}
	if r.sock == nil {
		return
	}
	r.closeSocket()
	r.step(pd.Input{Kind: pd.InputLinkDown})
}

func (r *run) closeSocket() {
	if r.sock == nil {
		return
	}
	if err := r.sock.close(); err != nil {
		r.log.Warn("closing the DHCPv6 socket failed", "err", udp.Plain(err))
	}
	r.sock = nil
}

// received is where the reader delivers; nil, which blocks for ever, without a socket.
func (r *run) received() <-chan arrival {
	if r.sock == nil {
		return nil
	}
	return r.sock.arrivals
}

func (r *run) receive(a arrival) {
	if a.failed != nil {
		r.shut()
		r.broken("receive on dev " + r.link.Name + ": " + udp.Plain(a.failed).Error())
		return
	}
	r.cfg.Trace(trace.Packet{At: a.at, Local: netip.AddrPortFrom(a.to, udp.ClientPort), Remote: a.from, Data: a.data})
	if a.to.IsMulticast() { // RFC 9915 §16: SHOULD NOT accept
		r.remote.log(r.log, "DHCPv6 packet dropped", "from", a.from, "err", "sent to the group "+a.to.String())
		return
	}
	r.retry = 0
	r.step(pd.Input{Kind: pd.InputMessage, Message: a.message, Unicast: true})
	// After the step: the log must not hold up the lease.
	if len(a.message.Faults) > 0 {
		r.remote.log(r.log, "parts of a DHCPv6 message dropped", "message", a.message.Type, "faults", a.message.Faults)
	}
}

// askRenew begins if that has not been done: a person knows better than routers.
func (r *run) askRenew() {
	if r.released || r.waits {
		r.released, r.waits = false, false
		r.linkUp()
		return
	}
	r.step(pd.Input{Kind: pd.InputRenew})
}

// doubt has the machine verify what it holds. After a Release, and before Begin, there is nothing to verify.
func (r *run) doubt(why string) {
	if r.released || r.waits {
		return
	}
	r.remote.log(r.log, "the network may have changed", "reason", why)
	r.step(pd.Input{Kind: pd.InputSuspect})
}

func (r *run) conflict(a netip.Addr) {
	ours := slices.ContainsFunc(r.machine.Lease().Addresses, func(l pd.LeasedAddress) bool { return l.Address == a })
	if r.released || !ours {
		return
	}
	r.taken.log(r.log, "address is in use by another node", "address", a)
	r.step(pd.Input{Kind: pd.InputConflict, Address: a})
}

func (r *run) askRelease(done chan struct{}) {
	if r.released {
		close(done)
		return
	}
	r.waiting = append(r.waiting, done)
	r.step(pd.Input{Kind: pd.InputRelease})
}

// step takes the machine one step on and does what it says.
func (r *run) step(in pd.Input) {
	out := r.machine.Step(time.Now(), in)
	r.awaited.set(r.machine.Awaits()) // before the message is sent that is answered
	note := ""
	for _, o := range out {
		switch o.Kind {
		case pd.OutputSend:
			r.send(o.Message)
		case pd.OutputLease:
			r.noteLack(o.Lease, note)
			r.leased(o)
		case pd.OutputFailed:
			r.failed(o)
			// After NoBinding the same server is asked at once for the bindings (§18.2.10.1): it has its last word yet to say.
			r.reported = r.reported || r.machine.State() != pd.StateRequesting
			r.log.Warn("DHCPv6 exchange failed", "err", o.Text)
		case pd.OutputNote:
			note = o.Text
			if r.isNews(note) {
				defer r.remote.log(r.log, "DHCPv6 note", "note", note) // at the end: it must not hold up a lease
			}
		case pd.OutputDone:
			r.released = true
			for _, done := range r.waiting {
				close(done)
			}
			r.waiting = nil
		}
	}
	r.observeChange()
}

// failed keeps why an exchange failed, for people: information comes second to the bindings that a client is there for.
func (r *run) failed(o pd.Output) {
	wants := len(r.cfg.Machine.PDs) > 0 || r.cfg.Machine.NA != nil
	if r.failure == "" || !wants || o.About != pd.InformationRequest || r.failedOf == pd.InformationRequest {
		r.failure, r.failedOf = o.Text, o.About
	}
}

func (r *run) leased(o pd.Output) {
	switch o.Cause {
	case pd.CauseExpired, pd.CauseNoted: // neither says what the server thinks of the lease
	case pd.CauseReleased:
		r.reported, r.failure = true, ""
	default:
		r.reported = true
		if r.satisfied(o) {
			r.failure = ""
		}
	}
	r.observe(r.update(o.Lease, o.Cause))
	if o.Cause == pd.CauseNoted {
		return
	}
	r.log.Info("DHCPv6 lease changed", "cause", o.Cause, "prefixes", prefixes(o.Lease), "addresses", addresses(o.Lease))
}

// satisfied reports whether o is what the client is there for: bindings or, for a client that wants none, information.
func (r *run) satisfied(o pd.Output) bool {
	m := r.cfg.Machine
	switch {
	case len(m.PDs) > 0:
		return len(o.Lease.Prefixes) > 0
	case m.NA != nil:
		return len(o.Lease.Addresses) > 0
	}
	return true
}

func prefixes(l pd.Lease) []string {
	s := make([]string, len(l.Prefixes))
	for i, p := range l.Prefixes {
		s[i] = p.Prefix.String()
	}
	return s
}

func addresses(l pd.Lease) []string {
	s := make([]string, len(l.Addresses))
	for i, a := range l.Addresses {
		s[i] = a.Address.String()
	}
	return s
}

// send sends m. What fails is as good as lost on the way: the machine repeats it.
func (r *run) send(m pd.Message) {
	b, err := wire.Encode(m)
	if err != nil {
		r.sending.log(r.log, "DHCPv6 message not sent", "err", err)
		return
	}
	if r.sock == nil {
		return
	}
	at := time.Now()
	if err := r.sock.Send(b); err != nil {
		r.trouble = "send " + m.Type.String() + " to ff02::1:2 dev " + r.link.Name + ": " + udp.Plain(err).Error()
		r.sending.log(r.log, "DHCPv6 message not sent", "err", r.trouble)
		return
	}
	r.trouble = ""
	r.cfg.Trace(trace.Packet{At: at, Sent: true, Local: netip.AddrPortFrom(r.link.LinkLocal, udp.ClientPort),
		Remote: netip.AddrPortFrom(udp.AllServers, udp.ServerPort), Data: b})
	r.log.Debug("DHCPv6 message sent", "message", m.Type, "xid", m.XID, "elapsed", m.Elapsed)
}

func (r *run) update(l pd.Lease, cause pd.Cause) Update {
	u := Update{
		Lease:    l,
		Cause:    cause,
		Reported: r.reported,
		State:    r.machine.State(),
		Failure:  cmp.Or(r.trouble, r.failure),
		Note:     r.note,
	}
	switch {
	case r.released:
		u.State = pd.StateReleased
	case r.waits && r.sock != nil:
		u.State = r.cfg.WaitingFor
	}
	return u
}

func (r *run) observe(u Update) {
	r.last = u
	r.cfg.Observe(u)
}

// observeChange tells about what has changed besides the lease.
func (r *run) observeChange() {
	u := r.update(r.machine.Lease(), "")
	if u.Reported != r.last.Reported || u.State != r.last.State || u.Failure != r.last.Failure {
		r.observe(u)
	}
}
