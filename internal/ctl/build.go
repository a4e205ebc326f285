package ctl

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"uplinkd/internal/engine"
	"uplinkd/pd"
	"uplinkd/policy"
)

// StatusOf describes snapshot s as it stands at now.
func StatusOf(s *engine.Snapshot, hooks []HookStatus, now time.Time) Status {
	st := Status{SchemaVersion: SchemaVersion, Time: now.UTC().Truncate(time.Millisecond), Daemon: s.Version, Rows: s.Wanted.Len(), Waiting: len(s.Waiting),
		Uplinks: []Uplink{}, Downstreams: SiteOf(s.Site, now).Downstreams, Hooks: append([]HookStatus{}, hooks...), Problems: problems(s.Problems, s.Site)}
	for _, u := range s.Site.Uplinks {
		st.Uplinks = append(st.Uplinks, uplink(u, s.Clients[u.Name], now))
	}
	c := s.Counters
	st.Counters = Counters{Reconciles: c.Steps, KernelWrites: c.Writes, KernelErrors: c.Failed, Events: c.Events, LastSeconds: c.LastStep.Seconds(),
		LastChange: Took{c.LastTook.All.Seconds(), c.LastTook.Read.Seconds(), c.LastTook.Apply.Seconds()}}
	st.Health, st.Summary = verdict(st, s.Ready)
	return st
}

// SiteOf describes a site as it stands at now.
func SiteOf(s policy.Site, now time.Time) Site {
	out := Site{Uplinks: []Uplink{}, Downstreams: []Downstream{}}
	for _, u := range s.Uplinks {
		out.Uplinks = append(out.Uplinks, siteUplink(u, now))
	}
	for _, d := range s.Downstreams {
		out.Downstreams = append(out.Downstreams, downstream(d, now))
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
		Delegations: []Delegation{}, DNS: u.DNS, Search: u.Search, Config: u.Config}
	if u.Gateway.IsValid() {
		out.GatewayLeft = new(LifetimeAt(u.GatewayUntil, now))
	}
	for _, g := range u.Delegations {
		out.Delegations = append(out.Delegations, Delegation{Prefix: g.Prefix, State: string(g.State),
			Preferred: LifetimeAt(g.PreferredUntil, now), Valid: LifetimeAt(g.ValidUntil, now)})
	}
	return out
}

func client6(c engine.ClientStatus, now time.Time) Client6 {
	out := Client6{State: c.State, Failure: c.Failure}
	if out.State == "" {
		out.State = "not started"
	}
	if !c.Since.IsZero() {
		out.Since = instant(c.Since)
	}
	if len(c.Lease.Prefixes) > 0 {
		out.fromLease(c.Lease, now)
		out.Cause = string(c.Cause)
	}
	return out
}

func (c *Client6) fromLease(l pd.Lease, now time.Time) {
	c.ServerID, c.IAID, c.Received = l.ServerID.String(), l.IAID, instant(l.Received)
	c.Renew, c.Rebind = new(LifetimeAt(l.T1, now)), new(LifetimeAt(l.T2, now))
}

func instant(t time.Time) *time.Time { return new(t.UTC().Truncate(time.Second)) }

func downstream(d policy.Downstream, now time.Time) Downstream {
	return Downstream{Name: d.Name, Interface: d.Interface, Kind: d.Kind, LinkUp: d.Link, Subnets: subnets(d.Subnets, now),
		Announced: announcement(d.Announce, now), Config: d.Config}
}

func subnets(list []policy.Subnet, now time.Time) []Subnet {
	out := []Subnet{}
	for _, n := range list {
		out = append(out, Subnet{Downstream: n.Downstream, Interface: n.Interface, Uplink: n.Uplink, Delegation: n.Delegation, ID: n.ID,
			Prefix: n.Prefix, Address: n.Address, State: string(n.State), Preferred: LifetimeAt(n.PreferredUntil, now), Valid: LifetimeAt(n.ValidUntil, now)})
	}
	return out
}

func announcement(a policy.Announcement, now time.Time) Announcement {
	out := Announcement{Send: a.Send, Router: a.Router, Prefixes: []AnnouncedPrefix{}, Stale: []netip.Prefix{}, DNS: a.DNS, Search: a.Search, MTU: a.MTU}
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

func problems(list []policy.Problem, site policy.Site) []Problem {
	out := []Problem{}
	for _, p := range list {
		dev := ""
		for _, u := range site.Uplinks {
			if p.Path == "uplink."+u.Name {
				dev = u.Interface
			}
		}
		out = append(out, Problem{Path: p.Path, Code: p.Code, Message: p.Message, Advice: advice(p.Code, dev)})
	}
	return out
}

// advice says what to do about findings whose message cannot know it; dev is the interface of the uplink, if it is one's.
func advice(code, dev string) string {
	switch code {
	case "read-failed":
		return "uplinkd tries again by itself; it needs CAP_NET_ADMIN, and the journal has more: journalctl -u uplinkd"
	case "apply-failed":
		return "uplinkd tries again by itself with growing pauses; if an object of somebody else is in the way, remove it"
	case "fighting":
		return "find the other program (ip monitor shows when it writes; often systemd-networkd or a firewall script) and tell it to leave this alone"
	case "no-prefix":
		return "see what the provider answers: tcpdump -ni " + dev + " 'udp port 546 or udp port 547'; ask again now: uplinkd renew"
	case "lease-not-extended":
		return "nothing yet if this is short: uplinkd goes on asking; see what the provider answers: tcpdump -ni " + dev +
			" 'udp port 546 or udp port 547'"
	case "config-not-loaded":
		return "uplinkd check shows every mistake; when it says ok: systemctl reload uplinkd"
	case "not-saved":
		return "make room in the state directory or correct its owner; until then a restart forgets the newest lease"
	}
	return ""
}

// verdict sums up st in a word and a sentence.
func verdict(st Status, ready bool) (Health, string) {
	if !ready {
		return Starting, strings.Join(append([]string{"the kernel has not followed yet"}, complaints(st)...), "; ")
	}
	usable, used := 0, 0
	for _, u := range st.Uplinks {
		for _, g := range u.Delegations {
			if g.State == string(policy.Preferred) {
				usable++
			}
		}
	}
	for _, d := range st.Downstreams {
		if len(d.Subnets) > 0 {
			used++
		}
	}
	bad := complaints(st)
	switch {
	case usable == 0:
		return NoPrefix, strings.Join(append([]string{"nothing to number hosts with"}, bad...), "; ")
	case len(bad) > 0:
		return Degraded, strings.Join(bad, "; ")
	}
	return OK, fmt.Sprintf("%s up, %s, %s numbered", count(len(st.Uplinks), "uplink"), count(usable, "prefix"), count(used, "downstream"))
}

// complaints are what keeps st from being OK, the most important first.
func complaints(st Status) (bad []string) {
	for _, u := range st.Uplinks {
		switch {
		case !u.Up:
			bad = append(bad, u.Name+" is down: "+u.Reason)
		case len(u.Delegations) == 0:
			bad = append(bad, u.Name+" has no prefix, the client is "+u.Client.State)
		case !anyPreferred(u.Delegations):
			bad = append(bad, u.Name+" has only deprecated prefixes")
		}
	}
	if n := len(st.Problems); n > 0 {
		bad = append(bad, count(n, "problem"))
	}
	for _, h := range st.Hooks {
		if !h.OK {
			bad = append(bad, "hook "+h.Name+" fails")
		}
	}
	return bad
}

func anyPreferred(list []Delegation) bool {
	for _, g := range list {
		if g.State == string(policy.Preferred) {
			return true
		}
	}
	return false
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
