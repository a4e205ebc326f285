package pd

import (
	"bytes"
	"slices"
	"time"

	"uplinkd/internal/lifetime"
)

// restore takes over a lease from disk as it stands at now. Its deadlines are expressed relative to now, which gives them
// a monotonic reading: a later step of the clock does not move them. A router without a battery-backed clock may have
// gone back in time since; then what was left when the lease was received is left. Nothing on disk is trusted.
func (m *Machine) restore(saved Lease, now time.Time) {
	rebased := rebase(saved.Received, now)
	l := Lease{SolMaxRT: inRange(saved.SolMaxRT), InfMaxRT: inRange(saved.InfMaxRT), IgnoresRebind: validID(saved.IgnoresRebind)}
	var ours, others []binding
	for _, b := range saved.bindings() {
		if !delegable(b.Prefix) || !m.cfg.accepts(b.ia(), b.Prefix.Bits()) && slices.Contains(m.cfg.wanted(), b.ia()) {
			continue
		}
		b.Exclude = excluded(b.Prefix, b.Exclude)
		b.ValidUntil = rebased(b.ValidUntil)
		b.PreferredUntil = lifetime.Min(rebased(b.PreferredUntil), b.ValidUntil)
		if slices.Contains(m.cfg.wanted(), b.ia()) {
			ours = append(ours, b)
		} else {
			others = append(others, b)
		}
	}
	for _, p := range saved.Previous {
		if delegable(p) {
			others = append(others, binding{LeasedPrefix: LeasedPrefix{Prefix: p}})
		}
	}
	held := l.with(ours)
	m.remember(held.bindings())
	m.adopt(others)
	if held = held.At(now); held.Held() {
		l = held
		l.ServerID, l.T1, l.T2, l.Info = validID(saved.ServerID), rebased(saved.T1), rebased(saved.T2), saved.Info.bounded()
		l.Received = now.Add(min(0, saved.Received.Sub(now)))
	} else if m.cfg.Stateless && !saved.InfoUntil.IsZero() {
		l.ServerID, l.Info, l.InfoUntil = validID(saved.ServerID), saved.Info.bounded(), lifetime.Max(rebased(saved.InfoUntil), lifetime.Until(now))
		l.Received = now.Add(min(0, saved.Received.Sub(now)))
	}
	if k := saved.Reconf; k != nil && m.cfg.Reconfigure && k.ServerID.Valid() && k.ServerID == l.ServerID && len(k.Key) == rkapLen {
		l.Reconf = &ReconfKey{ServerID: k.ServerID, Key: bytes.Clone(k.Key), Replay: k.Replay}
	}
	if len(l.Prefixes) == 0 {
		l.Previous = m.previousPrefixes()
	}
	m.lease = l
}

// adopt makes hints of prefixes that belong to no IA of the config: they are dealt out among the IA_PDs without a hint.
func (m *Machine) adopt(orphans []binding) {
	var free []PDConfig
	for _, c := range m.cfg.PDs {
		if !slices.ContainsFunc(m.previous, func(b binding) bool { return !b.na && b.IAID == c.IAID }) {
			free = append(free, c)
		}
	}
	dealt := 0
	for _, b := range orphans {
		if b.na || len(free) == 0 || dealt == maxPrefixes {
			continue
		}
		if b.IAID = free[dealt%len(free)].IAID; m.cfg.accepts(b.ia(), b.Prefix.Bits()) {
			m.previous = append(m.previous, b)
			dealt++
		}
	}
}

// rebase returns the function that expresses a deadline of a lease received at received relative to now.
func rebase(received, now time.Time) func(lifetime.Deadline) lifetime.Deadline {
	reference := now
	if received.After(now) {
		reference = received
	}
	return func(d lifetime.Deadline) lifetime.Deadline {
		t, finite := d.Time()
		if !finite {
			return d
		}
		if left := t.Sub(reference); left > 0 {
			return lifetime.Until(now.Add(left))
		}
		return lifetime.Deadline{}
	}
}

func validID(d DUID) DUID {
	if d.Valid() {
		return d
	}
	return ""
}
