package pd

import (
	"fmt"
	"slices"
	"time"

	"uplinkd/internal/bucket"
)

// How often something that happens may bring a message forward. A renumbering can take two Reconfigure messages within a second.
const (
	askBurst   = 3                // at once
	askSpacing = 10 * time.Second // then once in this time
)

// expire takes what is over at now out of the lease. When nothing is left of it, discovery begins (§18.2.5).
func (m *Machine) expire(now time.Time) {
	l := m.lease.At(now)
	if len(l.Prefixes) == len(m.lease.Prefixes) && len(l.Addresses) == len(m.lease.Addresses) {
		return
	}
	if !l.Held() && (m.state == renewing || m.state == rebinding) && !m.x.reported {
		m.failed(&m.x, "no server has answered before the lease ended")
	}
	m.setLease(l, CauseExpired)
	switch m.state {
	case bound, renewing, rebinding, confirming:
		if !l.Held() {
			m.startSolicit(now)
		} else if m.wantAt.IsZero() {
			m.scheduleMissing(now)
		}
	}
}

// ask brings the next message forward to at, because somebody asked for it, and counts that in limit. While offers are being
// collected the Request follows by itself. Otherwise discovery begins anew, with its short pauses: whatever made servers
// silent may be over.
func (m *Machine) ask(at time.Time, limit *bucket.Bucket) {
	switch {
	case m.state == bound:
		m.startRenew(at)
	case (m.state == renewing || m.state == rebinding) && at.Before(m.x.next):
		m.x.next = at
	case m.state == soliciting && len(m.offers) == 0 && at.Before(m.x.next):
		m.startSolicit(at)
	case m.state == stateless && m.inf.typ == 0:
		m.startInformation(at, "")
	case m.state == stateless && m.inf.sent != 1 && at.Before(m.inf.next):
		m.inf.next = at
	default:
		return
	}
	limit.Take(at)
}

// startRenew begins to ask the server of the lease for more time and for IAs that the lease lacks (§18.2.4); or any server
// if that one is not known.
func (m *Machine) startRenew(at time.Time) {
	m.wantAt = time.Time{}
	if !m.lease.ServerID.Valid() {
		m.start(rebinding, rebindTiming, at, "")
		return
	}
	m.start(renewing, renewTiming, at, m.lease.ServerID)
}

// startRebind begins to ask any server for more time (§18.2.5).
func (m *Machine) startRebind(now time.Time) {
	if m.state == renewing && m.x.sent > 0 && !m.x.reported {
		m.failed(&m.x, fmt.Sprintf("server %v has not answered, asking any server", m.lease.ServerID))
	}
	m.start(rebinding, rebindTiming, now, "")
}

// conclude acts on a Reply to a Renew or Rebind (§18.2.10.1).
func (m *Machine) conclude(now time.Time, msg Message, a answer) {
	cause := CauseRebound
	if m.state == renewing {
		cause = CauseRenewed
	}
	kept := a.unlisted(m.lease.bindings())
	if a.grants() {
		m.bind(now, msg, a, kept, cause)
		if m.recovers(now, a) {
			m.startRequest(now, msg.ServerID, target{bindings: m.lease.bindings(), again: true, unknown: a.unknown(), partial: true})
		}
		return
	}
	withdrawn := len(kept) < len(m.lease.bindings())
	if reason := a.reason(); reason != "" {
		m.refused(&m.x, msg.ServerID, reason, true)
	}
	if withdrawn {
		m.setLease(m.lease.with(kept), cause)
	}
	switch {
	case len(kept) == 0:
		m.startSolicit(now)
	case m.recovers(now, a):
		// The leases stay in use until they are replaced or over. It ends this exchange, so it happens once;
		// if the Request fails as well, discovery begins, with its growing pauses.
		m.offers = nil
		m.startRequest(now, msg.ServerID, target{bindings: kept, again: true, unknown: a.unknown()})
	}
	// Otherwise the lease stands and the message is repeated when its time comes.
}

// recovers reports whether a Request has to follow a, because it says NoBinding (§18.2.10.1): for an IA of which something
// is held always, since it ends otherwise; for the others from time to time, since it is asked of a server that may say so
// upon every Renew.
func (m *Machine) recovers(now time.Time, a answer) bool {
	unknown := a.unknown()
	return slices.ContainsFunc(unknown, m.lease.holds) || len(unknown) > 0 && m.recovery.due(now)
}

// pauses spread what may be in vain: they double from a minute to an hour. The zero value allows it at once.
type pauses struct {
	next  time.Time
	pause time.Duration
}

func (p *pauses) due(now time.Time) bool {
	if now.Before(p.next) {
		return false
	}
	p.pause = min(max(time.Minute, 2*p.pause), time.Hour)
	p.next = now.Add(p.pause)
	return true
}

// extends reports whether all of held is granted again.
func (a answer) extends(held []binding) bool {
	return !slices.ContainsFunc(held, func(b binding) bool {
		v, _ := a.about(b.ia())
		return !slices.ContainsFunc(v.granted, func(g IAPrefix) bool { return g.Prefix == b.Prefix })
	})
}

// grants reports whether any IA is granted something.
func (a answer) grants() bool {
	return slices.ContainsFunc(a, func(v verdict) bool { return len(v.granted) > 0 })
}
