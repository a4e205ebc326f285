package ctl

import (
	"fmt"
	"net/netip"
	"slices"
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
		Delegations: []Delegation{}, DNS: u.Told.DNS, Search: u.Told.DomainSearch, Told: u.Told, Config: u.Config}
	if u.Gateway.IsValid() {
		out.GatewayLeft = new(LifetimeAt(u.GatewayUntil, now))
	}
	for _, a := range u.Leased {
		out.Addresses = append(out.Addresses, Leased{Address: a.Address, Preferred: LifetimeAt(a.PreferredUntil, now), Valid: LifetimeAt(a.ValidUntil, now)})
	}
	for _, a := range u.Loopback {
		out.Loopback = append(out.Loopback, Leased{Address: a.Address.Addr(), Preferred: LifetimeAt(a.PreferredUntil, now), Valid: LifetimeAt(a.ValidUntil, now)})
	}
	for _, g := range u.Delegations {
		out.Delegations = append(out.Delegations, Delegation{Prefix: g.Prefix, State: string(g.State),
			Preferred: LifetimeAt(g.PreferredUntil, now), Valid: LifetimeAt(g.ValidUntil, now)})
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
	c.Renew, c.Rebind = new(LifetimeAt(l.T1, now)), new(LifetimeAt(l.T2, now))
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
			Prefix: n.Prefix, Address: n.Address, State: string(n.State), Preferred: LifetimeAt(n.PreferredUntil, now), Valid: LifetimeAt(n.ValidUntil, now)})
	}
	return out
}

func announcement(a policy.Announcement, now time.Time) Announcement {
	out := Announcement{Send: a.Send, Router: a.Router, Prefixes: []AnnouncedPrefix{}, Stale: []netip.Prefix{}, DNS: a.DNS, Search: a.Search, MTU: a.MTU, Portal: a.CaptivePortal, Other: a.Other}
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

func problems(list []policy.Problem, site policy.Site) []Problem {
	out := []Problem{}
	for _, p := range list {
		var uplink policy.Uplink // the one that p is about, if it is about one
		for _, u := range site.Uplinks {
			if p.Path == "uplink."+u.Name {
				uplink = u
			}
		}
		out = append(out, Problem{Path: p.Path, Code: p.Code, Message: p.Message, Advice: advice(p, uplink)})
	}
	return out
}

// advice says what to do about findings whose message does not say it.
func advice(p policy.Problem, uplink policy.Uplink) string {
	switch p.Code {
	case "no-interface":
		return "correct interface in [" + p.Path + "] if the name is wrong (ip link lists them); when the interface appears, uplinkd goes on by itself"
	case "subnet-id-too-large":
		return "set subnet in [" + p.Path + "] to one of these numbers or to \"auto\", or ask the provider for a larger prefix with dhcpv6.length or dhcpv6.prefixes"
	case "subnet-overlap":
		return "give [" + p.Path + "] another subnet, or \"auto\""
	case "pool-shrunk", "loan-full":
		return "ask the provider for a larger prefix with dhcpv6.length or dhcpv6.prefixes, or set a longer length for what has a large part of it"
	case "too-many-borrowers":
		return "see what asks for prefixes there (tcpdump 'udp port 547'), or set dhcpv6.delegate = false in [" + p.Path + "]"
	case "delegation-full":
		return "ask the provider for a larger prefix with dhcpv6.length or dhcpv6.prefixes, or remove a downstream"
	case "delegation-overlap":
		return "two providers hand out the same addresses, or two uplinks reach the same provider: remove one of the uplinks"
	case "address-overlap":
		return "ask the provider of " + uplink.Name + ", or see who sends router advertisements there (rdisc6 " + uplink.Interface + "): what is not its own must not come from there"
	case "read-failed":
		return "uplinkd tries again by itself; it needs CAP_NET_ADMIN, and the journal has more: journalctl -u uplinkd"
	case "apply-failed":
		return "uplinkd tries again by itself with growing pauses; if an object of somebody else is in the way, remove it"
	case "fighting":
		return "find the other program (ip monitor shows when it writes; often systemd-networkd or a firewall script) and tell it to leave this alone"
	case "no-prefix":
		return "see what the provider answers: " + capture(uplink) + "; ask again now: uplinkd renew " + uplink.Name
	case "lease-not-extended":
		return "uplinkd goes on asking; see whether the provider answers: " + capture(uplink)
	case "config-not-loaded":
		return "uplinkd check shows every mistake; when it says ok: systemctl reload uplinkd"
	case "unfiltered-uplink":
		return "filters of nft and of ip6tables-nft are seen; if yours is made with ip6tables-legacy, which uplinkd cannot see, say so with anyip.unfiltered = true"
	case "dhcpv6-server":
		return "uplinkd tries again by itself; to have no DHCPv6 server there: dhcpv6 = \"off\" in [" + p.Path + "]"
	case "not-saved":
		return "make room in the state directory or correct its owner; until then a restart forgets the newest lease"
	}
	return ""
}

// capture is a command that shows the DHCPv6 messages of an uplink.
func capture(u policy.Uplink) string {
	return "tcpdump -ni " + u.Interface + " 'udp port 546 or udp port 547'"
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
		if d.works() {
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
	said := map[string]bool{} // paths of what the headline names already
	for _, u := range st.Uplinks {
		text := ""
		switch {
		case !u.Up:
			text = u.Name + " is down: " + u.Reason
		case len(u.Delegations) == 0 && u.Client.State == pd.StateReleased:
			text = u.Name + " has given its prefix back, uplinkd renew " + u.Name + " asks for one"
		case len(u.Delegations) == 0:
			text = u.Name + " has no prefix, the client is " + u.Client.State
		case !anyPreferred(u.Delegations):
			text = u.Name + " has only deprecated prefixes"
		}
		if text != "" {
			bad, said["uplink."+u.Name] = append(bad, text), true
		}
	}
	bad = append(bad, problemsInShort(st, said)...)
	for _, h := range st.Hooks {
		if !h.OK {
			bad = append(bad, "hook "+h.Name+" fails")
		}
	}
	return bad
}

// problemsInShort names the first problem whose subject the headline does not have yet, and says how many more there are.
func problemsInShort(st Status, said map[string]bool) []string {
	rest := slices.DeleteFunc(slices.Clone(st.Problems), func(p Problem) bool { return said[p.Path] })
	switch len(rest) {
	case 0:
		return nil
	case 1:
		return []string{inShort(rest[0], st)}
	}
	return []string{inShort(rest[0], st) + " and " + count(len(rest)-1, "more problem")}
}

// inShort is a problem in a few words: "lan has no subnet: subnet id 300 does not fit".
func inShort(p Problem, st Status) string {
	subject := strings.TrimPrefix(strings.TrimPrefix(p.Path, "uplink."), "downstream.")
	for _, d := range st.Downstreams {
		if p.Path == "downstream."+d.Name && len(d.Subnets) == 0 && d.AnyIP.needsSubnet() {
			subject += " has no subnet"
		}
	}
	const most = 84 // characters, for one line with the rest of the headline
	text, _, _ := strings.Cut(p.Message, "; ")
	if r := []rune(text); len(r) > most {
		if text, _, _ = strings.Cut(text, ": "); len([]rune(text)) > most {
			text = string(r[:most]) + "…"
		}
	}
	return subject + ": " + text
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
