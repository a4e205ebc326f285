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
			if d.Link && n.Uplink == u.Name && (n.State == Preferred || n.Delegation == g.Prefix) {
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
	taken := p.onUplinks(g.Prefix)
	if g.Exclude.IsValid() {
		taken = append(taken, g.Exclude)
	}
	for _, d := range p.site.Downstreams {
		for _, n := range d.Subnets {
			taken = append(taken, n.Prefix)
		}
	}
	length := max(64, g.Prefix.Bits())
	for _, h := range held {
		if h.Bits() == length && g.Prefix.Contains(h.Addr()) && !slices.ContainsFunc(taken, h.Overlaps) {
			return h, true
		}
	}
	return lastFree(g.Prefix, length, taken)
}

// lastFree is firstFree from the other end.
func lastFree(g netip.Prefix, length int, taken []netip.Prefix) (netip.Prefix, bool) {
	for id := subnetCount(g, length); id > 0; {
		prefix := subnetOf(g, length, id-1)
		i := slices.IndexFunc(taken, prefix.Overlaps)
		if i < 0 {
			return prefix, true
		}
		id--
		if wide := taken[i].Bits(); wide <= g.Bits() {
			break
		} else if wide < length { // skip all of a larger subnet
			per := subnetCount(taken[i], length)
			id = id / per * per
		}
	}
	return netip.Prefix{}, false
}

// internalIn is the first address of p that is not the Subnet-Router anycast address, or the only one.
func internalIn(p netip.Prefix) netip.Prefix {
	a := p.Masked().Addr()
	if p.Bits() < 128 {
		a = a.Next()
	}
	return netip.PrefixFrom(a, 128)
}
