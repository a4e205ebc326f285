package server

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// pool is a Lender for tests: one /64 of every parent, which is a /56, for each IA, or a /60 for who asks for that.
type pool struct {
	mu      sync.Mutex
	parents []netip.Prefix
	gone    []netip.Prefix // parents that the site has no more
	loans   map[borrower]int
	asks    []Ask
}

type borrower struct {
	id   pd.DUID
	iaid uint32
}

const poolSize = 16

func newPool(parent string) *pool {
	return &pool{parents: []netip.Prefix{netip.MustParsePrefix(parent)}, loans: map[borrower]int{}}
}

// renumber replaces all parents.
func (p *pool) renumber(parent string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = append(p.gone, p.parents...)
	p.parents = []netip.Prefix{netip.MustParsePrefix(parent)}
}

// add adds a parent: another uplink has come.
func (p *pool) add(parent string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parents = append(p.parents, netip.MustParsePrefix(parent))
}

func (p *pool) Lend(_ context.Context, a Ask) (loans []Loan, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asks = append(p.asks, a)
	for _, ia := range a.IAs {
		b := borrower{a.Client, ia.IAID}
		n, lent := p.loans[b]
		ours := slices.ContainsFunc(ia.Prefixes, p.known)
		switch {
		case a.Verb == Release && !lent, a.Verb == Rebind && !lent && !ours:
			continue
		case a.Verb == Release:
			delete(p.loans, b)
		case !lent:
			if n = p.free(); n == poolSize {
				continue
			}
			if a.Verb != Offer {
				p.loans[b] = n
			}
		}
		for _, parent := range p.parents {
			until := lifetime.After(time.Now(), 7200)
			loans = append(loans, Loan{IAID: ia.IAID, Prefix: part(parent, n, ia.Length), PreferredUntil: until, ValidUntil: until})
		}
		for _, named := range ia.Prefixes {
			if slices.ContainsFunc(p.gone, func(g netip.Prefix) bool { return g.Contains(named.Addr()) }) {
				loans = append(loans, Loan{IAID: ia.IAID, Prefix: named, Stale: true})
			}
		}
	}
	return loans, nil
}

// known reports whether q is or was of this site.
func (p *pool) known(q netip.Prefix) bool {
	return slices.ContainsFunc(slices.Concat(p.parents, p.gone), func(parent netip.Prefix) bool { return parent.Contains(q.Addr()) })
}

// free is the first number that is not lent; poolSize if all are.
func (p *pool) free() int {
	taken := map[int]bool{}
	for _, n := range p.loans {
		taken[n] = true
	}
	for n := range poolSize {
		if !taken[n] {
			return n
		}
	}
	return poolSize
}

// part is /60 number n of parent, or its first /64.
func part(parent netip.Prefix, n int, length uint8) netip.Prefix {
	a := parent.Addr().As16()
	a[7] |= byte(n << 4)
	if length != 60 {
		length = 64
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), int(length))
}

// lent are the loans, for people.
func (p *pool) lent() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%d loans %v, asked %d times", len(p.loans), p.loans, len(p.asks))
}

func (p *pool) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.loans)
}

// last is the latest question.
func (p *pool) last() Ask {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asks[len(p.asks)-1]
}
