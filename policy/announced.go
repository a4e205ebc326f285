package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/lifetime"
)

// spot is a prefix on a link. Hosts have a prefix because of the link that they are on; how the config calls it is nothing
// to them.
type spot struct {
	iface  string
	prefix netip.Prefix
}

// recordAnnounced makes the next ledger entries: what is announced now, and what was and is not over yet. The latter goes
// to the downstream that has the interface now, be it because the config was changed while uplinkd was stopped. Where
// nobody has it, it waits for its end under the old name.
func (p *planner) recordAnnounced() {
	before := map[spot]lifetime.Deadline{} // what is current, and until when hosts were told that it is valid
	for _, d := range p.site.Downstreams {
		for _, x := range d.Announce.Prefixes {
			before[spot{d.Interface, x.Prefix}] = lifetime.Deadline{}
		}
	}
	old := p.announcedBefore(before)
	p.led.Announced = map[string][]AnnouncedRecord{}
	for name, records := range old {
		slices.SortFunc(records, func(x, y AnnouncedRecord) int { return cmp.Or(y.Until.Compare(x.Until), x.compare(y)) })
		p.led.Announced[name] = slices.Clip(records[:min(len(records), maxStale)])
	}
	for i, d := range p.site.Downstreams {
		longest := longestHeld(p.cfg.Downstreams[i])
		for _, x := range d.Announce.Prefixes {
			p.led.Announced[d.Name] = append(p.led.Announced[d.Name], AnnouncedRecord{Prefix: x.Prefix, Interface: d.Interface,
				Valid: toldValid(x.ValidUntil, before[spot{d.Interface, x.Prefix}], p.w.Now, longest), Until: lifetime.Forever()})
		}
	}
	for _, records := range p.led.Announced {
		slices.SortFunc(records, AnnouncedRecord.compare)
	}
}

// announcedBefore are the records of what is not current and not over, by the downstreams that have them from now on. What
// is current is noted in current.
func (p *planner) announcedBefore(current map[spot]lifetime.Deadline) map[string][]AnnouncedRecord {
	old, seen := map[string][]AnnouncedRecord{}, map[spot]bool{}
	for _, name := range slices.Sorted(maps.Keys(p.before.Announced)) {
		for _, r := range p.before.Announced[name] {
			if r.Interface == "" { // an older version has written it
				r.Interface = p.interfaceOf(name)
			}
			at := spot{r.Interface, r.Prefix}
			if was, ok := current[at]; ok {
				current[at] = lifetime.Max(was, lifetime.Min(r.Until, r.Valid))
				continue
			}
			owner, longest, wait := name, longestLoan, false
			if c, ok := p.heir(name, r.Interface); ok {
				owner, longest, wait = c.Name, longestHeld(c), p.unreported(c)
			}
			if r.Until.IsForever() && (r.Prefix.Addr().IsPrivate() || !wait) { // a ULA prefix is no provider's
				r.Until = heldUntil(r.Valid, p.w.Now, longest)
			}
			if seen[at] || r.Until.Over(p.w.Now) || r.Interface == "" {
				continue
			}
			seen[at] = true
			old[owner] = append(old[owner], r)
		}
	}
	return old
}

// heir is the downstream that has the interface on which a record of the named one was made: one that announces there, else
// the named one if it is still there, else the first.
func (p *planner) heir(name, iface string) (heir config.Downstream, found bool) {
	for _, c := range p.cfg.Downstreams {
		switch {
		case iface == "" || c.Interface != iface:
		case Announces(p.cfg, c):
			return c, true
		case !found || c.Name == name:
			heir, found = c, true
		}
	}
	return heir, found
}

// interfaceOf is the interface of the named downstream; "" where there is none.
func (p *planner) interfaceOf(downstream string) string {
	i := slices.IndexFunc(p.cfg.Downstreams, func(c config.Downstream) bool { return c.Name == downstream })
	if i < 0 {
		return ""
	}
	return p.cfg.Downstreams[i].Interface
}

// isStaleOn reports whether hosts on that interface had the prefix of r, and have not any more.
func (r AnnouncedRecord) isStaleOn(iface string) bool {
	return r.Interface == iface && !r.Until.IsForever()
}

// longestHeld is how long hosts of c may hold a prefix that they were told of without end.
func longestHeld(c config.Downstream) time.Duration { return cmp.Or(c.RA.ValidLifetime, longestLoan) }

func (r AnnouncedRecord) compare(o AnnouncedRecord) int {
	return cmp.Or(r.Prefix.Compare(o.Prefix), cmp.Compare(r.Interface, o.Interface))
}

// unreported reports whether an uplink that c draws from has not reported yet: after a reboot it may delegate in a moment
// what hosts still have. They are not told that it is over before that is known (promise 5).
func (p *planner) unreported(c config.Downstream) bool {
	return slices.ContainsFunc(p.cfg.Uplinks, func(u config.Uplink) bool {
		return (len(c.From) == 0 || slices.Contains(c.From, u.Name)) && !p.w.Uplinks[u.Name].Reported
	})
}
