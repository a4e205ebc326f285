package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"uplinkd/internal/config"
)

// Plan decides what the site is at w.Now: which uplink is up, who gets which subnet, what is announced and lent. It returns
// what is wrong as problems, sorted by path, and the ledger to use next time. Its arguments are not modified.
func Plan(cfg *config.Config, w World, led Ledger) (Site, []Problem, Ledger) {
	p := planner{cfg: cfg, w: w, before: led, led: led.clone(), spaces: map[netip.Prefix]*space{}, drawing: map[drawer]bool{}, refusedLoans: map[refusedLoan][]*borrower{}}
	p.site = Site{Now: w.Now, Rules: cfg.RuleBase, AnyIPTable: cfg.TableBase}
	p.useULA()
	p.useHeld()
	for _, u := range cfg.Uplinks {
		p.site.Uplinks = append(p.site.Uplinks, p.uplink(u))
	}
	for _, d := range cfg.Downstreams {
		p.site.Downstreams = append(p.site.Downstreams, p.downstream(d))
	}
	p.subnets()
	p.lend()
	p.addresses()
	p.loopback()
	p.announce()
	p.stale()
	p.onLink()
	p.forget()
	slices.SortStableFunc(p.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Message, b.Message))
	})
	return p.site, p.problems, p.led
}

type planner struct {
	cfg       *config.Config
	w         World
	before    Ledger // as it was given
	led       Ledger // as it will be
	site      Site
	used      []used                  // delegations accepted so far, sorted by address; they do not overlap
	spaces    map[netip.Prefix]*space // what is left of delegations
	drawing   map[drawer]bool         // who has subnets of whom: whether preferred ones
	borrowers []*borrower
	problems  []Problem

	refusedLoans map[refusedLoan][]*borrower
}

type used struct {
	prefix netip.Prefix
	uplink string // "": the ULA prefix
}

func (u used) String() string {
	if u.uplink == "" {
		return "the ULA prefix " + u.prefix.String()
	}
	return fmt.Sprintf("%s of uplink %s", u.prefix, u.uplink)
}

func (p *planner) problem(path, code, format string, args ...any) {
	p.problems = append(p.problems, Problem{Path: path, Code: code, Message: fmt.Sprintf(format, args...)})
}

// useULA accepts the ULA prefix before any delegation: it stays, whatever servers say.
func (p *planner) useULA() {
	if p.w.ULA.IsValid() {
		p.site.ULA = p.w.ULA.Masked()
		p.use(p.site.ULA, "")
	}
}

// forget drops ledger entries of uplinks and downstreams that the config no longer has. Numbers of uplinks stay: an uplink
// that comes back gets its table back; and subnet ids likewise. What was announced stays until its end.
func (p *planner) forget() {
	uplinks, downstreams := map[string]bool{}, map[string]bool{}
	for _, u := range p.cfg.Uplinks {
		uplinks[u.Name] = true
	}
	for _, d := range p.cfg.Downstreams {
		downstreams[d.Name] = true
	}
	only(p.led.Holds, uplinks)
	only(p.led.Loopback, uplinks)
	only(p.led.Had, downstreams)
	only(p.led.Loans, downstreams)
	only(p.led.Places, downstreams)
	only(p.led.Duplicates, downstreams)
}

func only[V any](m map[string]V, names map[string]bool) {
	maps.DeleteFunc(m, func(name string, _ V) bool { return !names[name] })
}

// place is where a section stands, for `uplinkd explain`: "uplinkd.toml:3".
func place(pos config.Position) string { return fmt.Sprintf("%s:%d", pos.File, pos.Line) }

func (l Ledger) clone() Ledger {
	return Ledger{Uplinks: cloned(l.Uplinks), Subnets: cloned(l.Subnets), Had: cloned(l.Had), Holds: cloned(l.Holds), Loopback: cloned(l.Loopback),
		Announced: cloned(l.Announced), Loans: cloned(l.Loans), Places: cloned(l.Places), Duplicates: cloned(l.Duplicates)}
}

// cloned is never nil.
func cloned[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return maps.Clone(m)
}

func appendNew[T comparable](list, more []T) []T {
	for _, x := range more {
		if !slices.Contains(list, x) {
			list = append(list, x)
		}
	}
	return list
}
