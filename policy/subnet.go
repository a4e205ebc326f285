package policy

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"uplinkd/internal/config"
)

// subnets gives every downstream its part of every delegation it draws from.
//
// Per delegation: explicit ids first, then ids from the ledger, then the lowest id that is free, in the order of the
// config. An id counts subnets of the downstream's own length from the start of the delegation.
func (p *planner) subnets() {
	for _, u := range p.site.Uplinks {
		for _, g := range u.Delegations {
			p.share(u, g)
		}
		// Where a provider delegates a /64 at a time, a downstream that has one does without the others.
		p.problems = slices.DeleteFunc(p.problems, func(x Problem) bool {
			return x.Code == delegationFull && x.uplink == u.Name && slices.ContainsFunc(p.site.Downstreams, func(d Downstream) bool {
				return x.Path == "downstream."+d.Name && d.draws(u.Name)
			})
		})
	}
	for i := range p.site.Downstreams {
		slices.SortFunc(p.site.Downstreams[i].Subnets, func(a, b Subnet) int { return a.Prefix.Compare(b.Prefix) })
	}
}

// share allots the subnets of one delegation.
func (p *planner) share(u Uplink, g Delegation) {
	taken := p.onUplinks(g.Prefix)
	if g.Exclude.IsValid() {
		taken = append(taken, g.Exclude)
	}
	order := make([]int, 0, len(p.cfg.Downstreams))
	for i, c := range p.cfg.Downstreams {
		if len(c.From) == 0 || slices.Contains(c.From, u.Name) {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p.rank(a, g.Prefix, u.Name), p.rank(b, g.Prefix, u.Name)) })
	for _, i := range order {
		c, d := p.cfg.Downstreams[i], &p.site.Downstreams[i]
		id, prefix, ok := p.choose(c, u, g.Prefix, taken)
		if !ok {
			continue
		}
		taken = append(taken, prefix)
		address, ok := hostIn(prefix, c.Address)
		if !ok {
			p.problem("downstream."+c.Name, "address-too-long", "host part %s does not fit into the %d host bits of %s; set address to a shorter one",
				c.Address, 128-prefix.Bits(), prefix)
			continue
		}
		d.Subnets = append(d.Subnets, Subnet{Downstream: d.Name, Interface: d.Interface, Uplink: u.Name, Delegation: g.Prefix, ID: id,
			Prefix: prefix, Address: address, PreferredUntil: g.PreferredUntil, ValidUntil: g.ValidUntil, State: g.State})
	}
}

// onUplinks are the parts of a delegation that stand on an uplink's interface already, where some providers number the
// link out of what they delegate: a downstream with the same subnet would fight the kernel over the on-link route.
func (p *planner) onUplinks(g netip.Prefix) (taken []netip.Prefix) {
	for _, c := range p.cfg.Uplinks {
		for _, a := range p.w.Links[c.Interface].Globals {
			if g.Contains(a.Addr()) {
				taken = append(taken, a.Masked())
			}
		}
	}
	return taken
}

// rank puts explicit subnet ids before remembered ones that fit before all others: a new downstream, or one whose
// remembered id is too large for this delegation, never takes the place of one that has it already.
func (p *planner) rank(i int, g netip.Prefix, uplink string) int {
	c := p.cfg.Downstreams[i]
	later := 0 // who has nothing from this uplink yet comes before who has: it may delegate a /64 at a time
	if p.site.Downstreams[i].draws(uplink) && !p.announced(c.Name, g) {
		later = 3
	}
	if c.Subnet != config.AutoSubnet {
		return later
	}
	if id, ok := p.before.Subnets[c.Name]; ok && int(c.Length) >= g.Bits() && id < subnetCount(g, int(c.Length)) {
		return later + 1
	}
	return later + 2
}

// announced reports whether hosts of a downstream were told of a part of g, and not yet that it is over.
func (p *planner) announced(downstream string, g netip.Prefix) bool {
	return slices.ContainsFunc(p.before.Announced[downstream], func(r AnnouncedRecord) bool {
		return r.Until.IsForever() && g.Overlaps(r.Prefix)
	})
}

// draws reports whether d has a subnet of a delegation of that uplink.
func (d Downstream) draws(uplink string) bool {
	return slices.ContainsFunc(d.Subnets, func(n Subnet) bool { return n.Uplink == uplink })
}

const delegationFull = "delegation-full"

// choose finds the subnet of c in delegation g, or reports why there is none.
func (p *planner) choose(c config.Downstream, u Uplink, g netip.Prefix, taken []netip.Prefix) (id uint64, prefix netip.Prefix, ok bool) {
	path, length := "downstream."+c.Name, int(c.Length)
	if length < g.Bits() {
		p.problem(path, "delegation-too-short", "uplink %s delegated %s, too small for a /%d; ask for more with dhcpv6.length or dhcpv6.prefixes, or set length", u.Name, g, length)
		return 0, prefix, false
	}
	count := subnetCount(g, length)
	if c.Subnet != config.AutoSubnet {
		id = uint64(c.Subnet)
		if id >= count {
			p.problem(path, "subnet-id-too-large", "subnet id %d does not fit: %s of uplink %s has %d /%d subnets (0 to %d)", id, g, u.Name, count, length, count-1)
			return 0, prefix, false
		}
		prefix = subnetOf(g, length, id)
		if i := slices.IndexFunc(taken, prefix.Overlaps); i >= 0 {
			p.problem(path, "subnet-overlap", "subnet id %d is %s, which overlaps %s of another downstream or on an uplink; set another subnet", id, prefix, taken[i])
			return 0, prefix, false
		}
		return id, prefix, true
	}
	if id, ok = p.led.Subnets[c.Name]; ok && id < count {
		if prefix = subnetOf(g, length, id); !slices.ContainsFunc(taken, prefix.Overlaps) {
			return id, prefix, true
		}
	}
	id, prefix, ok = firstFree(g, length, count, taken)
	if !ok {
		p.problem(path, delegationFull, "no free /%d left in %s of uplink %s", length, g, u.Name)
		p.problems[len(p.problems)-1].uplink = u.Name
		return 0, prefix, false
	}
	if _, known := p.led.Subnets[c.Name]; !known {
		p.led.Subnets[c.Name] = id
	}
	return id, prefix, true
}

// firstFree looks for the lowest id whose subnet overlaps none of taken. It skips over whole taken prefixes, so it ends
// after at most len(taken)+1 steps however large the delegation is.
func firstFree(g netip.Prefix, length int, count uint64, taken []netip.Prefix) (uint64, netip.Prefix, bool) {
	for id := uint64(0); id < count; {
		prefix := subnetOf(g, length, id)
		i := slices.IndexFunc(taken, prefix.Overlaps)
		if i < 0 {
			return id, prefix, true
		}
		next := id + 1
		if wide := taken[i].Bits(); wide < length { // skip all of a larger subnet
			per := subnetCount(taken[i], length)
			next = (id/per + 1) * per
		}
		if next <= id {
			break
		}
		id = next
	}
	return 0, netip.Prefix{}, false
}

// subnetCount is how many prefixes of length fit into g, at most 2^63.
func subnetCount(g netip.Prefix, length int) uint64 { return 1 << min(63, length-g.Bits()) }

// subnetOf returns subnet id of the given length in g; id must be below subnetCount.
func subnetOf(g netip.Prefix, length int, id uint64) netip.Prefix {
	b := g.Masked().Addr().As16()
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	switch {
	case length <= 64:
		hi |= id << (64 - length)
	default:
		lo |= id << (128 - length)
		if length-64 < 64 {
			hi |= id >> (length - 64)
		}
	}
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.PrefixFrom(netip.AddrFrom16(b), length)
}

// hostIn returns host's low bits in p; ok is false when host has bits that p's prefix covers or when the result would be
// the prefix's own address (the Subnet-Router anycast address, RFC 4291 §2.6.1) of a subnet with host bits.
func hostIn(p netip.Prefix, host netip.Addr) (netip.Prefix, bool) {
	a, h := p.Addr().As16(), host.As16()
	for i := range a {
		bits := min(8, max(0, p.Bits()-8*i))
		if h[i]&^(0xff>>bits) != 0 {
			return netip.Prefix{}, false
		}
		a[i] |= h[i]
	}
	r := netip.PrefixFrom(netip.AddrFrom16(a), p.Bits())
	return r, p.Bits() > 126 || r.Addr() != p.Addr()
}
