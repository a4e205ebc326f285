package pd

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/lifetime"
)

// minAskInterval is the least time between two messages that InputRenew brings forward (§18.2.12 wants a limit).
const minAskInterval = 10 * time.Second

// expire takes what is over at now out of the lease. When nothing is left of it, discovery begins (§18.2.5).
func (m *Machine) expire(now time.Time) {
	l := m.lease.At(now)
	if len(l.Prefixes) == len(m.lease.Prefixes) {
		return
	}
	if len(l.Prefixes) == 0 && (m.state == renewing || m.state == rebinding) && !m.x.reported {
		m.failed("no server has answered before the lease ended")
	}
	m.setLease(l, CauseExpired)
	if len(l.Prefixes) > 0 {
		return
	}
	switch m.state {
	case bound, renewing, rebinding, confirming:
		m.startSolicit(now)
	}
}

// linkUp starts, or verifies a lease after the link may have been moved (§18.2.12).
func (m *Machine) linkUp(now time.Time) {
	switch m.state {
	case idle, bound, renewing, rebinding:
		if len(m.lease.Prefixes) > 0 {
			m.start(confirming, confirmTiming, now.Add(m.firstDelay(cnfMaxDelay)))
			return
		}
		m.startSolicit(now.Add(m.firstDelay(solMaxDelay)))
	case soliciting:
		m.ask(now)
	}
}

// firstDelay is the random delay before the first message on a link; it keeps hosts from speaking up all at once after a
// power failure.
func (m *Machine) firstDelay(most time.Duration) time.Duration {
	if !m.cfg.Delay {
		return 0
	}
	return time.Duration(m.rnd.Float64() * float64(most))
}

func (m *Machine) linkDown() {
	if m.state == releasing {
		m.released()
	}
	m.state, m.offers = idle, nil
}

// ask brings the next message forward because somebody asked for it.
func (m *Machine) ask(now time.Time) {
	at := now
	if earliest := m.asked.Add(minAskInterval); !m.asked.IsZero() && earliest.After(now) {
		at = earliest
	}
	switch {
	case m.state == bound:
		m.startRenew(at)
	case (m.state == renewing || m.state == rebinding) && at.Before(m.x.next):
		m.x.next = at
	case m.state == soliciting && m.x.sent != 1 && at.Before(m.x.next):
		m.startSolicit(at)
	default:
		return
	}
	m.asked = at
}

// startRenew begins to ask the server of the lease for more time (§18.2.4), or any server if that one is not known.
func (m *Machine) startRenew(at time.Time) {
	if !m.lease.ServerID.Valid() {
		m.start(rebinding, rebindTiming, at)
		return
	}
	m.start(renewing, renewTiming, at)
}

// startRebind begins to ask any server for more time (§18.2.5).
func (m *Machine) startRebind(now time.Time) {
	if m.state == renewing && m.x.sent > 0 && !m.x.reported {
		m.failed(fmt.Sprintf("server %v has not answered, asking any server", m.lease.ServerID))
	}
	m.start(rebinding, rebindTiming, now)
}

// extended takes in a Reply to a Renew or Rebind (§18.2.10.1).
func (m *Machine) extended(now time.Time, msg Message) {
	m.learnSolMaxRT(msg.SolMaxRT)
	v := judge(msg, m.cfg.IAID)
	cause := CauseRebound
	if m.state == renewing {
		cause = CauseRenewed
	}
	kept := m.unlisted(v)
	if len(v.granted) > 0 {
		m.bind(now, msg, v, kept, cause)
		return
	}
	m.refused(msg.ServerID, v.reason, v.code != Success || len(v.withdrawn) == 0)
	if len(kept) < len(m.lease.Prefixes) {
		l := m.lease
		l.Prefixes = kept
		m.setLease(l, cause)
	}
	switch {
	case len(kept) == 0:
		m.startSolicit(now)
	case v.code == NoBinding:
		// The prefixes stay in use until they are replaced or over. It ends this exchange, so it happens once;
		// if the Request fails as well, discovery begins, with its growing pauses.
		m.offers = nil
		m.startRequest(now, msg.ServerID, prefixesOf(kept))
	}
	// Otherwise the lease stands and the message is repeated when its time comes.
}

// unlisted are the prefixes of the lease about which v says nothing.
func (m *Machine) unlisted(v verdict) []LeasedPrefix {
	return slices.DeleteFunc(slices.Clone(m.lease.Prefixes), func(p LeasedPrefix) bool { return v.knows(p.Prefix) })
}

// unanswered ends an exchange that has used up its transmissions or its time.
func (m *Machine) unanswered(now time.Time) {
	switch m.state {
	case requesting:
		if !m.x.reported {
			m.failed(fmt.Sprintf("server %v has not answered %d messages", m.target.server, m.x.sent))
		}
		m.requestNext(now)
	case confirming:
		if !m.x.reported {
			m.failed(fmt.Sprintf("no server has answered in %v, keeping the lease as it is", cnfMaxRD))
		}
		m.state = bound // §18.2.3: with the last known lifetimes; T1 and T2 go on
	case releasing:
		m.released()
	}
}

// release gives the lease back. It is out of use before the server hears of it (§18.2.7).
func (m *Machine) release(now time.Time) {
	if m.state == releasing {
		return
	}
	m.target = target{server: m.lease.ServerID, prefixes: prefixesOf(m.lease.Prefixes)}
	linked := m.state != idle
	if len(m.lease.Prefixes) > 0 {
		m.setLease(Lease{SolMaxRT: m.lease.SolMaxRT}, CauseReleased)
	}
	m.previous, m.offers, m.failures = nil, nil, 0
	if !linked || len(m.target.prefixes) == 0 || !m.target.server.Valid() {
		m.released()
		return
	}
	m.start(releasing, releaseTiming, now)
}

func (m *Machine) released() {
	m.state = idle
	m.out = append(m.out, Output{Kind: OutputDone})
}

// restored is a lease from disk as it stands at now, prefixes that are over included. Its deadlines are expressed
// relative to now, which gives them a monotonic reading: a later step of the clock does not move them. A router without
// a battery-backed clock may have gone back in time since; then what was left when the lease was received is left.
func restored(saved Lease, now time.Time) Lease {
	reference := now
	if saved.Received.After(now) {
		reference = saved.Received
	}
	rebased := func(d lifetime.Deadline) lifetime.Deadline {
		t, finite := d.Time()
		if !finite {
			return d
		}
		if left := t.Sub(reference); left > 0 {
			return lifetime.Until(now.Add(left))
		}
		return lifetime.Deadline{}
	}
	l := saved
	l.Received = now.Add(min(0, saved.Received.Sub(now)))
	l.T1, l.T2 = rebased(saved.T1), rebased(saved.T2)
	if l.SolMaxRT < minSolMaxRT || l.SolMaxRT > maxSolMaxRT {
		l.SolMaxRT = 0
	}
	l.Prefixes = nil
	seen := map[netip.Prefix]bool{}
	for _, p := range saved.Prefixes {
		if !delegable(p.Prefix) || seen[p.Prefix] || len(l.Prefixes) == maxPrefixes {
			continue
		}
		seen[p.Prefix] = true
		valid := rebased(p.ValidUntil)
		l.Prefixes = append(l.Prefixes, LeasedPrefix{
			Prefix:         p.Prefix,
			PreferredUntil: lifetime.Min(rebased(p.PreferredUntil), valid),
			ValidUntil:     valid,
		})
	}
	sortPrefixes(l.Prefixes)
	return l
}
