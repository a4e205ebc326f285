package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"uplinkd/internal/config"
	"uplinkd/internal/lifetime"
)

// Plan decides what the site is at w.Now: which uplink is up, who gets which subnet, what is announced. It returns what
// is wrong as problems, sorted by path, and the ledger to use next time. Its arguments are not modified.
func Plan(cfg *config.Config, w World, led Ledger) (Site, []Problem, Ledger) {
	p := planner{cfg: cfg, w: w, before: led, led: led.clone()}
	p.site = Site{Now: w.Now, Rules: cfg.RuleBase}
	p.useHeld()
	for _, u := range cfg.Uplinks {
		p.site.Uplinks = append(p.site.Uplinks, p.uplink(u))
	}
	for _, d := range cfg.Downstreams {
		p.site.Downstreams = append(p.site.Downstreams, p.downstream(d))
	}
	p.subnets()
	p.loopback()
	for i := range p.site.Downstreams {
		p.announce(cfg.Downstreams[i], &p.site.Downstreams[i])
	}
	p.forget()
	slices.SortStableFunc(p.problems, func(a, b Problem) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Code, b.Code)) })
	return p.site, p.problems, p.led
}

type planner struct {
	cfg      *config.Config
	w        World
	before   Ledger // as it was given
	led      Ledger // as it will be
	site     Site
	used     []used // delegations accepted so far, sorted by address; they do not overlap
	problems []Problem
}

type used struct {
	prefix netip.Prefix
	uplink string
}

func (p *planner) problem(path, code, format string, args ...any) {
	p.problems = append(p.problems, Problem{Path: path, Code: code, Message: fmt.Sprintf(format, args...)})
}

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
	p.led.Holds[c.Name] = nil
	for _, g := range facts.Delegations {
		if g.ValidUntil.Over(p.w.Now) || slices.Contains(p.led.Holds[c.Name], g.Prefix) {
			continue
		}
		if other, overlaps := p.use(g.Prefix, u.Name); overlaps {
			p.problem("uplink."+c.Name, "delegation-overlap", "%s overlaps %s of uplink %s, so it is not used: sources in it would belong to two delegations",
				g.Prefix, other.prefix, other.uplink)
			continue
		}
		p.led.Holds[c.Name] = append(p.led.Holds[c.Name], g.Prefix)
		u.Delegations = append(u.Delegations, Delegation{Prefix: g.Prefix, Exclude: g.Exclude, PreferredUntil: g.PreferredUntil, ValidUntil: g.ValidUntil,
			State: stateAt(g, p)})
	}
	slices.SortFunc(u.Delegations, func(a, b Delegation) int { return a.Prefix.Compare(b.Prefix) })
	slices.SortFunc(p.led.Holds[c.Name], netip.Prefix.Compare)
	if len(p.led.Holds[c.Name]) == 0 {
		delete(p.led.Holds, c.Name)
	}
	return u
}

// maxOwn bounds the router's own addresses on an uplink that get a rule each.
const maxOwn = 16

// useHeld accepts the delegations that were in use before and still are, before any other: whoever is newly given what
// overlaps them, be it the first uplink in the config, does not get them.
func (p *planner) useHeld() {
	for _, c := range p.cfg.Uplinks {
		for _, g := range p.w.Uplinks[c.Name].Delegations {
			if !g.ValidUntil.Over(p.w.Now) && slices.Contains(p.before.Holds[c.Name], g.Prefix) {
				p.use(g.Prefix, c.Name)
			}
		}
	}
}

// use accepts a delegation, or finds one accepted before that shares addresses with it: a server that
// delegates what is not its own must not draw traffic away from another uplink.
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

func (p *planner) downstream(c config.Downstream) Downstream {
	link, exists := p.w.Links[c.Interface]
	d := Downstream{Name: c.Name, Interface: c.Interface, Kind: string(c.Kind), Link: exists && link.Up,
		Config: "downstream." + c.Name + " (" + place(c.Pos) + ")"}
	switch {
	case !exists:
		p.problem("downstream."+c.Name, "no-interface", "interface %s does not exist; see: ip link", c.Interface)
	case !link.Up:
		p.problem("downstream."+c.Name, "interface-down", "interface %s is down; to use it: ip link set %s up", c.Interface, c.Interface)
	}
	return d
}

// announce fills in what the router advertisements of d say, and keeps the record of what hosts may still hold.
func (p *planner) announce(c config.Downstream, d *Downstream) {
	a := Announcement{Send: c.RA.Enabled && d.Link, RouterLifetime: c.RA.RouterLifetime, MinInterval: c.RA.MinInterval,
		MaxInterval: c.RA.MaxInterval, MTU: c.RA.MTU, DNS: c.RA.DNS}
	var up []Uplink // that number d and work, in the order of the config
	for _, u := range p.site.Uplinks {
		if c.RA.Enabled && u.Up && slices.ContainsFunc(d.Subnets, func(s Subnet) bool { return s.Uplink == u.Name && s.Prefix.Bits() == 64 }) {
			up = append(up, u)
		}
	}
	a.Router = len(up) > 0
	a.passOn(up)
	for _, s := range d.Subnets {
		if s.Prefix.Bits() != 64 || !c.RA.Enabled {
			continue
		}
		u := p.uplinkNamed(s.Uplink)
		a.Prefixes = append(a.Prefixes, AnnouncedPrefix{Prefix: s.Prefix, PreferredUntil: s.PreferredUntil, ValidUntil: s.ValidUntil,
			PreferredCap: c.RA.PreferredLifetime, ValidCap: c.RA.ValidLifetime})
		if len(c.RA.DNS) == 0 {
			a.DNS = appendNew(a.DNS, u.Told.DNS)
		}
		a.Search = appendNew(a.Search, u.Told.DomainSearch)
	}
	slices.SortFunc(a.Prefixes, func(x, y AnnouncedPrefix) int { return x.Prefix.Compare(y.Prefix) })
	records := p.records(c, a)
	for _, r := range records {
		if !r.Until.IsForever() {
			a.Prefixes = append(a.Prefixes, AnnouncedPrefix{Prefix: r.Prefix, Stale: true})
		}
	}
	a.Send = a.Send && len(a.Prefixes) > 0
	if len(records) > 0 {
		p.led.Announced[d.Name] = records
	} else {
		delete(p.led.Announced, d.Name)
	}
	d.Announce = a
}

// records returns the next ledger entry of a downstream: what is announced now, and what was and is not over yet.
func (p *planner) records(c config.Downstream, a Announcement) (records []AnnouncedRecord) {
	current := func(q netip.Prefix) bool {
		_, found := slices.BinarySearchFunc(a.Prefixes, q, func(x AnnouncedPrefix, q netip.Prefix) int { return x.Prefix.Compare(q) })
		return found
	}
	for _, r := range p.led.Announced[c.Name] {
		if current(r.Prefix) || !c.RA.Enabled {
			continue
		}
		if r.Until.IsForever() {
			r.Until = lifetime.Until(p.w.Now.Add(c.RA.ValidLifetime))
		}
		if !r.Until.Over(p.w.Now) {
			records = append(records, r)
		}
	}
	slices.SortFunc(records, func(x, y AnnouncedRecord) int { return cmp.Or(y.Until.Compare(x.Until), x.Prefix.Compare(y.Prefix)) })
	records = records[:min(len(records), maxStale)]
	for _, x := range a.Prefixes {
		records = append(records, AnnouncedRecord{Prefix: x.Prefix, Until: lifetime.Forever()})
	}
	slices.SortFunc(records, func(x, y AnnouncedRecord) int { return x.Prefix.Compare(y.Prefix) })
	return records
}

// forget drops ledger entries of uplinks and downstreams that the config no longer has. Numbers of uplinks stay: an uplink that
// comes back gets its table back.
func (p *planner) forget() {
	maps.DeleteFunc(p.led.Holds, func(name string, _ []netip.Prefix) bool {
		return !slices.ContainsFunc(p.cfg.Uplinks, func(u config.Uplink) bool { return u.Name == name })
	})
	maps.DeleteFunc(p.led.Loopback, func(name string, _ []netip.Prefix) bool {
		return !slices.ContainsFunc(p.cfg.Uplinks, func(u config.Uplink) bool { return u.Name == name })
	})
	for name := range p.led.Announced {
		if !slices.ContainsFunc(p.cfg.Downstreams, func(d config.Downstream) bool { return d.Name == name }) {
			delete(p.led.Announced, name)
		}
	}
}

// place is where a section stands, for `uplinkd explain`: "uplinkd.toml:3".
func place(pos config.Position) string { return fmt.Sprintf("%s:%d", pos.File, pos.Line) }

func (p *planner) uplinkNamed(name string) Uplink {
	i := slices.IndexFunc(p.site.Uplinks, func(u Uplink) bool { return u.Name == name })
	return p.site.Uplinks[i]
}

func (l Ledger) clone() Ledger {
	c := Ledger{Uplinks: maps.Clone(l.Uplinks), Subnets: maps.Clone(l.Subnets), Holds: maps.Clone(l.Holds), Loopback: maps.Clone(l.Loopback),
		Announced: maps.Clone(l.Announced)}
	if c.Uplinks == nil {
		c.Uplinks = map[string]uint32{}
	}
	if c.Subnets == nil {
		c.Subnets = map[string]uint64{}
	}
	if c.Holds == nil {
		c.Holds = map[string][]netip.Prefix{}
	}
	if c.Loopback == nil {
		c.Loopback = map[string][]netip.Prefix{}
	}
	if c.Announced == nil {
		c.Announced = map[string][]AnnouncedRecord{}
	}
	return c
}

func appendNew[T comparable](list, more []T) []T {
	for _, x := range more {
		if !slices.Contains(list, x) {
			list = append(list, x)
		}
	}
	return list
}
