package kernel

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"uplinkd/internal/lifetime"
)

// Protocol is the mark of ownership: rtm_protocol of routes, FRA_PROTOCOL of rules, IFA_PROTO of addresses.
const Protocol = 200

// tolerance is by how much a lifetime read back from the kernel may differ from the wanted one: the kernel counts in
// whole seconds and rounds twice (addrconf adds jiffies), so a second reconcile must not see a difference.
const tolerance = 2 * time.Second

// Reason says why a row is wanted: it answers `uplinkd explain`. It takes no part in identity or equality.
type Reason struct {
	Config     string       `json:"config"`               // the config section and where it stands: "uplink.fiber (uplinkd.toml:1)"
	Delegation netip.Prefix `json:"delegation,omitzero"`  // the delegation behind it, if any
	Uplink     string       `json:"uplink,omitempty"`     // name of the uplink it belongs to, if any
	Downstream string       `json:"downstream,omitempty"` // name of the downstream it belongs to, if any
	Rule       string       `json:"rule"`                 // one sentence: the planning rule that made the row
}

// Row is one desired or actual kernel object.
type Row interface {
	// Phase is the phase in which the row is added; withdrawing runs through the phases the other way.
	Phase() Phase
	// Text is the row in ip(8), sysctl(8) or nft(8) syntax without the leading command and verb: "2001:db8::1/64 dev lan0 ...".
	Text(now time.Time) string
	// Why says what made the row; zero for rows read from the kernel.
	Why() Reason
}

// Sysctl is a kernel variable. It has no owner mark: the engine's ledger keeps the value from before uplinkd, and
// withdrawing one means wanting that value again. So a Plan never deletes a Sysctl.
type Sysctl struct {
	Name     string // dotted like in sysctl(8), a dot inside an interface name as '/': net.ipv6.conf.eth0/7.accept_ra
	Value    string // Absent when read and the kernel has no such variable
	Optional bool   // a kernel that lacks it (Value Absent) is as good
	Reason   Reason
}

// Absent is the value of a Sysctl that this kernel does not have.
const Absent = "absent"

// RouteType is rtm_type as ip-route(8) spells it.
type RouteType uint8

// Route types in use; the numbers are the kernel's RTN_*.
const (
	Unicast     RouteType = 1
	Local       RouteType = 2
	Blackhole   RouteType = 6
	Unreachable RouteType = 7
	Prohibit    RouteType = 8
	Throw       RouteType = 9
)

func (t RouteType) String() string {
	switch t {
	case Unicast:
		return "unicast"
	case Local:
		return "local"
	case Blackhole:
		return "blackhole"
	case Unreachable:
		return "unreachable"
	case Prohibit:
		return "prohibit"
	case Throw:
		return "throw"
	}
	return fmt.Sprintf("type-%d", uint8(t))
}

// Tables and metrics with a fixed meaning in the kernel.
const (
	TableLocal = 255
	TableMain  = 254
	MetricLast = 4294967295 // the metric that is looked at last: IP6_RT_PRIO_* never reaches it
)

// Route is a route with protocol 200. The family is that of Dst; a default route is ::/0 or 0.0.0.0/0.
type Route struct {
	Table   uint32
	Dst     netip.Prefix // masked
	Metric  uint32       // never 0: the kernel turns an IPv6 metric 0 into 1024
	Type    RouteType
	Gateway netip.Addr // zero: on-link, or a type without next hop
	Dev     string     // "" for types without next hop (the kernel then says lo)
	Reason  Reason
}

// Family is an address family where a row does not name an address that tells it.
type Family uint8

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Rule is a routing rule with protocol 200. All of it is identity: a changed rule is another rule, so it is added
// before the old one is deleted.
type Rule struct {
	Family         Family
	Priority       uint32
	From, To       netip.Prefix // zero: all
	IIF, OIF       string
	Mark, Mask     uint32
	Action         RouteType // Unicast means lookup Table; else Unreachable, Blackhole, Prohibit
	Table          uint32    // for lookup
	SuppressPrefix bool      // suppress_prefixlength 0 is set: ignore routes of length 0
	Reason         Reason
}

// Address is an interface address, always with noprefixroute: the on-link route is a Route row of its own.
// The kernel's identity is device and address; the prefix length is not part of it and cannot be changed in place.
type Address struct {
	Dev                        string
	Prefix                     netip.Prefix // address and length, not masked
	PreferredUntil, ValidUntil lifetime.Deadline
	Reason                     Reason

	// Of addresses read from the kernel, no part of their identity:

	Born     uint32 // when it was made, in 1/100 s since the boot (IFA_CACHEINFO): a change leaves that alone. 0: not known
	Unmarked bool   // it is ours by Scope.Addresses alone, since somebody has changed it: a change without IFA_PROTO clears the mark
}

// Phase of each row type.
func (Sysctl) Phase() Phase { return PhaseSysctl }

// Phase puts aggregates before the routes of uplink tables and both before rules, so that a rule never points at an
// empty table.
func (r Route) Phase() Phase {
	if r.Type != Unicast && r.Type != Local {
		return PhaseAggregate
	}
	return PhaseRoute
}

// Phase of rules.
func (Rule) Phase() Phase { return PhaseRule }

// Phase of addresses.
func (Address) Phase() Phase { return PhaseAddress }

// Why returns r.Reason.
func (s Sysctl) Why() Reason { return s.Reason }

// Why returns r.Reason.
func (r Route) Why() Reason { return r.Reason }

// Why returns r.Reason.
func (r Rule) Why() Reason { return r.Reason }

// Why returns a.Reason.
func (a Address) Why() Reason { return a.Reason }

// Compare orders and identifies sysctls: interface variables sort before net.ipv6.conf.all by intent of rank, since
// the kernel must know accept_ra_defrtr=0 of an uplink before forwarding changes how it treats RAs.
func (s Sysctl) Compare(o Sysctl) int {
	return cmp.Or(cmp.Compare(s.rank(), o.rank()), cmp.Compare(s.Name, o.Name))
}

// rank: first what keeps the kernel from taking default routes out of RAs, then forwarding, then accept_ra=2. In this
// order a default route that the kernel took from an RA goes away when forwarding is switched on
// (rt6_purge_dflt_routers spares interfaces with accept_ra=2), so it cannot leak foreign sources.
func (s Sysctl) rank() int {
	switch {
	case strings.HasSuffix(s.Name, ".accept_ra"):
		return 2
	case strings.HasSuffix(s.Name, ".forwarding"):
		return 1
	}
	return 0
}

// Compare orders and identifies routes as the kernel does: table, destination, metric. Unreachable routes sort into the
// phase of aggregates; two routes of one table, destination and metric cannot both exist (unless as one multipath).
func (r Route) Compare(o Route) int {
	return cmp.Or(cmp.Compare(r.Table, o.Table), r.Dst.Compare(o.Dst), cmp.Compare(r.Metric, o.Metric))
}

// Compare orders and identifies rules by all they have.
func (r Rule) Compare(o Rule) int {
	return cmp.Or(cmp.Compare(r.Family, o.Family), cmp.Compare(r.Priority, o.Priority), r.From.Compare(o.From), r.To.Compare(o.To),
		cmp.Compare(r.IIF, o.IIF), cmp.Compare(r.OIF, o.OIF), cmp.Compare(r.Mark, o.Mark), cmp.Compare(r.Mask, o.Mask),
		cmp.Compare(r.Action, o.Action), cmp.Compare(r.Table, o.Table), compareBool(r.SuppressPrefix, o.SuppressPrefix))
}

// Compare orders and identifies addresses by device and address.
func (a Address) Compare(o Address) int {
	return cmp.Or(cmp.Compare(a.Dev, o.Dev), a.Prefix.Addr().Compare(o.Prefix.Addr()))
}

// Equal reports whether nothing has to be written to turn s into o.
func (s Sysctl) Equal(o Sysctl, _ time.Time) bool {
	return s.Value == o.Value || (o.Optional && s.Value == Absent) || (s.Optional && o.Value == Absent)
}

// Equal reports whether nothing has to be written to turn r into o.
func (r Route) Equal(o Route, _ time.Time) bool {
	return r.Type == o.Type && r.Gateway == o.Gateway && r.Dev == o.Dev
}

// Equal is true: rules are all identity.
func (r Rule) Equal(Rule, time.Time) bool { return true }

// Equal reports whether nothing has to be written to turn a into o at now.
func (a Address) Equal(o Address, now time.Time) bool {
	return a.Prefix == o.Prefix && a.Unmarked == o.Unmarked && a.PreferredUntil.Within(o.PreferredUntil, tolerance, now) && a.ValidUntil.Within(o.ValidUntil, tolerance, now)
}

// Text is the assignment of sysctl(8).
func (s Sysctl) Text(time.Time) string { return s.Name + "=" + s.Value }

// Text is the route in ip-route(8) syntax.
func (r Route) Text(time.Time) string {
	var b strings.Builder
	if r.Type != Unicast {
		b.WriteString(r.Type.String() + " ")
	}
	if r.Dst.Bits() == 0 {
		b.WriteString("default")
	} else {
		b.WriteString(r.Dst.String())
	}
	if r.Gateway.IsValid() {
		b.WriteString(" via " + r.Gateway.WithZone("").String())
	}
	if r.Dev != "" {
		b.WriteString(" dev " + r.Dev)
	}
	if r.Table != TableMain {
		fmt.Fprintf(&b, " table %s", tableName(r.Table))
	}
	fmt.Fprintf(&b, " metric %d proto %d", r.Metric, Protocol)
	return b.String()
}

// Text is the rule in ip-rule(8) syntax.
func (r Rule) Text(time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "pref %d from %s", r.Priority, all(r.From))
	if r.To.IsValid() {
		b.WriteString(" to " + r.To.String())
	}
	if r.IIF != "" {
		b.WriteString(" iif " + r.IIF)
	}
	if r.OIF != "" {
		b.WriteString(" oif " + r.OIF)
	}
	if r.Mark != 0 || r.Mask != 0 {
		fmt.Fprintf(&b, " fwmark %#x/%#x", r.Mark, r.Mask)
	}
	if r.Action == Unicast {
		b.WriteString(" lookup " + tableName(r.Table))
	} else {
		b.WriteString(" " + r.Action.String())
	}
	if r.SuppressPrefix {
		b.WriteString(" suppress_prefixlength 0")
	}
	fmt.Fprintf(&b, " protocol %d", Protocol)
	return b.String()
}

// Text is the address in ip-address(8) syntax, its lifetimes in seconds at now.
func (a Address) Text(now time.Time) string {
	return fmt.Sprintf("%s dev %s valid_lft %s preferred_lft %s noprefixroute proto %d", a.Prefix, a.Dev,
		a.ValidUntil.Text(now), a.PreferredUntil.Text(now), Protocol)
}

func all(p netip.Prefix) string {
	if !p.IsValid() {
		return "all"
	}
	return p.String()
}

func tableName(t uint32) string {
	switch t {
	case TableMain:
		return "main"
	case TableLocal:
		return "local"
	}
	return fmt.Sprintf("%d", t)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
