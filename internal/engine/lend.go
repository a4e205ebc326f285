package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

// Ask is a question of an inner router behind a downstream.
type Ask struct {
	Downstream string
	Client     pd.DUID
	Via        netip.Addr // its link-local address
	Verb       LendVerb
	IAs        []AskedIA
}

// AskedIA is one IA_PD of it.
type AskedIA struct {
	IAID     uint32
	Length   uint8          // wanted; 0: none said
	Prefixes []netip.Prefix // named
}

// LendVerb is what an inner router wants.
type LendVerb uint8

// The verbs. Package pd/server says which message is which.
const (
	LendOffer LendVerb = iota
	LendBind
	LendExtend
	LendRebind
	LendRelease
)

// Lent is a prefix that an IA has, or has no more (Stale). For LendRelease: one that has ended.
type Lent struct {
	IAID           uint32
	Prefix         netip.Prefix
	PreferredUntil lifetime.Deadline
	ValidUntil     lifetime.Deadline
	Stale          bool
}

// MaxLoan is the longest valid lifetime that an inner router may be told (RFC 9096 §3.4: ND_VALID_LIMIT). Who has not asked
// for so long is forgotten.
const MaxLoan = 5400 * time.Second

const offerTime = time.Minute

var errEarly = errors.New("not every uplink has reported yet, so that nobody knows what there is to lend")

// Lend tells what an inner router has from now on. When it returns, the kernel has the routes to it, and the disk the binding
// (or has refused it: a full disk does not keep inner routers without a prefix). After an error nothing may be told.
func (e *Engine) Lend(ctx context.Context, a Ask) ([]Lent, error) {
	out := make(chan lending, 1) // who has given up does not hold up the engine
	e.send(func(e *Engine) bool { return e.asked(a, out) })
	select {
	case l := <-out:
		return l.loans, l.err
	case <-ctx.Done():
		return nil, fmt.Errorf("lend to %s on downstream %s: the engine or the disk has not answered: %w", a.Client, a.Downstream, ctx.Err())
	case <-e.done:
		return nil, fmt.Errorf("lend to %s on downstream %s: the engine has stopped", a.Client, a.Downstream)
	}
}

type lending struct {
	loans []Lent
	err   error
}

// asked takes in a question. The answer follows the step for it, if it needs one: a client that repeats itself at full
// speed must not have the kernel read at that speed.
func (e *Engine) asked(a Ask, out chan<- lending) (decide bool) {
	d, ok := e.downstream(a.Downstream)
	if !ok {
		out <- lending{err: fmt.Errorf("there is no downstream %s any more", a.Downstream)}
		return false
	}
	if isOwn(e.world.Links[d.Interface], a.Via) {
		out <- lending{err: fmt.Errorf("%s is an address of this router on dev %s", a.Via, d.Interface)}
		return false
	}
	if a.Verb == LendRelease {
		ended := e.giveBack(a)
		return e.answer(e.reborrowed, func() lending { return lending{loans: ended} }, out)
	}
	now := time.Now()
	var fresh []uint32
	admitted := a
	admitted.IAs = nil
	for _, ia := range a.IAs {
		verdict := e.borrow(d, a, ia, now)
		if verdict == isNew {
			fresh = append(fresh, ia.IAID)
		}
		if verdict != isOneTooMany {
			admitted.IAs = append(admitted.IAs, ia)
		}
	}
	return e.answer(e.reborrowed, func() lending {
		loans, err := e.lentTo(admitted)
		e.dropIdle(a, fresh, loans)
		if len(admitted.IAs) < len(a.IAs) && !slices.ContainsFunc(loans, func(l Lent) bool { return !l.Stale }) {
			return lending{err: errCrowd} // "no prefix is left" would not be true, and it would give up
		}
		return lending{loans, err}
	}, out)
}

// answer sends what tell says when the step has been made, if one is needed, and the disk has what came of it.
func (e *Engine) answer(step bool, tell func() lending, out chan<- lending) bool {
	reply := func() {
		l := lending{err: errors.New("the kernel could not be read, so that there may be no route yet")}
		if e.readable {
			l = tell()
		}
		send := func() { out <- l }
		if n := len(e.pending); n > 0 {
			e.pending[n-1].then = append(e.pending[n-1].then, send)
			return
		}
		send()
	}
	if step {
		e.afterStep = append(e.afterStep, reply)
	} else {
		reply()
	}
	return step
}

// downstream is the section of the config with that name.
func (e *Engine) downstream(name string) (config.Downstream, bool) {
	i := slices.IndexFunc(e.cfg.Downstreams, func(d config.Downstream) bool { return d.Name == name })
	if i < 0 {
		return config.Downstream{}, false
	}
	return e.cfg.Downstreams[i], true
}

// delegates reports whether inner routers get something from d.
func delegates(d config.Downstream) bool { return d.DHCPv6.Enabled && d.DHCPv6.Delegate }

// verdict is what becomes of an IA that asks.
type verdict int

const (
	isKnown verdict = iota // or nothing for us
	isNew
	isOneTooMany
)

// borrow makes an IA a borrower, or one for longer.
func (e *Engine) borrow(d config.Downstream, a Ask, ia AskedIA, now time.Time) verdict {
	until := lifetime.Until(now.Add(MaxLoan))
	if a.Verb == LendOffer {
		until = lifetime.Until(now.Add(offerTime))
	}
	i := e.borrower(a.Downstream, a.Client, ia.IAID)
	if i < 0 {
		if !delegates(d) || a.Verb == LendRebind && !slices.ContainsFunc(ia.Prefixes, e.ofSite) {
			return isKnown
		}
		if !e.admits(a, now) {
			return isOneTooMany
		}
		e.world.Borrowers = append(e.world.Borrowers, policy.Borrower{Downstream: a.Downstream, Client: a.Client, IAID: ia.IAID, Via: a.Via,
			Length: cmp.Or(ia.Length, d.DHCPv6.Length), Named: slices.Clone(ia.Prefixes[:min(maxNamed, len(ia.Prefixes))]),
			Offered: a.Verb == LendOffer, Until: until})
		e.reborrowed = true
		return isNew
	}
	b := &e.world.Borrowers[i]
	if a.Verb == LendOffer && !b.Offered {
		return isKnown // it has started anew and will hear of what it has
	}
	accepts := b.Offered && a.Verb != LendOffer
	moves := b.Via != a.Via && !b.Offered && e.mayMove(*b, now)
	if accepts || moves {
		b.Via, b.Offered, e.reborrowed = a.Via, false, true
	}
	if b.Until.Compare(until) < 0 && (accepts || b.Offered || e.holds(*b)) {
		b.Until = until
		e.reborrowed = e.reborrowed || !b.Offered && !e.reserved(*b)
	}
	return isKnown
}

// ofSite reports whether p belongs to a delegation of the site or to its ULA prefix.
func (e *Engine) ofSite(p netip.Prefix) bool {
	if e.confirmedSite.ULA.IsValid() && e.confirmedSite.ULA.Overlaps(p) {
		return true
	}
	return slices.ContainsFunc(e.confirmedSite.Uplinks, func(u policy.Uplink) bool {
		return slices.ContainsFunc(u.Delegations, func(g policy.Delegation) bool { return g.Prefix.Overlaps(p) })
	})
}

func (e *Engine) borrower(downstream string, client pd.DUID, iaid uint32) int {
	return slices.IndexFunc(e.world.Borrowers, func(b policy.Borrower) bool {
		return b.Downstream == downstream && b.Client == client && b.IAID == iaid
	})
}

// holds reports whether a borrower has been lent something.
func (e *Engine) holds(b policy.Borrower) bool {
	return len(e.loansOf(b.Downstream, b.Client, b.IAID)) > 0
}

// loansOf are the loans of one IA that have come about, the best first: what may be used for something new, then in the order
// of the uplinks; the ULA prefix last.
func (e *Engine) loansOf(downstream string, client pd.DUID, iaid uint32) (loans []policy.Loan) {
	for _, l := range e.confirmedSite.Downstream(downstream).Loans {
		if l.Client == client && l.IAID == iaid && !e.unrouted[l.Prefix] && e.ofSite(l.Prefix) {
			loans = append(loans, l)
		}
	}
	rank := func(l policy.Loan) int {
		i := slices.IndexFunc(e.confirmedSite.Uplinks, func(u policy.Uplink) bool { return u.Name == l.Uplink })
		if i < 0 {
			i = len(e.confirmedSite.Uplinks)
		}
		if l.State != policy.Preferred {
			i += len(e.confirmedSite.Uplinks) + 1
		}
		return i
	}
	slices.SortStableFunc(loans, func(x, y policy.Loan) int { return cmp.Compare(rank(x), rank(y)) })
	return loans
}

// lentTo is the answer to a.
func (e *Engine) lentTo(a Ask) (list []Lent, err error) {
	for _, ia := range a.IAs {
		loans := e.loansOf(a.Downstream, a.Client, ia.IAID)
		if len(loans) == 0 && e.silent() {
			return nil, errEarly // it would hear that what it has is gone, which nobody knows
		}
		has := func(p netip.Prefix) bool {
			return slices.ContainsFunc(loans, func(l policy.Loan) bool { return l.Prefix == p })
		}
		for _, l := range loans {
			list = append(list, Lent{IAID: ia.IAID, Prefix: l.Prefix, PreferredUntil: l.PreferredUntil, ValidUntil: l.ValidUntil})
		}
		if a.Verb == LendOffer {
			continue
		}
		for _, r := range e.confirmedSite.Downstream(a.Downstream).StaleLoans {
			if r.Client == a.Client && r.IAID == ia.IAID && !has(r.Prefix) {
				list = append(list, Lent{IAID: ia.IAID, Prefix: r.Prefix, Stale: true})
			}
		}
		for _, p := range ia.Prefixes {
			if !has(p) && e.ofSite(p) {
				list = append(list, Lent{IAID: ia.IAID, Prefix: p, Stale: true})
			}
		}
	}
	return list, nil
}

// dropIdle forgets the new borrowers for whom there was nothing: they would keep places from others.
func (e *Engine) dropIdle(a Ask, fresh []uint32, loans []Lent) {
	for _, iaid := range fresh {
		if slices.ContainsFunc(loans, func(l Lent) bool { return l.IAID == iaid && !l.Stale }) {
			continue
		}
		if i := e.borrower(a.Downstream, a.Client, iaid); i >= 0 {
			e.world.Borrowers = slices.Delete(e.world.Borrowers, i, i+1)
		}
	}
}

// giveBack ends the loans that a names and returns them, if a comes from where they are routed to. Who keeps one that may be used for something new stays a borrower:
// a router that gives back an old prefix beside the new one has no wish to lose both.
func (e *Engine) giveBack(a Ask) (ended []Lent) {
	for _, ia := range a.IAs {
		i := e.borrower(a.Downstream, a.Client, ia.IAID)
		if i < 0 || e.world.Borrowers[i].Via != a.Via {
			continue
		}
		loans := e.loansOf(a.Downstream, a.Client, ia.IAID)
		if slices.ContainsFunc(loans, func(l policy.Loan) bool {
			return l.State == policy.Preferred && len(ia.Prefixes) > 0 && !slices.Contains(ia.Prefixes, l.Prefix)
		}) {
			continue
		}
		e.world.Borrowers, e.reborrowed = slices.Delete(e.world.Borrowers, i, i+1), true
		for _, l := range loans {
			ended = append(ended, Lent{IAID: ia.IAID, Prefix: l.Prefix, Stale: true})
		}
	}
	return ended
}
