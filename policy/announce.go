package policy

import (
	"slices"
	"time"

	"uplinkd/internal/config"
)

// announce fills in what the router advertisements say, and keeps the record of what hosts may still hold. Both also where
// uplinkd sends none: another program announces the same then, and its hosts know the same.
func (p *planner) announce() {
	for i, c := range p.cfg.Downstreams {
		d := &p.site.Downstreams[i]
		switch {
		case c.Kind == config.Access:
			d.Announce = p.announcement(c, d)
		case Announces(p.cfg, c):
			d.Announce = p.routerOnly(c, d)
		}
	}
	p.recordAnnounced()
	for i := range p.site.Downstreams {
		d := &p.site.Downstreams[i]
		for _, r := range p.led.Announced[d.Name] {
			if r.isStaleOn(d.Interface) {
				d.Announce.Prefixes = append(d.Announce.Prefixes, AnnouncedPrefix{Prefix: r.Prefix, Stale: true})
			}
		}
		d.Announce.Send = d.Announce.Send && d.hasToSay()
	}
}

// Announces reports whether there are router advertisements on the interface of d because of it, or may be after a reload.
// Inner routers that borrow from a pool have their default router from one; where a network shares the link with them, its
// advertisements tell them.
func Announces(cfg *config.Config, d config.Downstream) bool {
	if d.Kind != config.Transit || d.Via.IsValid() {
		return d.Kind == config.Access
	}
	for _, o := range cfg.Downstreams {
		if o.Interface == d.Interface && o.Kind == config.Access {
			return false
		}
	}
	first := slices.IndexFunc(cfg.Downstreams, func(o config.Downstream) bool {
		return o.Interface == d.Interface && o.Kind == config.Transit && !o.Via.IsValid()
	})
	return first >= 0 && cfg.Downstreams[first].Name == d.Name
}

// hasToSay reports whether the announcement of d is worth a message: one without prefixes is to inner routers only.
func (d Downstream) hasToSay() bool {
	return len(d.Announce.Prefixes) > 0 || d.Kind == string(config.Transit)
}

// Advertisements to inner routers have the defaults of the config for networks.
const (
	transitRouterLifetime = 1800 * time.Second
	transitMinInterval    = 200 * time.Second
	transitMaxInterval    = 600 * time.Second
)

// routerOnly is what is announced on a link to inner routers: no prefix, since they number themselves out of what they
// borrow, but the way out, and that DHCPv6 has more.
func (p *planner) routerOnly(c config.Downstream, d *Downstream) Announcement {
	out := slices.ContainsFunc(p.site.Uplinks, func(u Uplink) bool {
		return u.Up && slices.ContainsFunc(d.Subnets, func(n Subnet) bool { return n.Uplink == u.Name })
	})
	return Announcement{Send: c.RA.Enabled && d.Link, Router: out, RouterLifetime: transitRouterLifetime, MinInterval: transitMinInterval,
		MaxInterval: transitMaxInterval, Other: c.DHCPv6.Enabled}
}

// announcement is what is announced on d, without what is stale.
func (p *planner) announcement(c config.Downstream, d *Downstream) Announcement {
	a := Announcement{Send: c.RA.Enabled && d.Link, RouterLifetime: c.RA.RouterLifetime, MinInterval: c.RA.MinInterval,
		MaxInterval: c.RA.MaxInterval, MTU: c.RA.MTU, DNS: c.RA.DNS, Preference: c.RA.Preference, Other: c.DHCPv6.Enabled,
		Managed: c.RA.Managed, NotOnLink: !c.RA.OnLink, NotAutonomous: !c.RA.Autonomous}
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
			for _, r := range u.Told.Resolvers {
				if !slices.ContainsFunc(a.Resolvers, r.Equal) {
					a.Resolvers = append(a.Resolvers, r)
				}
			}
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
