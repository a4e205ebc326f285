package pd

import (
	"net/netip"
	"slices"
	"time"
)

// release gives the lease back. It is out of use before the server hears of it (§18.2.7).
func (m *Machine) release(now time.Time) {
	if m.state == releasing {
		return
	}
	m.target = target{bindings: m.lease.bindings()}
	server, linked := m.lease.ServerID, m.state != idle
	m.previous, m.offers, m.failures = nil, nil, 0
	m.suspectAt, m.inf = time.Time{}, exchange{xid: m.inf.xid}
	if l := m.lease; l.Held() || !l.InfoUntil.IsZero() || len(l.Previous) > 0 {
		m.setLease(l.ofServers(), CauseReleased)
	}
	if !linked || len(m.target.bindings) == 0 || !server.Valid() {
		m.released()
		return
	}
	m.start(releasing, releaseTiming, now, server)
}

func (m *Machine) released() {
	m.state = idle
	m.out = append(m.out, Output{Kind: OutputDone})
}

// declines counts the addresses that turned out to be in use, for growing pauses.
type declines struct {
	count int
	last  time.Time
}

// pause is how long to wait at now before an address is asked for again: not at all the first time in an hour.
func (d *declines) pause(now time.Time) time.Duration {
	if now.Sub(d.last) > time.Hour {
		d.count = 0
	}
	d.last = now
	d.count++
	if d.count == 1 {
		return 0
	}
	return min(time.Minute<<min(d.count-2, 10), time.Hour)
}

// conflict gives up an address that duplicate address detection has found in use, and says so to the server (§18.2.8).
// No IA_PD takes part in it, and no other lease suffers from it.
func (m *Machine) conflict(now time.Time, address netip.Addr) {
	if !m.lease.hasAddress(address) {
		return
	}
	taken := func(b binding) bool { return b.na && b.Prefix.Addr() == address }
	held := m.lease.bindings()
	t := target{bindings: slices.DeleteFunc(slices.Clone(held), func(b binding) bool { return !taken(b) })}
	if m.state == declining {
		t.bindings = append(t.bindings, m.target.bindings...)
	}
	server := m.lease.ServerID
	m.setLease(m.lease.with(slices.DeleteFunc(held, taken)), CauseDeclined)
	m.previous = slices.DeleteFunc(slices.Clone(m.previous), taken)
	switch {
	case m.state == idle || m.state == releasing:
	case !server.Valid():
		m.declined(now)
	default:
		m.target, m.offers = t, nil
		m.start(declining, declineTiming, now, server)
	}
}

// declined goes on after a Decline, whatever the answer: the address is asked for anew, after a pause if this happens
// time and again.
func (m *Machine) declined(now time.Time) {
	again := now.Add(m.declines.pause(now))
	if !m.lease.Held() {
		m.startSolicit(again)
		return
	}
	m.rest(now)
	m.wantAt = again
}
