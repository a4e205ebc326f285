package policy

import (
	"cmp"
	"net/netip"
	"slices"

	"uplinkd/internal/lifetime"
)

// stale finds what hosts may still use of that which they had: it stays routed to them until they cannot hold it any more,
// unless somebody else has been given it. What has gone with its delegation is dead besides: whoever sends from there is
// told, and the answer must find him.
func (p *planner) stale() {
	type claim struct {
		at    int
		until lifetime.Deadline
		StalePrefix
	}
	var claims []claim
	via := map[borrowerID]netip.Addr{}
	for _, b := range p.borrowers {
		via[b.id()] = b.Via
	}
	for i, d := range p.site.Downstreams {
		if d.Interface == "" {
			continue
		}
		for _, r := range p.led.Announced[d.Name] {
			if r.isStaleOn(d.Interface) {
				claims = append(claims, claim{i, r.Until, StalePrefix{Prefix: r.Prefix}})
			}
		}
		for _, r := range d.StaleLoans {
			if v := via[borrowerID{d.Name, r.Client, r.IAID}]; v.IsValid() {
				claims = append(claims, claim{i, r.Until, StalePrefix{Prefix: r.Prefix, Via: v}})
			}
		}
	}
	if len(claims) == 0 {
		return
	}
	slices.SortStableFunc(claims, func(a, b claim) int { return b.until.Compare(a.until) }) // who had it last
	taken := p.allTaken()
	for _, c := range claims {
		if !taken.isFree(c.Prefix) {
			continue
		}
		d := &p.site.Downstreams[c.at]
		taken.take(c.Prefix, d.Name)
		d.Stale = append(d.Stale, c.StalePrefix)
		if !p.isUsed(c.Prefix) {
			d.Dead = append(d.Dead, DeadSource{Interface: d.Interface, Prefix: c.Prefix})
		}
	}
	for i := range p.site.Downstreams {
		d := &p.site.Downstreams[i]
		slices.SortFunc(d.Stale, func(a, b StalePrefix) int { return cmp.Or(a.Prefix.Compare(b.Prefix), a.Via.Compare(b.Via)) })
		slices.SortFunc(d.Dead, func(a, b DeadSource) int { return a.Prefix.Compare(b.Prefix) })
	}
}

// allTaken is the whole address space with everything that somebody has.
func (p *planner) allTaken() *space {
	s := newSpace(anywhere6)
	for _, c := range p.cfg.Uplinks {
		for _, a := range p.w.Links[c.Interface].Globals {
			s.take(a.Masked(), "")
		}
	}
	for _, u := range p.site.Uplinks {
		for _, g := range u.Delegations {
			if g.Exclude.IsValid() {
				s.take(g.Exclude, "")
			}
		}
		for _, a := range u.Loopback {
			s.take(a.Address, "")
		}
	}
	for _, d := range p.site.Downstreams {
		for _, n := range d.Subnets {
			s.take(n.Prefix, "")
		}
		for _, l := range d.Loans {
			s.take(l.Prefix, "")
		}
	}
	return s
}

// isUsed reports whether q shares addresses with a delegation in use or the ULA prefix.
func (p *planner) isUsed(q netip.Prefix) bool {
	i, _ := slices.BinarySearchFunc(p.used, q, func(x used, q netip.Prefix) int { return x.prefix.Addr().Compare(q.Addr()) })
	return slices.ContainsFunc(p.used[max(0, i-1):min(len(p.used), i+1)], func(x used) bool { return x.prefix.Overlaps(q) })
}
