package engine

import (
	"net/netip"
	"reflect"
	"slices"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/policy"
)

// reserve is for how much longer than needed the disk has a borrower: who renews every two minutes need not be written
// every two minutes. After a restart one that has gone is remembered for that much too long.
const reserve = 10 * time.Minute

// reserved reports whether the disk has b for as long as needed.
func (e *Engine) reserved(b policy.Borrower) bool {
	i := slices.IndexFunc(e.saved.Borrowers, func(s policy.Borrower) bool { return sameBorrower(s, b) })
	return i >= 0 && e.saved.Borrowers[i].Until.Compare(b.Until) >= 0
}

// reserveBorrowers brings what the disk is to have to what there is, and reports whether that needs writing. Offers are
// not kept: who takes one up says what it was. Nor are newcomers for whom there is nothing (see dropIdle).
func (e *Engine) reserveBorrowers() (changed bool) {
	var next []policy.Borrower
	for k := range e.world.Borrowers {
		b := e.world.Borrowers[k]
		holds := e.holds(b)
		if b.Offered || !holds && !e.isSaved(b) {
			continue
		}
		if holds && len(b.Named) > 0 && !e.silent() { // it has a place in the ledger now, which counts before what it names
			b.Named = nil
			e.world.Borrowers[k] = b
		}
		i := slices.IndexFunc(e.saved.Borrowers, func(s policy.Borrower) bool { return sameBorrower(s, b) })
		if i >= 0 && e.saved.Borrowers[i].Until.Compare(b.Until) >= 0 {
			next = append(next, e.saved.Borrowers[i])
			continue
		}
		if t, ok := b.Until.Time(); ok {
			b.Until = lifetime.Until(t.Add(reserve))
		}
		next, changed = append(next, b), true
	}
	changed = changed || len(next) != len(e.saved.Borrowers)
	e.saved.Borrowers = next
	return changed
}

// isSaved reports whether the disk has b, if perhaps with another address.
func (e *Engine) isSaved(b policy.Borrower) bool {
	return slices.ContainsFunc(e.saved.Borrowers, func(s policy.Borrower) bool {
		return s.Client == b.Client && s.IAID == b.IAID && s.Downstream == b.Downstream
	})
}

func sameBorrower(a, b policy.Borrower) bool {
	if a.Client != b.Client || a.IAID != b.IAID || a.Downstream != b.Downstream { // of most pairs; reflection costs ten times as much
		return false
	}
	a.Until, b.Until = lifetime.Deadline{}, lifetime.Deadline{}
	return reflect.DeepEqual(a, b)
}

// loadBorrowers takes up those that the disk has. Somebody may have edited the file.
func (e *Engine) loadBorrowers() {
	for _, b := range e.saved.Borrowers {
		if !b.Client.Valid() || !b.Via.Is6() || !b.Via.IsLinkLocalUnicast() || b.Via.Zone() != "" || b.Length > 128 || b.Until.IsForever() ||
			slices.ContainsFunc(b.Named, func(p netip.Prefix) bool { return !p.IsValid() || !p.Addr().Is6() || p != p.Masked() }) ||
			e.borrower(b.Downstream, b.Client, b.IAID) >= 0 || e.count(b.Downstream) >= maxBorrowers {
			continue
		}
		b.Until = lifetime.Min(b.Until, lifetime.Until(time.Now().Add(MaxLoan+reserve)))
		b.Offered = false
		b.Named = b.Named[:min(maxNamed, len(b.Named))]
		e.world.Borrowers = append(e.world.Borrowers, b)
	}
	e.retireBorrowers()
}

func (e *Engine) count(downstream string) (n int) {
	for _, b := range e.world.Borrowers {
		if b.Downstream == downstream {
			n++
		}
	}
	return n
}

// retireBorrowers forgets those of downstreams that lend no more. Their loans are stale from the next plan on.
func (e *Engine) retireBorrowers() {
	e.world.Borrowers = slices.DeleteFunc(e.world.Borrowers, func(b policy.Borrower) bool {
		d, there := e.downstream(b.Downstream)
		return !there || !delegates(d)
	})
}

// expireBorrowers forgets those that have not asked for longer than what they were told, and those that are the router itself.
func (e *Engine) expireBorrowers(now time.Time) {
	e.world.Borrowers = slices.DeleteFunc(e.world.Borrowers, func(b policy.Borrower) bool {
		d, _ := e.downstream(b.Downstream)
		return b.Until.Over(now) || isOwn(e.world.Links[d.Interface], b.Via)
	})
}

// noteRoutes finds the loans without a route: the kernel has refused it, or somebody keeps removing it. Nobody is told that
// they are lent.
func (e *Engine) noteRoutes(r kernel.Report, h holdings) {
	clear(e.unrouted)
	note := func(op kernel.Op) {
		if route, ok := op.Row.(kernel.Route); ok && op.Verb != kernel.Delete && route.Gateway.IsValid() {
			e.unrouted[route.Dst] = true
		}
	}
	for _, f := range r.Failed {
		note(f.Op)
	}
	for _, op := range r.Skipped {
		note(op)
	}
	for _, op := range h.fighting {
		note(op)
	}
}

// isOwn reports whether via is an address of the router on l. Anybody can put it into a message as its source, and the kernel
// refuses the route ("Gateway can not be a local address").
func isOwn(l kernel.Link, via netip.Addr) bool {
	return via == l.LinkLocal || slices.Contains(l.OtherLinkLocal, via)
}
