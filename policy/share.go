package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"uplinkd/internal/config"
	"uplinkd/internal/lifetime"
)

// subnets gives every downstream its part of every delegation it draws from, and of the ULA prefix: of those that hosts
// make new connections with first, so that nobody who is left with a deprecated subnet counts as served.
func (p *planner) subnets() {
	for _, state := range []State{Preferred, Deprecated} {
		for i := range p.site.Uplinks {
			for _, g := range p.site.Uplinks[i].Delegations {
				if g.State == state {
					p.share(origin{&p.site.Uplinks[i], g})
				}
			}
		}
	}
	if p.site.ULA.IsValid() {
		p.share(origin{nil, p.ulaDelegation()})
	}
	// Where a provider delegates a /64 at a time, a downstream that has one does without the others.
	p.problems = slices.DeleteFunc(p.problems, func(x Problem) bool {
		preferred, served := p.drawing[drawer{x.Path, x.uplink}]
		return x.Code == delegationFull && served && (preferred || x.deprecated) || x.Code == poolShrunk && x.deprecated && preferred
	})
	for i := range p.site.Downstreams {
		d := &p.site.Downstreams[i]
		slices.SortFunc(d.Subnets, func(a, b Subnet) int { return a.Prefix.Compare(b.Prefix) })
		had := make([]netip.Prefix, 0, len(d.Subnets))
		for _, n := range d.Subnets {
			had = append(had, n.Prefix)
		}
		keep(p.led.Had, d.Name, had)
	}
}

// ulaDelegation is the ULA prefix in the form of a delegation.
func (p *planner) ulaDelegation() Delegation {
	return Delegation{Prefix: p.site.ULA, PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever(), State: Preferred}
}

// origin is where subnets come from: a delegation of an uplink, or the ULA prefix, which is of none.
type origin struct {
	up *Uplink
	Delegation
}

func (o origin) uplink() string {
	if o.up == nil {
		return ""
	}
	return o.up.Name
}

func (o origin) String() string {
	if o.up == nil {
		return "the ULA prefix " + o.Prefix.String()
	}
	return fmt.Sprintf("%s of uplink %s", o.Prefix, o.up.Name)
}

// drawer is a downstream, by its path in the config, that has a subnet of an uplink.
type drawer struct{ path, uplink string }

// drawsOn reports whether c wants a part of o.
func drawsOn(c config.Downstream, o origin) bool {
	return c.HasSubnet() && (o.up == nil || len(c.From) == 0 || slices.Contains(c.From, o.up.Name))
}

// isPool reports whether c is a stock from which inner routers get prefixes. A smaller one is better than none.
func isPool(c config.Downstream) bool { return c.Kind == config.Transit && !c.Via.IsValid() }

// share deals out one delegation. The ladder, when there is not enough for all:
//
//  1. downstreams with a subnet id in the config (or a VLAN id),
//  2. those who have a subnet of this delegation already,
//  3. those whose remembered subnet id fits,
//  4. all others in the order of the config, those with an id from their name first,
//
// and, among each of these, pools after the others. If one of the others gets nothing that way, those come first who have
// nothing of this uplink yet, since it may delegate a /64 at a time, and all pools without an id in the config come last. A
// pool that finds no place of its length gets the largest part that is left, down to a /64.
func (p *planner) share(o origin) {
	a := p.allot(o, false)
	if a.starved {
		a = p.allot(o, true)
	}
	p.spaces[o.Prefix] = a.space
	for _, i := range a.order {
		g, ok := a.given[i]
		if !ok {
			continue
		}
		c, d := p.cfg.Downstreams[i], &p.site.Downstreams[i]
		if _, known := p.led.Subnets[c.Name]; g.remember && !known {
			p.led.Subnets[c.Name] = g.id
		}
		address, ok := p.routerAddress(c, d, g.prefix)
		if !ok {
			continue
		}
		n := Subnet{Downstream: d.Name, Interface: d.Interface, Uplink: o.uplink(), Delegation: o.Prefix, ID: g.id, Prefix: g.prefix,
			Address: address, PreferredUntil: o.PreferredUntil, ValidUntil: o.ValidUntil, State: o.State}
		if c.Kind != config.Access {
			n.Kind = string(c.Kind)
		}
		d.Subnets = append(d.Subnets, n)
		if k := (drawer{"downstream." + c.Name, o.uplink()}); o.up != nil {
			p.drawing[k] = p.drawing[k] || o.State == Preferred
		}
	}
	for _, r := range a.refused {
		if r.full {
			r.problem.Message += p.whoHasIt(a, r.problem.Path)
		}
		r.problem.uplink, r.problem.deprecated = o.uplink(), o.State != Preferred
		p.problems = append(p.problems, r.problem)
	}
}

// allotment is one delegation as it is dealt out.
type allotment struct {
	origin
	space   *space
	order   []int // indices of downstreams, in the order in which they choose
	given   map[int]given
	refused []refusal
	starved bool // a downstream that is no pool gets nothing because others have it all
}

type given struct {
	id       uint64
	prefix   netip.Prefix
	remember bool // the id
}

type refusal struct {
	problem Problem
	full    bool // because others have it
}

func (p *planner) allot(o origin, scarce bool) *allotment {
	a := &allotment{origin: o, space: p.reserved(o), given: map[int]given{}}
	ranks := map[int]int{}
	for i, c := range p.cfg.Downstreams {
		if drawsOn(c, o) {
			a.order = append(a.order, i)
			ranks[i] = p.rank(i, o, scarce)
		}
	}
	slices.SortStableFunc(a.order, func(x, y int) int { return cmp.Compare(ranks[x], ranks[y]) })
	for _, i := range a.order {
		c := p.cfg.Downstreams[i]
		g, refused := p.choose(c, a)
		if refused != nil {
			a.refused = append(a.refused, *refused)
			a.starved = a.starved || refused.full && !isPool(c)
		}
		if g.prefix.IsValid() {
			a.given[i] = g
			a.space.take(g.prefix, "downstream "+c.Name)
		}
	}
	return a
}

// reserved is the space of a delegation without what no downstream may have: what the server excludes (RFC 6603), and what
// stands on the interface of its uplink already, where some providers number the link out of what they delegate: a
// downstream with the same subnet would fight the kernel over the on-link route.
//
// Other uplinks have no say in it: whoever sends an RA there could number this one's networks anew. And who sends RAs on
// this one moves a network once, not with every RA: what it has then it keeps, for as long as hosts may have the old one.
func (p *planner) reserved(o origin) *space {
	s := newSpace(o.Prefix)
	if o.up != nil {
		link := p.onLinkOf(*o.up)
		for _, a := range link {
			if o.Prefix.Contains(a.Addr()) && !p.hasMoved(a, o, link) {
				s.take(a, "the link of uplink "+o.up.Name)
			}
		}
	}
	if o.Exclude.IsValid() {
		s.take(o.Exclude, "the provider (RFC 6603)")
	}
	return s
}

// onLinkOf is what stands on an uplink's interface: the prefixes of its addresses, those to come as well, and what else is
// on-link there.
func (p *planner) onLinkOf(u Uplink) (list []netip.Prefix) {
	link := p.w.Links[u.Interface]
	for _, a := range link.Globals {
		list = append(list, a.Masked())
	}
	for _, q := range link.OnLink {
		if isOneLink(q) {
			list = append(list, q)
		}
	}
	for _, a := range u.Leased {
		list = append(list, netip.PrefixFrom(a.Address, 128))
	}
	return list
}

// hasMoved reports whether a downstream has q, or a part of it, since it had to give another part of o to the link.
func (p *planner) hasMoved(q netip.Prefix, o origin, link []netip.Prefix) bool {
	return slices.ContainsFunc(p.cfg.Downstreams, func(c config.Downstream) bool {
		return slices.ContainsFunc(p.before.Had[c.Name], q.Overlaps) && slices.ContainsFunc(p.before.Announced[c.Name], func(r AnnouncedRecord) bool {
			return !r.Until.IsForever() && o.Prefix.Contains(r.Prefix.Addr()) && slices.ContainsFunc(link, r.Prefix.Overlaps)
		})
	})
}

// rank is the place of downstream i on the ladder. A new downstream, or one whose remembered id is too large for this
// delegation, never takes the place of one that has it already.
func (p *planner) rank(i int, o origin, scarce bool) int {
	c := p.cfg.Downstreams[i]
	here, rank := p.had(c, o.Prefix).IsValid(), 0
	switch id, known := p.led.Subnets[c.Name]; {
	case p.isExplicit(c, o.Prefix):
	case here:
		rank = 1
	case known && int(c.Length) >= o.Prefix.Bits() && id < subnetCount(o.Prefix, int(c.Length)):
		rank = 2
	case c.Subnet == config.HashSubnet:
		rank = 3
	default:
		rank = 4
	}
	rank *= 2
	if isPool(c) {
		rank++
	}
	if scarce && rank > 1 {
		if !here && p.served(c, o) {
			rank += 10
		}
		if isPool(c) {
			rank += 100
		}
	}
	return rank
}

// served reports whether c has a subnet of another delegation of the same uplink, or will keep one when its turn comes.
func (p *planner) served(c config.Downstream, o origin) bool {
	if _, drawn := p.drawing[drawer{"downstream." + c.Name, o.uplink()}]; drawn || o.up == nil {
		return drawn
	}
	return slices.ContainsFunc(o.up.Delegations, func(g Delegation) bool {
		return g.State == o.State && p.had(c, g.Prefix).IsValid()
	})
}

// had is the subnet of g that c has had so far; the zero Prefix if none of a length that it may have.
func (p *planner) had(c config.Downstream, g netip.Prefix) netip.Prefix {
	for _, h := range p.before.Had[c.Name] {
		if g.Contains(h.Addr()) && h.Bits() >= g.Bits() && (h.Bits() == int(c.Length) || isPool(c) && h.Bits() > int(c.Length) && h.Bits() <= 64) {
			return h
		}
	}
	return netip.Prefix{}
}

// whoHasIt ends a message about a delegation of which somebody gets nothing, or less than he asked for.
func (p *planner) whoHasIt(a *allotment, path string) string {
	const most = 8
	var got []string
	for i, c := range p.cfg.Downstreams {
		if g, ok := a.given[i]; ok && path != "downstream."+c.Name {
			if len(got) == most {
				return ": " + strings.Join(got, ", ") + ", and others the rest"
			}
			got = append(got, fmt.Sprintf("%s has %s", c.Name, g.prefix))
		}
	}
	if len(got) == 0 {
		return ""
	}
	return ": " + strings.Join(got, ", ")
}
