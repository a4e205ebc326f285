package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// Bounds of what is lent on a downstream: whoever sits on it may ask, under as many names as he likes.
const (
	maxBorrowers  = 64
	maxStaleLoans = 64
)

// longestLoan is how long an inner router may believe in a prefix that it was told of without end: the server on the
// downstream never says more (RFC 9096 §3.4).
const longestLoan = 5400 * time.Second

// lend gives every borrower a prefix of each delegation that its downstream draws on, and of the ULA prefix, out of what
// downstreams leave over. On a transit it lies in the transit's own subnet.
//
// Whoever has a prefix keeps it: borrowers that are remembered choose first. The others get what they name, if it can be
// had, else the last free place: new networks of the config, which come first, are numbered from the other end.
func (p *planner) lend() {
	if p.borrowers = p.knownBorrowers(); len(p.borrowers) == 0 {
		clear(p.led.Loans)
		clear(p.led.Places)
		return
	}
	for i := range p.site.Uplinks {
		for _, g := range p.site.Uplinks[i].Delegations {
			p.lendOf(origin{&p.site.Uplinks[i], g})
		}
	}
	if p.site.ULA.IsValid() {
		p.lendOf(origin{nil, p.ulaDelegation()})
	}
	p.refuseLoans()
	of := map[int][]*borrower{}
	for _, b := range p.borrowers {
		of[b.at] = append(of[b.at], b)
	}
	for i := range p.site.Downstreams {
		slices.SortFunc(p.site.Downstreams[i].Loans, func(a, b Loan) int { return a.Prefix.Compare(b.Prefix) })
		p.recordLoans(&p.site.Downstreams[i], of[i])
	}
}

// borrower is a Borrower with what is remembered of it.
type borrower struct {
	Borrower
	at     int // index of its downstream
	length int // that it gets if there is room
	known  bool
	place  Place // as it will be; as it was if known
	has    []netip.Prefix
	served map[string]bool // by uplinks of which it has a preferred prefix
}

// refusedLoan is a delegation of which a borrower gets nothing.
type refusedLoan struct {
	at     int // index of the downstream
	uplink string
	of     string // what is full
}

type borrowerID struct {
	downstream string
	client     pd.DUID
	iaid       uint32
}

func (b Borrower) id() borrowerID { return borrowerID{b.Downstream, b.Client, b.IAID} }

// knownBorrowers are those that may borrow, in an order that depends on nothing but them.
func (p *planner) knownBorrowers() (list []*borrower) {
	if len(p.w.Borrowers) == 0 {
		return nil
	}
	at := map[string]int{}
	for i, c := range p.cfg.Downstreams {
		if c.DHCPv6.Enabled && c.DHCPv6.Delegate && (c.Kind == config.Access || c.Kind == config.Transit) {
			at[c.Name] = i
		}
	}
	for _, b := range p.w.Borrowers {
		if i, ok := at[b.Downstream]; ok && !b.Until.Over(p.w.Now) {
			list = append(list, p.remembered(b, i))
		}
	}
	slices.SortFunc(list, func(x, y *borrower) int {
		unknown := func(b *borrower) int {
			if b.known {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(unknown(x), unknown(y)), cmp.Compare(x.Client, y.Client), cmp.Compare(x.IAID, y.IAID), cmp.Compare(x.Downstream, y.Downstream))
	})
	count, seen := map[string]int{}, map[borrowerID]bool{}
	return slices.DeleteFunc(list, func(b *borrower) bool {
		if seen[b.id()] {
			return true
		}
		seen[b.id()] = true
		count[b.Downstream]++
		if count[b.Downstream] == maxBorrowers+1 {
			p.problem("downstream."+b.Downstream, "too-many-borrowers", "more than %d inner routers, or one under many names, ask for prefixes on %s; the others get none",
				maxBorrowers, p.cfg.Downstreams[b.at].Interface)
		}
		return count[b.Downstream] > maxBorrowers
	})
}

func (p *planner) remembered(b Borrower, at int) *borrower {
	c := p.cfg.Downstreams[at].DHCPv6
	r := &borrower{Borrower: b, at: at, length: int(c.Length), served: map[string]bool{}}
	if b.Length > 0 {
		r.length = int(b.Length)
	}
	r.length = min(64, max(r.length, int(c.Shortest)))
	r.place = Place{Client: b.Client, IAID: b.IAID, Length: uint8(r.length)}
	for _, l := range p.before.Places[b.Downstream] {
		if l.Client == b.Client && l.IAID == b.IAID && l.Length == r.place.Length { // else it has another wish than before
			r.place, r.known = l, true
		}
	}
	return r
}

// lendOf lends parts of one delegation. Of a deprecated one nothing new is lent.
func (p *planner) lendOf(o origin) {
	waiting := slices.Clone(p.borrowers)
	pools := map[int]*space{}
	for _, b := range waiting {
		if _, ok := pools[b.at]; !ok && drawsOn(p.cfg.Downstreams[b.at], o) {
			pools[b.at] = p.pool(b.at, o)
		}
	}
	ways := []func(*borrower, *space) (netip.Prefix, bool){(*borrower).asHeld}
	if o.State == Preferred {
		ways = append(ways, (*borrower).asPlaced, (*borrower).asNamed, p.fresh(o))
	}
	for _, way := range ways {
		waiting = slices.DeleteFunc(waiting, func(b *borrower) bool {
			if pools[b.at] == nil {
				return true
			}
			prefix, ok := way(b, pools[b.at])
			if ok {
				p.lent(b, o, pools[b.at], prefix)
			}
			return ok
		})
	}
	for _, b := range waiting {
		if pools[b.at] == nil || o.State != Preferred {
			continue
		}
		r := refusedLoan{b.at, o.uplink(), o.String()}
		if p.cfg.Downstreams[b.at].Kind == config.Transit {
			r.of = pools[b.at].root.String()
		}
		p.refusedLoans[r] = append(p.refusedLoans[r], b)
	}
}

// pool is the space from which a downstream lends: the delegation, or its own subnet of it, without the router's address
// there; nil if it has none.
func (p *planner) pool(at int, o origin) *space {
	if p.cfg.Downstreams[at].Kind != config.Transit {
		return p.spaces[o.Prefix]
	}
	for _, n := range p.site.Downstreams[at].Subnets {
		if n.Delegation == o.Prefix && n.Uplink == o.uplink() {
			s := newSpace(n.Prefix)
			if n.Address.IsValid() {
				s.take(netip.PrefixFrom(n.Address.Addr(), max(64, n.Prefix.Bits())), "the router")
			}
			return s
		}
	}
	return nil
}

func (b *borrower) asHeld(s *space) (netip.Prefix, bool) {
	for _, h := range b.place.Prefixes {
		if s.isFree(h) {
			return h, true
		}
	}
	return netip.Prefix{}, false
}

// asPlaced is the place that b has in every delegation, if this one has room for it.
func (b *borrower) asPlaced(s *space) (prefix netip.Prefix, ok bool) {
	if !b.known || b.length < s.root.Bits() || b.place.ID >= subnetCount(s.root, b.length) {
		return prefix, false
	}
	prefix = subnetOf(s.root, b.length, b.place.ID)
	return prefix, s.isFree(prefix)
}

// asNamed is a prefix that b names: its memory counts where ours is lost.
func (b *borrower) asNamed(s *space) (netip.Prefix, bool) {
	for _, n := range b.Named {
		if n.Bits() >= b.length && n.Bits() <= 64 && s.isFree(n) {
			return n.Masked(), true
		}
	}
	return netip.Prefix{}, false
}

// fresh finds the last free place, or the largest if none is large enough, down to a /64. The place of the router's own
// address on lo is the very last to go.
func (p *planner) fresh(o origin) func(*borrower, *space) (netip.Prefix, bool) {
	return func(b *borrower, s *space) (netip.Prefix, bool) {
		spare := *s
		for _, l := range p.before.Loopback[o.uplink()] {
			spare.take(l, "the router")
		}
		for _, from := range []*space{&spare, s} {
			if length := max(b.length, from.largest()); length <= max(64, s.root.Bits()) {
				return from.last(length)
			}
		}
		return netip.Prefix{}, false
	}
}

// lent writes down that b has prefix.
func (p *planner) lent(b *borrower, o origin, s *space, prefix netip.Prefix) {
	s.take(prefix, "an inner router")
	d := &p.site.Downstreams[b.at]
	d.Loans = append(d.Loans, Loan{Downstream: d.Name, Interface: d.Interface, Client: b.Client, IAID: b.IAID, Via: b.Via, Uplink: o.uplink(),
		Delegation: o.Prefix, Prefix: prefix, PreferredUntil: o.PreferredUntil, ValidUntil: o.ValidUntil, State: o.State,
		Until: lifetime.Min(lifetime.Min(b.Until, o.ValidUntil), lifetime.Until(p.w.Now.Add(longestLoan))), Offered: b.Offered})
	b.has = append(b.has, prefix)
	b.served[o.uplink()] = b.served[o.uplink()] || o.State == Preferred
	if !b.known && len(b.has) == 1 {
		whole := netip.PrefixFrom(prefix.Addr(), max(b.length, s.root.Bits())) // of which prefix is a part where there was no room for more
		b.place.ID = idOf(s.root, whole)
	}
}

// refuseLoans says who gets nothing of a delegation, and nothing of another one of the same uplink instead, which may
// delegate a /64 at a time.
func (p *planner) refuseLoans() {
	for r, list := range p.refusedLoans {
		list = slices.DeleteFunc(list, func(b *borrower) bool { return b.served[r.uplink] })
		if len(list) == 0 {
			continue
		}
		first := slices.MinFunc(list, func(x, y *borrower) int { return x.Via.Compare(y.Via) }).Via
		others := ""
		if len(list) > 1 {
			others = fmt.Sprintf(" and %d more", len(list)-1)
		}
		p.problem("downstream."+p.cfg.Downstreams[r.at].Name, "loan-full", "no free /64 left in %s for the inner router %s%s", r.of, first, others)
	}
}

// recordLoans brings the ledger up to what is lent on a downstream now. What a borrower has no longer, it is told of with
// lifetimes 0 until it would have ended by itself; that borrower may be gone before.
func (p *planner) recordLoans(d *Downstream, borrowers []*borrower) {
	var places []Place
	var records []LoanRecord
	until := map[borrowerID]lifetime.Deadline{}
	for _, b := range borrowers {
		until[b.id()] = b.Until
		if len(b.has) > 0 {
			slices.SortFunc(b.has, netip.Prefix.Compare)
			b.place.Prefixes = b.has
		}
		if b.known || len(b.has) > 0 {
			places = append(places, b.place)
		}
	}
	type lent struct {
		client pd.DUID
		iaid   uint32
		prefix netip.Prefix
	}
	before := map[lent]lifetime.Deadline{} // what the ledger has, and until when the inner router was told that it is valid
	for _, r := range p.before.Loans[d.Name] {
		before[lent{r.Client, r.IAID, r.Prefix}] = lifetime.Min(r.Until, r.Valid)
	}
	current := map[lent]bool{}
	for _, l := range d.Loans {
		if k := (lent{l.Client, l.IAID, l.Prefix}); !l.Offered {
			current[k] = true
			records = append(records, LoanRecord{Client: l.Client, IAID: l.IAID, Prefix: l.Prefix,
				Valid: toldValid(l.ValidUntil, before[k], p.w.Now, longestLoan), Until: lifetime.Forever()})
		}
	}
	for _, r := range p.before.Loans[d.Name] {
		end, known := until[borrowerID{d.Name, r.Client, r.IAID}]
		if !known || current[lent{r.Client, r.IAID, r.Prefix}] {
			continue
		}
		if r.Until.IsForever() {
			r.Until = lifetime.Min(end, heldUntil(r.Valid, p.w.Now, longestLoan))
		}
		if !r.Until.Over(p.w.Now) {
			d.StaleLoans = append(d.StaleLoans, r)
		}
	}
	slices.SortFunc(d.StaleLoans, func(x, y LoanRecord) int { return cmp.Or(y.Until.Compare(x.Until), x.compare(y)) })
	d.StaleLoans = d.StaleLoans[:min(len(d.StaleLoans), maxStaleLoans)]
	slices.SortFunc(d.StaleLoans, LoanRecord.compare)
	records = append(records, d.StaleLoans...)
	slices.SortFunc(records, LoanRecord.compare)
	slices.SortFunc(places, func(x, y Place) int { return cmp.Or(cmp.Compare(x.Client, y.Client), cmp.Compare(x.IAID, y.IAID)) })
	keep(p.led.Loans, d.Name, records)
	keep(p.led.Places, d.Name, places)
}

func (r LoanRecord) compare(o LoanRecord) int {
	return cmp.Or(r.Prefix.Compare(o.Prefix), cmp.Compare(r.Client, o.Client), cmp.Compare(r.IAID, o.IAID))
}

// keep makes list the entry of name, or removes it.
func keep[T any](of map[string][]T, name string, list []T) {
	if len(list) == 0 {
		delete(of, name)
		return
	}
	of[name] = list
}
