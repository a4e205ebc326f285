package policy

import (
	"net/netip"
	"slices"
	"time"
)

// Events lists what changed between two sites, in the order of the Event constants. Time passing and renewed lifetimes
// are no events. lost are prefixes known to have been lost before, so that their return reads as restored.
func Events(old, now Site, lost []netip.Prefix) []Event {
	var events []Event
	for _, kind := range []string{UplinkUp, UplinkInformed, PrefixNew, PrefixRestored, PrefixChanged, SubnetNew, SubnetLost, PrefixDeprecated, PrefixLost, UplinkDown} {
		for _, u := range now.Uplinks {
			was, _ := find(old.Uplinks, u.Name)
			events = appendEvents(events, kind, change{was, u, old, now, lost})
		}
		for _, was := range old.Uplinks {
			if _, still := find(now.Uplinks, was.Name); !still {
				gone := Uplink{Name: was.Name, Interface: was.Interface}
				events = appendEvents(events, kind, change{was, gone, old, now, lost})
			}
		}
	}
	return events
}

// change is one uplink before and after.
type change struct {
	was, is  Uplink
	old, now Site
	lost     []netip.Prefix
}

func appendEvents(events []Event, kind string, c change) []Event {
	switch kind {
	case UplinkUp, UplinkDown:
		if c.was.Up != c.is.Up && c.is.Up == (kind == UplinkUp) {
			events = append(events, c.ofUplink(kind))
		}
		return events
	case UplinkInformed:
		if _, there := find(c.now.Uplinks, c.is.Name); there && !c.was.Told.SameMeaning(c.is.Told) {
			events = append(events, c.ofUplink(kind))
		}
		return events
	case PrefixLost:
		for _, g := range c.was.Delegations {
			if _, still := c.is.delegation(g.Prefix); !still {
				events = append(events, c.event(kind, g, c.old, c.now.Now))
			}
		}
		return events
	case PrefixChanged:
		return append(events, c.renumbered()...)
	case SubnetNew:
		return append(events, c.subnets(kind, c.is, c.old, c.now)...)
	case SubnetLost:
		return append(events, c.subnets(kind, c.was, c.now, c.old)...)
	}
	for _, g := range c.is.Delegations {
		if c.kind(g) == kind {
			events = append(events, c.event(kind, g, c.now, c.now.Now))
		}
	}
	return events
}

// kind tells what became of a delegation that is there now; "" for nothing.
func (c change) kind(g Delegation) string {
	was, existed := c.was.delegation(g.Prefix)
	switch {
	case !existed && slices.Contains(c.lost, g.Prefix):
		return PrefixRestored
	case !existed:
		return PrefixNew
	case was.State == Deprecated && g.State == Preferred:
		return PrefixRestored
	case was.State == Preferred && g.State == Deprecated:
		return PrefixDeprecated
	}
	return ""
}

// subnets are the events for subnets that site in has and site not has not, of delegations that both have. u is the uplink
// as in knows it.
func (c change) subnets(kind string, u Uplink, not, in Site) (events []Event) {
	type use struct {
		uplink, downstream string
		prefix             netip.Prefix
	}
	known := map[use]bool{}
	for _, d := range not.Downstreams {
		for _, n := range d.Subnets {
			known[use{n.Uplink, n.Downstream, n.Prefix}] = true
		}
	}
	others := map[netip.Prefix][]Subnet{} // by delegation
	for _, d := range in.Downstreams {
		for _, n := range d.Subnets {
			if n.Uplink == u.Name && !known[use{n.Uplink, n.Downstream, n.Prefix}] {
				others[n.Delegation] = append(others[n.Delegation], n)
			}
		}
	}
	for _, g := range u.Delegations {
		_, was := c.was.delegation(g.Prefix)
		_, is := c.is.delegation(g.Prefix)
		if !was || !is {
			continue // its subnets are part of prefix.new or prefix.lost
		}
		for _, n := range others[g.Prefix] {
			e := c.event(kind, g, in, c.now.Now)
			e.Subnets = []Subnet{n}
			events = append(events, e)
		}
	}
	return events
}

// subnetsOf are the subnets of one delegation.
func subnetsOf(s Site, uplink string, g netip.Prefix) (list []Subnet) {
	for _, d := range s.Downstreams {
		for _, n := range d.Subnets {
			if n.Delegation == g && n.Uplink == uplink {
				list = append(list, n)
			}
		}
	}
	return list
}

// renumbered pairs delegations that came with those that were deprecated or lost in the same step.
func (c change) renumbered() (events []Event) {
	var came []Delegation
	for _, g := range c.is.Delegations {
		if _, existed := c.was.delegation(g.Prefix); !existed && g.State == Preferred {
			came = append(came, g)
		}
	}
	for _, g := range c.was.Delegations {
		is, still := c.is.delegation(g.Prefix)
		if len(came) == 0 || g.State != Preferred || still && is.State == Preferred {
			continue
		}
		e := c.event(PrefixChanged, came[0], c.now, c.now.Now)
		e.OldPrefix = g.Prefix
		events = append(events, e)
		came = append(came[1:], came[0])
	}
	return events
}

// ofUplink is an event with what all events of an uplink say of it.
func (c change) ofUplink(kind string) Event {
	e := Event{Kind: kind, Uplink: c.is.Name, Interface: c.is.Interface, Gateway: c.is.Gateway}
	if u, there := find(c.now.Uplinks, c.is.Name); there {
		e.Told = &u.Told
	}
	return e
}

// event describes g with its subnets as they stand in site s.
func (c change) event(kind string, g Delegation, s Site, now time.Time) Event {
	e := c.ofUplink(kind)
	e.Prefix, e.Preferred, e.Valid = g.Prefix, g.PreferredUntil.Seconds(now), g.ValidUntil.Seconds(now)
	if kind == PrefixLost {
		e.Preferred, e.Valid = 0, 0
	}
	e.Subnets = subnetsOf(s, c.is.Name, g.Prefix)
	return e
}

func find(uplinks []Uplink, name string) (Uplink, bool) {
	i := slices.IndexFunc(uplinks, func(u Uplink) bool { return u.Name == name })
	if i < 0 {
		return Uplink{}, false
	}
	return uplinks[i], true
}

func (u Uplink) delegation(p netip.Prefix) (Delegation, bool) {
	i, found := slices.BinarySearchFunc(u.Delegations, p, func(g Delegation, p netip.Prefix) int { return g.Prefix.Compare(p) })
	if !found {
		return Delegation{}, false
	}
	return u.Delegations[i], true
}

// Without returns the site without the delegations for which drop("", delegation) is true and without the subnets for
// which drop(downstream, delegation) is: what has not come about in the kernel must not be announced or reported.
func (s Site) Without(drop func(downstream string, p netip.Prefix) bool) Site {
	s.Uplinks = slices.Clone(s.Uplinks)
	for i, u := range s.Uplinks {
		s.Uplinks[i].Delegations = slices.DeleteFunc(slices.Clone(u.Delegations), func(g Delegation) bool { return drop("", g.Prefix) })
	}
	s.Downstreams = slices.Clone(s.Downstreams)
	for i, d := range s.Downstreams {
		gone := func(delegation netip.Prefix) bool { return drop("", delegation) || drop(d.Name, delegation) }
		var lost []netip.Prefix
		for _, n := range d.Subnets {
			if gone(n.Delegation) {
				lost = append(lost, n.Prefix)
			}
		}
		s.Downstreams[i].Subnets = slices.DeleteFunc(slices.Clone(d.Subnets), func(n Subnet) bool { return gone(n.Delegation) })
		s.Downstreams[i].Loans = slices.DeleteFunc(slices.Clone(d.Loans), func(l Loan) bool { return gone(l.Delegation) })
		a := &s.Downstreams[i].Announce
		a.Prefixes = slices.DeleteFunc(slices.Clone(a.Prefixes), func(x AnnouncedPrefix) bool { return !x.Stale && slices.Contains(lost, x.Prefix) })
		a.Routes = slices.DeleteFunc(slices.Clone(a.Routes), func(r AnnouncedRoute) bool { return gone(r.Prefix) })
		a.Router = a.Router && len(s.Downstreams[i].Subnets) > 0
		a.Send = a.Send && s.Downstreams[i].hasToSay()
	}
	return s
}
