package radv

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/policy"
)

// maxRouters bounds how many routers are remembered on one uplink.
const maxRouters = 8

// Facts is what router advertisements say about an uplink.
type Facts struct {
	Interface    int        // index of the interface on which this was heard; another one is another link
	policy.Heard            // routers as in ranked; DNS of the best router first, no link-local ones
	MACs         []string   // of Routers, in their order; "" for one that does not say
	Prefixes     []Prefix   // sorted by prefix
	Invitation   Invitation // the strongest one on this link so far
}

// Invitation is what routers say about DHCPv6. One that has been given is not taken back: it says that there is a server.
type Invitation int

// Invitations, the weakest first.
const (
	Silence      Invitation = iota // no advertisement was heard
	Advertised                     // one was heard, and it says nothing about DHCPv6
	DHCPv6Served                   // one has the M or O flag (RFC 4861 §4.2), or a prefix with the P flag (RFC 9762)
)

// Prefix is a Prefix Information option of a router.
type Prefix struct {
	Prefix                     netip.Prefix
	OnLink, Autonomous         bool
	PreferPD                   bool // P flag: the network wants its clients to ask for a delegation (RFC 9762)
	PreferredUntil, ValidUntil lifetime.Deadline
}

// heard is what one router has said and what still holds of it.
type heard advertisement

// table remembers the routers of one uplink. It is pure.
type table struct {
	routers    []heard    // the one heard least recently first
	best       netip.Addr // of the default routers; invalid: there is none
	invitation Invitation
}

// hear takes over an advertisement.
func (t *table) hear(a advertisement) {
	h := t.take(a.from)
	h.managed, h.other, h.preference, h.routerUntil = a.managed, a.other, a.preference, a.routerUntil
	h.dns = merge(h.dns, a.dns, maxHeardServers)
	h.search = merge(h.search, a.search, maxHeardDomains)
	h.pref64 = merge(h.pref64, a.pref64, maxHeardPREF64)
	if a.portal != nil { // a router may spread its options over several advertisements (RFC 4861 §6.2.3)
		h.portal = a.portal
	}
	if a.mac != "" {
		h.mac = a.mac
	}
	for _, p := range a.prefixes {
		h.prefixes = slices.DeleteFunc(h.prefixes, func(o Prefix) bool { return o.Prefix == p.Prefix })
		if len(h.prefixes) < maxHeardPrefixes {
			h.prefixes = append(h.prefixes, p)
		}
	}
	t.routers = append(t.routers, h)
	t.invitation = max(t.invitation, a.invitation())
	t.choose()
}

func (a advertisement) invitation() Invitation {
	// A prefix that is not preferred any more invites nobody (RFC 9762 §6).
	if a.managed || a.other || slices.ContainsFunc(a.prefixes, func(p Prefix) bool { return p.PreferPD && !p.PreferredUntil.IsZero() }) {
		return DHCPv6Served
	}
	return Advertised
}

// take returns what is known of a router, and takes it out of the table. In a full table it makes room for a new router:
// the one heard least recently goes. A forged advertisement may promise 18 hours, but a real router advertises at least
// every half hour (RFC 4861 §6.2.1) and so comes back. The best one stays, so that a flood does not interrupt traffic.
func (t *table) take(from netip.Addr) heard {
	if i := slices.IndexFunc(t.routers, func(h heard) bool { return h.from == from }); i >= 0 {
		h := t.routers[i]
		t.routers = slices.Delete(t.routers, i, i+1)
		return h
	}
	if len(t.routers) == maxRouters {
		i := slices.IndexFunc(t.routers, func(h heard) bool { return h.from != t.best })
		t.routers = slices.Delete(t.routers, i, i+1)
	}
	return heard{from: from}
}

// ranked returns all routers, best first: by preference (RFC 4191); among equals the one in use stays in use, whoever
// else comes; then by address.
func (t *table) ranked() []heard {
	sorted := slices.Clone(t.routers)
	other := func(h heard) int {
		if h.from == t.best {
			return 0
		}
		return 1
	}
	slices.SortFunc(sorted, func(a, b heard) int {
		return cmp.Or(cmp.Compare(b.rank(), a.rank()), cmp.Compare(other(a), other(b)), a.from.Compare(b.from))
	})
	return sorted
}

// choose notes the best default router.
func (t *table) choose() {
	sorted := t.ranked()
	if t.best = (netip.Addr{}); len(sorted) > 0 && sorted[0].isRouter() {
		t.best = sorted[0].from
	}
}

// merge returns held with the values of news, the old order kept. Beyond limit, what ends first makes room (RFC 8106 §6.1).
func merge[T comparable](held, news []timed[T], limit int) []timed[T] {
	for _, n := range news {
		if i := slices.IndexFunc(held, func(h timed[T]) bool { return h.value == n.value }); i >= 0 {
			held[i].until = n.until
		} else if len(held) < limit {
			held = append(held, n)
		} else if i := earliest(held); held[i].until.Compare(n.until) < 0 {
			held[i] = n
		}
	}
	return held
}

// earliest returns the index of the value that ends first.
func earliest[T comparable](held []timed[T]) int {
	first := 0
	for i, h := range held {
		if h.until.Compare(held[first].until) < 0 {
			first = i
		}
	}
	return first
}

// expire drops what is over at now. It reports whether there was a default router whose time ran out.
func (t *table) expire(now time.Time) (lost bool) {
	for i := range t.routers {
		h := &t.routers[i]
		if !h.routerUntil.IsZero() && h.routerUntil.Over(now) {
			h.routerUntil, lost = lifetime.Deadline{}, true
		}
		h.dns = slices.DeleteFunc(h.dns, func(d timed[netip.Addr]) bool { return d.until.Over(now) })
		h.search = slices.DeleteFunc(h.search, func(d timed[string]) bool { return d.until.Over(now) })
		h.pref64 = slices.DeleteFunc(h.pref64, func(d timed[netip.Prefix]) bool { return d.until.Over(now) })
		h.prefixes = slices.DeleteFunc(h.prefixes, func(p Prefix) bool { return p.ValidUntil.Over(now) })
	}
	t.routers = slices.DeleteFunc(t.routers, func(h heard) bool {
		return h.routerUntil.IsZero() && len(h.dns) == 0 && len(h.search) == 0 && len(h.pref64) == 0 && len(h.prefixes) == 0
	})
	t.choose()
	return lost
}

// next returns the earliest deadline of all that is remembered; Forever when there is none.
func (t *table) next() lifetime.Deadline {
	at := lifetime.Forever()
	for _, h := range t.routers {
		if !h.routerUntil.IsZero() {
			at = lifetime.Min(at, h.routerUntil)
		}
		for _, d := range h.dns {
			at = lifetime.Min(at, d.until)
		}
		for _, d := range h.search {
			at = lifetime.Min(at, d.until)
		}
		for _, d := range h.pref64 {
			at = lifetime.Min(at, d.until)
		}
		for _, p := range h.prefixes {
			at = lifetime.Min(at, p.ValidUntil)
		}
	}
	return at
}

// facts returns what the table says, in canonical order.
func (t *table) facts() Facts {
	f := Facts{Invitation: t.invitation}
	for _, h := range t.ranked() {
		if h.isRouter() {
			f.Routers = append(f.Routers, policy.Router{Address: h.from, Until: h.routerUntil})
			f.MACs = append(f.MACs, h.mac)
			f.CaptivePortal = cmp.Or(f.CaptivePortal, h.portalURI())
		}
		f.Managed = f.Managed || h.managed
		f.Other = f.Other || h.other
		f.DNS = addValues(f.DNS, h.dns, maxHeardServers)
		f.Search = addValues(f.Search, h.search, maxHeardDomains)
		for _, p := range h.pref64 {
			f.PREF64 = addPREF64(f.PREF64, p)
		}
		for _, p := range h.prefixes {
			f.Prefixes = addPrefix(f.Prefixes, p)
		}
	}
	slices.SortFunc(f.Prefixes, func(a, b Prefix) int { return a.Prefix.Compare(b.Prefix) })
	return f
}

// portalURI is the captive portal of a default router. The option has no lifetime of its own.
func (h heard) portalURI() string {
	if h.portal == nil {
		return ""
	}
	return *h.portal
}

// addValues adds what is new of a router to what better ones say, up to limit.
func addValues[T comparable](all []T, more []timed[T], limit int) []T {
	for _, d := range more {
		if len(all) < limit && !slices.Contains(all, d.value) {
			all = append(all, d.value)
		}
	}
	return all
}

// addPREF64 adds one; of two routers' words on one prefix the longer one counts.
func addPREF64(all []policy.PREF64, p timed[netip.Prefix]) []policy.PREF64 {
	i := slices.IndexFunc(all, func(o policy.PREF64) bool { return o.Prefix == p.value })
	switch {
	case i >= 0:
		all[i].Until = lifetime.Max(all[i].Until, p.until)
	case len(all) < maxHeardPREF64:
		all = append(all, policy.PREF64{Prefix: p.value, Until: p.until})
	}
	return all
}

func (h heard) isRouter() bool { return !h.routerUntil.IsZero() }

// rank orders routers; the preference counts only with a lifetime (RFC 4191 §2.2).
func (h heard) rank() preference {
	if !h.isRouter() {
		return low - 1
	}
	return h.preference
}

// addPrefix adds p; of two routers' words on one prefix the longer one counts, as hosts see it (RFC 4861 §6.3.4).
func addPrefix(all []Prefix, p Prefix) []Prefix {
	i := slices.IndexFunc(all, func(o Prefix) bool { return o.Prefix == p.Prefix })
	if i < 0 {
		return append(all, p)
	}
	o := &all[i]
	o.OnLink, o.Autonomous, o.PreferPD = o.OnLink || p.OnLink, o.Autonomous || p.Autonomous, o.PreferPD || p.PreferPD
	o.PreferredUntil = lifetime.Max(o.PreferredUntil, p.PreferredUntil)
	o.ValidUntil = lifetime.Max(o.ValidUntil, p.ValidUntil)
	return all
}

// novelty says how much news there is in facts.
type novelty int

const (
	nothing   novelty = iota
	refreshed         // deadlines moved into the future, as with every periodic advertisement
	changed           // anything else
)

// compare returns what is new in f, compared with the facts published before.
func (f Facts) compare(before Facts) novelty {
	if !f.sameBut(before) {
		return changed
	}
	news := nothing
	for i, r := range f.Routers {
		news = max(news, moved(before.Routers[i].Until, r.Until))
	}
	for i, p := range f.PREF64 {
		news = max(news, moved(before.PREF64[i].Until, p.Until))
	}
	for i, p := range f.Prefixes {
		o := before.Prefixes[i]
		news = max(news, moved(o.ValidUntil, p.ValidUntil), moved(o.PreferredUntil, p.PreferredUntil))
	}
	return news
}

// sameBut reports whether f and o are the same but for their deadlines.
func (f Facts) sameBut(o Facts) bool {
	return f.Managed == o.Managed && f.Other == o.Other && f.Invitation == o.Invitation && f.CaptivePortal == o.CaptivePortal &&
		slices.Equal(f.DNS, o.DNS) && slices.Equal(f.Search, o.Search) && slices.Equal(f.MACs, o.MACs) &&
		slices.EqualFunc(f.Routers, o.Routers, func(a, b policy.Router) bool { return a.Address == b.Address }) &&
		slices.EqualFunc(f.PREF64, o.PREF64, func(a, b policy.PREF64) bool { return a.Prefix == b.Prefix }) &&
		slices.EqualFunc(f.Prefixes, o.Prefixes, func(a, b Prefix) bool {
			return a.Prefix == b.Prefix && a.OnLink == b.OnLink && a.Autonomous == b.Autonomous && a.PreferPD == b.PreferPD
		})
}

// moved compares two deadlines of one thing; a shorter one is a change.
func moved(before, after lifetime.Deadline) novelty {
	switch {
	case before == after:
		return nothing
	case before.IsZero() != after.IsZero(): // a router or prefix that is withdrawn, or back
		return changed
	case after.Compare(before) > 0:
		return refreshed
	case after.IsForever() == before.IsForever() && before.Compare(lifetime.Until(shifted(after))) <= 0:
		return refreshed
	}
	return changed
}

// shifted returns the time of d, later by the tolerance.
func shifted(d lifetime.Deadline) time.Time {
	t, _ := d.Time()
	return t.Add(tolerance)
}
