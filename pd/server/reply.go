package server

import (
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

const (
	maxLoans = 32 // of one IA: what clients can be expected to read

	// shortestBasis is the shortest lifetime, in seconds, that T1 and T2 are computed from: while a delegation runs out and
	// is not renewed, its inner routers would ask again in ever shorter intervals.
	shortestBasis = 10
)

// lend puts the IAs of m into reply, with the prefixes lent or with the reason why there are none.
func (r responder) lend(now time.Time, m pd.Message, loans []Loan, reply *pd.Message) {
	for _, ia := range distinct(m.IAPDs) {
		answer := pd.IAPD{IAID: ia.IAID, Prefixes: r.prefixes(now, m.Type, ia, loans)}
		if !living(answer) && !(extends(m.Type) && len(answer.Prefixes) > 0) {
			answer.Status = lacking(m.Type, ia)
		}
		reply.IAPDs = append(reply.IAPDs, answer)
	}
	setTimes(reply.IAPDs)
	if m.Type == pd.Rebind {
		return // addresses are another server's
	}
	for _, ia := range m.IANAs {
		reply.IANAs = append(reply.IANAs, noAddresses(m.Type, ia))
	}
}

// extends reports whether t is about what the client has already.
func extends(t pd.MessageType) bool { return t == pd.Renew || t == pd.Rebind }

// prefixes are those of an IA: the living ones as the Lender has put them, then, in a Reply, the stale ones.
func (r responder) prefixes(now time.Time, t pd.MessageType, ia pd.IAPD, loans []Loan) (told []pd.IAPrefix) {
	var stale []netip.Prefix
	known := func(p netip.Prefix) bool {
		return slices.ContainsFunc(told, func(q pd.IAPrefix) bool { return q.Prefix == p }) || slices.Contains(stale, p)
	}
	for _, l := range loans {
		if l.IAID != ia.IAID || !l.Prefix.IsValid() || l.Prefix != l.Prefix.Masked() || known(l.Prefix) {
			continue
		}
		p := r.prefix(now, l)
		switch {
		case p.Valid == 0:
			stale = append(stale, p.Prefix)
		case len(told) < maxLoans:
			told = append(told, p)
		}
	}
	if t == pd.Solicit { // nothing is in use yet, prefixes named there are wishes
		return told
	}
	if len(told)+len(stale) > 0 { // §18.3.4: what the client has besides is not (any more) for this link
		for _, p := range named(ia) {
			if !known(p) {
				stale = append(stale, p)
			}
		}
	}
	for _, p := range stale[:min(len(stale), maxLoans)] {
		told = append(told, pd.IAPrefix{Prefix: p})
	}
	return told
}

// prefix is a loan with what is left of it, never more: seconds are rounded down (§6.3).
func (r responder) prefix(now time.Time, l Loan) pd.IAPrefix {
	if l.Stale {
		return pd.IAPrefix{Prefix: l.Prefix}
	}
	maxPreferred, maxValid := r.service.limits()
	down := now.Add(time.Second / 2) // Deadline.Seconds rounds to nearest
	valid := min(l.ValidUntil.Seconds(down), maxValid)
	return pd.IAPrefix{Prefix: l.Prefix, Preferred: min(l.PreferredUntil.Seconds(down), maxPreferred, valid), Valid: valid}
}

// setTimes sets T1 and T2 of all IAs to the same values, so that one exchange renews them all (§14.2, §21.21): 0.5 and 0.8
// of the shortest preferred lifetime. Deprecated prefixes count only where there is nothing else.
func setTimes(ias []pd.IAPD) {
	preferred, valid := uint32(lifetime.Infinity), uint32(lifetime.Infinity)
	for _, ia := range ias {
		for _, p := range ia.Prefixes {
			if p.Preferred > 0 {
				preferred = min(preferred, p.Preferred)
			}
			if p.Valid > 0 {
				valid = min(valid, p.Valid)
			}
		}
	}
	basis := preferred
	if basis == lifetime.Infinity {
		basis = valid
	}
	basis = max(basis, shortestBasis)
	for i := range ias {
		if living(ias[i]) {
			ias[i].T1, ias[i].T2 = uint32(uint64(basis)*5/10), uint32(uint64(basis)*8/10)
		}
	}
}

// hasten makes a client that cannot be told of a renumbering ask for it often. T2 stays: the server is not gone.
func (r responder) hasten(reply *pd.Message) {
	if reply.ReconfAccept {
		return
	}
	for i, ia := range reply.IAPDs {
		reply.IAPDs[i].T1 = min(ia.T1, r.service.renew())
	}
}

// living reports whether ia has a prefix that may be used.
func living(ia pd.IAPD) bool {
	return slices.ContainsFunc(ia.Prefixes, func(p pd.IAPrefix) bool { return p.Valid > 0 })
}

// lent reports whether reply gives anything.
func lent(reply pd.Message) bool { return slices.ContainsFunc(reply.IAPDs, living) }

// mentions reports whether reply is about any prefix.
func mentions(reply pd.Message) bool {
	return slices.ContainsFunc(reply.IAPDs, func(ia pd.IAPD) bool { return len(ia.Prefixes) > 0 })
}

// lacking is why there is no prefix in an IA. NoBinding makes the client start again with a Request; so it is not for a
// client that has tried whether there is something by now (§18.2.4 lets it add such IAs to its Renew).
func lacking(t pd.MessageType, ia pd.IAPD) pd.Status {
	if extends(t) && len(named(ia)) > 0 {
		return noBinding
	}
	return pd.Status{Code: pd.NoPrefixAvail, Text: "no prefix is left to delegate"}
}

var noBinding = pd.Status{Code: pd.NoBinding, Text: "nothing is lent to this IA"}

func noAddresses(t pd.MessageType, ia pd.IANA) pd.IANA {
	if extends(t) && len(ia.Addresses) > 0 {
		return pd.IANA{IAID: ia.IAID, Status: noBinding}
	}
	return pd.IANA{IAID: ia.IAID, Status: pd.Status{Code: pd.NoAddrsAvail, Text: "no addresses are leased here"}}
}

// release confirms a Release (§18.3.7). Loans are those that have ended.
func release(m pd.Message, loans []Loan, reply *pd.Message) {
	reply.Status = pd.Status{Code: pd.Success, Text: "released"}
	for _, ia := range distinct(m.IAPDs) {
		if !slices.ContainsFunc(loans, func(l Loan) bool { return l.IAID == ia.IAID }) {
			reply.IAPDs = append(reply.IAPDs, pd.IAPD{IAID: ia.IAID, Status: noBinding})
		}
	}
	for _, ia := range m.IANAs {
		reply.IANAs = append(reply.IANAs, pd.IANA{IAID: ia.IAID, Status: noBinding})
	}
}

// decline answers a Decline (§18.3.8): no addresses are leased, and prefixes cannot be declined.
func decline(m pd.Message, reply *pd.Message) {
	reply.Status = pd.Status{Code: pd.Success, Text: "nothing was leased"}
	for _, ia := range m.IANAs {
		reply.IANAs = append(reply.IANAs, pd.IANA{IAID: ia.IAID, Status: noBinding})
	}
}

// asksRefresh is the Information Refresh Time for m, 0 if it does not ask (§21.23).
func asksRefresh(m pd.Message, s Service) uint32 {
	if !slices.Contains(m.ORO, pd.OptInfoRefresh) {
		return 0
	}
	return s.refresh()
}
