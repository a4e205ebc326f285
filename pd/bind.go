package pd

import (
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/lifetime"
)

// minRetry is the least time after which an IA that was not extended is asked for again before it ends: half of what is
// left would come ever faster.
const minRetry = 30 * time.Second

// Bounds of what is kept of an Info.
const (
	maxServers = 16
	maxDomains = 32
	maxOptions = 64
)

func (i Info) bounded() Info {
	return Info{
		DNS:           clipped(i.DNS, maxServers),
		DomainSearch:  clipped(i.DomainSearch, maxDomains),
		NTP:           clipped(i.NTP, maxServers),
		NTPNames:      clipped(i.NTPNames, maxServers),
		SNTP:          clipped(i.SNTP, maxServers),
		AFTR:          i.AFTR,
		CaptivePortal: i.CaptivePortal,
		Resolvers:     clipped(i.Resolvers, maxServers),
		S46:           clipped(i.S46, maxServers),
		Unknown:       clipped(i.Unknown, maxOptions),
	}
}

func clipped[T any](s []T, most int) []T { return slices.Clone(s[:min(len(s), most)]) }

// bind makes the lease that msg, judged as a, grants. kept are bindings that it neither extends nor withdraws.
func (m *Machine) bind(now time.Time, msg Message, a answer, kept []binding, cause Cause) {
	m.notePartial(msg.ServerID, a)
	l := Lease{
		ServerID:      msg.ServerID,
		Received:      now,
		T1:            lifetime.Forever(),
		T2:            lifetime.Forever(),
		Info:          msg.Info.bounded(),
		SolMaxRT:      m.lease.SolMaxRT,
		InfMaxRT:      m.lease.InfMaxRT,
		Reconf:        m.lease.Reconf,
		IgnoresRebind: m.lease.IgnoresRebind,
	}
	var bs []binding
	for _, v := range a {
		if len(v.granted) == 0 {
			continue
		}
		for n, b := range v.bindings() {
			b.PreferredUntil, b.ValidUntil = lifetime.After(now, v.granted[n].Preferred), lifetime.After(now, v.granted[n].Valid)
			bs = append(bs, b)
		}
		t1, t2 := renewTimes(now, v)
		l.T1, l.T2 = lifetime.Min(l.T1, t1), lifetime.Min(l.T2, t2)
	}
	kept = slices.Clone(kept)
	for i, b := range kept {
		v, _ := a.about(b.ia())
		if len(v.granted) > 0 { // others of the same IA
			kept[i].Unlisted = true
			continue
		}
		// An IA that was left out must be asked for before it ends.
		t1, t2 := retryTimes(now, b.ValidUntil)
		l.T1, l.T2 = lifetime.Min(l.T1, t1), lifetime.Min(l.T2, t2)
	}
	l = l.with(append(bs, kept...))
	l.learnKey(msg, m.cfg)
	m.inf, m.failures = exchange{xid: m.inf.xid}, 0
	from := DUID("")
	if m.lease.Held() {
		from = m.lease.ServerID
	}
	m.setLease(l, cause)
	m.rest(now)
	m.handover(now, from, msg.ServerID)
}

// notePartial says which IAs got nothing beside others that did.
func (m *Machine) notePartial(server DUID, a answer) {
	if reason := a.reason(); reason != "" {
		m.noteOnce(&m.x, server, reason)
	}
}

// rest ends the exchange with a lease in hand.
func (m *Machine) rest(now time.Time) {
	m.state, m.offers, m.omit = bound, nil, omitNothing
	m.scheduleMissing(now)
}

// scheduleMissing sets when to ask for the IAs that the lease lacks (§18.2, §18.2.10.1): with pauses that double from a
// minute to an hour, beside every Renew and Rebind.
func (m *Machine) scheduleMissing(now time.Time) {
	m.wantAt = time.Time{}
	if !m.missing() {
		m.wantPause, m.recovery = 0, pauses{}
		return
	}
	m.wantPause = min(max(time.Minute, 2*m.wantPause), time.Hour)
	m.wantAt = now.Add(m.wantPause)
}

// missing reports whether an IA that the config wants has nothing.
func (m *Machine) missing() bool {
	return slices.ContainsFunc(m.cfg.wanted(), func(i ia) bool { return !m.lease.holds(i) })
}

// setLease makes l the lease and reports it.
func (m *Machine) setLease(l Lease, cause Cause) {
	if !l.Held() {
		l = l.unbound()
	}
	m.remember(l.bindings())
	l.Previous = nil
	if len(l.Prefixes) == 0 {
		l.Previous = m.previousPrefixes()
	}
	m.lease = l
	m.report(cause)
}

// unbound is l without bindings: what a server told without them stays, and so does what was learned about servers.
func (l Lease) unbound() Lease {
	left := l.ofServers()
	left.Previous = l.Previous
	if !l.InfoUntil.IsZero() {
		left.ServerID, left.Received, left.Info, left.InfoUntil, left.Reconf = l.ServerID, l.Received, l.Info, l.InfoUntil, l.Reconf
	}
	return left
}

// ofServers is what was learned about servers and outlives their bindings.
func (l Lease) ofServers() Lease {
	return Lease{SolMaxRT: l.SolMaxRT, InfMaxRT: l.InfMaxRT, IgnoresRebind: l.IgnoresRebind}
}

func (m *Machine) report(cause Cause) {
	m.onDisk = m.lease.learned()
	m.out = append(m.out, Output{Kind: OutputLease, Lease: m.lease, Cause: cause})
}

// learned is what of l changes without any change of bindings.
type learned struct {
	sol, inf, replay uint64
	key              string
	ignoresRebind    DUID
}

func (l Lease) learned() learned {
	n := learned{sol: uint64(l.SolMaxRT), inf: uint64(l.InfMaxRT), ignoresRebind: l.IgnoresRebind}
	if l.Reconf != nil {
		n.replay, n.key = l.Reconf.Replay, string(l.Reconf.Key)
	}
	return n
}

// remember keeps what is held now as the hint for when it is gone, for each IA by itself.
func (m *Machine) remember(held []binding) {
	for _, i := range m.cfg.wanted() {
		of := func(b binding) bool { return b.ia() == i }
		if !slices.ContainsFunc(held, of) {
			continue
		}
		m.previous = slices.DeleteFunc(slices.Clone(m.previous), of)
		for _, b := range held {
			if of(b) {
				m.previous = append(m.previous, b)
			}
		}
	}
}

// forgetAddresses makes no address a hint, after a server has said that ours are not on the link or another host that one
// is its own.
func (m *Machine) forgetAddresses() {
	m.previous = slices.DeleteFunc(slices.Clone(m.previous), func(b binding) bool { return b.na })
}

// previousPrefixes are the prefixes held last, those of the first IA_PD first.
func (m *Machine) previousPrefixes() (prefixes []netip.Prefix) {
	for _, c := range m.cfg.PDs {
		for _, b := range m.previous {
			if !b.na && b.IAID == c.IAID {
				prefixes = append(prefixes, b.Prefix)
			}
		}
	}
	return prefixes
}

// minRenew is the least T1. Each renewal writes the disk and the log, and a server must not drive these with a T1 of a
// second. Of a lease that is over within a minute it is a sixth, which leaves time to repeat the Renew.
const minRenew = 10 * time.Second

// leastRenew is the least T1 of a lease that is as good as over: of one that the server counts down without extending it,
// half of what is left would come ever faster. Messages are limited (§14.1), and those after the end would have to wait.
const leastRenew = 2 * time.Second

// renewTimes are T1 and T2 of an IA granted by v. Where the server leaves the choice to the client (0, §14.2), and where
// its choice would let a prefix expire before it is renewed, they are 0.5 and 0.8 of the shortest preferred lifetime of what
// the server is willing to extend (§21.21). That is not what it grants as deprecated, unless there is nothing else: an old
// prefix is there to run out beside the new one. T1 that comes too soon, whoever chose it, is put off.
func renewTimes(now time.Time, v verdict) (t1, t2 lifetime.Deadline) {
	extended := func(p IAPrefix) bool { return p.Preferred > 0 }
	preferred, valid := uint32(lifetime.Infinity), uint32(lifetime.Infinity)
	for _, p := range v.granted {
		if extended(p) {
			preferred, valid = min(preferred, p.Preferred), min(valid, p.Valid)
		} else if !slices.ContainsFunc(v.granted, extended) {
			valid = min(valid, p.Valid)
		}
	}
	base := min(preferred, valid)
	ours := func(t uint32) bool { return t == 0 || valid != lifetime.Infinity && t >= valid }
	d1, d2 := seconds(v.t1), seconds(v.t2)
	if ours(v.t1) {
		d1 = share(base, 5)
	}
	if ours(v.t2) {
		d2 = share(base, 8)
	}
	switch {
	case d1 <= d2:
	case v.t2 == 0 && !ours(v.t1): // the server's T1 stands: T2 lies between it and the end
		d2 = min(d1/5*8, (d1+seconds(valid))/2)
	default:
		d1 = d2 / 8 * 5
	}
	if soonest := max(min(minRenew, seconds(valid)/6), min(leastRenew, seconds(valid)/2)); d1 < soonest {
		d1, d2 = soonest, max(d2, soonest/5*8)
	}
	return until(now, d1), until(now, d2)
}

// retryTimes are T1 and T2 of an IA that was not extended and ends at end: for ever when that is too near.
func retryTimes(now time.Time, end lifetime.Deadline) (t1, t2 lifetime.Deadline) {
	t, finite := end.Time()
	left := t.Sub(now)
	if !finite || left/2 < minRetry {
		return lifetime.Forever(), lifetime.Forever()
	}
	return lifetime.Until(now.Add(left / 2)), lifetime.Until(now.Add(left / 10 * 8))
}

// share is so many tenths of a lifetime.
func share(s uint32, tenths time.Duration) time.Duration {
	if s == lifetime.Infinity {
		return seconds(s)
	}
	return seconds(s) / 10 * tenths
}

func seconds(s uint32) time.Duration { return time.Duration(s) * time.Second }

// until is the deadline d after now; the wire's infinity is for ever.
func until(now time.Time, d time.Duration) lifetime.Deadline {
	if d >= seconds(lifetime.Infinity) {
		return lifetime.Forever()
	}
	return lifetime.Until(now.Add(d))
}
