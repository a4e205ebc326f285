package policy

import (
	"net/netip"
	"slices"
)

// loopback gives the router addresses of its own out of the delegations of uplinks on which it has none: providers that
// grant no IA_NA and offer no SLAAC are many, and without a global address the router itself reaches nobody. RFC 7084
// WAA-7 wants it on an internal virtual interface, so that it needs no on-link prefix and no DAD. A router address on a
// downstream does as well, since Linux takes any address of the host for a source.
//
// Subnets of downstreams come first: the address is in a part of the delegation that nobody has, the last one, where
// automatic subnets come last, and moves when somebody is given that part.
func (p *planner) loopback() {
	for i := range p.site.Uplinks {
		u := &p.site.Uplinks[i]
		var held []netip.Prefix // stays while the delegation is there, so that the same one comes back
		for _, g := range u.Delegations {
			part, ok := p.unused(g, p.before.Loopback[u.Name])
			if !ok {
				continue
			}
			held = append(held, part)
			if p.needsInternal(*u, g) {
				u.Loopback = append(u.Loopback, Internal{Delegation: g.Prefix, Address: internalIn(part), PreferredUntil: g.PreferredUntil, ValidUntil: g.ValidUntil})
			}
		}
		if p.led.Loopback[u.Name] = held; len(held) == 0 {
			delete(p.led.Loopback, u.Name)
		}
	}
}

// needsInternal reports whether the router needs an address out of g on lo: it has no global address on the uplink, no
// preferred one out of the uplink's delegations on a downstream, and none at all out of this one.
func (p *planner) needsInternal(u Uplink, g Delegation) bool {
	if lo := p.w.Links[Loopback]; !lo.Up || len(u.Leased) > 0 || slices.ContainsFunc(u.Addresses, global.Contains) {
		return false
	}
	for _, d := range p.site.Downstreams {
		for _, n := range d.Subnets {
			if d.Link && n.Address.IsValid() && n.Uplink == u.Name && (n.State == Preferred || n.Delegation == g.Prefix) {
				return false
			}
		}
	}
	return true
}

// Loopback is the interface that every network namespace has.
const Loopback = "lo"

// unused returns a /64 of g that nobody has, or g itself if that is no shorter: the one held before, if it still is such a
// part, else the last.
func (p *planner) unused(g Delegation, held []netip.Prefix) (netip.Prefix, bool) {
	s, length := p.spaces[g.Prefix], max(64, g.Prefix.Bits())
	for _, h := range held {
		if h.Bits() == length && s.isFree(h) {
			return h, true
		}
	}
	return s.last(length)
}

// internalIn is the first address of p that is not the Subnet-Router anycast address, or the only one.
func internalIn(p netip.Prefix) netip.Prefix {
	a := p.Masked().Addr()
	if p.Bits() < 128 {
		a = a.Next()
	}
	return netip.PrefixFrom(a, 128)
}
