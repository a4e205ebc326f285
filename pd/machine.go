package pd

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"uplinkd/internal/lifetime"
)

// Config is what a Machine needs to know of its uplink. It never changes in the life of a Machine.
type Config struct {
	ClientID    DUID
	IAID        uint32 // of the IA_PD; stable for the uplink
	Length      uint8  // prefix length hint, 0: none
	RapidCommit bool   // ask for the two-message exchange
	Delay       bool   // random delay of 0 … SOL_MAX_DELAY before the first Solicit (RFC 9915 §18.2.1)
}

// InputKind says what happened.
type InputKind uint8

// The inputs of Machine.Step.
const (
	InputTimer    InputKind = iota + 1 // nothing but time passed: Deadline has come (too early or too late is harmless)
	InputLinkUp                        // the link can carry packets now: start, or (with a lease) Rebind (§18.2.12)
	InputLinkDown                      // the link cannot carry packets: be silent, keep the lease
	InputMessage                       // Message arrived
	InputRenew                         // a person or a suspicion asks for a Renew (Rebind, Solicit) now
	InputRelease                       // give the lease back: send Release, report an empty lease at once (§18.2.7: stop using first)
)

// Input is one thing that happened.
type Input struct {
	Kind    InputKind
	Message Message // for InputMessage
}

// OutputKind says what to do.
type OutputKind uint8

// The outputs of Machine.Step, to be carried out in order.
const (
	OutputSend   OutputKind = iota + 1 // send Message to ff02::1:2 port 547
	OutputLease                        // the lease is now Lease: tell the engine, keep it on disk
	OutputFailed                       // an exchange got no usable answer; Text says which and why, for status and log
	OutputDone                         // a Release ended (answered or given up)
)

// Output is one thing to do.
type Output struct {
	Kind    OutputKind
	Message Message
	Lease   Lease
	Cause   Cause // for OutputLease
	Text    string
}

// Cause says which exchange changed the lease.
type Cause string

// Causes of an OutputLease.
const (
	CauseBound    Cause = "bound" // Request or Rapid Commit answered
	CauseRenewed  Cause = "renewed"
	CauseRebound  Cause = "rebound"
	CauseExpired  Cause = "expired" // a valid lifetime ended
	CauseReleased Cause = "released"
)

// Machine is the DHCPv6 client state machine of RFC 9915 §18.2 for one uplink and one IA_PD. It is not safe for
// concurrent use and does nothing by itself: the driver calls Step when something happens or when Deadline has come.
type Machine struct {
	cfg      Config
	rnd      *rand.Rand
	now      time.Time // of the latest Step
	state    state
	lease    Lease
	previous []netip.Prefix // what was held last: the hint of the next Solicit
	x        exchange       // the running one; meaningless in the states idle and bound
	offers   []offer        // soliciting: collected so far; requesting: what to fall back on, best first
	target   target         // whom a Request or Release addresses, and about what
	sends    window
	failures int       // rounds of discovery that ended without a lease since the last one that gave one
	asked    time.Time // when InputRenew last had an effect, or will have it
	out      []Output
}

// target is the server and the prefixes of a Request or a Release. They stay the same in retransmissions.
type target struct {
	server   DUID
	prefixes []netip.Prefix
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
)

var stateNames = [...]string{StateNoLink, "soliciting", "requesting", "bound", "renewing", StateRebinding,
	"confirming stored lease", "releasing"}

// Names of states that others act on.
const (
	StateNoLink    = "waiting for link"
	StateRebinding = "rebinding" // T2 has passed: any server is asked to extend the lease
	StateReleased  = "released"  // of a client that is silent after a Release
)

// NewMachine returns a machine that waits for InputLinkUp. saved is the lease from before, the zero Lease if there is
// none; what of it is over at now is ignored, and a lease of another IAID serves only as a hint. rnd is the source of
// transaction ids (which should be unpredictable, §16.1) and jitter.
func NewMachine(cfg Config, saved Lease, now time.Time, rnd *rand.Rand) *Machine {
	m := &Machine{cfg: cfg, rnd: rnd, now: now}
	m.lease = restored(saved, now)
	m.remember(m.lease.Prefixes)
	if m.lease = m.lease.At(now); m.lease.IAID != cfg.IAID || len(m.lease.Prefixes) == 0 {
		m.lease = Lease{SolMaxRT: m.lease.SolMaxRT}
	}
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
		m.receive(now, in.Message)
	case InputRenew:
		m.ask(now)
	case InputRelease:
		m.release(now)
	}
	for m.act(now) {
	}
	return m.out
}

// act does one thing that is due at now and reports whether there was one. It comes to rest: every way through it ends
// in a transmission, and a transmission moves the next one into the future.
func (m *Machine) act(now time.Time) bool {
	switch {
	case (m.state == bound || m.state == renewing) && m.lease.T2.Over(now):
		m.startRebind(now)
	case m.state == bound && m.lease.T1.Over(now):
		m.startRenew(now)
	case m.exchanging() && !m.x.next.After(now):
		m.timeout(now)
	default:
		return false
	}
	return true
}

// Deadline is when Step wants to be called with InputTimer next; ok is false when only an input can change anything.
// It lies after the now of the latest Step.
func (m *Machine) Deadline() (t time.Time, ok bool) {
	d := lifetime.Forever()
	for _, p := range m.lease.Prefixes {
		d = lifetime.Min(d, p.ValidUntil)
	}
	if m.state == bound {
		d = lifetime.Min(d, m.lease.T1)
	}
	if m.state == bound || m.state == renewing {
		d = lifetime.Min(d, m.lease.T2)
	}
	if m.exchanging() {
		d = lifetime.Min(d, lifetime.Until(m.x.next))
	}
	return d.Time()
}

// State is the name of the machine's state, for people: "waiting for link", "soliciting", "requesting", "bound",
// "renewing", "rebinding", "confirming stored lease", "releasing".
func (m *Machine) State() string { return stateNames[m.state] }

// Lease is the current lease; the zero Lease, apart from SolMaxRT, if there is none.
func (m *Machine) Lease() Lease { return m.lease }

// exchanging reports whether a message exchange is running.
func (m *Machine) exchanging() bool { return m.state != idle && m.state != bound }

// receive takes in a message. What does not answer the running exchange is dropped without a trace.
func (m *Machine) receive(now time.Time, msg Message) {
	if !m.exchanging() || !m.answers(msg) {
		return
	}
	switch {
	case msg.Type == Advertise && m.state == soliciting:
		m.advertised(now, msg)
	case msg.Type == Reply && m.state == soliciting:
		// §18.2.1: while soliciting only a Reply with Rapid Commit counts, and only if we asked for it.
		if m.cfg.RapidCommit && msg.RapidCommit {
			m.granted(now, msg)
		}
	case msg.Type == Reply && m.state == requesting:
		m.granted(now, msg)
	case msg.Type == Reply && m.state == releasing:
		m.learnSolMaxRT(msg.SolMaxRT)
		m.released() // §18.2.10.2: whatever its status
	case msg.Type == Reply:
		m.extended(now, msg)
	}
}

// Awaits is the transaction id of the running exchange; ok is false while no message is an answer to anything.
func (m *Machine) Awaits() (xid uint32, ok bool) {
	return m.x.xid, m.exchanging() && m.x.sent > 0
}

// answers reports whether msg has the transaction id and our identity (§16.3, §16.10), and comes from the server that was
// asked, if it was a certain one: another one has no say in what that server has delegated (§18.2.10).
func (m *Machine) answers(msg Message) bool {
	asked := m.addressee()
	return m.x.sent > 0 && msg.XID == m.x.xid && msg.ClientID == m.cfg.ClientID && msg.ServerID.Valid() &&
		(asked == "" || msg.ServerID == asked)
}

// addressee is the server whose identifier the running exchange carries; "" if any server may answer.
func (m *Machine) addressee() DUID {
	switch m.state {
	case requesting, releasing:
		return m.target.server
	case renewing:
		return m.lease.ServerID
	}
	return ""
}
