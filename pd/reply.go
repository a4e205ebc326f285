package pd

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/lifetime"
)

const (
	maxPrefixes = 32 // of a lease
	maxDNS      = 16
	maxDomains  = 32
)

// verdict is what a server says about our IA_PD.
type verdict struct {
	code      StatusCode     // Success unless it refuses
	reason    string         // when nothing is granted: why, as a predicate
	t1, t2    uint32         // seconds, as on the wire
	granted   []IAPrefix     // usable ones, each prefix once
	withdrawn []netip.Prefix // valid lifetime 0
}

// judge reads the answer about the IA_PD iaid out of an Advertise or Reply, looking for a status on all three levels
// (RFC 9915 §21.13).
func judge(msg Message, iaid uint32) verdict {
	// NoAddrsAvail says nothing about prefixes, although some servers put it beside a granted IA_PD.
	if c := msg.Status.Code; c != Success && c != NoAddrsAvail {
		return verdict{code: c, reason: refusal(msg.Status)}
	}
	i := slices.IndexFunc(msg.IAPDs, func(ia IAPD) bool { return ia.IAID == iaid })
	switch {
	case i < 0 && msg.Status.Code != Success:
		return verdict{code: msg.Status.Code, reason: refusal(msg.Status)}
	case i < 0:
		return verdict{reason: fmt.Sprintf("answered without IA_PD %08x", iaid)}
	}
	ia := msg.IAPDs[i]
	if ia.T1 > ia.T2 && ia.T2 > 0 { // §21.21
		return verdict{reason: fmt.Sprintf("sent an IA_PD with T1 %d > T2 %d, which has to be ignored", ia.T1, ia.T2)}
	}
	v := verdict{code: ia.Status.Code, reason: "offered no usable prefix", t1: ia.T1, t2: ia.T2}
	if v.code != Success {
		v.reason = refusal(ia.Status)
	}
	for _, p := range ia.Prefixes {
		v.add(p)
	}
	if ia.Status.Code != Success {
		v.granted = nil
	}
	return v
}

// add sorts one IA Prefix option into v. A status beside a prefix means that it was not granted or extended (servers in
// the field answer a Renew with NoPrefixAvail there, https://github.com/openwrt/odhcp6c/issues/61); a valid lifetime of 0
// withdraws the prefix whatever the status.
func (v *verdict) add(p IAPrefix) {
	switch {
	case !delegable(p.Prefix) || p.Preferred > p.Valid || v.knows(p.Prefix):
	case p.Valid == 0:
		if len(v.withdrawn) < maxPrefixes {
			v.withdrawn = append(v.withdrawn, p.Prefix)
		}
	case p.Status.Code != Success:
		if v.code == Success {
			v.code, v.reason = p.Status.Code, refusal(p.Status)
		}
	case len(v.granted) < maxPrefixes:
		v.granted = append(v.granted, p)
	}
}

func (v *verdict) knows(p netip.Prefix) bool {
	return slices.Contains(v.withdrawn, p) || slices.ContainsFunc(v.granted, func(g IAPrefix) bool { return g.Prefix == p })
}

func (v *verdict) prefixes() []netip.Prefix {
	prefixes := make([]netip.Prefix, 0, len(v.granted))
	for _, p := range v.granted {
		prefixes = append(prefixes, p.Prefix)
	}
	return prefixes
}

func refusal(s Status) string {
	name := s.Code.String()
	if int(s.Code) >= len(statusNames) {
		name = fmt.Sprintf("status %d", uint16(s.Code))
	}
	if s.Text == "" {
		return "refused: " + name
	}
	return fmt.Sprintf("refused: %s (%s)", name, s.Text)
}

// bind makes the lease that msg grants. kept are prefixes that it neither lists nor withdraws.
func (m *Machine) bind(now time.Time, msg Message, v verdict, kept []LeasedPrefix, cause Cause) {
	l := Lease{
		ServerID:     msg.ServerID,
		IAID:         m.cfg.IAID,
		Received:     now,
		DNS:          slices.Clone(msg.DNS[:min(len(msg.DNS), maxDNS)]),
		DomainSearch: slices.Clone(msg.DomainSearch[:min(len(msg.DomainSearch), maxDomains)]),
		SolMaxRT:     m.lease.SolMaxRT,
	}
	for _, p := range v.granted {
		l.Prefixes = append(l.Prefixes, LeasedPrefix{
			Prefix:         p.Prefix,
			PreferredUntil: lifetime.After(now, p.Preferred),
			ValidUntil:     lifetime.After(now, p.Valid),
		})
	}
	l.Prefixes = append(l.Prefixes, kept[:min(len(kept), maxPrefixes-len(l.Prefixes))]...)
	sortPrefixes(l.Prefixes)
	l.T1, l.T2 = renewTimes(now, v)
	m.state, m.offers, m.failures = bound, nil, 0
	m.setLease(l, cause)
}

// setLease makes l the lease and reports it.
func (m *Machine) setLease(l Lease, cause Cause) {
	if len(l.Prefixes) == 0 {
		l = Lease{SolMaxRT: l.SolMaxRT}
	}
	m.lease = l
	m.remember(l.Prefixes)
	m.out = append(m.out, Output{Kind: OutputLease, Lease: l, Cause: cause})
}

// remember keeps what is held now as the hint for when it is gone.
func (m *Machine) remember(held []LeasedPrefix) {
	if len(held) > 0 {
		m.previous = prefixesOf(held)
	}
}

func sortPrefixes(p []LeasedPrefix) {
	slices.SortFunc(p, func(a, b LeasedPrefix) int { return a.Prefix.Compare(b.Prefix) })
}

// minRenew is the least T1. Each renewal writes the disk and the log, and a server must not drive these with a T1 of a
// second. Of a lease that is over within a minute it is a sixth, which leaves time to repeat the Renew.
const minRenew = 10 * time.Second

// renewTimes are T1 and T2 of a lease granted by v. Where the server leaves the choice to the client (0, §14.2), and where
// its choice would let a prefix expire before it is renewed, they are 0.5 and 0.8 of the shortest preferred lifetime. T1
// that comes too soon, whoever chose it, is put off.
func renewTimes(now time.Time, v verdict) (t1, t2 lifetime.Deadline) {
	preferred, valid := uint32(lifetime.Infinity), uint32(lifetime.Infinity)
	for _, p := range v.granted {
		valid = min(valid, p.Valid)
		if p.Preferred > 0 {
			preferred = min(preferred, p.Preferred)
		}
	}
	base := min(preferred, valid) // a prefix granted as deprecated has only the valid lifetime to go by
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
	if soonest := min(minRenew, seconds(valid)/6); d1 < soonest {
		d1, d2 = soonest, max(d2, soonest/5*8)
	}
	return until(now, d1), until(now, d2)
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
