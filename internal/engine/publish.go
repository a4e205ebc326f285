package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/policy"
)

// publication is what consumers hear of one step, once the disk has what they must not hear before.
type publication struct {
	gen    uint64
	site   policy.Site
	events []policy.Event
	then   []func() // answers to those who wait for it
}

// confirmed is the site without what is new and has not come about in the kernel: the subnet of a downstream whose
// address or route was refused, a delegation without its rule or aggregate. What was there before stays: repairing one
// of its objects may fail without anything being lost. A route that only an inner router or former hosts need is no reason
// to keep the others without the subnet (see noteRoutes): an inner router chooses its gateway.
func (e *Engine) confirmed(site policy.Site, r kernel.Report, h holdings) policy.Site {
	type part struct {
		downstream string // "": the delegation as a whole
		delegation netip.Prefix
	}
	missing := map[part]bool{}
	note := func(op kernel.Op) {
		// An address that is no downstream's is the router's own: without it, hosts use the delegation all the same.
		if _, own := op.Row.(kernel.Address); own && op.Row.Why().Downstream == "" {
			return
		}
		if route, ok := op.Row.(kernel.Route); ok && !leadsToPart(site, route) {
			return
		}
		if op.Verb == kernel.Add {
			missing[part{op.Row.Why().Downstream, op.Row.Why().Delegation}] = true
		}
	}
	for _, f := range r.Failed {
		note(f.Op)
	}
	for _, op := range h.fighting {
		note(op)
	}
	if len(missing) == 0 {
		return site
	}
	return site.Without(func(downstream string, p netip.Prefix) bool {
		return missing[part{downstream, p}] && !e.wasShown(downstream, p)
	})
}

// leadsToPart reports whether a subnet of a downstream, or a delegation as a whole, is of no use without r: neither loans
// and stale prefixes, nor the exceptions from a table of services.
func leadsToPart(site policy.Site, r kernel.Route) bool {
	if r.Type == kernel.Throw {
		return false
	}
	if r.Reason.Downstream == "" {
		return true
	}
	return slices.ContainsFunc(site.Downstream(r.Reason.Downstream).Subnets, func(n policy.Subnet) bool { return n.Prefix == r.Dst })
}

// wasShown reports whether consumers know of a delegation, or of the part of it that a downstream has.
func (e *Engine) wasShown(downstream string, p netip.Prefix) bool {
	if downstream == "" {
		return slices.ContainsFunc(e.shown.Uplinks, func(u policy.Uplink) bool {
			return slices.ContainsFunc(u.Delegations, func(g policy.Delegation) bool { return g.Prefix == p })
		})
	}
	return slices.ContainsFunc(e.shown.Downstream(downstream).Subnets, func(n policy.Subnet) bool { return n.Delegation == p })
}

// publish compares the confirmed site with what was reported before and tells consumers: at once when nothing has to be
// on disk first, else when it is.
func (e *Engine) publish(site policy.Site, ledger policy.Ledger) {
	known := e.withhold(site)
	events := policy.Events(e.shown, known, e.lost)
	e.shown = known
	e.noteLost(events)
	pub := publication{site: site, events: events}
	changed := !sameLedger(ledger, e.ledger)
	e.ledger = ledger
	changed = e.reserveBorrowers() || changed
	if changed || len(events) > 0 {
		e.gen++
		j := job{done: e.gen}
		if changed {
			j.ledger = e.copyLedger()
		}
		if len(events) > 0 {
			j.reported = &reported{BootID: e.opt.BootID, Site: known, Lost: slices.Clone(e.lost)}
		}
		e.jobs.put(j)
	}
	if len(e.pending) == 0 && !changed && len(events) == 0 {
		e.tell(pub)
		return
	}
	pub.gen = e.gen
	e.wait(pub)
}

// wait has a publication wait for the disk. On one that hangs, those that come late become one, so that they stay few.
func (e *Engine) wait(p publication) {
	const most = 64
	if n := len(e.pending); n >= most {
		last := e.pending[n-1]
		p.events, p.then = slices.Concat(last.events, p.events), slices.Concat(last.then, p.then)
		e.pending = e.pending[:n-1]
	}
	e.pending = append(e.pending, p)
}

// published lets out what waited for generation gen.
func (e *Engine) published(gen uint64) {
	for len(e.pending) > 0 && e.pending[0].gen <= gen {
		e.tell(e.pending[0])
		e.pending = e.pending[1:]
	}
	if len(e.pending) == 0 {
		for _, f := range e.afterTell {
			f()
		}
		e.afterTell = nil
	}
}

func (e *Engine) tell(p publication) {
	if e.opt.Announce != nil {
		for _, d := range p.site.Downstreams {
			e.opt.Announce(d.Name, d.Announce)
		}
	}
	if e.opt.Serve != nil {
		e.opt.Serve(p.site)
	}
	for _, f := range p.then {
		f()
	}
	if len(p.events) == 0 {
		return
	}
	items := make([]Item, 0, len(p.events))
	for _, ev := range p.events {
		e.counters.Events++
		items = append(items, Item{Seq: e.counters.Events, Time: p.site.Now, Event: ev})
	}
	for _, i := range items {
		e.opt.Log.Info(i.Text())
		e.watch.send(i)
	}
	if e.opt.Events != nil {
		e.opt.Events(items, p.site)
	}
}

func (e *Engine) noteLost(events []policy.Event) {
	for _, ev := range events {
		switch ev.Kind {
		case policy.PrefixLost:
			e.lost = append(e.lost, ev.Prefix)
		case policy.PrefixRestored:
			e.lost = slices.DeleteFunc(e.lost, func(p netip.Prefix) bool { return p == ev.Prefix })
		}
	}
	e.lost = e.lost[max(0, len(e.lost)-maxLost):]
}

// Item is an event with its number and time, as `uplinkd watch` shows it.
type Item struct {
	Seq   uint64       `json:"seq"` // since the start of the daemon
	Time  time.Time    `json:"time"`
	Event policy.Event `json:"event"`
}

// Text is the event for people, without its time.
func (i Item) Text() string {
	ev := i.Event
	s := fmt.Sprintf("%-17s %s", ev.Kind, ev.Uplink)
	if ev.OldPrefix.IsValid() {
		s += " " + ev.OldPrefix.String() + " →"
	}
	if ev.Prefix.IsValid() {
		s += " " + ev.Prefix.String()
	}
	if ev.Kind == policy.UplinkUp {
		s += " via " + ev.Gateway.String()
	}
	if ev.Kind == policy.UplinkInformed && ev.Told != nil {
		s += " " + ev.Told.Text()
	}
	for _, n := range ev.Subnets {
		s += " " + n.Downstream + "=" + n.Prefix.String()
	}
	return s
}

// watchers are those who follow events over the control socket.
type watchers struct {
	mu          sync.Mutex
	subscribers map[chan Item]bool
}

// Watch returns a channel with the events from now on. It is closed by stop, or when its reader is more than 64 events
// behind: a slow reader never holds up the engine.
func (e *Engine) Watch() (items <-chan Item, stop func()) {
	ch := make(chan Item, 64)
	e.watch.mu.Lock()
	defer e.watch.mu.Unlock()
	e.watch.subscribers[ch] = true
	return ch, func() { e.watch.remove(ch) }
}

func (w *watchers) remove(ch chan Item) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.subscribers[ch] {
		delete(w.subscribers, ch)
		close(ch)
	}
}

func (w *watchers) send(i Item) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.subscribers {
		select {
		case ch <- i:
		default:
			delete(w.subscribers, ch)
			close(ch)
		}
	}
}
