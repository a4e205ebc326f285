package policy

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	"uplinkd/internal/config"
)

const (
	delegationFull = "delegation-full"
	poolShrunk     = "pool-shrunk"
)

// choose finds the subnet of c in what is left of a delegation. Without one, or with one smaller than c wants, there is a
// refusal that says why, unless a problem with the interface says it already.
func (p *planner) choose(c config.Downstream, a *allotment) (g given, refused *refusal) {
	length := int(c.Length)
	refuse := func(full bool, code, format string, args ...any) {
		refused = &refusal{Problem{Path: "downstream." + c.Name, Code: code, Message: fmt.Sprintf(format, args...)}, full}
	}
	if h := p.had(c, a.Prefix); !p.isExplicit(c, a.Prefix) && h.Bits() > length && a.space.isFree(h) && !p.canGrow(c, a, h) {
		return a.small(c, h)
	}
	if length < a.Prefix.Bits() {
		if isPool(c) {
			return p.shrunk(c, a)
		}
		if a.up == nil {
			refuse(false, "delegation-too-short", "%s is too small for a /%d; set a shorter ula, or a longer length", a.origin, length)
		} else {
			refuse(false, "delegation-too-short", "uplink %s delegated %s, too small for a /%d; ask for more with dhcpv6.length or dhcpv6.prefixes, or set length", a.up.Name, a.Prefix, length)
		}
		return g, refused
	}
	count := subnetCount(a.Prefix, length)
	if id, explicit := p.explicitID(c); explicit {
		g = given{id: id, remember: c.Subnet == config.VLANSubnet}
		if id >= count {
			refuse(false, "subnet-id-too-large", "subnet id %d does not fit: %s has %d /%d subnets (0 to %d)", id, a.origin, count, length, count-1)
			return given{}, refused
		}
		g.prefix = subnetOf(a.Prefix, length, id)
		if h, taken := a.space.overlapping(g.prefix); taken {
			refuse(false, "subnet-overlap", "subnet id %d is %s, which overlaps %s of %s; set another subnet", id, g.prefix, h.prefix, h.who)
			return given{}, refused
		}
		return g, nil
	}
	if c.Subnet == config.VLANSubnet {
		return g, nil // no interface, no id, and nothing remembered
	}
	if g, ok := p.byName(c, a, count); ok {
		return g, nil
	}
	if prefix, ok := a.space.first(length); ok {
		return given{idOf(a.Prefix, prefix), prefix, true}, nil
	}
	if isPool(c) {
		return p.shrunk(c, a)
	}
	refuse(true, delegationFull, "no free /%d left in %s", length, a.origin)
	return g, refused
}

// explicitID is the subnet id that the config gives to c. That of a VLAN is remembered for when the interface is not there.
func (p *planner) explicitID(c config.Downstream) (id uint64, ok bool) {
	if c.Subnet != config.VLANSubnet {
		return uint64(c.Subnet), c.Subnet >= 0
	}
	link, exists := p.w.Links[c.Interface]
	if exists {
		return uint64(link.VLAN), link.VLAN != 0
	}
	id, ok = p.led.Subnets[c.Name]
	return id, ok
}

// isExplicit reports whether the config gives an id to c that g has a place for.
func (p *planner) isExplicit(c config.Downstream, g netip.Prefix) bool {
	id, explicit := p.explicitID(c)
	return explicit && int(c.Length) >= g.Bits() && id < subnetCount(g, int(c.Length))
}

// byName finds the subnet that c had before, or that its name stands for: the next free one if that is taken.
func (p *planner) byName(c config.Downstream, a *allotment, count uint64) (given, bool) {
	length := int(c.Length)
	if h := p.had(c, a.Prefix); h.IsValid() { // a pool that was smaller grows where it is
		if whole := netip.PrefixFrom(h.Addr(), length).Masked(); a.space.isFree(whole) && (whole == h || p.canGrow(c, a, h)) {
			return given{idOf(a.Prefix, whole), whole, true}, true
		}
	}
	if id, known := p.led.Subnets[c.Name]; known && id < count {
		if prefix := subnetOf(a.Prefix, length, id); a.space.isFree(prefix) {
			return given{id, prefix, true}, true
		}
	}
	if c.Subnet != config.HashSubnet || a.space.largest() > length {
		return given{}, false
	}
	h := fnv.New64a()
	h.Write([]byte(c.Name))
	start := h.Sum64() % count
	id, ok := a.space.next(length, start, count)
	if !ok {
		id, ok = a.space.next(length, 0, start)
	}
	if !ok {
		return given{}, false
	}
	return given{id, subnetOf(a.Prefix, length, id), true}, true
}

// canGrow reports whether a pool that has got h in the place of a larger subnet can have that one where it is now. It does
// not move for it: inner networks would be numbered anew.
func (p *planner) canGrow(c config.Downstream, a *allotment, h netip.Prefix) bool {
	whole := netip.PrefixFrom(h.Addr(), int(c.Length)).Masked()
	return a.space.isFree(whole) && !slices.ContainsFunc(p.cfg.Downstreams, func(o config.Downstream) bool {
		theirs := p.had(o, a.Prefix)
		return o.Name != c.Name && drawsOn(o, a.origin) && whole.Overlaps(theirs) && a.space.isFree(theirs)
	})
}

// shrunk gives the pool c the largest part that is left, the last one: subnets of networks come first from the other end.
func (p *planner) shrunk(c config.Downstream, a *allotment) (given, *refusal) {
	length := max(a.space.largest(), int(c.Length))
	if length > 64 {
		return given{}, &refusal{Problem{Path: "downstream." + c.Name, Code: delegationFull,
			Message: fmt.Sprintf("no free /64 left in %s for inner routers", a.origin)}, true}
	}
	prefix, _ := a.space.last(length)
	return a.small(c, prefix)
}

// small gives the pool c a prefix that is smaller than it should be.
func (a *allotment) small(c config.Downstream, prefix netip.Prefix) (given, *refusal) {
	return given{id: idOf(a.Prefix, prefix), prefix: prefix}, &refusal{Problem{Path: "downstream." + c.Name, Code: poolShrunk,
		Message: fmt.Sprintf("%s has no room for a /%d beside the others, so inner routers share %s", a.origin, c.Length, prefix)}, true}
}
