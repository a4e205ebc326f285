package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// addresses leaves out the addresses that uplinks have, by DHCPv6 or SLAAC, and that belong to somebody else. A rule for one
// would come before that of the delegation in which it lies, and traffic of another uplink's hosts would leave through this
// one; and a leased one would take what is for the host that has it.
func (p *planner) addresses() {
	for i := range p.site.Uplinks {
		u := &p.site.Uplinks[i]
		foreign := map[netip.Addr]string{}
		belongs := func(a netip.Addr) bool {
			owner := p.ownerOf(a, u.Name)
			if owner != "" {
				foreign[a] = owner
			}
			return owner != ""
		}
		u.Addresses = slices.DeleteFunc(u.Addresses, belongs)
		u.Leased = slices.DeleteFunc(u.Leased, func(l Leased) bool { return belongs(l.Address) })
		if len(foreign) == 0 {
			continue
		}
		var first netip.Addr
		for a := range foreign {
			if !first.IsValid() || a.Less(first) {
				first = a
			}
		}
		others := ""
		if len(foreign) > 1 {
			others = fmt.Sprintf(" (and %d more like it)", len(foreign)-1)
		}
		p.problem("uplink."+u.Name, "address-overlap", "%s%s, which %s got by DHCPv6 or SLAAC, lies in %s, so it is not used: traffic of others would leave through this uplink",
			first, others, u.Interface, foreign[first])
	}
}

// ownerOf is whose a is, if not the uplink's: another uplink's, the site's, or a downstream's; "" if nobody's.
func (p *planner) ownerOf(a netip.Addr, uplink string) string {
	if i := slices.IndexFunc(p.used, func(x used) bool { return x.prefix.Contains(a) }); i >= 0 && p.used[i].uplink != uplink {
		return p.used[i].String()
	}
	for _, d := range p.site.Downstreams {
		if slices.ContainsFunc(d.Subnets, func(n Subnet) bool { return n.Prefix.Contains(a) }) ||
			slices.ContainsFunc(d.Loans, func(l Loan) bool { return l.Prefix.Contains(a) }) {
			return "what downstream " + d.Name + " has"
		}
	}
	return ""
}
