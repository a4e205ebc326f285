package ctl

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/engine"
	"uplinkd/internal/kernel"
	"uplinkd/policy"
)

// Explanation is the answer to GET /v1/explain: everything that uplinkd has to do with one address.
type Explanation struct {
	SchemaVersion int              `json:"schema_version"`
	Time          time.Time        `json:"time"`
	Address       netip.Addr       `json:"address"`
	Ours          bool             `json:"ours"`  // it lies in a delegation or has a role
	Roles         []string         `json:"roles"` // what the address is, in words, the most specific first
	Delegations   []DelegationFrom `json:"delegations"`
	Subnets       []SubnetOf       `json:"subnets"`
	Addresses     []Row            `json:"addresses"` // rows that put the address, or one of its subnet, on an interface
	Routes        []Row            `json:"routes"`    // to the address, the longest prefix first
	Rules         []Row            `json:"rules"`     // for packets from it or to it, in the kernel's order
}

// DelegationFrom is a delegation with its lease.
type DelegationFrom struct {
	Delegation
	Uplink string  `json:"uplink"`
	Config string  `json:"config"`
	Client Client6 `json:"client"`
}

// SubnetOf is a subnet with the config section that asks for it.
type SubnetOf struct {
	Subnet
	Config string `json:"config"`
}

// Explain tells what snapshot s has to do with addr.
func Explain(s *engine.Snapshot, addr netip.Addr, now time.Time) Explanation {
	addr = addr.WithZone("").Unmap()
	x := Explanation{SchemaVersion: SchemaVersion, Time: second(now), Address: addr, Roles: []string{},
		Delegations: []DelegationFrom{}, Subnets: []SubnetOf{}, Addresses: []Row{}, Routes: []Row{}, Rules: []Row{}}
	for _, d := range s.Site.Downstreams {
		x.downstream(d, now)
	}
	for _, u := range s.Site.Uplinks {
		x.uplink(u, s.Clients[u.Name], now)
	}
	x.Ours = len(x.Roles) > 0
	if x.Ours {
		x.rows(s.Wanted, now)
	}
	return x
}

func (x *Explanation) role(text string) { x.Roles = append(x.Roles, text) }

func (x *Explanation) downstream(d policy.Downstream, now time.Time) {
	for i, n := range d.Subnets {
		if !n.Prefix.Contains(x.Address) {
			continue
		}
		x.Subnets = append(x.Subnets, SubnetOf{Subnet: subnets(d.Subnets, now)[i], Config: d.Config})
		if n.Address.Addr() == x.Address {
			x.role("the router's own address on " + d.Interface + " (downstream " + d.Name + ")")
		} else {
			x.role("in the subnet of downstream " + d.Name + ", on link at " + d.Interface)
		}
	}
	for _, p := range d.Announce.Prefixes {
		if p.Stale && p.Prefix.Contains(x.Address) {
			x.role("in " + p.Prefix.String() + ", which hosts behind " + d.Interface + " are told to stop using (downstream " + d.Name + ")")
		}
	}
	if slices.Contains(d.Announce.DNS, x.Address) {
		x.role("a name server that is announced to hosts behind " + d.Interface + " (downstream " + d.Name + ")")
	}
}

func (x *Explanation) uplink(u policy.Uplink, c engine.ClientStatus, now time.Time) {
	if u.Gateway == x.Address {
		x.role("the next hop of uplink " + u.Name + ", from its router advertisement on " + u.Interface)
	}
	if slices.Contains(u.Told.DNS, x.Address) {
		x.role("a name server that uplink " + u.Name + " offers")
	}
	internal := slices.ContainsFunc(u.Loopback, func(a policy.Internal) bool { return a.Address.Addr() == x.Address })
	if internal {
		x.role("the router's own address on " + policy.Loopback + ", since uplink " + u.Name + " has no other global one")
	}
	for i, g := range u.Delegations {
		if !g.Prefix.Contains(x.Address) {
			continue
		}
		described := uplink(u, c, now)
		x.Delegations = append(x.Delegations, DelegationFrom{Delegation: described.Delegations[i], Uplink: u.Name, Config: u.Config, Client: described.Client})
		if !internal && !slices.ContainsFunc(x.Subnets, func(n SubnetOf) bool { return n.Delegation == g.Prefix }) {
			x.role("in delegation " + g.Prefix.String() + " of uplink " + u.Name + ", in a part that no downstream uses: unreachable")
		}
	}
}

func (x *Explanation) rows(s kernel.State, now time.Time) {
	for _, a := range s.Addresses {
		if a.Prefix.Contains(x.Address) {
			x.Addresses = append(x.Addresses, row(a, now))
		}
	}
	var routes []kernel.Route
	for _, r := range s.Routes {
		if x.concerns(r.Reason) && (r.Dst.Contains(x.Address) && !x.Address.IsLinkLocalUnicast() || r.Gateway == x.Address) {
			routes = append(routes, r)
		}
	}
	slices.SortStableFunc(routes, func(a, b kernel.Route) int {
		return cmp.Or(cmp.Compare(b.Dst.Bits(), a.Dst.Bits()), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Metric, b.Metric))
	})
	for _, r := range routes {
		x.Routes = append(x.Routes, row(r, now))
	}
	if x.Address.IsLinkLocalUnicast() {
		return // forwarded packets have no link-local addresses
	}
	family := kernel.IPv6
	if x.Address.Is4() {
		family = kernel.IPv4
	}
	for _, r := range s.Rules {
		if r.Family == family && x.concerns(r.Reason) && (!r.From.IsValid() || r.From.Contains(x.Address)) && (!r.To.IsValid() || r.To.Contains(x.Address)) {
			x.Rules = append(x.Rules, row(r, now))
		}
	}
}

// concerns leaves out rows of other uplinks and downstreams than those that the address belongs to: they match too, but
// no packet of the address gets that far.
func (x *Explanation) concerns(why kernel.Reason) bool {
	if why.Uplink != "" && len(x.Delegations) > 0 &&
		!slices.ContainsFunc(x.Delegations, func(g DelegationFrom) bool { return g.Uplink == why.Uplink }) {
		return false
	}
	return why.Downstream == "" || len(x.Subnets) == 0 ||
		slices.ContainsFunc(x.Subnets, func(n SubnetOf) bool { return n.Downstream == why.Downstream })
}
