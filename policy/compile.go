package policy

import (
	"net/netip"
	"slices"

	"uplinkd/internal/kernel"
)

var (
	anywhere6 = netip.MustParsePrefix("::/0")
	global    = netip.MustParsePrefix("2000::/3")
)

// metricAggregate is high enough that any route of the user's to part of a delegation wins, and below MetricLast.
const metricAggregate = 1<<31 - 1

// metricOnLink is one better than what the kernel itself uses for prefix routes (IP6_RT_PRIO_ADDRCONF, 256): an RA with the same
// prefix on an uplink does not draw a network's traffic there. With an equal one, ours could not even be added beside it.
const metricOnLink = 255

// Compile turns a site into the kernel rows that make it true. Rows on an interface that is missing or down are left
// out: the kernel would refuse or drop them, and they are planned again when it is back.
func Compile(s Site) kernel.State {
	c := compiler{site: s, metrics: map[uint32]bool{}}
	if len(s.Uplinks) > 0 || s.ULA.IsValid() {
		c.common()
	}
	if s.ULA.IsValid() {
		c.ula()
	}
	for _, u := range s.Uplinks {
		c.uplink(u)
		for _, g := range u.Delegations {
			c.delegation(u, g)
		}
		for _, r := range u.Withdrawn {
			c.withdrawn(u, r.Prefix)
		}
	}
	for _, d := range s.Downstreams {
		c.downstream(d)
	}
	c.anyIP()
	c.onLink()
	c.table()
	return c.state.Normalize()
}

type compiler struct {
	site    Site
	state   kernel.State
	metrics map[uint32]bool // of default routes in main
}

func (c *compiler) common() {
	why := kernel.Reason{Config: "every config with an uplink", Rule: "a router forwards"}
	c.sysctl("net.ipv6.conf.all.forwarding", "1", why)
	why.Rule = "routes to connected networks come before the choice of an uplink; main's default route does not"
	c.rule(kernel.Rule{Priority: c.site.Rules.Main, Action: kernel.Unicast, Table: kernel.TableMain, SuppressPrefix: true, Reason: why})
}

func (c *compiler) uplink(u Uplink) {
	why := kernel.Reason{Config: u.Config, Uplink: u.Name}
	if u.Present {
		dev := "net.ipv6.conf." + sysctlName(u.Interface)
		why.Rule = "the kernel may number the uplink by SLAAC, but default routes from RAs would carry foreign sources: uplinkd sets them"
		c.sysctl(dev+".accept_ra_defrtr", "0", why)
		c.state.Sysctls = append(c.state.Sysctls, kernel.Sysctl{Name: dev + ".accept_ra_rt_info_max_plen", Value: "0", Optional: true, Reason: why})
		c.sysctl(dev+".accept_ra", "2", why)
		if u.PD {
			why.Rule = "where the provider's network wants a prefix per router (P flag, RFC 9762), the kernel does not number itself from the shared one"
			c.state.Sysctls = append(c.state.Sysctls, kernel.Sysctl{Name: dev + ".ra_honor_pio_pflag", Value: "1", Optional: true, Reason: why})
		}
	}
	why.Rule = "traffic of this uplink's prefixes never falls through to another uplink"
	c.route(kernel.Route{Table: u.Table, Dst: anywhere6, Metric: kernel.MetricLast, Type: kernel.Unreachable, Reason: why})
	for _, a := range u.own() {
		if !slices.ContainsFunc(u.Delegations, func(g Delegation) bool { return g.Prefix.Contains(a) }) {
			why.Rule = "the router's own traffic from its address on the uplink leaves there"
			c.rule(kernel.Rule{Priority: c.site.Rules.From + u.Number, From: netip.PrefixFrom(a, 128), Action: kernel.Unicast, Table: u.Table, Reason: why})
		}
	}
	for _, a := range u.Leased {
		if u.Link {
			why.Rule = "the router's own address from the provider (IA_NA), lifetimes from the lease"
			c.state.Addresses = append(c.state.Addresses, kernel.Address{Dev: u.Interface, Prefix: netip.PrefixFrom(a.Address, 128),
				PreferredUntil: a.PreferredUntil, ValidUntil: a.ValidUntil, Reason: why})
		}
	}
	for _, a := range u.Loopback {
		why.Rule, why.Delegation = "the uplink has no global address, so the router's own traffic gets one out of the delegation (RFC 7084 WAA-7), lifetimes from the lease", a.Delegation
		c.state.Addresses = append(c.state.Addresses, kernel.Address{Dev: Loopback, Prefix: a.Address, PreferredUntil: a.PreferredUntil,
			ValidUntil: a.ValidUntil, Reason: why})
		why.Delegation = netip.Prefix{}
	}
	why.Rule = "sockets bound to the uplink use the uplink's table"
	c.rule(kernel.Rule{Priority: c.site.Rules.OIF + u.Number, OIF: u.Interface, Action: kernel.Unicast, Table: u.Table, Reason: why})
	why.Rule = "what comes in for a part of a delegation that no downstream uses goes no further; the table's default route does not count"
	c.rule(kernel.Rule{Priority: c.site.Rules.OIF + u.Number, IIF: u.Interface, Action: kernel.Unicast, Table: u.Table, SuppressPrefix: true, Reason: why})
	if !u.Link || !u.Gateway.IsValid() {
		return
	}
	why.Rule = "next hop from the router advertisement"
	next := kernel.Route{Table: u.Table, Dst: anywhere6, Metric: u.Metric, Type: kernel.Unicast, Gateway: u.Gateway, Dev: u.Interface, Reason: why}
	c.route(next)
	next.Table, next.Reason.Rule = kernel.TableMain, "the router's own traffic before it has chosen a source"
	for c.metrics[next.Metric] {
		next.Metric++ // two uplinks of one metric: the first in the config is preferred
	}
	c.metrics[next.Metric] = true
	c.route(next)
}

// own are the router's addresses on the uplink, whether the kernel has them yet or not.
func (u Uplink) own() []netip.Addr {
	list := slices.Clone(u.Addresses)
	for _, a := range u.Leased {
		list = append(list, a.Address)
	}
	return list // a rule for an address that is in both is one rule: Normalize sees to it
}

// delegation keeps sources and destinations of g to its uplink. Its aggregate stands in the uplink's table, not in main: there
// it would take destinations from the sources of all others, and what a server delegates may be what it does not own. Nothing
// loops for that: a source of another uplink sends its packet out there, and it comes in again here.
func (c *compiler) delegation(u Uplink, g Delegation) {
	why := kernel.Reason{Config: u.Config, Uplink: u.Name, Delegation: g.Prefix}
	why.Rule = "what no downstream uses of a delegation must not loop between router and provider (RFC 7084 WPD-5)"
	c.route(kernel.Route{Table: u.Table, Dst: g.Prefix, Metric: metricAggregate, Type: kernel.Unreachable, Reason: why})
	why.Rule = "a packet with a source from this delegation leaves through this uplink only"
	c.rule(kernel.Rule{Priority: c.site.Rules.From + u.Number, From: g.Prefix, Action: kernel.Unicast, Table: u.Table, Reason: why})
}

// ula keeps the ULA prefix within the site: routes to connected networks come before its rule, the choice of an uplink after.
func (c *compiler) ula() {
	why := kernel.Reason{Config: "ula", Delegation: c.site.ULA, Rule: "what no downstream uses of the ULA prefix goes nowhere (RFC 4193 §4.3)"}
	c.route(kernel.Route{Table: kernel.TableMain, Dst: c.site.ULA, Metric: metricAggregate, Type: kernel.Unreachable, Reason: why})
	why.Rule = "a packet with a source from the ULA prefix leaves through no uplink"
	c.rule(kernel.Rule{Priority: c.site.Rules.From, From: c.site.ULA, Action: kernel.Unreachable, Reason: why})
}

func (c *compiler) sysctl(name, value string, why kernel.Reason) {
	c.state.Sysctls = append(c.state.Sysctls, kernel.Sysctl{Name: name, Value: value, Reason: why})
}

func (c *compiler) route(r kernel.Route) { c.state.Routes = append(c.state.Routes, r) }

func (c *compiler) rule(r kernel.Rule) {
	r.Family = kernel.IPv6
	c.state.Rules = append(c.state.Rules, r)
}

// sysctlName writes an interface name the way sysctl(8) does: a dot in it would be a separator.
func sysctlName(dev string) string {
	b := []byte(dev)
	for i := range b {
		if b[i] == '.' {
			b[i] = '/'
		}
	}
	return string(b)
}
