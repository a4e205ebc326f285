package policy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/fake"
	"uplinkd/internal/lifetime"
)

// anyConfig draws a config of up to three uplinks and four downstreams, as Parse would make it.
func anyConfig(t *rapid.T) *config.Config {
	cfg := configOf(silent{}, smallest)
	up, down := cfg.Uplinks[0], cfg.Downstreams[0]
	cfg.Uplinks, cfg.Downstreams = nil, nil
	for i := range rapid.IntRange(1, 3).Draw(t, "uplinks") {
		u := up
		u.Name, u.Interface = fmt.Sprintf("u%d", i), fmt.Sprintf("wan%d", i)
		cfg.Uplinks = append(cfg.Uplinks, u)
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "downstreams") {
		d := down
		d.Name, d.Interface = fmt.Sprintf("d%d", i), fmt.Sprintf("lan%d", i)
		d.Length = uint8(rapid.SampledFrom([]int{60, 62, 64, 64, 64, 72}).Draw(t, "length"))
		if rapid.Bool().Draw(t, "explicit") {
			d.Subnet = int64(rapid.IntRange(0, 20).Draw(t, "subnet"))
		}
		cfg.Downstreams = append(cfg.Downstreams, d)
	}
	return cfg
}

// anyWorld draws facts for cfg. A delegation belongs to one uplink at a time, but may move from one to another. Only with
// nested may one delegation lie in another, as a hostile or confused server could have it.
func anyWorld(t *rapid.T, cfg *config.Config, nested bool) World {
	w := world(epoch)
	for i := range 4 {
		if rapid.IntRange(0, 5).Draw(t, "wan") > 0 {
			w.Links[fmt.Sprintf("wan%d", i)] = link(fmt.Sprintf("wan%d", i), 10+i)
		}
		if rapid.IntRange(0, 5).Draw(t, "lan") > 0 {
			w.Links[fmt.Sprintf("lan%d", i)] = link(fmt.Sprintf("lan%d", i), 20+i)
		}
	}
	if rapid.IntRange(0, 5).Draw(t, "lo") > 0 {
		w.Links["lo"] = link("lo", 1)
	}
	facts := make([]UplinkFacts, len(cfg.Uplinks))
	for i := range facts {
		facts[i].Reported = true
		if rapid.Bool().Draw(t, "router") {
			facts[i].Heard.Routers = []Router{{Address: netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: byte(i + 1)}), Until: lifetime.Forever()}}
		}
	}
	for n := range 5 {
		owner := rapid.IntRange(-1, len(facts)-1).Draw(t, "owner")
		if owner < 0 {
			continue
		}
		bits := []int{48, 56, 60, 62, 64}[n]
		if nested {
			bits = rapid.SampledFrom([]int{32, 48, 56, 60, 62, 64}).Draw(t, "bits")
		}
		p := netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8:%x00::", 0x11+n)), bits).Masked()
		preferred := uint32(rapid.SampledFrom([]int{0, 100, 3000}).Draw(t, "preferred"))
		facts[owner].Delegations = append(facts[owner].Delegations, Granted{Prefix: p, PreferredUntil: lifetime.After(epoch, preferred),
			ValidUntil: lifetime.After(epoch, 4000)})
	}
	for i, u := range cfg.Uplinks {
		w.Uplinks[u.Name] = facts[i]
	}
	return w
}

// draws reports whether d has a subnet of a delegation of that uplink.
func (d Downstream) draws(uplink string) bool {
	return slices.ContainsFunc(d.Subnets, func(n Subnet) bool { return n.Uplink == uplink })
}

// silent lets configOf be used where only a rapid.T is at hand.
type silent struct{ testing.TB }

func (silent) Helper()           {}
func (silent) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// Property: no two subnets of the site overlap, each lies in its delegation, and every downstream that gets nothing of
// a delegation it may draw from has a problem that says why.
func TestSubnetsDisjointAndExplained(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := anyConfig(t)
		w := anyWorld(t, cfg, true)
		site, problems, _ := Plan(cfg, w, Ledger{})
		var all []Subnet
		for _, d := range site.Downstreams {
			for _, s := range d.Subnets {
				if !s.Delegation.Contains(s.Prefix.Addr()) || s.Prefix.Bits() < s.Delegation.Bits() {
					t.Fatalf("%s is not in %s", s.Prefix, s.Delegation)
				}
				for _, o := range all {
					if o.Prefix.Overlaps(s.Prefix) {
						t.Fatalf("%s of %s overlaps %s of %s", s.Prefix, s.Downstream, o.Prefix, o.Downstream)
					}
				}
				all = append(all, s)
			}
			said := slices.ContainsFunc(problems, func(p Problem) bool { return p.Path == "downstream."+d.Name })
			for _, u := range site.Uplinks {
				if len(u.Delegations) > 0 && !d.draws(u.Name) && !said {
					t.Fatalf("%s has nothing of uplink %s and no problem says why", d.Name, u.Name)
				}
			}
		}
	})
}

// Property: an address on lo is in a delegation of its uplink and in no subnet, excluded part or link of any; there is one
// exactly for uplinks without another global address if there is room; and it stays where it is until somebody is given its
// part, also in a plan from the ledger on disk.
func TestInternalAddresses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := anyConfig(t)
		w := anyWorld(t, cfg, false)
		for i, u := range cfg.Uplinks {
			f := w.Uplinks[u.Name]
			for g := range f.Delegations {
				if p := f.Delegations[g].Prefix; rapid.Bool().Draw(t, "exclude") {
					f.Delegations[g].Exclude = subnetOf(p, max(p.Bits(), 62), subnetCount(p, max(p.Bits(), 62))-1)
				}
			}
			if l, ok := w.Links[u.Interface]; ok && rapid.IntRange(0, 4).Draw(t, "own") == 0 {
				l.Globals = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom16([16]byte{0x3f, 0xff, 15: byte(i)}), 64)}
				w.Links[u.Interface] = l
			}
			w.Uplinks[u.Name] = f
		}
		site, _, led := Plan(cfg, w, Ledger{})
		for _, u := range site.Uplinks {
			for _, a := range u.Loopback {
				g, _ := u.delegation(a.Delegation)
				if !g.Prefix.Contains(a.Address.Addr()) || a.Address.Bits() != 128 || g.Exclude.IsValid() && g.Exclude.Contains(a.Address.Addr()) ||
					a.ValidUntil != g.ValidUntil || a.PreferredUntil != g.PreferredUntil {
					t.Fatalf("%+v is not of %+v", a, g)
				}
				for _, d := range site.Downstreams {
					for _, s := range d.Subnets {
						if s.Prefix.Contains(a.Address.Addr()) || d.Link && s.Uplink == u.Name && s.State == Preferred {
							t.Fatalf("%s beside %s of %s", a.Address, s.Address, d.Name)
						}
					}
				}
			}
			if (len(u.Loopback) > 0) && (!w.Links["lo"].Up || len(u.Addresses) > 0) {
				t.Fatalf("%v without need", u.Loopback)
			}
			lonely := w.Links["lo"].Up && len(u.Addresses) == 0 && !slices.ContainsFunc(site.Downstreams, func(d Downstream) bool { return d.Link && d.draws(u.Name) })
			room := slices.ContainsFunc(u.Delegations, func(g Delegation) bool {
				return !g.Exclude.IsValid() && !slices.ContainsFunc(site.Downstreams, func(d Downstream) bool {
					return slices.ContainsFunc(d.Subnets, func(s Subnet) bool { return g.Prefix.Overlaps(s.Prefix) })
				})
			})
			if lonely && room && len(u.Loopback) == 0 {
				t.Fatalf("uplink %s has no address at all: %+v", u.Name, u.Delegations)
			}
		}
		// Others come and go; whoever is left alone stays.
		other := *cfg
		other.Downstreams = cfg.Downstreams[:rapid.IntRange(0, len(cfg.Downstreams)).Draw(t, "kept")]
		again, _, _ := Plan(&other, w, led)
		for i, u := range site.Uplinks {
			for _, a := range u.Loopback {
				wanted := slices.ContainsFunc(again.Downstreams, func(d Downstream) bool { // there may be room for a large one now
					return slices.ContainsFunc(d.Subnets, func(n Subnet) bool { return n.Prefix.Contains(a.Address.Addr()) })
				})
				if !wanted && !slices.Contains(again.Uplinks[i].Loopback, a) {
					t.Fatalf("%s moved although nobody wants its place: %v", a.Address, again.Uplinks[i].Loopback)
				}
			}
		}
	})
}

// Property: a subnet id survives another order of the sections and unrelated downstreams.
func TestSubnetsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := anyConfig(t)
		for i := range cfg.Downstreams {
			cfg.Downstreams[i].Length, cfg.Downstreams[i].Subnet = 64, config.AutoSubnet
		}
		w := anyWorld(t, cfg, false)
		site, _, led := Plan(cfg, w, Ledger{})
		other := *cfg
		other.Downstreams = rapid.Permutation(cfg.Downstreams).Draw(t, "order")
		extra := config.Downstream{}
		if len(cfg.Downstreams) > 0 {
			extra = cfg.Downstreams[0]
			extra.Name, extra.Interface = "extra", "lan9"
			other.Downstreams = slices.Insert(slices.Clone(other.Downstreams), 0, extra)
		}
		again, _, _ := Plan(&other, w, led)
		for _, d := range site.Downstreams {
			i := slices.IndexFunc(again.Downstreams, func(x Downstream) bool { return x.Name == d.Name })
			if !slices.Equal(d.Subnets, again.Downstreams[i].Subnets) {
				t.Fatalf("%s moved from %v to %v", d.Name, d.Subnets, again.Downstreams[i].Subnets)
			}
		}
	})
}

// Property: Diff of two compiled sites leads from one to the other, and after every prefix of its operations promises
// 1 and 2 hold.
func TestDiffKeepsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := anyUses(t, true)
		w, next := anySite(t, cfg), anySite(t, cfg)
		anyOnLink(t, cfg, w)
		anyOnLink(t, cfg, next)
		before, _, led := Plan(cfg, w, Ledger{})
		after, _, _ := Plan(cfg, next, led)
		have, want := Compile(before), Compile(after)
		if p := kernel.Diff(have, have, epoch); len(p.Ops) != 0 {
			t.Fatalf("Diff(a, a) is not empty:\n%s", p.Text())
		}
		plan := kernel.Diff(have, want, epoch)
		for n := range len(plan.Ops) + 1 {
			kern := &fake.Kernel{State: clone(have)}
			step := kernel.Plan{Now: epoch, Ops: plan.Ops[:n]}
			if r := kern.Apply(context.Background(), step); len(r.Failed) > 0 {
				t.Fatalf("the plan fails by itself: %v", r.Failed)
			}
			if bad := promise1(onLinkToo(kern.State, before, after), before, after); bad != "" {
				t.Fatalf("promise 1 broken after %d operations: %s\n%s", n, bad, plan.Text())
			}
			if bad := promise2(kern.State, have, want); bad != "" {
				t.Fatalf("promise 2 broken after %d operations: %s\n%s", n, bad, plan.Text())
			}
			kern.State.Sysctls = slices.DeleteFunc(kern.State.Sysctls, func(s kernel.Sysctl) bool { // restoring them is the engine's
				return !slices.ContainsFunc(want.Sysctls, func(w kernel.Sysctl) bool { return w.Name == s.Name })
			})
			if n == len(plan.Ops) && kern.State.Text(epoch) != want.Text(epoch) {
				t.Fatalf("the plan leads to\n%sinstead of\n%s", kern.State.Text(epoch), want.Text(epoch))
			}
		}
	})
}

func clone(s kernel.State) kernel.State {
	return kernel.State{Sysctls: slices.Clone(s.Sysctls), Routes: slices.Clone(s.Routes), Rules: slices.Clone(s.Rules), Addresses: slices.Clone(s.Addresses),
		Tables: slices.Clone(s.Tables)}
}

// promise1: a packet from a host with a source on which hosts sit (an address of the router is there, or an inner router has
// it) leaves, if at all, through an uplink to which its delegation belongs before or after; one from the ULA prefix never.
// So does one with a source that an uplink claims for itself, in a delegation that stays. This goes for destinations on the
// links of uplinks, too.
func promise1(s kernel.State, before, after Site) string {
	owners := map[netip.Prefix][]string{}
	sources := map[netip.Addr]string{}
	for _, site := range []Site{before, after} {
		if site.ULA.IsValid() && after.ULA == site.ULA {
			owners[site.ULA] = nil
		}
		for _, u := range site.Uplinks {
			for _, g := range u.Delegations {
				owners[g.Prefix] = append(owners[g.Prefix], u.Interface)
			}
		}
		for _, d := range before.Downstreams {
			for _, l := range d.Loans { // a new one is not told to anybody before the whole plan is through
				if slices.ContainsFunc(s.Routes, func(r kernel.Route) bool { return r.Dst == l.Prefix && r.Dev == d.Interface }) {
					sources[l.Prefix.Addr().Next()] = d.Interface
				}
			}
		}
	}
	for _, a := range s.Addresses {
		if !strings.HasPrefix(a.Dev, "wan") {
			sources[a.Prefix.Addr().Next()] = a.Dev
		}
	}
	for _, u := range after.Uplinks {
		for _, g := range u.Delegations {
			for _, r := range s.Rules {
				if r.From.Bits() == 128 && g.Prefix.Contains(r.From.Addr()) && len(owners[g.Prefix]) == 2 { // it was there before
					sources[r.From.Addr()] = "lan0"
				}
			}
		}
	}
	for src, iif := range sources {
		for g, devs := range owners {
			claimed := slices.ContainsFunc(s.Rules, func(r kernel.Rule) bool { return r.From == netip.PrefixFrom(src, 128) })
			if !g.Contains(src) || claimed && len(devs) == 1 { // of a new delegation hosts have nothing before the whole plan is through
				continue
			}
			for _, dst := range destinations(before, after) {
				if dev := lookup(s, src, dst, iif); strings.HasPrefix(dev, "wan") && !slices.Contains(devs, dev) {
					return fmt.Sprintf("%s (of %s, uplinks %v) leaves through %s to %s", src, g, devs, dev, dst)
				}
			}
		}
	}
	return ""
}

// promise2: a downstream with an address before and after has one all the time.
func promise2(s, have, want kernel.State) string {
	on := func(s kernel.State, dev string) (ps []netip.Prefix) {
		for _, a := range s.Addresses {
			if a.Dev == dev {
				ps = append(ps, a.Prefix)
			}
		}
		return ps
	}
	for _, a := range have.Addresses {
		if len(on(want, a.Dev)) > 0 && len(on(s, a.Dev)) == 0 {
			return a.Dev + " has no address"
		}
	}
	return ""
}

// lookup is fib6_rule_lookup in small: the interface through which a packet leaves, or "".
func lookup(s kernel.State, src, dst netip.Addr, iif string) string {
	rules := append(slices.Clone(s.Rules), kernel.Rule{Family: kernel.IPv6, Priority: 32766, Action: kernel.Unicast, Table: kernel.TableMain})
	slices.SortStableFunc(rules, func(a, b kernel.Rule) int { return int(a.Priority) - int(b.Priority) })
	for _, r := range rules {
		if r.From.IsValid() && !r.From.Contains(src) || r.To.IsValid() && !r.To.Contains(dst) || r.IIF != "" && r.IIF != iif || r.OIF != "" || r.Mark != 0 {
			continue
		}
		if r.Action != kernel.Unicast {
			return ""
		}
		best := kernel.Route{Dst: netip.Prefix{}}
		for _, n := range s.Routes {
			if n.Table != r.Table || !n.Dst.Contains(dst) {
				continue
			}
			if !best.Dst.IsValid() || n.Dst.Bits() > best.Dst.Bits() || n.Dst.Bits() == best.Dst.Bits() && n.Metric < best.Metric {
				best = n
			}
		}
		switch {
		case !best.Dst.IsValid() || r.SuppressPrefix && best.Dst.Bits() == 0 && best.Type == kernel.Unicast || best.Type == kernel.Throw:
			continue
		case best.Type == kernel.Local:
			return ""
		}
		return best.Dev
	}
	return ""
}
