package ctl

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/engine"
	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/policy"
)

// Explanation is the answer to GET /v1/explain: everything that uplinkd has to do with one address, or with all of a prefix.
type Explanation struct {
	SchemaVersion int              `json:"schema_version"`
	Time          time.Time        `json:"time"`
	Address       netip.Addr       `json:"address"`         // the first one of Prefix, if that is asked about
	Prefix        netip.Prefix     `json:"prefix,omitzero"` // absent if an address is asked about
	Ours          bool             `json:"ours"`            // it lies in a delegation or has a role
	Roles         []string         `json:"roles"`           // what the address is, in words, the most specific first
	Delegations   []DelegationFrom `json:"delegations"`
	Subnets       []SubnetOf       `json:"subnets"`
	Loans         []LoanOf         `json:"loans,omitempty"`
	Contains      []Part           `json:"contains,omitempty"` // what of Prefix somebody has, if it is no subnet or loan itself
	Addresses     []Row            `json:"addresses"`          // rows that put the address, or one of its subnet, on an interface
	Routes        []Row            `json:"routes"`             // to the address, the longest prefix first
	Rules         []Row            `json:"rules"`              // for packets from it or to it, in the kernel's order
	Tables        []Row            `json:"nft_tables,omitempty"`

	uplinks   []string       // in whose delegations, former ones included, or on whose links it lies
	onLink    []kernel.Route // to the neighbours that it is one of
	tabled    bool           // uplinkd's nft table is about it
	unclaimed bool           // it lies in a delegation, a former one or the ULA prefix, and no downstream uses all of it
}

// LoanOf is a loan with the config section of the downstream that lends it.
type LoanOf struct {
	Loan
	Downstream string `json:"downstream"`
	Config     string `json:"config"`
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
	return explain(s, addr.WithZone("").Unmap(), netip.Prefix{}, now)
}

// ExplainPrefix tells what snapshot s has to do with all addresses of p.
func ExplainPrefix(s *engine.Snapshot, p netip.Prefix, now time.Time) Explanation {
	return explain(s, p.Masked().Addr(), p.Masked(), now)
}

func explain(s *engine.Snapshot, addr netip.Addr, prefix netip.Prefix, now time.Time) Explanation {
	x := Explanation{SchemaVersion: SchemaVersion, Time: second(now), Address: addr, Prefix: prefix, Roles: []string{},
		Delegations: []DelegationFrom{}, Subnets: []SubnetOf{}, Addresses: []Row{}, Routes: []Row{}, Rules: []Row{}}
	x.parts(s, now)
	for _, d := range s.Site.Downstreams {
		x.downstream(d, s.Ledger, now)
	}
	switch {
	case x.Prefix.IsValid() && x.Prefix == s.Site.ULA:
		x.role("the ULA prefix of this site")
	case x.in(s.Site.ULA) && len(x.Subnets)+len(x.Loans) == 0:
		x.role("in the ULA prefix " + s.Site.ULA.String() + x.unused())
	}
	x.neighbours(s.Wanted)
	for _, u := range s.Site.Uplinks {
		x.uplink(u, s.Clients[u.Name], now)
	}
	x.linkLocal(s)
	x.services(s)
	if len(x.Roles) == 0 && len(x.Contains) > 0 {
		x.role("not one of uplinkd's prefixes, but it contains what is listed below")
	}
	x.Ours = len(x.Roles) > 0
	if x.Ours {
		x.rows(s.Wanted, now)
	}
	return x
}

func (x *Explanation) role(text string) { x.Roles = append(x.Roles, text) }

// in reports whether p has the address, or all of the prefix, that is asked about.
func (x *Explanation) in(p netip.Prefix) bool {
	return p.Contains(x.Address) && (!x.Prefix.IsValid() || x.Prefix.Bits() >= p.Bits())
}

// is reports whether a is the address that is asked about.
func (x *Explanation) is(a netip.Addr) bool {
	return a == x.Address && (!x.Prefix.IsValid() || x.Prefix.IsSingleIP())
}

func (x *Explanation) downstream(d policy.Downstream, ledger policy.Ledger, now time.Time) {
	if x.is(d.Via) || slices.ContainsFunc(d.Loans, func(l policy.Loan) bool { return x.is(l.Via) }) {
		x.role("an inner router on " + d.Interface + " (downstream " + d.Name + ")")
	}
	for i, l := range d.Loans {
		if x.in(l.Prefix) {
			x.Loans = append(x.Loans, LoanOf{Loan: loans(d.Loans, now)[i], Downstream: d.Name, Config: d.Config})
			x.role(borrowed(l, d))
		}
	}
	for i, n := range d.Subnets {
		if !x.in(n.Prefix) {
			continue
		}
		x.Subnets = append(x.Subnets, SubnetOf{Subnet: subnets(d, now)[i], Config: d.Config})
		switch {
		case x.is(n.Address.Addr()):
			x.role("the router's own address on " + d.Interface + " (downstream " + d.Name + ")")
		case len(x.Loans) == 0:
			x.role(usedBy(d))
		}
	}
	for _, o := range oldPrefixes(d, ledger, now) {
		if x.in(o.Prefix) {
			x.role(x.inside(o.Prefix, former(o.Via, d)) + whatOf(o))
			x.tabled = x.tabled || o.Gone
		}
	}
	for _, p := range d.Announce.Prefixes {
		if p.Stale && x.in(p.Prefix) {
			x.role(x.inside(p.Prefix, "a prefix that hosts behind "+d.Interface+" are told to stop using (downstream "+d.Name+")"))
		}
	}
	if slices.ContainsFunc(d.Announce.DNS, x.is) {
		x.role("a name server that is announced to hosts behind " + d.Interface + " (downstream " + d.Name + ")")
	}
}

func (x *Explanation) uplink(u policy.Uplink, c engine.ClientStatus, now time.Time) {
	if x.is(u.Gateway) {
		x.role("the next hop of uplink " + u.Name + ", from its router advertisement on " + u.Interface)
	}
	if slices.ContainsFunc(u.Told.DNS, x.is) {
		x.role("a name server that uplink " + u.Name + " offers")
	}
	own := slices.ContainsFunc(u.Addresses, x.is) || slices.ContainsFunc(u.Leased, func(a policy.Leased) bool { return x.is(a.Address) })
	if own {
		x.role(ownOn(u, x.Address, now))
	}
	internal := slices.ContainsFunc(u.Loopback, func(a policy.Internal) bool { return x.is(a.Address.Addr()) })
	if internal {
		x.role("the router's own address on " + policy.Loopback + ", since uplink " + u.Name + " has no other global one")
	}
	link := x.linkOf(u)
	if isOneLink(link) {
		x.uplinks = append(x.uplinks, u.Name)
	}
	x.delegated(u, c, own || internal || isOneLink(link), now)
	switch {
	case own || !link.IsValid():
	case isOneLink(link):
		x.role(linkText(u, link))
	case len(x.Roles) == 0:
		x.role(x.inside(link, linkText(u, link)))
	}
}

// delegated tells in which delegations of u it is, former ones included; somebody has it besides if taken.
func (x *Explanation) delegated(u policy.Uplink, c engine.ClientStatus, taken bool, now time.Time) {
	for i, g := range u.Delegations {
		if !x.in(g.Prefix) {
			continue
		}
		described := uplink(u, c, now)
		x.uplinks = append(x.uplinks, u.Name)
		x.Delegations = append(x.Delegations, DelegationFrom{Delegation: described.Delegations[i], Uplink: u.Name, Config: u.Config, Client: described.Client})
		switch {
		case x.Prefix == g.Prefix:
			x.role("delegated on uplink " + u.Name)
		case !taken && !x.used(g.Prefix):
			x.role("in delegation " + g.Prefix.String() + " of uplink " + u.Name + x.unused())
		}
	}
	for _, r := range u.Withdrawn {
		if x.in(r.Prefix) {
			x.uplinks = append(x.uplinks, u.Name)
			x.role(x.inside(r.Prefix, withdrawn(u)) + ": refused " + stillFor(lifetimeAt(r.Until, now)))
			x.unclaimed = x.unclaimed || !taken && x.Prefix != r.Prefix
		}
	}
}

// ownOn is how the router has come by its address a on the interface of uplink u.
func ownOn(u policy.Uplink, a netip.Addr, now time.Time) string {
	text := "the router's own address on " + u.Interface + " (uplink " + u.Name + ")"
	for _, l := range u.Leased {
		if l.Address == a {
			return text + ", leased by DHCPv6 (IA_NA) " + stillFor(lifetimeAt(l.ValidUntil, now))
		}
	}
	return text + ", which uplinkd has not set: from a router advertisement (SLAAC) or somebody else"
}

// usedBy is what d does with a subnet.
func usedBy(d policy.Downstream) string {
	switch config.Kind(d.Kind) {
	case config.Transit:
		if d.Via.IsValid() {
			return "in the subnet of downstream " + d.Name + ", behind the inner router " + d.Via.String() + " on " + d.Interface
		}
		return "in the subnet of downstream " + d.Name + ", from which inner routers behind " + d.Interface + " borrow; nobody has this part: unreachable"
	case config.Service:
		return "in the subnet of service " + d.Name + ", of which every address is the router's own (AnyIP)"
	case config.Reserve:
		return "in the subnet of downstream " + d.Name + ", which is kept unreachable (kind = \"reserve\")"
	}
	return "in the subnet of downstream " + d.Name + ", on link at " + d.Interface
}

// borrowed is whose l is.
func borrowed(l policy.Loan, d policy.Downstream) string {
	to := "the inner router " + l.Via.String() + " on " + d.Interface + " (downstream " + d.Name + ")"
	if l.Offered {
		return "offered to " + to + ", which has not accepted it yet"
	}
	return "lent to " + to
}

// former is what d, or an inner router at via, does not have any more.
func former(via netip.Addr, d policy.Downstream) string {
	if via.IsValid() {
		return "a former loan to the inner router " + via.String() + " on " + d.Interface + " (downstream " + d.Name + ")"
	}
	return "a former subnet of downstream " + d.Name
}

// whatOf continues former: what becomes of o.
func whatOf(o OldPrefix) (text string) {
	if o.Gone {
		text = "; it is gone, and whoever sends from it is told"
	}
	if o.Until != nil {
		text += "; routed to its hosts " + stillFor(*o.Until)
	}
	return text
}

// withdrawn is what the withdrawn delegations of u are.
func withdrawn(u policy.Uplink) string {
	return "a former delegation of uplink " + u.Name + ", over before its time"
}

// inside is what the address is that is asked about by being part of p, or the prefix by being p.
func (x *Explanation) inside(p netip.Prefix, text string) string {
	if x.Prefix == p {
		return text
	}
	return "in " + p.String() + ", " + text
}

// stillFor is how long something holds yet.
func stillFor(l Lifetime) string {
	if l.Seconds == lifetime.Infinity {
		return lifetime.Span(l.Seconds)
	}
	return "for another " + lifetime.Span(l.Seconds)
}

// used reports whether somebody uses it as part of delegation g.
func (x *Explanation) used(g netip.Prefix) bool {
	return slices.ContainsFunc(x.Subnets, func(n SubnetOf) bool { return n.Delegation == g }) ||
		slices.ContainsFunc(x.Loans, func(l LoanOf) bool { return l.Delegation == g })
}

// unused continues "in the delegation": no downstream uses all that is asked about.
func (x *Explanation) unused() string {
	x.unclaimed = true
	if len(x.Contains) > 0 {
		return "; parts of it are in use (see below), the rest is unreachable"
	}
	return ", in a part that no downstream uses: unreachable"
}

func (x *Explanation) rows(s kernel.State, now time.Time) {
	for _, a := range s.Addresses {
		if x.in(a.Prefix) {
			x.Addresses = append(x.Addresses, row(a, now))
		}
	}
	var routes []kernel.Route
	for _, r := range s.Routes {
		if x.concerns(r.Reason) && (x.in(r.Dst) && !x.Address.IsLinkLocalUnicast() || x.is(r.Gateway)) {
			routes = append(routes, r)
		}
	}
	slices.SortStableFunc(routes, func(a, b kernel.Route) int {
		return cmp.Or(cmp.Compare(b.Dst.Bits(), a.Dst.Bits()), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Metric, b.Metric))
	})
	for _, r := range routes {
		x.Routes = append(x.Routes, row(r, now))
	}
	for _, t := range s.Tables {
		if x.tabled {
			x.Tables = append(x.Tables, row(t, now))
		}
	}
	if x.Address.IsLinkLocalUnicast() {
		return // forwarded packets have no link-local addresses
	}
	family := kernel.IPv6
	if x.Address.Is4() {
		family = kernel.IPv4
	}
	for _, r := range s.Rules {
		if r.Family == family && x.concerns(r.Reason) && (!r.From.IsValid() || x.in(r.From)) && (!r.To.IsValid() || x.in(r.To)) {
			x.Rules = append(x.Rules, row(r, now))
		}
	}
}

// concerns leaves out rows of other uplinks and downstreams than those that the address belongs to: they match too, but
// no packet of the address gets that far.
func (x *Explanation) concerns(why kernel.Reason) bool {
	if why.Uplink != "" && len(x.uplinks) > 0 && !slices.Contains(x.uplinks, why.Uplink) {
		return false
	}
	return why.Downstream == "" || len(x.Subnets)+len(x.Loans) == 0 ||
		slices.ContainsFunc(x.Subnets, func(n SubnetOf) bool { return n.Downstream == why.Downstream }) ||
		slices.ContainsFunc(x.Loans, func(l LoanOf) bool { return l.Downstream == why.Downstream })
}
