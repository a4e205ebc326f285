package policy

import (
	"net/netip"
	"slices"

	"uplinkd/internal/kernel"
)

// ahead is one better than that of the routes to what is on-link on u: the kernel's have 256, NetworkManager's 100. A still better
// one that a user has given to a route of his to the same prefix, into a VPN for one, is to be found as before.
func (u Uplink) ahead() uint32 { return max(2, u.OnLinkMetric) - 1 }

// isOneLink reports whether q is taken for the prefix of one link. Nobody needs a shorter one, but a router can announce it:
// with 2000::/3, all of the Internet would be neighbours.
func isOneLink(q netip.Prefix) bool { return q.Bits() >= 64 }

// onLink notes what is on-link, whoever has put it there: on uplinks, since routes to it must not decide about packets with
// sources of others, and anywhere, since a service by interface or mark must not answer for the hosts there. What is on-link
// on another interface as well is the user's own network, and which of the two counts is his affair.
func (p *planner) onLink() {
	uplinks := map[string]bool{}
	for _, u := range p.cfg.Uplinks {
		uplinks[u.Interface] = true
	}
	elsewhere := map[netip.Prefix]bool{}
	for name, l := range p.w.Links {
		for _, q := range l.OnLink {
			if !uplinks[name] {
				elsewhere[q] = true
			}
		}
	}
	armed := slices.ContainsFunc(p.site.Downstreams, func(d Downstream) bool { return d.AnyIP.Armed })
	for name, l := range p.w.Links {
		for _, q := range l.OnLink {
			if armed && name != Loopback && q.Bits() > 0 && (!uplinks[name] || isOneLink(q) && !p.heldElsewhere(q, name)) {
				p.site.OnLink = append(p.site.OnLink, q)
			}
		}
	}
	slices.SortFunc(p.site.OnLink, netip.Prefix.Compare)
	p.site.OnLink = slices.Compact(p.site.OnLink)
	for i := range p.site.Uplinks {
		p.onLinkAt(&p.site.Uplinks[i], elsewhere)
	}
}

// heldElsewhere reports whether q is part of what another uplink than that on the interface has: who sends RAs on one must not
// be able to switch off services on another's addresses.
func (p *planner) heldElsewhere(q netip.Prefix, iface string) bool {
	return slices.ContainsFunc(p.site.Uplinks, func(u Uplink) bool {
		return u.Interface != iface && slices.ContainsFunc(u.Delegations, func(g Delegation) bool { return g.Prefix.Overlaps(q) })
	})
}

func (p *planner) onLinkAt(u *Uplink, elsewhere map[netip.Prefix]bool) {
	list := p.w.Links[u.Interface].OnLink
	u.OnLinkMetric = p.w.Links[u.Interface].OnLinkMetric
	u.Crowded = len(list) >= kernel.MaxOnLink || p.w.Links[u.Interface].OnLinkMore
	if len(list) >= kernel.MaxOnLink {
		p.problem("uplink."+u.Name, "too-many-on-link", "%d prefixes or more are on-link on %s; if there are more, packets for the others leave there whatever their source is", kernel.MaxOnLink, u.Interface)
	}
	for _, q := range list {
		if !elsewhere[q] {
			u.OnLink = append(u.OnLink, q)
		}
	}
}

// onLink has packets to neighbours on an uplink's link follow their source like all others. Rule 1000 looks into main first,
// and there is the kernel's route to the on-link prefix, which would take the sources of all uplinks. A route to the same
// prefix with a better metric sends them on to the next rules (throw), and the uplink's table has the neighbours for its own
// sources. What is longer in main, such as a downstream's subnet in 2000::/3, is found as before. Last comes a rule for what
// none of the others takes, since at the end main says throw again; where the prefix is too short to be that of one link, it
// leads where main's default route does.
//
// Of an on-link prefix in what the site itself has, main says the same as of the whole: who announces a part of a network, or
// all of it, on another link does not draw it there. And where ::/0 is on-link, main's default route is said once more.
func (c *compiler) onLink() {
	held := map[netip.Prefix]kernel.Route{}
	for _, r := range c.state.Routes {
		if before, ok := held[r.Dst]; r.Table == kernel.TableMain && r.Dst.Bits() > 0 && (!ok || r.Metric < before.Metric) {
			held[r.Dst] = r
		}
	}
	c.crowded(held)
	first, preferred := c.preferred()
	ruled := map[netip.Prefix]bool{}
	for _, u := range c.site.Uplinks {
		for _, q := range u.OnLink {
			r, ok := longest(held, q)
			if q.Bits() == 0 {
				r, ok = first, first.Dst.IsValid()
			}
			if ok {
				if r.Dst == q && r.Metric <= u.ahead() {
					continue
				}
				r.Dst, r.Metric = q, u.ahead()
				r.Reason.Rule += "; said once more because of another route, to " + u.Interface
				c.route(r)
				continue
			}
			why := kernel.Reason{Config: u.Config, Uplink: u.Name}
			why.Rule = "packets to neighbours on the uplink's link follow their source, not the kernel's route, which is for all sources"
			c.route(kernel.Route{Table: kernel.TableMain, Dst: q, Metric: u.ahead(), Type: kernel.Throw, Reason: why})
			table := preferred
			if isOneLink(q) {
				why.Rule = "the uplink's own sources reach neighbours on its link directly"
				c.route(kernel.Route{Table: u.Table, Dst: q, Metric: metricOnLink, Type: kernel.Unicast, Dev: u.Interface, Reason: why})
				table = u.Table
			}
			if !ruled[q] && table != 0 && q.Bits() > 0 { // of two uplinks with the same neighbours, the first in the config
				ruled[q] = true
				why.Rule = "packets to neighbours on an uplink's link that have no source yet, or one of no uplink"
				c.rule(kernel.Rule{Priority: c.site.Rules.OnLink, To: q, Action: kernel.Unicast, Table: table, Reason: why})
			}
		}
	}
}

// crowded keeps what the site itself has reachable where more is on-link on an uplink than is looked at: among the rest may be
// parts of the site's networks, and the kernel's routes to these would be longer. In table local they come too late. So does what
// the user's own routes say of parts of the site's networks, which is why this is no matter of course.
func (c *compiler) crowded(held map[netip.Prefix]kernel.Route) {
	if !slices.ContainsFunc(c.site.Uplinks, func(u Uplink) bool { return u.Crowded }) {
		return
	}
	for _, r := range held {
		if r.Type == kernel.Unicast {
			r.Table = kernel.TableLocal
			r.Reason.Rule += "; said once more in table local, since an uplink's link is crowded with on-link prefixes"
			c.route(r)
		}
	}
}

// longest is the route of held that is for all of q and for the least besides.
func longest(held map[netip.Prefix]kernel.Route, q netip.Prefix) (r kernel.Route, ok bool) {
	for bits := q.Bits(); bits > 0 && !ok; bits-- {
		p, _ := q.Addr().Prefix(bits)
		r, ok = held[p]
	}
	return r, ok
}

// preferred is main's default route, and the table of the uplink to which it leads; 0 for none.
func (c *compiler) preferred() (best kernel.Route, table uint32) {
	best.Metric = kernel.MetricLast
	for _, r := range c.state.Routes {
		if r.Table == kernel.TableMain && r.Dst.Bits() == 0 && r.Metric < best.Metric {
			best = r
		}
	}
	for _, u := range c.site.Uplinks {
		if u.Interface == best.Dev {
			table = u.Table
		}
	}
	return best, table
}
