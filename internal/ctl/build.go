package ctl

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"uplinkd/internal/engine"
	"uplinkd/internal/kernel"
	"uplinkd/pd"
	"uplinkd/policy"
)

// StatusOf describes snapshot s as it stands at now.
func StatusOf(s *engine.Snapshot, hooks []HookStatus, now time.Time) Status {
	st := Status{SchemaVersion: SchemaVersion, Time: second(now), Daemon: s.Version, Rows: s.Wanted.Len(), Waiting: len(s.Waiting),
		Uplinks: []Uplink{}, Downstreams: []Downstream{}, ULA: s.Site.ULA, Hooks: hookTimes(hooks), Problems: problems(s.Problems, s.Site)}
	for _, d := range s.Site.Downstreams {
		st.Downstreams = append(st.Downstreams, downstream(d, s.Ledger, now))
	}
	for _, t := range s.Wanted.Tables {
		st.Tables = append(st.Tables, t.Family+" "+kernel.TableName)
	}
	for _, u := range s.Site.Uplinks {
		st.Uplinks = append(st.Uplinks, uplink(u, s.Clients[u.Name], now))
	}
	c := s.Counters
	st.Counters = Counters{Reconciles: c.Steps, KernelWrites: c.Writes, KernelErrors: c.Failed, Events: c.Events, LastSeconds: c.LastStep.Seconds(),
		LastChange: Took{c.LastTook.All.Seconds(), c.LastTook.Read.Seconds(), c.LastTook.Apply.Seconds()}}
	if s.Ready {
		st.Problems = append(st.Problems, routerless(st, s.Site, now)...)
	}
	st.Health, st.Summary = verdict(st, s.Ready)
	return st
}

// SiteOf describes a site as it stands at now.
func SiteOf(s policy.Site, now time.Time) Site {
	out := Site{Uplinks: []Uplink{}, Downstreams: []Downstream{}, ULA: s.ULA}
	for _, u := range s.Uplinks {
		out.Uplinks = append(out.Uplinks, siteUplink(u, now))
	}
	for _, d := range s.Downstreams {
		out.Downstreams = append(out.Downstreams, downstream(d, policy.Ledger{}, now))
	}
	return out
}

func uplink(u policy.Uplink, c engine.ClientStatus, now time.Time) Uplink {
	out := siteUplink(u, now)
	out.Client = client6(c, now)
	return out
}

func siteUplink(u policy.Uplink, now time.Time) Uplink {
	out := Uplink{Name: u.Name, Interface: u.Interface, Up: u.Up, Reason: u.Reason, Table: u.Table, Metric: u.Metric, Gateway: u.Gateway,
		Unasked: !u.PD, Delegations: []Delegation{}, DNS: u.Told.DNS, Search: u.Told.DomainSearch, Told: u.Told, Config: u.Config}
	if u.Gateway.IsValid() {
		out.GatewayLeft = new(lifetimeAt(u.GatewayUntil, now))
	}
	for _, a := range u.Leased {
		out.Addresses = append(out.Addresses, Leased{Address: a.Address, Preferred: lifetimeAt(a.PreferredUntil, now), Valid: lifetimeAt(a.ValidUntil, now)})
	}
	for _, a := range u.Loopback {
		out.Loopback = append(out.Loopback, Leased{Address: a.Address.Addr(), Preferred: lifetimeAt(a.PreferredUntil, now), Valid: lifetimeAt(a.ValidUntil, now)})
	}
	for _, g := range u.Delegations {
		out.Delegations = append(out.Delegations, Delegation{Prefix: g.Prefix, State: string(g.State),
			Preferred: lifetimeAt(g.PreferredUntil, now), Valid: lifetimeAt(g.ValidUntil, now)})
	}
	for _, r := range u.Withdrawn {
		out.Withdrawn = append(out.Withdrawn, Withdrawn{Prefix: r.Prefix, Until: lifetimeAt(r.Until, now)})
	}
	return out
}

func client6(c engine.ClientStatus, now time.Time) Client6 {
	out := Client6{State: c.State, Failure: c.Failure, Note: c.Note}
	if out.State == "" {
		out.State = "not started"
	}
	if !c.Since.IsZero() {
		out.Since = instant(c.Since)
	}
	if c.Lease.Held() {
		out.fromLease(c.Lease, now)
		out.Cause = string(c.Cause)
	}
	return out
}

func (c *Client6) fromLease(l pd.Lease, now time.Time) {
	c.ServerID, c.Told = l.ServerID.String(), l.Info
	if !l.Received.IsZero() { // a lease that was put together again from the ledger has no such time
		c.Received = instant(l.Received)
	}
	if len(l.Prefixes) > 0 {
		c.IAID = l.Prefixes[0].IAID
	}
	c.Renew, c.Rebind = new(lifetimeAt(l.T1, now)), new(lifetimeAt(l.T2, now))
}

func instant(t time.Time) *time.Time { return new(second(t)) }

// second is t as all documents write it: UTC, in whole seconds.
func second(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

func hookTimes(list []HookStatus) []HookStatus {
	out := append([]HookStatus{}, list...)
	for i, h := range out {
		if h.LastRun != nil {
			out[i].LastRun = instant(*h.LastRun)
		}
		if h.NextTry != nil {
			out[i].NextTry = instant(*h.NextTry)
		}
	}
	return out
}

func downstream(d policy.Downstream, ledger policy.Ledger, now time.Time) Downstream {
	return Downstream{Name: d.Name, Interface: d.Interface, Kind: d.Kind, LinkUp: d.Link, Via: d.Via, Subnets: subnets(d, now),
		Loans: loans(d.Loans, now), Ended: staleLoans(d.StaleLoans, now), Old: oldPrefixes(d, ledger, now), AnyIP: anyIP(d),
		Announced: announcement(d.Announce, now), Config: d.Config}
}

func subnets(d policy.Downstream, now time.Time) []Subnet {
	out := []Subnet{}
	for _, n := range d.Subnets {
		out = append(out, Subnet{Downstream: n.Downstream, Interface: n.Interface, Kind: d.Kind, Uplink: n.Uplink, Delegation: n.Delegation, ID: n.ID,
			Prefix: n.Prefix, Address: n.Address, State: string(n.State), Preferred: lifetimeAt(n.PreferredUntil, now), Valid: lifetimeAt(n.ValidUntil, now)})
	}
	return out
}

func announcement(a policy.Announcement, now time.Time) Announcement {
	out := Announcement{Send: a.Send, Router: a.Router, Prefixes: []AnnouncedPrefix{}, Stale: []netip.Prefix{}, DNS: a.DNS, Search: a.Search, MTU: a.MTU, Portal: a.CaptivePortal, Other: a.Other,
		Resolvers: a.Resolvers, Managed: a.Managed, NotOnLink: a.NotOnLink, NotAutonomous: a.NotAutonomous}
	if a.Preference != "medium" {
		out.Prefer = a.Preference
	}
	for _, r := range a.Routes {
		out.Routes = append(out.Routes, r.Prefix)
	}
	for _, p := range a.PREF64 {
		out.PREF64 = append(out.PREF64, p.Prefix)
	}
	if a.Router {
		out.Lifetime = uint32(a.RouterLifetime / time.Second)
	}
	for _, p := range a.Prefixes {
		if p.Stale {
			out.Stale = append(out.Stale, p.Prefix)
			continue
		}
		out.Prefixes = append(out.Prefixes, AnnouncedPrefix{Prefix: p.Prefix,
			Preferred: min(p.PreferredUntil.Seconds(now), uint32(p.PreferredCap/time.Second)),
			Valid:     min(p.ValidUntil.Seconds(now), uint32(p.ValidCap/time.Second))})
	}
	return out
}

func count(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "x"):
		return fmt.Sprintf("%d %ses", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
