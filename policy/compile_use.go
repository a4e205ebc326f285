package policy

import (
	"fmt"
	"net/netip"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel"
)

// metricLocal is the metric of ip-route(8) for routes without one.
const metricLocal = 1024

func (c *compiler) downstream(d Downstream) {
	switch config.Kind(d.Kind) {
	case config.Service:
		c.service(d)
	case config.Access, config.Transit:
		c.strict(d)
		if !d.Link {
			return
		}
		for _, n := range d.Subnets {
			c.subnet(d, n)
		}
		c.loans(d)
		c.stale(d)
	}
}

// strict is the end of the ladder of rules for what comes in at d. The site's own ULA prefix has its rule before.
func (c *compiler) strict(d Downstream) {
	c.rule(kernel.Rule{Priority: c.site.Rules.Strict, From: global, IIF: d.Interface, Action: kernel.Unreachable,
		Reason: kernel.Reason{Config: d.Config, Downstream: d.Name, Rule: "a global source that belongs to no delegation goes nowhere (BCP 38)"}})
}

// subnet leads to the hosts of d, or to its inner router, and gives the router an address of its own. What of a pool is not
// lent stays unreachable, by the delegation's aggregate.
func (c *compiler) subnet(d Downstream, n Subnet) {
	why := kernel.Reason{Config: d.Config, Downstream: d.Name, Uplink: n.Uplink, Delegation: n.Delegation}
	r := kernel.Route{Table: kernel.TableMain, Dst: n.Prefix, Metric: metricOnLink, Type: kernel.Unicast, Dev: d.Interface, Gateway: d.Via, Reason: why}
	switch {
	case d.Kind == string(config.Access):
		r.Reason.Rule = fmt.Sprintf("subnet %d of %s is on-link here", n.ID, source(n.Uplink))
		c.route(r)
	case d.Via.IsValid():
		r.Reason.Rule = fmt.Sprintf("subnet %d of %s is behind the inner router", n.ID, source(n.Uplink))
		c.route(r)
	}
	if !n.Address.IsValid() {
		return
	}
	why.Rule = fmt.Sprintf("the router's own address in subnet %d, lifetimes from the lease", n.ID)
	if n.Uplink == "" {
		why.Rule = fmt.Sprintf("the router's own address in subnet %d of the ULA prefix", n.ID)
	}
	c.state.Addresses = append(c.state.Addresses, kernel.Address{Dev: d.Interface, Prefix: n.Address, PreferredUntil: n.PreferredUntil,
		ValidUntil: n.ValidUntil, Reason: why})
}

func source(uplink string) string {
	if uplink == "" {
		return "the ULA prefix"
	}
	return "the delegation"
}

func (c *compiler) loans(d Downstream) {
	for _, l := range d.Loans {
		if !l.Offered && l.Via.IsValid() {
			c.route(kernel.Route{Table: kernel.TableMain, Dst: l.Prefix, Metric: metricOnLink, Type: kernel.Unicast, Gateway: l.Via, Dev: d.Interface,
				Reason: kernel.Reason{Config: d.Config, Downstream: d.Name, Uplink: l.Uplink, Delegation: l.Delegation,
					Rule: "lent to the inner router (RFC 9818)"}})
		}
	}
}

// stale leads to hosts that may still use what they had: without the route, answers to a dead source would leave by an uplink.
func (c *compiler) stale(d Downstream) {
	for _, s := range d.Stale {
		c.route(kernel.Route{Table: kernel.TableMain, Dst: s.Prefix, Metric: metricOnLink, Type: kernel.Unicast, Gateway: s.Via, Dev: d.Interface,
			Reason: kernel.Reason{Config: d.Config, Downstream: d.Name, Rule: "hosts that still have addresses of this prefix can be told that it is over"}})
	}
}

func (c *compiler) service(d Downstream) {
	why := kernel.Reason{Config: d.Config, Downstream: d.Name}
	for _, n := range d.Subnets {
		why.Uplink, why.Delegation, why.Rule = n.Uplink, n.Delegation, "every address of the service's subnet is the router's own (AnyIP)"
		c.route(kernel.Route{Table: kernel.TableLocal, Dst: n.Prefix, Metric: metricLocal, Type: kernel.Local, Dev: Loopback, Reason: why})
	}
	why = kernel.Reason{Config: d.Config, Downstream: d.Name}
	if d.AnyIP.Nonlocal {
		why.Rule = "programs may bind to any address (anyip.nonlocal_bind)"
		c.sysctl("net.ipv6.ip_nonlocal_bind", "1", why)
	}
	if !d.AnyIP.Armed {
		return
	}
	r := kernel.Rule{Priority: c.site.Rules.AnyIP, Action: kernel.Unicast, Table: c.site.AnyIPTable, Reason: why}
	switch config.AnyIPMode(d.AnyIP.Mode) {
	case config.AnyIPInterface:
		r.IIF, r.Reason.Rule = d.Interface, "what comes in here for an address that nobody has is the service's (AnyIP)"
	case config.AnyIPMark:
		r.Mark, r.Mask, r.Reason.Rule = d.AnyIP.Mark, d.AnyIP.Mark, "what has the mark and is for an address that nobody has is the service's (AnyIP)"
	}
	c.rule(r)
}

// anyIP fills the table of services by interface or mark: everything is local, except what somebody has. That has to be said
// for each, since the rule comes before connected networks.
func (c *compiler) anyIP() {
	armed := false
	for _, d := range c.site.Downstreams {
		armed = armed || d.AnyIP.Armed
	}
	if !armed {
		return
	}
	why := kernel.Reason{Config: "services by interface or mark", Rule: "every address is the router's own (AnyIP)"}
	c.route(kernel.Route{Table: c.site.AnyIPTable, Dst: anywhere6, Metric: metricLocal, Type: kernel.Local, Dev: Loopback, Reason: why})
	for _, p := range c.site.OnLink {
		c.throw(kernel.Reason{Config: why.Config}, p)
	}
	for _, u := range c.site.Uplinks {
		for _, g := range u.Delegations {
			c.throw(kernel.Reason{Config: u.Config, Uplink: u.Name, Delegation: g.Prefix}, g.Exclude)
		}
	}
	for _, d := range c.site.Downstreams {
		why := kernel.Reason{Config: d.Config, Downstream: d.Name}
		for _, s := range d.Stale {
			c.throw(why, s.Prefix)
		}
		for _, n := range d.Subnets {
			why.Uplink, why.Delegation = n.Uplink, n.Delegation
			c.throw(why, n.Prefix)
		}
		for _, l := range d.Loans {
			why.Uplink, why.Delegation = l.Uplink, l.Delegation
			c.throw(why, l.Prefix)
		}
	}
}

// throw takes p out of the table of services: the next rule decides about it.
func (c *compiler) throw(why kernel.Reason, p netip.Prefix) {
	if p.IsValid() {
		why.Rule = "has an owner, so it is not for services by interface or mark"
		c.route(kernel.Route{Table: c.site.AnyIPTable, Dst: p, Metric: metricLocal, Type: kernel.Throw, Reason: why})
	}
}
