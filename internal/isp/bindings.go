package isp

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// maxBindings bounds the memory that clients can claim.
const maxBindings = 4096

// client is the IA of a client: what a prefix is delegated or an address leased to.
type client struct {
	id   pd.DUID
	iaid uint32
}

// Binding is a delegated prefix, or an address as a /128.
type Binding struct {
	ClientID   pd.DUID
	IAID       uint32
	Prefix     netip.Prefix // invalid between Renumber and the client's next message
	ValidUntil lifetime.Deadline
	Via        netip.Addr // the client's link-local address
}

// binding is a Binding with the prefixes it has had before.
type binding struct {
	Binding
	old []oldPrefix
}

// oldPrefix is a prefix from before a renumbering: no longer preferred, valid until the deadline.
type oldPrefix struct {
	prefix netip.Prefix
	until  lifetime.Deadline
}

// route is a change for Config.Route.
type route struct {
	prefix netip.Prefix
	via    netip.Addr
	add    bool
}

// bindings hands out the prefixes of a pool. A client gets the same prefix every time, as long as nobody else has it.
type bindings struct {
	pool   netip.Prefix // invalid: there is nothing to hand out
	length int
	first  uint64 // those before this number are not handed out
	byIA   map[client]*binding
	taken  map[netip.Prefix]client // by the zero client: declined
	unsaid map[netip.Prefix]bool   // abandoned: not to be mentioned, whoever believes to have them
}

func newBindings(pool netip.Prefix, length int) *bindings {
	return &bindings{pool: pool, length: length, byIA: map[client]*binding{}, taken: map[netip.Prefix]client{},
		unsaid: map[netip.Prefix]bool{}}
}

// candidate is the prefix that c has or would get; invalid when the pool is used up.
func (b *bindings) candidate(c client) netip.Prefix {
	if have := b.byIA[c]; have != nil && have.Prefix.IsValid() {
		return have.Prefix
	}
	if !b.pool.IsValid() || len(b.byIA) >= maxBindings && b.byIA[c] == nil {
		return netip.Prefix{}
	}
	h := fnv.New32a()
	_, _ = h.Write(binary.BigEndian.AppendUint32([]byte(c.id), c.iaid))
	size := uint64(1)<<min(b.length-b.pool.Bits(), maxPoolBits) - b.first
	start := uint64(h.Sum32()) % size
	for i := range min(size, b.blocked()+1) {
		p := nth(b.pool, b.length, b.first+(start+i)%size)
		if b.isFree(p) {
			return p
		}
	}
	return netip.Prefix{}
}

// blocked is how many prefixes of the present length, at most, cannot be handed out because of those that have been, which may
// be of any length.
func (b *bindings) blocked() (n uint64) {
	for q := range b.taken {
		n += 1 << max(0, b.length-q.Bits())
	}
	return n
}

func (b *bindings) isFree(p netip.Prefix) bool {
	if _, taken := b.taken[p]; taken {
		return false
	}
	for q := range b.taken {
		if q.Bits() != p.Bits() && q.Overlaps(p) {
			return false
		}
	}
	return true
}

// nth is sub-prefix number i of pool.
func nth(pool netip.Prefix, length int, i uint64) netip.Prefix {
	a := pool.Addr().As16()
	for bit := range maxPoolBits {
		if i>>bit&1 == 1 {
			position := length - 1 - bit
			a[position/8] |= 0x80 >> (position % 8)
		}
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), length)
}

// grant binds c to its prefix until the deadline; nil when the pool is used up.
func (b *bindings) grant(c client, via netip.Addr, until lifetime.Deadline) (*binding, []route) {
	p := b.candidate(c)
	if !p.IsValid() {
		return nil, nil
	}
	have := b.byIA[c]
	if have == nil {
		have = &binding{Binding: Binding{ClientID: c.id, IAID: c.iaid}}
		b.byIA[c] = have
	}
	have.Prefix, have.Via, have.ValidUntil = p, via, until
	b.taken[p] = c
	delete(b.unsaid, p)
	routes := []route{{p, via, true}} // every time: the kernel has dropped it if the link was down in between
	for _, o := range have.old {
		if b.taken[o.prefix] == c {
			routes = append(routes, route{o.prefix, via, true})
		}
	}
	return have, routes
}

// renumber moves the pool. What was delegated stays valid until the deadline, at most as long as promised.
func (b *bindings) renumber(pool netip.Prefix, length int, until lifetime.Deadline, now time.Time) (routes []route) {
	b.pool, b.length = pool, length
	for _, have := range b.byIA {
		if have.Prefix.IsValid() {
			have.old = append(have.old, oldPrefix{have.Prefix, lifetime.Min(until, have.ValidUntil)})
			have.Prefix = netip.Prefix{}
		}
	}
	return b.expire(now)
}

// abandon moves the pool without a word: what was delegated is not routed any more, and not mentioned.
func (b *bindings) abandon(pool netip.Prefix, length int) (routes []route) {
	b.pool, b.length = pool, length
	for c, have := range b.byIA {
		for _, r := range b.free(c, have) {
			b.unsaid[r.prefix] = true
			routes = append(routes, r)
		}
		have.Prefix, have.old = netip.Prefix{}, nil
	}
	return routes
}

// expire forgets what is over at now. A prefix stays with a binding without lifetime until its client has been told;
// told does that.
func (b *bindings) expire(now time.Time) (routes []route) {
	for c, have := range b.byIA {
		if have.ValidUntil.Over(now) {
			routes = append(routes, b.drop(c)...)
			continue
		}
		for _, o := range have.old {
			if b.taken[o.prefix] == c && o.until.Over(now) {
				delete(b.taken, o.prefix)
				routes = append(routes, route{o.prefix, have.Via, false})
			}
		}
	}
	return routes
}

// told removes from have the old prefixes that are over: the client has been sent lifetimes of 0.
func (b *bindings) told(have *binding, now time.Time) {
	have.old = slices.DeleteFunc(have.old, func(o oldPrefix) bool { return o.until.Over(now) })
}

// drop forgets a binding.
func (b *bindings) drop(c client) []route {
	have := b.byIA[c]
	delete(b.byIA, c)
	return b.free(c, have)
}

// free takes c's prefixes back.
func (b *bindings) free(c client, have *binding) (routes []route) {
	gone := []netip.Prefix{have.Prefix}
	for _, o := range have.old {
		gone = append(gone, o.prefix)
	}
	for _, p := range gone {
		if b.taken[p] == c {
			delete(b.taken, p)
			routes = append(routes, route{p, have.Via, false})
		}
	}
	return routes
}

// decline drops c's binding. What the client has found to be in use elsewhere is nobody's from now on.
func (b *bindings) decline(c client, found []netip.Prefix) {
	have := b.byIA[c]
	if slices.Contains(found, have.Prefix) {
		b.taken[have.Prefix] = client{}
	}
	b.drop(c)
}

// forget drops every binding.
func (b *bindings) forget() (routes []route) {
	for c := range b.byIA {
		routes = append(routes, b.drop(c)...)
	}
	return routes
}

// next is when expire has something to do.
func (b *bindings) next() (at time.Time, ok bool) {
	next := lifetime.Forever()
	for c, have := range b.byIA {
		next = lifetime.Min(next, have.ValidUntil)
		for _, o := range have.old {
			if b.taken[o.prefix] == c {
				next = lifetime.Min(next, o.until)
			}
		}
	}
	return next.Time()
}

// list is every binding, sorted.
func (b *bindings) list() []Binding {
	var all []Binding
	for _, have := range b.byIA {
		all = append(all, have.Binding)
	}
	slices.SortFunc(all, func(x, y Binding) int { return x.Prefix.Compare(y.Prefix) })
	return all
}
