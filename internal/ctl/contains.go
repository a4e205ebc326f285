package ctl

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/engine"
	"uplinkd/internal/kernel"
	"uplinkd/policy"
)

// Part is what somebody has of a prefix that is asked about.
type Part struct {
	Prefix netip.Prefix `json:"prefix"`
	Use    string       `json:"use"` // whose it is, in words
}

// parts finds what lies inside of the prefix that is asked about.
func (x *Explanation) parts(s *engine.Snapshot, now time.Time) {
	x.part(s.Site.ULA, "the ULA prefix of this site")
	for _, u := range s.Site.Uplinks {
		for _, g := range u.Delegations {
			x.part(g.Prefix, "delegated on uplink "+u.Name)
			x.part(g.Exclude, "left out of "+g.Prefix.String()+" for the link to the provider (RFC 6603)")
		}
		for _, r := range u.Withdrawn {
			x.part(r.Prefix, withdrawn(u))
		}
		for _, a := range u.Loopback {
			x.part(a.Address, "the router's own address on "+policy.Loopback+" (uplink "+u.Name+")")
		}
		for _, a := range u.Addresses {
			x.part(netip.PrefixFrom(a, a.BitLen()), ownOn(u, a, now))
		}
		for _, r := range toNeighbours(s.Wanted) {
			if r.Reason.Uplink == u.Name {
				x.part(r.Dst, linkText(u, r.Dst))
			}
		}
	}
	for _, d := range s.Site.Downstreams {
		for _, n := range d.Subnets {
			x.part(n.Prefix, partOf(d))
		}
		for _, l := range d.Loans {
			x.part(l.Prefix, borrowed(l, d))
		}
		for _, o := range d.Stale {
			x.part(o.Prefix, former(o.Via, d))
		}
	}
	slices.SortStableFunc(x.Contains, func(a, b Part) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
}

func (x *Explanation) part(p netip.Prefix, use string) {
	if p.IsValid() && x.Prefix.IsValid() && x.Prefix.Bits() < p.Bits() && x.Prefix.Contains(p.Addr()) {
		x.Contains = append(x.Contains, Part{p, use})
	}
}

// partOf is what d does with a subnet, in few words.
func partOf(d policy.Downstream) string {
	switch config.Kind(d.Kind) {
	case config.Transit:
		if d.Via.IsValid() {
			return "downstream " + d.Name + ", behind the inner router " + d.Via.String() + " on " + d.Interface
		}
		return "downstream " + d.Name + ", to lend to inner routers behind " + d.Interface
	case config.Service:
		return "service " + d.Name
	case config.Reserve:
		return "downstream " + d.Name + ", kept unreachable"
	}
	return "downstream " + d.Name + ", on link at " + d.Interface
}

// services tells which services by interface or mark take packets for what no downstream uses.
func (x *Explanation) services(s *engine.Snapshot) {
	thrown := func(r kernel.Route) bool {
		return r.Table == s.Site.AnyIPTable && r.Type == kernel.Throw && x.in(r.Dst)
	}
	if !x.unclaimed || slices.ContainsFunc(s.Wanted.Routes, thrown) {
		return
	}
	for _, d := range s.Site.Downstreams {
		if !d.AnyIP.Armed {
			continue
		}
		text := "but what comes in on " + d.Interface + " for it goes to service " + d.Name + " (AnyIP)"
		if config.AnyIPMode(d.AnyIP.Mode) == config.AnyIPMark {
			text = fmt.Sprintf("but what has the mark 0x%x and is for it goes to service %s (AnyIP)", d.AnyIP.Mark, d.Name)
		}
		if len(d.AnyIP.Ports) > 0 {
			text += "; marked is what comes in on " + d.Interface + " for " + strings.Join(d.AnyIP.Ports, ", ") + " (nft list chain ip6 uplinkd anyip)"
			x.tabled = true
		}
		x.role(text)
	}
}
