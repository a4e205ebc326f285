package pd

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"uplinkd/internal/bucket"
	"uplinkd/internal/lifetime"
)

// InputKind says what happened.
type InputKind uint8

// The inputs of Machine.Step.
const (
	InputTimer    InputKind = iota + 1 // nothing but time passed: Deadline has come (too early or too late is harmless)
	InputLinkUp                        // the link can carry packets now: start, or verify what is held (§18.2.12)
	InputLinkDown                      // the link cannot carry packets: be silent, keep the lease
	InputMessage                       // Message arrived
	InputRenew                         // a person asks for a Renew (Rebind, Solicit, Information-request) now
	InputSuspect                       // a sign that the network has changed (§18.2.12): verify what is held, within limits
	InputRelease                       // give the lease back: send Release, report an empty lease at once (§18.2.7: stop using first)
	InputConflict                      // DAD has found Address of our IA_NA in use: Decline it (§18.2.8)
)

// Input is one thing that happened.
type Input struct {
	Kind    InputKind
	Message Message    // for InputMessage
	Unicast bool       // for InputMessage: it was sent to an address of ours, not to a group (§16.11)
	Address netip.Addr // for InputConflict
}

// OutputKind says what to do.
type OutputKind uint8

// The outputs of Machine.Step, to be carried out in order.
const (
	OutputSend   OutputKind = iota + 1 // send Message to ff02::1:2 port 547
	OutputLease                        // the lease is now Lease: tell the engine, keep it on disk
	OutputFailed                       // an exchange got no usable answer; Text says which and why, for status and log
	OutputDone                         // a Release ended (answered or given up)
	OutputNote                         // Text is worth a line in the log: a partial grant, a Reconfigure that was dropped
)

// Output is one thing to do.
type Output struct {
	Kind    OutputKind
	Message Message
	Lease   Lease
	Cause   Cause // for OutputLease
	Text    string
	About   MessageType // for OutputFailed: of the exchange
}

// Cause says which exchange changed the lease.
type Cause string

// Causes of an OutputLease.
const (
	CauseBound    Cause = "bound" // Request or Rapid Commit answered
	CauseRenewed  Cause = "renewed"
	CauseRebound  Cause = "rebound" // Rebind or Confirm answered
	CauseExpired  Cause = "expired" // a valid lifetime ended
	CauseReleased Cause = "released"
	CauseInformed Cause = "informed" // only Info changed: a Reply to an Information-request
	CauseDeclined Cause = "declined" // an address was found to be in use elsewhere
	CauseNoted    Cause = "noted"    // nothing that matters to others: SOL_MAX_RT, the replay value; for the disk
)

// Machine is the DHCPv6 client state machine of RFC 9915 §18.2 for one uplink. It is not safe for concurrent use and does
// nothing by itself: the driver calls Step when something happens or when Deadline has come.
type Machine struct {
	cfg      Config
	rnd      *rand.Rand
	now      time.Time // of the latest Step
	state    state
	lease    Lease
	onDisk   learned   // as in the OutputLease before
	previous []binding // what was held last: the hints of the next Solicit
	x        exchange  // the running one about bindings; meaningless in the states idle, bound and stateless
	inf      exchange  // the running Information-request; none if its type is 0
	offers   []offer   // soliciting: collected so far; requesting: what to fall back on, best first
	omit     omission  // what to leave out of discovery
	target   target    // what a Request, Release or Decline is about
	sends    Window
	failures int // rounds of discovery that ended without a lease since the last one that gave one
	declines declines
	silent   DUID   // server of the lease, since its verification was not answered
	recovery pauses // between Requests after NoBinding for IAs that hold nothing

	wantAt    time.Time     // bound: when to ask for the IAs that the lease lacks; zero if it lacks none
	wantPause time.Duration // the pause that led to it
	asked     bucket.Bucket // by InputRenew and Reconfigure
	invited   bucket.Bucket // by signs of another network, while there is nothing to verify
	suspectAt time.Time     // when to verify what is held; zero if there is no suspicion
	verified  time.Time     // when that was last begun
	handed    bool          // the lease came from a server in the place of another one
	dropNote  time.Time     // when a dropped Reconfigure was last noted
	out       []Output
}

// target is what a Request, Release or Decline is about. It stays the same in retransmissions.
type target struct {
	bindings []binding
	again    bool // a Request after NoBinding (§18.2.10.1): what it does not replace stays
	unknown  []ia // those with NoBinding: what they are granted replaces what they had, of which the server knows nothing
	partial  bool // likewise, and the lease is good without it
}

type state uint8

const (
	idle state = iota
	soliciting
	requesting
	bound
	renewing
	rebinding
	confirming
	releasing
	declining
	stateless
)

var stateNames = [...]string{StateNoLink, "soliciting", StateRequesting, StateBound, StateRenewing, StateRebinding,
	"confirming stored lease", "releasing", "declining", "informed"}

const informing = "asking for information" // stateless, until an Information-request is answered

// Names of states that others act on.
const (
	StateNoLink     = "waiting for link"
	StateRequesting = "requesting" // a server is asked for what it has offered, or what it has no binding of
	StateBound      = "bound"
	StateRenewing   = "renewing"  // T1 has passed: the server is asked to extend the lease
	StateRebinding  = "rebinding" // T2 has passed: any server is asked to extend the lease
	StateReleased   = "released"  // of a client that is silent after a Release
)

// NewMachine returns a machine that waits for InputLinkUp. saved is the lease from before, the zero Lease if there is
// none; what of it is over at now is ignored, and what belongs to an IA that cfg does not have serves only as a hint. rnd
// is the source of transaction ids (which should be unpredictable, §16.1) and jitter.
func NewMachine(cfg Config, saved Lease, now time.Time, rnd *rand.Rand) *Machine {
	m := &Machine{cfg: cfg, rnd: rnd, now: now, asked: bucket.New(askBurst, askSpacing), invited: bucket.New(askBurst, askSpacing)}
	m.restore(saved, now)
	m.onDisk = m.lease.learned()
	return m
}

// Step takes in what happened at now and returns what to do. Time does not go back within a machine: an earlier now
// than that of the step before counts as that one.
func (m *Machine) Step(now time.Time, in Input) []Output {
	if now.Before(m.now) {
		now = m.now
	}
	m.now, m.out = now, nil
	m.expire(now)
	switch in.Kind {
	case InputLinkUp:
		m.linkUp(now)
	case InputLinkDown:
		m.linkDown()
	case InputMessage:
		m.receive(now, in)
	case InputRenew:
		m.ask(now.Add(m.asked.Wait(now)), &m.asked)
	case InputSuspect:
		m.suspect(now)
	case InputRelease:
		m.release(now)
	case InputConflict:
		m.conflict(now, in.Address)
	}
	for m.act(now) {
	}
	if m.lease.learned() != m.onDisk {
		m.report(CauseNoted)
	}
	return m.out
}

// alarm is something to do when its time has come.
type alarm struct {
	at lifetime.Deadline
	do func(*Machine, time.Time)
}

// alarms are what waits for its time, the more important first.
func (m *Machine) alarms() []alarm {
	alarms := make([]alarm, 0, 8)
	set := func(armed bool, at lifetime.Deadline, do func(*Machine, time.Time)) {
		if armed {
			alarms = append(alarms, alarm{at, do})
		}
	}
	set(m.state == bound || m.state == renewing, m.lease.T2, (*Machine).startRebind)
	set(m.state == bound, m.lease.T1, (*Machine).startRenew)
	set(m.state == bound && !m.wantAt.IsZero(), lifetime.Until(m.wantAt), (*Machine).startRenew)
	set(!m.suspectAt.IsZero(), lifetime.Until(m.suspectAt), (*Machine).verify)
	set(m.exchanging() && m.x.waiting != nil, lifetime.Until(m.x.settle), (*Machine).settled)
	set(m.exchanging(), lifetime.Until(m.x.next), (*Machine).timeout)
	set(m.inf.typ != 0, lifetime.Until(m.inf.next), (*Machine).informationTimeout)
	set(m.uninformed(), m.lease.InfoUntil, (*Machine).refreshInformation)
	return alarms
}

// act does one thing that is due at now and reports whether there was one. It comes to rest: every way through it ends
// in a transmission, and a transmission moves the next one into the future.
func (m *Machine) act(now time.Time) bool {
	for _, a := range m.alarms() {
		if a.at.Over(now) {
			a.do(m, now)
			return true
		}
	}
	return false
}

// Deadline is when Step wants to be called with InputTimer next; ok is false when only an input can change anything.
// It lies after the now of the latest Step.
func (m *Machine) Deadline() (t time.Time, ok bool) {
	d := lifetime.Forever()
	for _, b := range m.lease.bindings() {
		d = lifetime.Min(d, b.ValidUntil)
	}
	for _, a := range m.alarms() {
		d = lifetime.Min(d, a.at)
	}
	return d.Time()
}

// State is the name of the machine's state, for people: "waiting for link", "soliciting", "requesting", "bound",
// "renewing", "rebinding", "confirming stored lease", "releasing", "declining", and for stateless configuration
// "asking for information" and "informed".
func (m *Machine) State() string {
	if m.state == stateless && m.inf.typ != 0 {
		return informing
	}
	return stateNames[m.state]
}

// Lease is the current lease; one that is not Held if there is none.
func (m *Machine) Lease() Lease { return m.lease }

// Sent is what has been sent lately, for a machine that follows this one on the same uplink: the limit is the uplink's.
func (m *Machine) Sent() Window { return m.sends }

// Follow has m count what the machine before it has sent.
func (m *Machine) Follow(sent Window) { m.sends = sent }

// exchanging reports whether an exchange about bindings is running.
func (m *Machine) exchanging() bool {
	return m.state != idle && m.state != bound && m.state != stateless
}

// receive takes in a message. What does not answer a running exchange is dropped without a trace.
func (m *Machine) receive(now time.Time, in Input) {
	msg := in.Message
	switch {
	case msg.Type == Reconfigure:
		m.reconfigure(now, in)
	case m.inf.typ != 0 && msg.Type == Reply && m.answers(&m.inf, msg):
		m.informed(now, msg)
	case !m.exchanging() || !m.answers(&m.x, msg):
	case msg.Type == Advertise && m.state == soliciting:
		m.advertised(now, msg)
	case msg.Type == Reply && m.state == soliciting:
		// §18.2.1: while soliciting only a Reply with Rapid Commit counts, and only if we asked for it.
		if m.cfg.RapidCommit && msg.RapidCommit {
			m.granted(now, msg)
		}
	case msg.Type == Reply && m.state == requesting:
		m.granted(now, msg)
	case msg.Type == Reply && m.state == releasing: // §18.2.10.2: whatever its status
		m.learnMaxRT(&m.x, msg)
		m.released()
	case msg.Type == Reply && m.state == declining: // likewise
		m.learnMaxRT(&m.x, msg)
		m.declined(now)
	case msg.Type == Reply:
		m.extended(now, msg)
	}
}

// Awaits are the transaction ids of the running exchanges, one of which an answer carries, and whether a Reconfigure, which
// answers nothing, is listened to.
func (m *Machine) Awaits() (xids []uint32, reconfigure bool) {
	if m.exchanging() && m.x.sent > 0 {
		xids = append(xids, m.x.xid)
	}
	if m.inf.typ != 0 && m.inf.sent > 0 {
		xids = append(xids, m.inf.xid)
	}
	return xids, m.listens()
}

// answers reports whether msg has the transaction id of x and our identity (§16.3, §16.10), and comes from the server that
// x addresses, if it does: another one has no say in what that server has delegated (§18.2.10).
func (m *Machine) answers(x *exchange, msg Message) bool {
	return x.sent > 0 && msg.XID == x.xid && msg.ClientID == m.cfg.ClientID && msg.ServerID.Valid() &&
		(x.server == "" || x.server == msg.ServerID)
}
