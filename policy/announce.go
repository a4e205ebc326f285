package policy

import (
	"cmp"
	"net/netip"
	"slices"

	"uplinkd/internal/config"
	"uplinkd/internal/lifetime"
)

// announce fills in what the router advertisements of d say, and keeps the record of what hosts may still hold. Both also
// where uplinkd sends none: another program announces the same then, and its hosts know the same.
func (p *planner) announce(c config.Downstream, d *Downstream) {
	var a Announcement
	if c.Kind == config.Access {
		a = p.announcement(c, d)
	}
	records := p.records(c, a)
	for _, r := range records {
		if !r.Until.IsForever() {
			a.Prefixes = append(a.Prefixes, AnnouncedPrefix{Prefix: r.Prefix, Stale: true})
		}
	}
	a.Send = a.Send && len(a.Prefixes) > 0
	keep(p.led.Announced, d.Name, records)
	d.Announce = a
}

// announcement is what is announced on d, without what is stale.
func (p *planner) announcement(c config.Downstream, d *Downstream) Announcement {
	a := Announcement{Send: c.RA.Enabled && d.Link, RouterLifetime: c.RA.RouterLifetime, MinInterval: c.RA.MinInterval,
		MaxInterval: c.RA.MaxInterval, MTU: c.RA.MTU, DNS: c.RA.DNS, Preference: c.RA.Preference, Other: c.DHCPv6.Enabled}
	announced := func(n Subnet) bool { return n.Prefix.Bits() == 64 } // others are of no use to SLAAC (RFC 4862 §5.5.3)
	var up []Uplink                                                   // that number d and work, in the order of the config
	for _, u := range p.site.Uplinks {
		numbers := func(n Subnet) bool { return n.Uplink == u.Name && announced(n) }
		if !slices.ContainsFunc(d.Subnets, numbers) {
			continue
		}
		if u.Up {
			up = append(up, u)
		}
		if len(c.RA.DNS) == 0 {
			a.DNS = appendNew(a.DNS, u.Told.DNS)
		}
		a.Search = appendNew(a.Search, u.Told.DomainSearch)
	}
	a.Router = len(up) > 0
	a.passOn(up)
	for _, n := range d.Subnets {
		if announced(n) {
			a.Prefixes = append(a.Prefixes, AnnouncedPrefix{Prefix: n.Prefix, PreferredUntil: n.PreferredUntil, ValidUntil: n.ValidUntil,
				PreferredCap: c.RA.PreferredLifetime, ValidCap: c.RA.ValidLifetime})
		}
	}
	slices.SortFunc(a.Prefixes, func(x, y AnnouncedPrefix) int { return x.Prefix.Compare(y.Prefix) })
	if c.RA.Routes {
		a.Routes = p.routes(c, *d)
	}
	return a
}

// routes are what hosts of d reach through this router, be it a default router or not (RFC 7084 L-3). A delegation that is
// on-link as a whole needs no route.
func (p *planner) routes(c config.Downstream, d Downstream) (list []AnnouncedRoute) {
	add := func(o origin) {
		whole := func(n Subnet) bool { return n.Prefix == o.Prefix }
		if drawsOn(c, o) && !slices.ContainsFunc(d.Subnets, whole) {
			list = append(list, AnnouncedRoute{Prefix: o.Prefix, Until: o.ValidUntil})
		}
	}
	for i := range p.site.Uplinks {
		for _, g := range p.site.Uplinks[i].Delegations {
			add(origin{&p.site.Uplinks[i], g})
		}
	}
	if p.site.ULA.IsValid() {
		add(origin{nil, p.ulaDelegation()})
	}
	slices.SortFunc(list, func(x, y AnnouncedRoute) int { return x.Prefix.Compare(y.Prefix) })
	return list
}

// records returns the next ledger entry of a downstream: what is announced now, and what was and is not over yet.
func (p *planner) records(c config.Downstream, a Announcement) (records []AnnouncedRecord) {
	longest := cmp.Or(c.RA.ValidLifetime, longestLoan)
	before := map[netip.Prefix]lifetime.Deadline{} // what is current, and until when hosts were told that it is valid
	for _, x := range a.Prefixes {
		before[x.Prefix] = lifetime.Deadline{}
	}
	for _, r := range p.led.Announced[c.Name] {
		if _, current := before[r.Prefix]; current {
			before[r.Prefix] = lifetime.Min(r.Until, r.Valid)
			continue
		}
		if r.Until.IsForever() && !r.Prefix.Addr().IsPrivate() && p.unreported(c) { // a ULA prefix is no provider's
			records = append(records, r)
			continue
		}
		if r.Until.IsForever() {
			r.Until = heldUntil(r.Valid, p.w.Now, longest)
		}
		if !r.Until.Over(p.w.Now) {
			records = append(records, r)
		}
	}
	slices.SortFunc(records, func(x, y AnnouncedRecord) int { return cmp.Or(y.Until.Compare(x.Until), x.Prefix.Compare(y.Prefix)) })
	records = records[:min(len(records), maxStale)]
	for _, x := range a.Prefixes {
		records = append(records, AnnouncedRecord{Prefix: x.Prefix, Valid: toldValid(x.ValidUntil, before[x.Prefix], p.w.Now, longest), Until: lifetime.Forever()})
	}
	slices.SortFunc(records, func(x, y AnnouncedRecord) int { return x.Prefix.Compare(y.Prefix) })
	return records
}

// unreported reports whether an uplink that c draws from has not reported yet: after a reboot it may delegate in a moment
// what hosts still have. They are not told that it is over before that is known (promise 5).
func (p *planner) unreported(c config.Downstream) bool {
	return slices.ContainsFunc(p.cfg.Uplinks, func(u config.Uplink) bool {
		return (len(c.From) == 0 || slices.Contains(c.From, u.Name)) && !p.w.Uplinks[u.Name].Reported
	})
}
