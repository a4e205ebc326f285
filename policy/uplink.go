package policy

import (
	"maps"
	"net/netip"
	"slices"

	"uplinkd/internal/config"
	"uplinkd/internal/lifetime"
)

func (p *planner) uplink(c config.Uplink) Uplink {
	facts := p.w.Uplinks[c.Name]
	link, exists := p.w.Links[c.Interface]
	u := Uplink{Name: c.Name, Interface: c.Interface, Metric: c.Metric, Present: exists, Link: exists && link.Up, PD: len(c.DHCPv6.Prefixes) > 0, Told: told(facts, p.w.Now),
		Config: "uplink." + c.Name + " (" + place(c.Pos) + ")"}
	u.Number = p.number(c.Name)
	u.Table = p.cfg.TableBase + u.Number
	for _, r := range facts.Heard.Routers {
		if !r.Until.Over(p.w.Now) {
			u.Gateway, u.GatewayUntil = r.Address, r.Until
			break
		}
	}
	switch {
	case !exists:
		u.Reason = "interface " + c.Interface + " does not exist"
		p.problem("uplink."+c.Name, "no-interface", "interface %s does not exist; see: ip link", c.Interface)
	case !link.Up:
		u.Reason = "interface " + c.Interface + " is down"
		p.problem("uplink."+c.Name, "interface-down", "interface %s is down; to use it: ip link set %s up", c.Interface, c.Interface)
	case !link.Carrier:
		u.Reason = "no carrier on " + c.Interface
	case !u.Gateway.IsValid():
		u.Reason = "no router advertisement with a default router on " + c.Interface
	default:
		u.Up = true
	}
	for _, a := range link.Globals {
		if len(u.Addresses) < maxOwn {
			u.Addresses = append(u.Addresses, a.Addr())
		}
	}
	for _, a := range facts.Addresses {
		if !a.ValidUntil.Over(p.w.Now) {
			u.Leased = append(u.Leased, a)
		}
	}
	p.delegations(&u, facts.Delegations)
	p.recordHeld(&u, facts.Reported)
	return u
}

// delegations adds to u what it is granted and can use; reported is all that its client holds.
func (p *planner) delegations(u *Uplink, reported []Granted) {
	for _, g := range p.granted(u.Name) {
		if u.holds(g.Prefix) {
			continue
		}
		if other, overlaps := p.use(g.Prefix, u.Name); overlaps {
			p.problem("uplink."+u.Name, "delegation-overlap", "%s overlaps %s, so it is not used: sources in it would belong to two delegations", g.Prefix, other)
			continue
		}
		u.Delegations = append(u.Delegations, Delegation{Prefix: g.Prefix, Exclude: g.Exclude, PreferredUntil: g.PreferredUntil, ValidUntil: g.ValidUntil,
			State: stateAt(g, p)})
	}
	supersede(u.Delegations, reported)
	slices.SortFunc(u.Delegations, func(a, b Delegation) int { return a.Prefix.Compare(b.Prefix) })
}

func (u Uplink) holds(q netip.Prefix) bool {
	return slices.ContainsFunc(u.Delegations, func(g Delegation) bool { return g.Prefix == q })
}

// maxOwn bounds the router's own addresses on an uplink that get a rule each.
const maxOwn = 16

// useHeld accepts the delegations that were in use before and still are, before any other: whoever is newly given what
// overlaps them, be it the first uplink in the config, does not get them.
func (p *planner) useHeld() {
	for _, c := range p.cfg.Uplinks {
		for _, g := range p.granted(c.Name) {
			inUse := func(r HeldRecord) bool { return r.Prefix == g.Prefix && r.Until.IsForever() }
			if slices.ContainsFunc(p.before.Holds[c.Name], inUse) {
				p.use(g.Prefix, c.Name)
			}
		}
	}
}

// granted are the delegations of an uplink that are not over, without those in whose place the server has given a part of them, or
// a whole of which they are a part. It has taken the same addresses into another contract: the old one must not keep the new
// one out until it ends. What another uplink has is no reason to give up anything.
func (p *planner) granted(uplink string) (list []Granted) {
	all := p.w.Uplinks[uplink].Delegations
	ofOthers := func(q netip.Prefix) bool {
		for name, f := range p.w.Uplinks {
			if name != uplink && slices.ContainsFunc(f.Delegations, func(g Granted) bool { return !g.ValidUntil.Over(p.w.Now) && g.Prefix.Overlaps(q) }) {
				return true
			}
		}
		return false
	}
	for _, g := range all {
		old := g.Unlisted || g.PreferredUntil.Over(p.w.Now)
		replaced := old && slices.ContainsFunc(all, func(n Granted) bool {
			return n.Prefix != g.Prefix && n.Prefix.Overlaps(g.Prefix) && !n.Unlisted && !n.PreferredUntil.Over(p.w.Now) && !n.ValidUntil.Over(p.w.Now) && !ofOthers(n.Prefix)
		})
		if !g.ValidUntil.Over(p.w.Now) && !replaced {
			list = append(list, g)
		}
	}
	return list
}

// use accepts a delegation, or finds one accepted before that shares addresses with it: a server that delegates what is not
// its own must not draw traffic away from another uplink. First come, first served, over restarts too (useHeld). Length is
// no sign of who is right: a thief would name the longer prefix as easily as the shorter one.
func (p *planner) use(q netip.Prefix, uplink string) (other used, overlaps bool) {
	i, _ := slices.BinarySearchFunc(p.used, q, func(x used, q netip.Prefix) int { return x.prefix.Addr().Compare(q.Addr()) })
	for _, x := range p.used[max(0, i-1):min(len(p.used), i+1)] { // what overlaps q starts just before it, or at it or after
		if x.prefix == q && x.uplink == uplink {
			return used{}, false
		}
		if x.prefix.Overlaps(q) {
			return x, true
		}
	}
	p.used = slices.Insert(p.used, i, used{q, uplink})
	return used{}, false
}

func stateAt(g Granted, p *planner) State {
	if g.PreferredUntil.Over(p.w.Now) {
		return Deprecated
	}
	return Preferred
}

// supersede deprecates the delegations that the server has replaced without a word about them, from when on hosts have
// another of this uplink: the server may extend them no more, and route them no more.
func supersede(list []Delegation, granted []Granted) {
	unlisted := func(g Delegation) bool {
		return slices.ContainsFunc(granted, func(x Granted) bool { return x.Prefix == g.Prefix && x.Unlisted })
	}
	if !slices.ContainsFunc(list, func(g Delegation) bool { return g.State == Preferred && !unlisted(g) }) {
		return
	}
	for i, g := range list {
		if unlisted(g) {
			list[i].State, list[i].PreferredUntil = Deprecated, lifetime.Deadline{}
		}
	}
}

// number returns the u of an uplink: what the ledger says, else the lowest free one, from 1 to config.MaxUplinks, since
// rule priorities leave no more room. Numbers of uplinks that the config no longer has are kept for their return as long
// as there are others.
func (p *planner) number(name string) uint32 {
	if n, ok := p.led.Uplinks[name]; ok {
		return n
	}
	n, ok := p.freeNumber()
	if !ok {
		maps.DeleteFunc(p.led.Uplinks, func(old string, _ uint32) bool {
			return !slices.ContainsFunc(p.cfg.Uplinks, func(u config.Uplink) bool { return u.Name == old })
		})
		n, _ = p.freeNumber()
	}
	p.led.Uplinks[name] = n
	return n
}

func (p *planner) freeNumber() (n uint32, ok bool) {
	taken := map[uint32]bool{}
	for _, n := range p.led.Uplinks {
		taken[n] = true
	}
	for n = 1; taken[n]; n++ {
	}
	return n, n <= config.MaxUplinks
}
