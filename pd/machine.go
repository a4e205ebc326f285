package pd

import (
	"math/rand/v2"
	"time"
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
	cfg Config
	rnd *rand.Rand
}

// NewMachine returns a machine that waits for InputLinkUp. saved is the lease from before, the zero Lease if there is
// none; what of it is over at now is ignored. rnd is the source of transaction ids and jitter.
func NewMachine(cfg Config, saved Lease, now time.Time, rnd *rand.Rand) *Machine { panic("not yet") }

// Step takes in what happened at now and returns what to do.
func (m *Machine) Step(now time.Time, in Input) []Output { panic("not yet") }

// Deadline is when Step wants to be called with InputTimer next; ok is false when only an input can change anything.
func (m *Machine) Deadline() (t time.Time, ok bool) { panic("not yet") }

// State is the name of the machine's state, for people: "waiting for link", "soliciting", "requesting", "bound",
// "renewing", "rebinding", "confirming stored lease", "releasing".
func (m *Machine) State() string { panic("not yet") }

// Lease is the current lease; the zero Lease if there is none.
func (m *Machine) Lease() Lease { panic("not yet") }
