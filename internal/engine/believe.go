package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

// sound drops from a report what no uplinkd can have written, and returns what that was. What was reported is told again as what is
// lost, to logs and hooks; for a minute it stands in for what routers have not said yet, in router advertisements too; and where a
// lease is damaged, its delegations stand in for that.
func (r *reported) sound() error {
	var a audit
	for i := range r.Site.Uplinks {
		u := &r.Site.Uplinks[i]
		what := "uplink " + u.Name
		u.Delegations = keepSound(&a, what, u.Delegations, func(g policy.Delegation) error { return checkDelegation(g.Prefix) })
		for j := range u.Delegations {
			g := &u.Delegations[j]
			g.PreferredUntil = lifetime.Min(g.PreferredUntil, g.ValidUntil)
		}
		if err := checkTold(u.Told); err != nil {
			a.note("%.100q: %v", what, err)
			u.Told = policy.Told{}
		}
		if u.Gateway.IsValid() && !u.Gateway.IsLinkLocalUnicast() {
			a.note("%.100q: the router %s is not on the link", what, u.Gateway)
			u.Gateway = netip.Addr{}
		}
	}
	r.Site.Uplinks = keepSound(&a, "uplinks", r.Site.Uplinks, func(u policy.Uplink) error {
		if err := checkText(u.Name); err != nil {
			return err
		}
		return checkText(u.Interface + u.Reason)
	})
	for i := range r.Site.Downstreams {
		d := &r.Site.Downstreams[i]
		d.Subnets = keepSound(&a, "downstream "+d.Name, d.Subnets, checkSubnet)
	}
	r.Site.Downstreams = keepSound(&a, "downstreams", r.Site.Downstreams, func(d policy.Downstream) error { return checkText(d.Name + d.Interface) })
	r.Lost = keepSound(&a, "lost", r.Lost, checkDelegation)
	r.Lost = r.Lost[max(0, len(r.Lost)-maxLost):]
	return a.err()
}

func checkDelegation(p netip.Prefix) error {
	if !p.IsValid() || !p.Addr().Is6() || p != p.Masked() {
		return fmt.Errorf("%s is no IPv6 prefix", p)
	}
	if why := pd.Undelegable(p); why != "" {
		return fmt.Errorf("%s: %s", p, why)
	}
	return nil
}

func checkSubnet(n policy.Subnet) error {
	for _, p := range []netip.Prefix{n.Prefix, n.Delegation} {
		if err := checkPrefix(p); err != nil {
			return err
		}
	}
	if n.Address.IsValid() && checkAddress(n.Address) != nil {
		return fmt.Errorf("%s is not global", n.Address)
	}
	return checkText(n.Downstream + n.Interface + n.Uplink)
}

func checkTold(t policy.Told) error {
	for _, p := range t.PREF64 {
		if !p.Prefix.IsValid() || !p.Prefix.Addr().Is6() || p.Prefix != p.Prefix.Masked() || !slices.Contains([]int{32, 40, 48, 56, 64, 96}, p.Prefix.Bits()) {
			return fmt.Errorf("%s is no prefix that NAT64 translates from", p.Prefix)
		}
	}
	return t.Info.Check()
}

// checkText refuses what a log or the environment of a hook cannot bear. It is for names and for what uplinkd says itself.
func checkText(s string) error {
	const most = 400
	if len(s) > most || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 127 && r < 160 }) {
		return fmt.Errorf("%.80q is none that uplinkd says", s)
	}
	return nil
}
