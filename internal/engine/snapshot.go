package engine

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/policy"
)

// Snapshot is everything that readers may know, as one immutable value.
type Snapshot struct {
	Time     time.Time
	Version  string
	Ready    bool // the kernel has followed at least once
	Site     policy.Site
	Problems []policy.Problem
	Links    []kernel.Link
	Clients  map[string]ClientStatus // by uplink
	Wanted   kernel.State            // all rows that uplinkd wants, with their reasons
	Waiting  []kernel.Op             // withdrawals that wait for uplinks to report
	Counters Counters
}

// Counters count since the start of the daemon.
type Counters struct {
	Steps    uint64        `json:"steps"`         // reconciles
	Writes   uint64        `json:"kernel_writes"` // requests sent to the kernel that change something
	Failed   uint64        `json:"kernel_failures"`
	Events   uint64        `json:"events"`
	LastStep time.Duration `json:"last_step_ns"` // how long the last reconcile took
	LastPlan int           `json:"last_plan"`    // operations in the last plan that was not empty
	LastTook Took          `json:"last_took"`    // how long the reconcile with that plan took
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
	if n := len(r.Done) + len(r.Failed); n > 0 {
		c.LastPlan, c.LastTook = n, took
	}
}

// Snapshot returns the newest snapshot. It never waits.
func (e *Engine) Snapshot() *Snapshot { return e.snap.Load() }

func (e *Engine) snapshot(site policy.Site, problems []policy.Problem, want kernel.State, waiting []kernel.Op) {
	if msg := e.failures.Load(); msg != nil {
		problems = append(problems, policy.Problem{Path: "state_dir", Code: "not-saved", Message: *msg})
	}
	for _, u := range site.Uplinks {
		if c := e.clients[u.Name]; c.Failure != "" && len(u.Delegations) == 0 {
			problems = append(problems, policy.Problem{Path: "uplink." + u.Name, Code: "no-prefix", Message: c.Failure})
		}
	}
	e.snap.Store(&Snapshot{Time: site.Now, Version: e.opt.Version, Ready: e.ready, Site: site, Problems: problems, Links: e.links,
		Clients: maps.Clone(e.clients), Wanted: want, Waiting: waiting, Counters: e.counters})
}

// showClients replaces what the newest snapshot says of the clients.
func (e *Engine) showClients() {
	s := *e.snap.Load()
	s.Clients = maps.Clone(e.clients)
	e.snap.Store(&s)
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
