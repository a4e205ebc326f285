package engine

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel"
	"uplinkd/policy"
)

// step brings the kernel to what the facts ask for, and tells everybody who follows.
func (e *Engine) step(ctx context.Context) {
	defer func() {
		for _, f := range e.afterStep {
			f()
		}
		e.afterStep = nil
		e.warm = time.Now()
	}()
	start := time.Now()
	e.world.Now = start
	e.catchUp(start)
	e.outgrow(start)
	e.expireBorrowers(start)
	e.reborrowed = false
	e.lookForFilter(ctx)
	site, problems, ledger := policy.Plan(e.cfg, e.world, e.ledger)
	want := e.restoring(policy.Compile(site))
	scope, began := e.scope(want), time.Now()
	have, err := e.opt.Kernel.Read(ctx, scope)
	took := Took{Read: time.Since(began)}
	e.readable = err == nil
	if err != nil {
		e.saveLeases()
		e.opt.Log.Error("read the kernel", "err", err)
		e.retry(true)
		e.snapshot(site, ledger, append(problems, policy.Problem{Path: "kernel", Code: "read-failed", Message: err.Error()}), want, nil)
		return
	}
	plan, held := e.admit(kernel.Diff(have, want, start))
	e.remember(have, want, plan)
	var report kernel.Report
	if len(plan.Ops) > 0 {
		began = time.Now()
		report = e.opt.Kernel.Apply(ctx, plan)
		took.Apply = time.Since(began)
	}
	took.All = time.Since(start)
	e.saveLeases()
	e.counters.add(report, took)
	e.log(report, e.refuse(report, held))
	e.settled(report, want)
	e.retry(len(report.Failed) > 0 || len(held.fighting) > 0)
	problems = append(problems, e.findings(report, held)...)
	first := !e.ready && (len(report.Failed) == 0 || start.Sub(e.began) > patience)
	e.ready = e.ready || first
	site = e.confirmed(site, report, held)
	e.confirmedSite = site
	e.noteRoutes(report, held)
	e.snapshot(site, ledger, problems, want, held.waiting)
	e.publish(site, ledger)
	if first && e.opt.Ready != nil {
		e.opt.Ready()
	}
	e.alive()
	e.tellStatus(site)
}

// rehearse goes through a step without writing or telling anything, as if the uplink had a prefix. After a second of waiting
// for Advertises most of what a step needs has left the processor's caches; with them warm, the step for a Reply that comes
// half a millisecond from now takes a third less (docs/performance.md). They are warm when the last step has only just been:
// hundreds of uplinks that solicit at once need one rehearsal, not one each.
func (e *Engine) rehearse(uplink string) {
	world := e.world
	world.Now = time.Now()
	if world.Now.Sub(e.warm) < warmth {
		return
	}
	defer func() { e.warm = time.Now() }()
	if f := world.Uplinks[uplink]; len(f.Delegations) == 0 {
		until := untilFrom(world.Now, time.Hour)
		f.Delegations = []policy.Granted{{Prefix: rehearsed, PreferredUntil: until, ValidUntil: until}}
		world.Uplinks = maps.Clone(world.Uplinks)
		world.Uplinks[uplink] = f
	}
	site, _, _ := policy.Plan(e.cfg, world, e.ledger)
	want := e.restoring(policy.Compile(site))
	if have, err := e.opt.Kernel.Read(context.Background(), e.scope(want)); err == nil {
		kernel.Diff(have, want, world.Now)
	}
}

// rehearsed is a prefix for documentation (RFC 9637), which no provider delegates.
var rehearsed = netip.MustParsePrefix("3fff::/48")

// warmth is how long what a step needs is taken to stay in the processor's caches.
const warmth = 100 * time.Millisecond

// patience is how long failures keep the engine from being ready. After it they are problems to look at in status: one
// object of somebody else in the way must not make systemd give up on the whole daemon.
const patience = 10 * time.Second

// holdings are the operations of a plan that are not carried out now.
type holdings struct {
	waiting  []kernel.Op // withdrawals that wait for uplinks to report (promise 5)
	fighting []kernel.Op // objects that somebody else keeps undoing
}

// admit splits a plan: withdrawals wait until every uplink has reported or timed out, and an object that needed
// repairing again and again is left alone for a while.
func (e *Engine) admit(p kernel.Plan) (kernel.Plan, holdings) {
	var h holdings
	ops := make([]kernel.Op, 0, len(p.Ops))
	silent := e.silent()
	for _, op := range p.Ops {
		switch {
		case op.Verb == kernel.Delete && silent:
			h.waiting = append(h.waiting, op)
		case !e.limits.take(identity(op.Row), p.Now):
			h.fighting = append(h.fighting, op)
		default:
			ops = append(ops, op)
		}
	}
	p.Ops = ops
	return p, h
}

// silent reports whether there is an uplink that has neither reported nor timed out.
func (e *Engine) silent() bool {
	return slices.ContainsFunc(e.cfg.Uplinks, func(u config.Uplink) bool { return !e.world.Uplinks[u.Name].Reported })
}

// lookForFilter asks whether somebody filters what comes in, if a service needs that (config.AnyIP).
func (e *Engine) lookForFilter(ctx context.Context) {
	if e.opt.Filtered == nil || !slices.ContainsFunc(e.cfg.Downstreams, func(d config.Downstream) bool {
		return d.Kind == config.Service && d.AnyIP.Mode == config.AnyIPInterface && !d.AnyIP.Unfiltered
	}) {
		return
	}
	filtered, err := e.opt.Filtered(ctx)
	if err != nil {
		e.opt.Log.Warn("look for a filter of inbound packets; going on with what was found last", "filtered", e.world.Filtered, "err", err)
		return
	}
	e.world.Filtered = filtered
}

// identity names a row for the limiter. Lifetimes are no part of it, nor where a route leads: an inner router chooses that.
// The text of a table is: another one is our own doing, and nobody's fight.
func identity(r kernel.Row) string {
	switch r := r.(type) {
	case kernel.Sysctl:
		return r.Name
	case kernel.Address:
		return r.Prefix.String() + " dev " + r.Dev
	case kernel.Route:
		return fmt.Sprintf("route %s table %d metric %d", r.Dst, r.Table, r.Metric)
	case kernel.Table:
		return "table " + r.Family + " " + r.Found().Sum
	}
	return kernel.Noun(r) + " " + r.Text(time.Time{})
}

// retry plans the next attempt after a failure: 1 s, doubled up to a minute.
func (e *Engine) retry(failed bool) {
	if !failed {
		e.backoff, e.retryAt = 0, time.Time{}
		return
	}
	e.backoff = min(max(time.Second, 2*e.backoff), time.Minute)
	e.retryAt = time.Now().Add(e.backoff)
}

// scope lists what the reader has to look at beyond marked objects.
func (e *Engine) scope(want kernel.State) kernel.Scope {
	names := slices.Collect(maps.Keys(e.saved.Sysctls))
	for _, s := range want.Sysctls {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return kernel.Scope{Sysctls: slices.Compact(names), Addresses: e.ownAddresses()}
}

// restoring adds to want the sysctls that are wanted no more, with the value from before uplinkd.
func (e *Engine) restoring(want kernel.State) kernel.State {
	for name, before := range e.saved.Sysctls {
		if !slices.ContainsFunc(want.Sysctls, func(s kernel.Sysctl) bool { return s.Name == name }) {
			want.Sysctls = append(want.Sysctls, kernel.Sysctl{Name: name, Value: before, Optional: true,
				Reason: kernel.Reason{Config: "ledger", Rule: "the value from before uplinkd, since nothing needs another one now"}})
		}
	}
	return want.Normalize()
}

// remember notes, before the first write, what sysctls were, and which addresses are ours where the kernel cannot say. That
// is on disk before the write: a crash in between must not take our own value for the user's.
func (e *Engine) remember(have, want kernel.State, plan kernel.Plan) {
	changed := false
	for _, s := range want.Sysctls {
		if _, known := e.saved.Sysctls[s.Name]; known {
			continue
		}
		i := slices.IndexFunc(have.Sysctls, func(h kernel.Sysctl) bool { return h.Name == s.Name })
		if i >= 0 && !have.Sysctls[i].Equal(s, e.world.Now) {
			e.saved.Sysctls[s.Name] = have.Sysctls[i].Value
			changed = true
		}
	}
	found, planned := e.rememberAddresses(have, plan)
	switch {
	case changed || planned:
		e.saveNow()
	case found:
		e.save()
	}
}

// settled drops from the ledger the sysctls that have their former value again, and the addresses that were refused.
func (e *Engine) settled(r kernel.Report, want kernel.State) {
	changed := e.forgetRefused(r)
	for _, s := range want.Sysctls {
		if s.Reason.Config == "ledger" && !slices.ContainsFunc(r.Failed, func(f kernel.OpError) bool { return identity(f.Op.Row) == s.Name }) {
			delete(e.saved.Sysctls, s.Name)
			changed = true
		}
	}
	if changed {
		e.save()
	}
}
