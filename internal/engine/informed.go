package engine

import (
	"slices"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/policy"
)

// withhold returns site as those who follow events may know it now. What a provider tells may change with every packet
// that somebody on its link sends, and a bad cable takes an uplink down and up several times a second: a program per change
// would be the greater harm. Those who do so too often are told of again when the limiter lets them pass. Router
// advertisements have limits of their own and need no other: they say what holds now.
func (e *Engine) withhold(site policy.Site) policy.Site {
	clear(e.untold)
	uplinks := slices.Clone(site.Uplinks)
	for i := range uplinks {
		u := &uplinks[i]
		at := slices.IndexFunc(e.shown.Uplinks, func(w policy.Uplink) bool { return w.Name == u.Name })
		if at < 0 {
			continue
		}
		was := e.shown.Uplinks[at]
		if was.Up != u.Up && !e.limits.take("state of uplink "+u.Name, site.Now) {
			u.Up, u.Reason = was.Up, was.Reason
			e.untold[u.Name] = true
		}
		if !was.Told.SameMeaning(u.Told) && !e.limits.take("what uplink "+u.Name+" tells", site.Now) {
			u.Told = was.Told
			e.untold[u.Name] = true
		}
	}
	site.Uplinks = uplinks
	return site
}

// adopted is what routers were known to advertise when the last run ended.
type adopted struct {
	heard policy.Heard
	until time.Time
}

// adopt takes facts of the last run for a minute: next hops that are in the kernel, and what hosts and hooks know of what
// routers advertise. A restart must not interrupt traffic, or tell anybody that name servers have gone, until the next
// router advertisement.
func (e *Engine) adopt(state kernel.State) {
	e.salvage(state)
	site, _, _ := policy.Plan(e.cfg, e.world, e.ledger)
	for _, u := range site.Uplinks {
		a := adopted{until: e.world.Now.Add(adoption)}
		for _, r := range state.Routes {
			if r.Table == u.Table && r.Type == kernel.Unicast && r.Dst.Bits() == 0 && r.Dev == u.Interface && r.Gateway.Is6() {
				a.heard.Routers = append(a.heard.Routers, policy.Router{Address: r.Gateway, Until: untilFrom(e.world.Now, adoption)})
			}
		}
		if i := slices.IndexFunc(e.shown.Uplinks, func(w policy.Uplink) bool { return w.Name == u.Name }); i >= 0 {
			t, lease := e.shown.Uplinks[i].Told, e.world.Uplinks[u.Name].Told
			a.heard.DNS, a.heard.Search = without(t.DNS, lease.DNS), without(t.DomainSearch, lease.DomainSearch)
			for _, p := range t.PREF64 { // its deadline is that of the last event, and may have moved since
				p.Until = lifetime.Max(p.Until, untilFrom(e.world.Now, adoption))
				a.heard.PREF64 = append(a.heard.PREF64, p)
			}
			if t.CaptivePortal != lease.CaptivePortal {
				a.heard.CaptivePortal = t.CaptivePortal
			}
		}
		e.adopted[u.Name] = a
		e.hear(u.Name, policy.Heard{})
	}
}

// adoption is how long facts of the last run are believed: long enough for three Router Solicitations
// (RFC 4861 §6.3.7: 3 times 4 s) and a slow router.
const adoption = time.Minute

// without is list without what others have.
func without[T comparable](list, others []T) []T {
	return slices.DeleteFunc(slices.Clone(list), func(x T) bool { return slices.Contains(others, x) })
}

// Heard takes in what the routers of an uplink advertise.
func (e *Engine) Heard(uplink string, h policy.Heard) {
	e.send(func(e *Engine) bool {
		if !e.has(uplink) {
			return false
		}
		if a, ok := e.adopted[uplink]; ok { // who is a next hop, the routers have said now
			a.heard.Routers = nil
			e.adopted[uplink] = a
		}
		e.heard[uplink] = h
		e.hear(uplink, h)
		return true
	})
}

// hear makes what routers of an uplink advertise a fact of planning. During the first minute nothing that was adopted is
// missing in it: the first router that is heard may not be the only one.
func (e *Engine) hear(uplink string, h policy.Heard) {
	if a, ok := e.adopted[uplink]; ok {
		h.Routers = slices.Concat(h.Routers, a.heard.Routers)
		h.DNS = slices.Concat(h.DNS, a.heard.DNS)
		h.Search = slices.Concat(h.Search, a.heard.Search)
		h.PREF64 = slices.Concat(h.PREF64, a.heard.PREF64)
		if h.CaptivePortal == "" {
			h.CaptivePortal = a.heard.CaptivePortal
		}
	}
	f := e.world.Uplinks[uplink]
	f.Heard = h
	e.world.Uplinks[uplink] = f
}

// outgrow gives up what was adopted and has not been heard within its time.
func (e *Engine) outgrow(now time.Time) {
	for uplink, a := range e.adopted {
		if !now.Before(a.until) {
			delete(e.adopted, uplink)
			if e.has(uplink) {
				e.hear(uplink, e.heard[uplink])
			}
		}
	}
}
