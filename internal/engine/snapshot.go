package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

// Snapshot is everything that readers may know, as one immutable value.
type Snapshot struct {
	Version  string
	Ready    bool // the kernel has followed at least once
	Site     policy.Site
	Problems []policy.Problem
	Links    []kernel.Link
	Clients  map[string]ClientStatus // by uplink
	Wanted   kernel.State            // all rows that uplinkd wants, with their reasons
	Waiting  []kernel.Op             // withdrawals that wait for uplinks to report
	Counters Counters
	Ledger   policy.Ledger // with Site: until when hosts may have what is over
}

// Counters count since the start of the daemon.
type Counters struct {
	Steps    uint64 // reconciles
	Writes   uint64 // requests sent to the kernel that change something
	Failed   uint64
	Events   uint64
	LastStep time.Duration // how long the last reconcile took
	LastTook Took          // where the time of the last one that changed something went
}

// Took is where the time of a reconcile went.
type Took struct {
	All, Read, Apply time.Duration
}

func (c *Counters) add(r kernel.Report, took Took) {
	c.Steps++
	c.Writes += uint64(r.Writes)
	c.Failed += uint64(len(r.Failed))
	c.LastStep = took.All
	if len(r.Done)+len(r.Failed) > 0 {
		c.LastTook = took
	}
}

// Snapshot returns the newest snapshot. It never waits.
func (e *Engine) Snapshot() *Snapshot { return e.snap.Load() }

func (e *Engine) snapshot(site policy.Site, ledger policy.Ledger, problems []policy.Problem, want kernel.State, waiting []kernel.Op) {
	if msg := e.failures.Load(); msg != nil {
		problems = append(problems, policy.Problem{Path: "state_dir", Code: "not-saved", Message: *msg})
	}
	e.found = problems
	e.snap.Store(&Snapshot{Version: e.opt.Version, Ready: e.ready, Site: site, Problems: e.withClients(site), Links: e.links,
		Clients: maps.Clone(e.clients), Wanted: want, Waiting: waiting, Counters: e.counters, Ledger: ledger})
}

// showClients replaces what the newest snapshot says of the clients.
func (e *Engine) showClients() {
	s := *e.snap.Load()
	s.Clients, s.Problems = maps.Clone(e.clients), e.withClients(s.Site)
	e.snap.Store(&s)
}

// withClients are the findings of the last step and those about the clients as they are now.
func (e *Engine) withClients(site policy.Site) []policy.Problem {
	all := slices.Clone(e.found)
	for _, u := range site.Uplinks {
		c := e.clients[u.Name]
		switch {
		case len(u.Delegations) > 0 && c.atRisk():
			all = append(all, policy.Problem{Path: "uplink." + u.Name, Code: "lease-not-extended", Message: notExtended(u.Delegations, c, site.Now)})
		case len(u.Delegations) == 0 && c.Failure != "":
			all = append(all, policy.Problem{Path: "uplink." + u.Name, Code: "no-prefix", Message: c.Failure})
		case len(u.Delegations) == 0 && u.PD && c.Note != "":
			all = append(all, policy.Problem{Path: "uplink." + u.Name, Code: "no-prefix", Message: c.Note})
		}
	}
	return all
}

// atRisk reports whether nobody extends the lease: its own server has let T2 pass (RFC 9915 §18.2.5), or an exchange came
// to nothing. That is the time to tell people, not the end of the lease.
func (c ClientStatus) atRisk() bool {
	return len(c.Lease.Prefixes) > 0 && (c.State == pd.StateRebinding || c.Failure != "")
}

// notExtended says for how long yet the prefixes work, and what the server has said.
func notExtended(list []policy.Delegation, c ClientStatus, now time.Time) string {
	parts := make([]string, 0, len(list)+1)
	for _, g := range list {
		preferred, valid := deadlineText(g.PreferredUntil, now), deadlineText(g.ValidUntil, now)
		switch {
		case g.State != policy.Preferred:
			parts = append(parts, fmt.Sprintf("%s works for old connections only, %s", g.Prefix, valid))
		case preferred == valid:
			parts = append(parts, fmt.Sprintf("%s keeps working %s", g.Prefix, preferred))
		default:
			parts = append(parts, fmt.Sprintf("%s keeps working %s; old connections %s", g.Prefix, preferred, valid))
		}
	}
	said := "no server has answered with a longer one yet"
	if c.Failure != "" {
		said = "what went wrong last: " + c.Failure
	}
	return "the lease is not extended, " + strings.Join(append(parts, said), "; ")
}

// deadlineText is a deadline as people say it at now, in local time.
func deadlineText(d lifetime.Deadline, now time.Time) string {
	t, ok := d.Time()
	switch {
	case !ok:
		return "for ever"
	case t.Sub(now) > 20*time.Hour:
		return "until " + t.Local().Format("2006-01-02 15:04")
	}
	return "until " + t.Local().Format("15:04:05")
}

// Line is the site in one line, for systemd's STATUS= and the first line of `uplinkd status`.
func Line(s policy.Site) string {
	parts := make([]string, 0, len(s.Uplinks))
	for _, u := range s.Uplinks {
		var part strings.Builder
		if u.Up {
			part.WriteString(u.Name + " up")
		} else {
			part.WriteString(u.Name + " down (" + u.Reason + ")")
		}
		for _, g := range u.Delegations {
			part.WriteString(" " + g.Prefix.String())
			if g.State != policy.Preferred {
				fmt.Fprintf(&part, " (%s)", g.State)
			}
		}
		if len(u.Delegations) == 0 {
			part.WriteString(", no prefix")
		}
		parts = append(parts, part.String())
	}
	return strings.Join(parts, "; ")
}

func (e *Engine) tellStatus(s policy.Site) {
	if line := Line(s); line != e.status && e.opt.Status != nil {
		e.status = line
		e.opt.Status(line)
	}
}
