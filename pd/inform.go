package pd

import (
	"time"

	"uplinkd/internal/lifetime"
)

// Information Refresh Time (RFC 9915 §7.6, §21.23).
const (
	irtDefault = 86400
	irtMinimum = 600
)

// uninformed reports whether an Information-request is called for when Lease.InfoUntil is over (§18.2.6): without bindings
// to ask for, or while servers do not grant them.
func (m *Machine) uninformed() bool {
	if !m.cfg.Stateless || m.inf.typ != 0 || m.lease.Held() {
		return false
	}
	return m.state == stateless || m.state == soliciting && (m.x.sent > 1 || m.failures > 0)
}

// refreshInformation begins an Information-request after the delay that it has to have.
func (m *Machine) refreshInformation(now time.Time) {
	m.startInformation(now.Add(m.randomDelay(infMaxDelay)), "")
}

// startInformation begins an Information-request, to server if that has asked for it.
func (m *Machine) startInformation(at time.Time, server DUID) {
	m.inf = m.begin(informationTiming, at, server)
}

// informationTimeout is called when the next Information-request is due.
func (m *Machine) informationTimeout(now time.Time) {
	m.inVain(&m.inf)
	m.transmit(now, &m.inf)
}

// informed takes in a Reply to an Information-request (§18.2.10.4).
func (m *Machine) informed(now time.Time, msg Message) {
	m.learnMaxRT(&m.inf, msg)
	if msg.Status.Code != Success {
		m.refused(&m.inf, msg.ServerID, refusal(msg.Status), true)
		return
	}
	m.inf = exchange{xid: m.inf.xid}
	l := m.lease
	l.Info = msg.Info.bounded()
	if !l.Held() {
		l.ServerID, l.Received = msg.ServerID, now
		l.InfoUntil = refreshAt(now, msg.InfoRefresh)
	}
	l.learnKey(msg, m.cfg)
	m.setLease(l, CauseInformed)
}

// refreshAt is when information with that Information Refresh Time is to be asked for again; 0 is no option.
func refreshAt(now time.Time, irt uint32) lifetime.Deadline {
	if irt == 0 {
		irt = irtDefault
	}
	return lifetime.After(now, max(irt, irtMinimum))
}
