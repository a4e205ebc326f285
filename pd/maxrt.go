package pd

import "time"

// solMaxRT is SOL_MAX_RT as it is now.
func (m *Machine) solMaxRT() time.Duration { return orDefault(m.lease.SolMaxRT, solMaxRT) }

// infMaxRT is INF_MAX_RT as it is now.
func (m *Machine) infMaxRT() time.Duration { return orDefault(m.lease.InfMaxRT, infMaxRT) }

func orDefault(seconds uint32, d time.Duration) time.Duration {
	if seconds == 0 {
		return d
	}
	return time.Duration(seconds) * time.Second
}

// inRange is a SOL_MAX_RT or INF_MAX_RT, or 0 if it has to be ignored (§21.24, §21.25).
func inRange(seconds uint32) uint32 {
	if seconds < minMaxRT || seconds > maxMaxRT {
		return 0
	}
	return seconds
}

// learnMaxRT takes over the SOL_MAX_RT and INF_MAX_RT options of a Reply to x, whatever its status (§18.2.10). Each change
// is written to disk, so a few must do in one exchange.
func (m *Machine) learnMaxRT(x *exchange, msg Message) {
	if x.learned == maxLearned {
		return
	}
	before := m.lease.learned()
	if s := inRange(msg.SolMaxRT); s != 0 {
		m.lease.SolMaxRT = s
	}
	if s := inRange(msg.InfMaxRT); s != 0 {
		m.lease.InfMaxRT = s
	}
	if m.lease.learned() != before {
		x.learned++
	}
	m.applyMaxRT()
}

// maxLearned bounds the changes of SOL_MAX_RT and INF_MAX_RT by the Replies to one exchange.
const maxLearned = 4

// advertisedMaxRT takes over those of an Advertise, also of one that offers nothing. Once two in an exchange disagree, the
// default holds (§18.2.9).
func (m *Machine) advertisedMaxRT(msg Message) {
	if s, ok := m.x.solMaxRT.settle(msg.SolMaxRT); ok {
		m.lease.SolMaxRT = s
	}
	if s, ok := m.x.infMaxRT.settle(msg.InfMaxRT); ok {
		m.lease.InfMaxRT = s
	}
	m.applyMaxRT()
}

func (m *Machine) applyMaxRT() {
	if m.x.typ == Solicit {
		m.x.mrt = m.solMaxRT()
	}
	if m.inf.typ != 0 {
		m.inf.mrt = m.infMaxRT()
	}
}

// dispute is an option that all Advertises of an exchange have to agree on.
type dispute struct {
	seconds  uint32 // of the latest that carried it
	disputed bool
}

// settle takes in one more and returns the value that holds, 0 for the default; ok is false if it says nothing.
func (d *dispute) settle(seconds uint32) (s uint32, ok bool) {
	if s = inRange(seconds); s == 0 {
		return 0, false
	}
	d.disputed = d.disputed || d.seconds != 0 && d.seconds != s
	d.seconds = s
	if d.disputed {
		return 0, true
	}
	return s, true
}
