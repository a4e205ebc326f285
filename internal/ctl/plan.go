package ctl

import (
	"net/netip"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/engine"
	"uplinkd/internal/kernel"
	"uplinkd/policy"
)

// Plan is the answer to GET /v1/plan, and what `uplinkd plan --prefix` makes of an invented delegation.
type Plan struct {
	SchemaVersion int           `json:"schema_version"`
	Time          time.Time     `json:"time"`
	Rows          []Row         `json:"rows"`       // all that uplinkd keeps in the kernel
	Waiting       []Operation   `json:"waiting"`    // withdrawals held back until all uplinks have reported
	Operations    []Operation   `json:"operations"` // that make the rows in a kernel without any, in order
	Announced     []Announced   `json:"announced"`
	Problems      []Problem     `json:"problems"`
	Events        []EventRecord `json:"events,omitempty"` // only for an invented delegation: what hooks would be told
}

// Announced are the router advertisements of a downstream.
type Announced struct {
	Downstream string `json:"downstream"`
	Interface  string `json:"interface"`
	Announcement
}

// Row is one wanted kernel object.
type Row struct {
	Phase  string `json:"phase"` // sysctl, aggregate, route, rule, address, table
	Kind   string `json:"kind"`  // sysctl, route, rule, address, table
	Text   string `json:"text"`  // in the syntax of ip(8), nft(8) or sysctl(8)
	Reason Reason `json:"reason"`
}

// Operation is one change of the kernel.
type Operation struct {
	Phase    string `json:"phase"`
	Command  string `json:"command"`            // as a person would type it
	Optional bool   `json:"optional,omitempty"` // a kernel that lacks the variable is as good
	Reason   Reason `json:"reason"`
}

// Reason says why a row is wanted.
type Reason struct {
	Rule       string       `json:"rule"`
	Config     string       `json:"config"`
	Uplink     string       `json:"uplink,omitempty"`
	Downstream string       `json:"downstream,omitempty"`
	Delegation netip.Prefix `json:"delegation,omitzero"`
}

// PlanOf describes what snapshot s wants in the kernel, as it stands at now.
func PlanOf(s *engine.Snapshot, now time.Time) Plan {
	return Plan{SchemaVersion: SchemaVersion, Time: second(now), Rows: Rows(s.Wanted, now), Waiting: Operations(s.Waiting, now),
		Operations: Operations(kernel.Diff(kernel.State{}, s.Wanted, now).Ops, now), Announced: announcedBy(s.Site, now), Problems: problems(s.Problems, s.Site)}
}

// InventedPlan is PlanOf for a site that no daemon has: what would be done in an empty kernel, and what hooks would hear.
func InventedPlan(site policy.Site, found []policy.Problem, now time.Time) Plan {
	p := PlanOf(&engine.Snapshot{Site: site, Problems: found, Wanted: policy.Compile(site)}, now)
	p.Events = recordsOf(policy.Events(policy.Site{}, site, nil))
	return p
}

// Rows describes the rows of s in the order of their phases.
func Rows(s kernel.State, now time.Time) []Row {
	out := []Row{}
	for _, r := range s.Rows() {
		out = append(out, row(r, now))
	}
	return out
}

func row(r kernel.Row, now time.Time) Row {
	return Row{Phase: r.Phase().String(), Kind: kernel.Noun(r), Text: r.Text(now), Reason: reason(r.Why())}
}

// Operations describes ops.
func Operations(ops []kernel.Op, now time.Time) []Operation {
	out := []Operation{}
	for _, o := range ops {
		variable, _ := o.Row.(kernel.Sysctl)
		out = append(out, Operation{Phase: o.Row.Phase().String(), Command: o.Text(now), Optional: variable.Optional, Reason: reason(o.Row.Why())})
	}
	return out
}

func reason(r kernel.Reason) Reason {
	return Reason{Rule: r.Rule, Config: r.Config, Uplink: r.Uplink, Downstream: r.Downstream, Delegation: r.Delegation}
}

// announcedBy describes the router advertisements of a site: to hosts, or that there are none, and to the inner routers of pools.
func announcedBy(s policy.Site, now time.Time) []Announced {
	out := []Announced{}
	for _, d := range s.Downstreams {
		if d.Kind == string(config.Access) || d.Announce.Send {
			out = append(out, Announced{Downstream: d.Name, Interface: d.Interface, Announcement: announcement(d.Announce, now)})
		}
	}
	return out
}
