package ctl

import (
	"net/netip"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/lifetime"
	"uplinkd/policy"
)

// Loan is a prefix that an inner router has.
type Loan struct {
	Client     string       `json:"client"` // DUID
	IAID       uint32       `json:"iaid"`
	Via        netip.Addr   `json:"via"`              // its link-local address
	Uplink     string       `json:"uplink,omitempty"` // absent: part of the ULA prefix
	Delegation netip.Prefix `json:"delegation"`
	Prefix     netip.Prefix `json:"prefix"`
	State      string       `json:"state"`     // preferred, deprecated
	Preferred  Lifetime     `json:"preferred"` // what is left of the delegation
	Valid      Lifetime     `json:"valid"`
	Until      Lifetime     `json:"until"`             // the end of it unless the inner router has it extended
	Offered    bool         `json:"offered,omitempty"` // only offered: there is no route yet
}

// StaleLoan is a prefix that an inner router had. It is told so until it cannot have it any more.
type StaleLoan struct {
	Client string       `json:"client"`
	IAID   uint32       `json:"iaid"`
	Prefix netip.Prefix `json:"prefix"`
	Until  Lifetime     `json:"until"`
}

// OldPrefix is a prefix that a downstream has no more, and that is routed to its hosts for as long as they may use it.
type OldPrefix struct {
	Prefix netip.Prefix `json:"prefix"`
	Via    netip.Addr   `json:"via,omitzero"`    // the inner router that had it; absent: on-link
	Gone   bool         `json:"gone"`            // with its delegation: who sends from it is told (RFC 7084 L-14)
	Until  *Lifetime    `json:"until,omitempty"` // the end of that; not in what hooks get
}

// AnyIP is how packets find a service.
type AnyIP struct {
	Mode     string   `json:"mode"`  // subnet, interface, mark
	Armed    bool     `json:"armed"` // by interface or mark: the rule is wanted
	Mark     uint32   `json:"mark,omitempty"`
	Ports    []string `json:"ports,omitempty"`
	Nonlocal bool     `json:"nonlocal_bind,omitempty"`
}

// works reports whether d has what it is there for.
func (d Downstream) works() bool {
	return len(d.Subnets) > 0 || !d.AnyIP.needsSubnet() && d.AnyIP.Armed
}

// needsSubnet reports whether a downstream needs a subnet: all but services by interface or mark do.
func (a *AnyIP) needsSubnet() bool { return a == nil || a.Mode == string(config.AnyIPSubnet) }

func loans(list []policy.Loan, now time.Time) (out []Loan) {
	for _, l := range list {
		out = append(out, Loan{Client: l.Client.String(), IAID: l.IAID, Via: l.Via, Uplink: l.Uplink, Delegation: l.Delegation, Prefix: l.Prefix,
			State: string(l.State), Preferred: lifetimeAt(l.PreferredUntil, now), Valid: lifetimeAt(l.ValidUntil, now), Until: lifetimeAt(l.Until, now), Offered: l.Offered})
	}
	return out
}

func staleLoans(list []policy.LoanRecord, now time.Time) (out []StaleLoan) {
	for _, l := range list {
		out = append(out, StaleLoan{Client: l.Client.String(), IAID: l.IAID, Prefix: l.Prefix, Until: lifetimeAt(l.Until, now)})
	}
	return out
}

// oldPrefixes are those of d; ledger knows until when, where there is one.
func oldPrefixes(d policy.Downstream, ledger policy.Ledger, now time.Time) (out []OldPrefix) {
	for _, p := range d.Stale {
		o := OldPrefix{Prefix: p.Prefix, Via: p.Via}
		for _, x := range d.Dead {
			o.Gone = o.Gone || x.Prefix == p.Prefix
		}
		var until lifetime.Deadline
		for _, r := range ledger.Announced[d.Name] {
			if r.Prefix == p.Prefix {
				until = lifetime.Max(until, r.Until)
			}
		}
		for _, r := range d.StaleLoans {
			if r.Prefix == p.Prefix {
				until = lifetime.Max(until, r.Until)
			}
		}
		if !until.IsZero() {
			o.Until = new(lifetimeAt(until, now))
		}
		out = append(out, o)
	}
	return out
}

func anyIP(d policy.Downstream) *AnyIP {
	a := d.AnyIP
	if a.Mode == "" {
		return nil
	}
	return &AnyIP{Mode: a.Mode, Armed: a.Armed, Mark: a.Mark, Ports: a.Ports, Nonlocal: a.Nonlocal}
}
