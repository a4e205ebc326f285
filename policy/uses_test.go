package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// anyUses draws a config with downstreams of all kinds. Ids in the config are as different as Parse wants them only where
// explicit is false: there are none.
func anyUses(t *rapid.T, explicit bool) *config.Config {
	cfg := anyConfig(t)
	for i := range cfg.Downstreams {
		d := &cfg.Downstreams[i]
		d.Subnet = rapid.SampledFrom([]int64{config.AutoSubnet, config.AutoSubnet, config.HashSubnet}).Draw(t, "id")
		if explicit && rapid.IntRange(0, 3).Draw(t, "explicit") == 0 {
			d.Subnet = int64(rapid.IntRange(0, 20).Draw(t, "subnet"))
		}
		if rapid.IntRange(0, 3).Draw(t, "from") == 0 {
			d.From = []string{cfg.Uplinks[0].Name}
		}
		d.Kind = rapid.SampledFrom([]config.Kind{config.Access, config.Access, config.Transit, config.Transit, config.Service, config.Reserve}).Draw(t, "kind")
		d.DHCPv6 = config.Server{Enabled: true, Delegate: true, Length: 64, Shortest: 60}
		switch d.Kind {
		case config.Access:
			d.Host = rapid.SampledFrom([]config.HostMode{config.HostFixed, config.HostEUI64, config.HostStable}).Draw(t, "host")
			d.Length = uint8(rapid.SampledFrom([]int{62, 64}).Draw(t, "length"))
		case config.Transit:
			d.Length = uint8(rapid.SampledFrom([]int{56, 60, 62, 64}).Draw(t, "length"))
			d.Host = rapid.SampledFrom([]config.HostMode{config.HostNone, config.HostFixed}).Draw(t, "host")
			if rapid.Bool().Draw(t, "via") {
				d.Via, d.DHCPv6 = netip.MustParseAddr("fe80::2"), config.Server{}
			}
		case config.Service:
			d.AnyIP.Mode = rapid.SampledFrom([]config.AnyIPMode{config.AnyIPSubnet, config.AnyIPSubnet, config.AnyIPInterface, config.AnyIPMark}).Draw(t, "mode")
			d.Interface, d.Host, d.DHCPv6 = "", config.HostNone, config.Server{}
			switch d.AnyIP.Mode {
			case config.AnyIPInterface:
				d.Interface = rapid.SampledFrom([]string{"wan0", "lan9"}).Draw(t, "interface")
			case config.AnyIPMark:
				d.AnyIP.Mark, d.AnyIP.Ports, d.Interface = 0x40, []config.Port{{Protocol: "tcp", Number: 80}}, "wan0"
			}
		default:
			d.Interface, d.Host, d.DHCPv6 = "", config.HostNone, config.Server{}
		}
	}
	return cfg
}

// anySite draws facts for anyUses: a ULA prefix, inner routers, excluded prefixes, and what the link to the provider has.
func anySite(t *rapid.T, cfg *config.Config) World {
	w := anyWorld(t, cfg, false)
	if rapid.Bool().Draw(t, "ula") {
		w.ULA = pfx("fd00:1:2::/48")
	}
	w.Secret, w.Filtered = []byte("secret"), rapid.Bool().Draw(t, "filtered")
	for _, u := range cfg.Uplinks {
		f := w.Uplinks[u.Name]
		for i, g := range f.Delegations {
			if rapid.IntRange(0, 3).Draw(t, "exclude") == 0 {
				f.Delegations[i].Exclude = subnetOf(g.Prefix, 65, 1)
			}
			f.Delegations[i].Unlisted = rapid.IntRange(0, 3).Draw(t, "unlisted") == 0
			if l, ok := w.Links[u.Interface]; ok && rapid.IntRange(0, 4).Draw(t, "numbered") == 0 {
				l.Globals = []netip.Prefix{netip.PrefixFrom(subnetOf(g.Prefix, 128, 5).Addr(), 64)}
				w.Links[u.Interface] = l
			}
		}
		if rapid.IntRange(0, 3).Draw(t, "odd address") == 0 { // in anybody's delegation
			a := netip.MustParseAddr(fmt.Sprintf("2001:db8:%x00:%x::2", 0x11+rapid.IntRange(0, 5).Draw(t, "in"), rapid.IntRange(0, 8).Draw(t, "at")))
			f.Addresses = append(f.Addresses, Leased{Address: a, PreferredUntil: lifetime.After(epoch, 100), ValidUntil: lifetime.After(epoch, 4000)})
			if l, ok := w.Links[u.Interface]; ok && rapid.Bool().Draw(t, "there") {
				l.Globals = append(slices.Clone(l.Globals), netip.PrefixFrom(a, rapid.SampledFrom([]int{64, 128}).Draw(t, "on-link")))
				w.Links[u.Interface] = l
			}
		}
		w.Uplinks[u.Name] = f
	}
	for n := range rapid.IntRange(0, 6).Draw(t, "borrowers") {
		if len(cfg.Downstreams) == 0 {
			break
		}
		b := Borrower{Downstream: rapid.SampledFrom(cfg.Downstreams).Draw(t, "downstream").Name, Client: pd.DUID(fmt.Sprintf("client%d", n/2)), IAID: uint32(n),
			Via: netip.MustParseAddr(fmt.Sprintf("fe80::%x", 0x100+n/2)), Length: rapid.SampledFrom([]uint8{0, 56, 60, 63, 64, 96}).Draw(t, "wish"),
			Offered: rapid.Bool().Draw(t, "offered"), Until: lifetime.After(epoch, 3600)}
		if rapid.Bool().Draw(t, "names") {
			b.Named = []netip.Prefix{pfx(rapid.SampledFrom([]string{"2001:db8:1100:77::/64", "2001:db8:1200:40::/60", "2001:db8:1300::/64", "3fff::/64"}).Draw(t, "named"))}
		}
		w.Borrowers = append(w.Borrowers, b)
	}
	return w
}

// dealt is everything that somebody has, but for loans out of a transit's own subnet.
func dealt(t interface{ Fatalf(string, ...any) }, w World, site Site) map[string]netip.Prefix {
	all := map[string]netip.Prefix{}
	for _, u := range site.Uplinks {
		for _, a := range w.Links[u.Interface].Globals {
			if slices.ContainsFunc(u.Delegations, func(g Delegation) bool { return g.Prefix.Contains(a.Addr()) }) {
				all[fmt.Sprintf("link %s %x", u.Name, a.Addr().As16())] = a.Masked()
			}
		}
		for _, g := range u.Delegations {
			if g.Exclude.IsValid() {
				all[fmt.Sprintf("excluded %x", g.Prefix.Addr().As16())] = g.Exclude
			}
		}
		for _, a := range u.Loopback {
			all["lo "+a.Address.String()] = a.Address
		}
	}
	for _, d := range site.Downstreams {
		for _, n := range d.Subnets {
			all[d.Name+" of "+n.Delegation.String()] = n.Prefix
		}
		var lent []netip.Prefix
		for _, l := range d.Loans {
			if config.Kind(d.Kind) == config.Transit {
				if !slices.ContainsFunc(d.Subnets, func(n Subnet) bool {
					return n.Delegation == l.Delegation && n.Prefix.Contains(l.Prefix.Addr()) && n.Prefix.Bits() <= l.Prefix.Bits()
				}) {
					t.Fatalf("%s lends %s, which is not its own", d.Name, l.Prefix)
				}
				if slices.ContainsFunc(d.Subnets, func(n Subnet) bool { return n.Address.IsValid() && l.Prefix.Contains(n.Address.Addr()) }) {
					t.Fatalf("%s lends the router's own address: %s", d.Name, l.Prefix)
				}
				if slices.ContainsFunc(lent, l.Prefix.Overlaps) {
					t.Fatalf("%s lends %s twice", d.Name, l.Prefix)
				}
				lent = append(lent, l.Prefix)
				continue
			}
			all[fmt.Sprintf("%s for %s/%d of %s", d.Name, l.Client, l.IAID, l.Delegation)] = l.Prefix
		}
	}
	return all
}

var equate = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, lifetime.Deadline{}), cmpopts.EquateEmpty(), cmp.AllowUnexported(Problem{})}

// Property: whatever is given out lies in its delegation and overlaps nothing else; who gets nothing, or less, of a preferred
// delegation is told why; a second plan from the ledger of the first one is the same.
func TestUsesDisjointAndExplained(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := anyUses(t, true)
		led := Ledger{}
		if rapid.Bool().Draw(t, "before") {
			_, _, led = Plan(cfg, anySite(t, cfg), led)
		}
		w := anySite(t, cfg)
		site, problems, next := Plan(cfg, w, led)
		all := dealt(t, w, site)
		names := slices.Sorted(maps.Keys(all))
		for i, a := range names {
			for _, b := range names[:i] {
				facts := !strings.ContainsRune(a+b, ':') // what stands on links and what is excluded from a delegation may be the same
				if !facts && all[a].Overlaps(all[b]) {
					t.Fatalf("%s: %s overlaps %s: %s", a, all[a], b, all[b])
				}
			}
		}
		explained(t, cfg, w, site, problems)
		again, found, last := Plan(cfg, w, next)
		if d := cmp.Diff(site, again, equate); d != "" {
			t.Fatalf("a second plan differs:\n%s", d)
		}
		if d := cmp.Diff(problems, found, equate) + cmp.Diff(next, last, equate); d != "" {
			t.Fatalf("a second plan finds other problems, or remembers something else:\n%s", d)
		}
	})
}

// explained fails where somebody has nothing, or less than he wants, of a preferred delegation, and no problem names him.
func explained(t *rapid.T, cfg *config.Config, w World, site Site, problems []Problem) {
	origins := []origin{}
	for i := range site.Uplinks {
		for _, g := range site.Uplinks[i].Delegations {
			origins = append(origins, origin{&site.Uplinks[i], g})
		}
	}
	if site.ULA.IsValid() {
		origins = append(origins, origin{nil, Delegation{Prefix: site.ULA, State: Preferred}})
	}
	for i, c := range cfg.Downstreams {
		d := site.Downstreams[i]
		if slices.ContainsFunc(problems, func(p Problem) bool { return p.Path == "downstream."+d.Name && p.Code != "no-interface" }) {
			continue
		}
		for _, o := range origins {
			if o.State != Preferred || !drawsOn(c, o) {
				continue
			}
			whole := func(n Subnet) bool { return n.Delegation == o.Prefix && n.Prefix.Bits() == int(c.Length) }
			other := func(n Subnet) bool { return n.Uplink == o.uplink() && n.State == Preferred } // a /64 at a time
			if !slices.ContainsFunc(d.Subnets, whole) && !slices.ContainsFunc(d.Subnets, other) {
				t.Fatalf("%s has %v of %s and no problem says why", d.Name, d.Subnets, o)
			}
			for _, b := range w.Borrowers {
				lent := func(l Loan) bool {
					return l.Uplink == o.uplink() && l.State == Preferred && l.Client == b.Client && l.IAID == b.IAID
				}
				if b.Downstream == c.Name && c.DHCPv6.Delegate && (c.Kind == config.Access || slices.ContainsFunc(d.Subnets, whole)) && !slices.ContainsFunc(d.Loans, lent) {
					t.Fatalf("%s/%d has nothing of %s on %s and no problem says why: %v", b.Client, b.IAID, o, d.Name, d.Loans)
				}
			}
		}
	}
}

// Property: who has something keeps it when sections and inner routers stand in another order, and when a downstream comes to
// the end of the config that finds room.
func TestUsesStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := anyUses(t, false)
		w := anySite(t, cfg)
		site, _, led := Plan(cfg, w, Ledger{})
		other := *cfg
		other.Downstreams = rapid.Permutation(cfg.Downstreams).Draw(t, "order")
		other.Uplinks = rapid.Permutation(cfg.Uplinks).Draw(t, "uplinks")
		w.Borrowers = rapid.Permutation(w.Borrowers).Draw(t, "inner routers")
		again, _, _ := Plan(&other, w, led)
		for _, d := range site.Downstreams {
			i := slices.IndexFunc(again.Downstreams, func(x Downstream) bool { return x.Name == d.Name })
			if diff := cmp.Diff(d.Subnets, again.Downstreams[i].Subnets, equate) + cmp.Diff(d.Loans, again.Downstreams[i].Loans, equate); diff != "" {
				t.Fatalf("%s after another order:\n%s", d.Name, diff)
			}
		}
	})
}

// Property: at every moment nothing that comes from a delegation is meant to last longer than it, and when it is over,
// nothing of it is left but what tells hosts so; that goes as well.
func TestNothingOutlivesItsDelegation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := anyUses(t, true)
		w := anySite(t, cfg)
		for name, f := range w.Uplinks {
			for i := range f.Delegations {
				valid := uint32(rapid.SampledFrom([]int{60, 600, lifetime.Infinity}).Draw(t, "valid"))
				f.Delegations[i].ValidUntil = lifetime.After(epoch, valid)
				f.Delegations[i].PreferredUntil = lifetime.Min(f.Delegations[i].PreferredUntil, f.Delegations[i].ValidUntil)
			}
			w.Uplinks[name] = f
		}
		led := Ledger{}
		for _, after := range []time.Duration{0, 61 * time.Second, 601 * time.Second, 2 * time.Hour} {
			w.Now = epoch.Add(after)
			site, _, next := Plan(cfg, w, led)
			led = next
			for _, f := range w.Uplinks {
				for _, g := range f.Delegations {
					outlived(t, site, g, after == 2*time.Hour)
				}
			}
		}
	})
}

func outlived(t *rapid.T, site Site, g Granted, told bool) {
	over := g.ValidUntil.Over(site.Now)
	late := func(what any, until lifetime.Deadline) {
		if over || until.Compare(g.ValidUntil) > 0 {
			t.Fatalf("%v lasts until %s, and %s until %s", what, until, g.Prefix, g.ValidUntil)
		}
	}
	for _, d := range site.Downstreams {
		for _, n := range d.Subnets {
			if n.Delegation == g.Prefix {
				late(n, n.ValidUntil)
			}
		}
		for _, l := range d.Loans {
			if l.Delegation == g.Prefix {
				late(l, l.ValidUntil)
			}
		}
		for _, a := range d.Announce.Prefixes {
			if g.Prefix.Contains(a.Prefix.Addr()) && !a.Stale {
				late(a, a.ValidUntil)
			}
		}
		for _, r := range d.Announce.Routes {
			if r.Prefix == g.Prefix {
				late(r, r.Until)
			}
		}
		if over && told && len(d.Stale)+len(d.Dead) > 0 {
			t.Fatalf("hosts cannot use %s any more, and are told: %v %v", g.Prefix, d.Stale, d.Dead)
		}
	}
	for _, row := range Compile(site).Rows() {
		switch r := row.(type) {
		case kernel.Address:
			leased := slices.ContainsFunc(site.Uplinks, func(u Uplink) bool { return u.Interface == r.Dev })
			if g.Prefix.Contains(r.Prefix.Addr()) && !leased {
				late(r, r.ValidUntil)
			}
		case kernel.Rule:
			if over && r.From.IsValid() && r.From.Overlaps(g.Prefix) && r.From.Bits() > 3 && r.From.Bits() < 128 {
				t.Fatalf("%s is over, but: %s", g.Prefix, r.Text(site.Now))
			}
		case kernel.Route:
			stale := slices.ContainsFunc(site.Downstreams, func(d Downstream) bool {
				return slices.ContainsFunc(d.Stale, func(s StalePrefix) bool { return s.Prefix == r.Dst })
			})
			if over && g.Prefix.Contains(r.Dst.Addr()) && !stale && r.Type != kernel.Throw {
				t.Fatalf("%s is over, but: %s", g.Prefix, r.Text(site.Now))
			}
		}
	}
}

// Property: no address and no route of a delegation stands on an uplink's interface because of uplinkd.
func TestUplinkGetsNothingOfItsDelegation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := anyUses(t, true)
		site, _, _ := Plan(cfg, anySite(t, cfg), Ledger{})
		state := Compile(site)
		for _, u := range site.Uplinks {
			for _, g := range u.Delegations {
				for _, a := range state.Addresses {
					leased := slices.ContainsFunc(u.Leased, func(l Leased) bool { return l.Address == a.Prefix.Addr() })
					if a.Dev == u.Interface && !leased && g.Prefix.Contains(a.Prefix.Addr()) {
						t.Fatalf("uplink %s has %s of its delegation %s", u.Name, a.Prefix, g.Prefix)
					}
				}
				for _, r := range state.Routes {
					if r.Dev == u.Interface && r.Dst.Bits() > 0 && g.Prefix.Overlaps(r.Dst) {
						t.Fatalf("uplink %s leads to %s of its delegation %s", u.Name, r.Dst, g.Prefix)
					}
				}
				if slices.ContainsFunc(site.Downstreams, func(d Downstream) bool {
					return slices.ContainsFunc(d.Subnets, func(n Subnet) bool { return n.Interface == u.Interface })
				}) {
					t.Fatalf("a subnet is on uplink %s", u.Name)
				}
			}
		}
	})
}
