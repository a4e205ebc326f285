package engine

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"uplinkd/policy"
)

// What clients, which need only invent DUIDs, can make the engine remember and do. DHCPv6 has no authentication: whoever
// is on the link can invent source addresses as well, and then take all that a downstream has for newcomers, or the route to
// what another one was lent, until that one speaks again. What is lent already it cannot have for good, and the work that it
// makes is bounded.
const (
	maxBorrowers = 64 // IAs per downstream
	maxOffered   = 16 // of them with an offer only; the oldest gives way to a new one
	maxOfOne     = 8  // IAs per client, and clients' IAs per link-local address
	maxNamed     = 8  // prefixes that an IA names

	// New borrowers of one address, and then of a downstream. A flood from one address leaves room for those from others.
	viaBurst      = maxOfOne
	viaRate       = 10 * time.Second
	borrowerBurst = 32
	borrowerRate  = 2 * time.Second

	// moveRate is how often a borrower may have another address: each time costs a step and a write to disk. Else it hears of
	// what it has been lent, and the route stays.
	moveRate = 10 * time.Second
)

var errCrowd = errors.New("too many inner routers, or one under many names, ask for prefixes")

// crowd limits how often borrowers come and move.
type crowd struct{ via, downstream, moving limiter }

func newCrowd() crowd {
	return crowd{via: newLimiter(viaRate, viaBurst), downstream: newLimiter(borrowerRate, borrowerBurst), moving: newLimiter(moveRate, 1)}
}

// admits reports whether there is room for another borrower, and makes it: an offer only at the cost of offers, first of
// those to the same address.
func (e *Engine) admits(a Ask, now time.Time) bool {
	var all, offered, ofVia, ofClient int
	oldest, oldestOfVia := -1, -1 // with an offer only
	older := func(i, than int) bool {
		return than < 0 || e.world.Borrowers[i].Until.Compare(e.world.Borrowers[than].Until) < 0
	}
	for i, b := range e.world.Borrowers {
		if b.Downstream != a.Downstream {
			continue
		}
		all++
		if b.Client == a.Client {
			ofClient++
		}
		if b.Via == a.Via {
			ofVia++
		}
		if !b.Offered {
			continue
		}
		offered++
		if older(i, oldest) {
			oldest = i
		}
		if b.Via == a.Via && older(i, oldestOfVia) {
			oldestOfVia = i
		}
	}
	leaves := -1
	switch {
	case ofVia >= maxOfOne:
		leaves = oldestOfVia
	case all >= maxBorrowers, a.Verb == LendOffer && offered >= maxOffered:
		leaves = oldest
	default:
		return ofClient < maxOfOne && e.crowd.takes(a, now)
	}
	if leaves < 0 || ofClient >= maxOfOne || !e.crowd.takes(a, now) {
		return false
	}
	e.world.Borrowers = slices.Delete(e.world.Borrowers, leaves, leaves+1)
	return true
}

// takes counts a newcomer. Offers and loans are counted apart: Solicits, which cost nothing, leave room for Requests.
func (c *crowd) takes(a Ask, now time.Time) bool {
	what := "loans"
	if a.Verb == LendOffer {
		what = "offers"
	}
	key := what + " on " + a.Downstream
	return c.via.take(key+" via "+a.Via.String(), now) && c.downstream.take(key, now)
}

// mayMove reports whether a borrower may have another address now, and counts it.
func (e *Engine) mayMove(b policy.Borrower, now time.Time) bool {
	return e.crowd.moving.take(fmt.Sprintf("%s %s %d", b.Downstream, b.Client, b.IAID), now)
}
