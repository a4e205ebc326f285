package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel"
)

// anyOnLink has routers on the uplinks of w say that something is on-link there: neighbours, part or all of what somebody
// has, the whole Internet.
func anyOnLink(t *rapid.T, cfg *config.Config, w World) {
	for _, u := range cfg.Uplinks {
		l, ok := w.Links[u.Interface]
		if !ok {
			continue
		}
		for range rapid.IntRange(0, 3).Draw(t, "prefixes on-link") {
			q := pfx(rapid.SampledFrom([]string{"3fff:b::/64", "3fff:b::/80", "3fff:c::/56", "2001:db8:ffff::/64", "2001:db8:ffff::1/128", "2000::/3", "::/0", "8000::/1",
				"2001:db8:1100::/64", "2001:db8:1100::/72", "2001:db8:1200::/62", "2001:db8:1300::/56", "2001:db8:1400::/64", "2001:db8::/32", "fd00:1:2::/64",
				"fd00:1:2::/48", "fd00::/8"}).Draw(t, "on-link"))
			if !slices.Contains(l.OnLink, q) {
				l.OnLink, l.OnLinkMetric = append(l.OnLink, q), 256
			}
		}
		slices.SortFunc(l.OnLink, netip.Prefix.Compare)
		w.Links[u.Interface] = l
	}
}

// onLinkToo is s with the kernel's own routes to what is on-link before and after.
func onLinkToo(s kernel.State, before, after Site) kernel.State {
	for i, u := range before.Uplinks {
		for _, q := range u.OnLink {
			if slices.Contains(after.Uplinks[i].OnLink, q) {
				s.Routes = append(slices.Clip(s.Routes), kernel.Route{Table: kernel.TableMain, Dst: q, Metric: 256, Type: kernel.Unicast, Dev: u.Interface})
			}
		}
	}
	return s
}

// destinations are one in the Internet, and two in all that is on-link on uplinks.
func destinations(sites ...Site) []netip.Addr {
	list := []netip.Addr{netip.MustParseAddr("2001:db8:ffff::1")}
	for _, s := range sites {
		for _, u := range s.Uplinks {
			for _, q := range u.OnLink {
				list = append(list, q.Addr(), q.Addr().Next().Next())
			}
		}
	}
	return list
}

// Property: what routers on uplinks say to be on-link changes no packet's way, unless it goes to such a neighbour and has a
// source of that uplink or of none. What the site has itself, nobody draws away.
func TestOnLinkDrawsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := anyUses(t, true)
		w := anySite(t, cfg)
		anyOnLink(t, cfg, w)
		site, _, led := Plan(cfg, w, Ledger{})
		if again, _, _ := Plan(cfg, w, led); Compile(again).Text(epoch) != Compile(site).Text(epoch) {
			t.Fatalf("a second plan differs:\n%s\n%s", Compile(site).Text(epoch), Compile(again).Text(epoch))
		}
		state := onLinkToo(Compile(site), site, site)
		deaf := site
		deaf.Uplinks = slices.Clone(site.Uplinks)
		for i := range deaf.Uplinks {
			deaf.Uplinks[i].OnLink = nil
		}
		plain := Compile(deaf)
		had := map[netip.Prefix]bool{}
		sources := []netip.Addr{netip.IPv6Unspecified(), netip.MustParseAddr("3fff:77::1"), netip.MustParseAddr("fd77::1")}
		dsts := destinations(site)
		for _, r := range plain.Routes {
			if r.Table == kernel.TableMain && r.Dst.Bits() > 0 {
				had[r.Dst] = true
				sources, dsts = append(sources, r.Dst.Addr().Next()), append(dsts, r.Dst.Addr(), r.Dst.Addr().Next())
			}
		}
		for _, r := range plain.Rules {
			if r.From.IsValid() {
				sources = append(sources, r.From.Addr())
			}
		}
		for _, src := range sources {
			for _, iif := range []string{"lo", "lan0", "lan1", "wan0", "wan1"} {
				for _, dst := range dsts {
					got, want := lookup(state, src, dst, iif), lookup(plain, src, dst, iif)
					if got != want && !mayDiffer(site, plain, had, src, dst, iif, got) {
						t.Fatalf("%s from %s iif %s goes to %q instead of %q\n%s", dst, src, iif, got, want, state.Text(epoch))
					}
				}
			}
		}
	})
}

// mayDiffer reports whether a packet may go to dev because dst is believed to be there; or nowhere, if it has no source, and
// is for an unused part of a delegation.
func mayDiffer(site Site, plain kernel.State, had map[netip.Prefix]bool, src, dst netip.Addr, iif, dev string) bool {
	for q := range had {
		if q.Contains(dst) {
			return false
		}
	}
	decides := slices.IndexFunc(plain.Rules, func(r kernel.Rule) bool {
		return r.From.IsValid() && r.From.Contains(src) && (r.IIF == "" || r.IIF == iif)
	})
	if dev == "" && decides < 0 {
		return slices.ContainsFunc(plain.Routes, func(r kernel.Route) bool { return r.Metric == metricAggregate && r.Dst.Contains(dst) })
	}
	return slices.ContainsFunc(site.Uplinks, func(u Uplink) bool {
		return u.Interface == dev && slices.ContainsFunc(u.OnLink, func(q netip.Prefix) bool { return isOneLink(q) && q.Contains(dst) }) &&
			(decides < 0 || plain.Rules[decides].Table == u.Table || iif == dev)
	})
}

// TestOnLinkRows has one neighbourhood of each sort.
func TestOnLinkRows(t *testing.T) {
	w := rogueDSL()
	w.ULA = pfx("fd00:1:2::/48")
	onLink := func(iface string, metric uint32, list ...string) {
		l := w.Links[iface]
		l.OnLinkMetric = metric
		for _, q := range list {
			l.OnLink = append(l.OnLink, pfx(q))
		}
		w.Links[iface] = l
	}
	onLink("wan1", 256, "3fff:b::/64", "3fff:c::/64", "3fff:d::/64", "2000::/3", "2001:db8:1100::/64", "2001:db8:1100:0:8000::/65", "fd00:1:2::/48")
	onLink("wan0", 100, "3fff:c::/64")
	w.Links["lan7"] = link("lan7", 77) // not uplinkd's
	onLink("lan7", 256, "3fff:d::/64")
	site, problems, _ := Plan(configOf(t, dslAndFiber), w, Ledger{})
	var got strings.Builder
	for _, r := range Compile(site).Rows() {
		switch r := r.(type) {
		case kernel.Route:
			if r.Type == kernel.Throw || strings.Contains(r.Reason.Rule, "once more") || r.Table != kernel.TableMain && r.Metric == metricOnLink {
				fmt.Fprintln(&got, r.Text(epoch))
			}
		case kernel.Rule:
			if r.Priority == 20000 {
				fmt.Fprintln(&got, r.Text(epoch))
			}
		}
	}
	const want = `throw 2000::/3 metric 255 proto 200
throw 3fff:b::/64 metric 255 proto 200
throw 3fff:c::/64 metric 99 proto 200
throw 3fff:c::/64 metric 255 proto 200
unreachable fd00:1:2::/48 metric 255 proto 200
2001:db8:1100:0:8000::/65 dev lan0 metric 255 proto 200
3fff:b::/64 dev wan1 table 1001 metric 255 proto 200
3fff:c::/64 dev wan1 table 1001 metric 255 proto 200
3fff:c::/64 dev wan0 table 1002 metric 255 proto 200
pref 20000 from all to 2000::/3 lookup 1001 protocol 200
pref 20000 from all to 3fff:b::/64 lookup 1001 protocol 200
pref 20000 from all to 3fff:c::/64 lookup 1001 protocol 200
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
	if len(problems) != 0 {
		t.Errorf("problems: %v", problems)
	}
}

// A route of the user's to the same prefix that is better than the kernel's, as NetworkManager's into VPNs are, stays so.
func TestOnLinkSparesBetterRoutes(t *testing.T) {
	w := rogueDSL()
	l := w.Links["wan1"]
	l.OnLink, l.OnLinkMetric = []netip.Prefix{pfx("3fff:b::/64")}, 256
	w.Links["wan1"] = l
	site, _, _ := Plan(configOf(t, dslAndFiber), w, Ledger{})
	state := onLinkToo(Compile(site), site, site)
	state.Routes = append(state.Routes, kernel.Route{Table: kernel.TableMain, Dst: pfx("3fff:b::/64"), Metric: 50, Type: kernel.Unicast, Dev: "vpn0"})
	for _, src := range []string{"2001:db8:1100::7", "2001:db8:2200::7", "3fff:77::1", "::"} {
		if got := lookup(state, netip.MustParseAddr(src), netip.MustParseAddr("3fff:b::1"), "lan0"); got != "vpn0" {
			t.Errorf("from %s it leaves by %q\n%s", src, got, state.Text(epoch))
		}
	}
}

// A router that says that everything is on-link has main's default route no more than others.
func TestEverythingOnLink(t *testing.T) {
	for name, routers := range map[string][]Router{"a default route": {router(epoch, "fe80::1")}, "none": nil} {
		w := rogueDSL()
		l := w.Links["wan1"]
		l.OnLink, l.OnLinkMetric = []netip.Prefix{pfx("::/0")}, 256
		w.Links["wan1"] = l
		w.Uplinks["dsl"] = UplinkFacts{Reported: true}
		f := w.Uplinks["fiber"]
		f.Heard.Routers = routers
		w.Uplinks["fiber"] = f
		site, _, _ := Plan(configOf(t, dslAndFiber), w, Ledger{})
		state, want := onLinkToo(Compile(site), site, site), map[bool]string{true: "wan0", false: ""}[routers != nil]
		if got := lookup(state, netip.IPv6Unspecified(), netip.MustParseAddr("2001:db8:ffff::1"), "lo"); got != want {
			t.Errorf("%s: the router's own traffic leaves by %q, want %q\n%s", name, got, want, state.Text(epoch))
		}
	}
}

// Whoever announces a part of what an uplink has on another one does not switch a service on its addresses off; on the uplink's
// own link he does, since some providers number that out of what they delegate.
func TestOnLinkAndServices(t *testing.T) {
	for iface, local := range map[string]bool{"wan1": true, "wan0": false} {
		w := rogueDSL()
		w.Filtered = true
		l := w.Links[iface]
		l.OnLink, l.OnLinkMetric = []netip.Prefix{pfx("2001:db8:1100:77::/64")}, 256
		w.Links[iface] = l
		const catchall = "[downstream.svc]\nkind = \"service\"\ninterface = \"wan0\"\nanyip.mode = \"interface\"\n"
		site, _, _ := Plan(configOf(t, dslAndFiber+catchall), w, Ledger{})
		state := Compile(site)
		thrown := slices.ContainsFunc(state.Routes, func(r kernel.Route) bool { return r.Table == site.AnyIPTable && r.Dst == l.OnLink[0] })
		if thrown == local {
			t.Errorf("announced on %s: want that the service keeps it: %t\n%s", iface, local, state.Text(epoch))
		}
	}
}

// More prefixes than uplinkd looks at are a problem.
func TestTooManyOnLink(t *testing.T) {
	w := rogueDSL()
	l := w.Links["wan1"]
	for i := range kernel.MaxOnLink {
		l.OnLink = append(l.OnLink, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x3f, 0xff, 1, byte(i)}), 64))
	}
	w.Links["wan1"] = l
	site, problems, _ := Plan(configOf(t, dslAndFiber), w, Ledger{})
	// Of what is not looked at, there is a part of the network of fiber's hosts.
	lan := site.Downstreams[0].Subnets[0].Prefix
	state := Compile(site)
	state.Routes = append(state.Routes, kernel.Route{Table: kernel.TableMain, Dst: netip.PrefixFrom(lan.Addr(), 72), Metric: 256, Type: kernel.Unicast, Dev: "wan1"})
	state.Rules = append([]kernel.Rule{{Family: kernel.IPv6, Action: kernel.Unicast, Table: kernel.TableLocal}}, state.Rules...)
	if got := lookup(state, netip.MustParseAddr("2001:db8:ffff::1"), lan.Addr().Next().Next(), "wan0"); got != "lan0" {
		t.Errorf("what is for a host goes to %q\n%s", got, state.Text(epoch))
	}
	if len(problems) != 1 || problems[0].Path != "uplink.dsl" || problems[0].Code != "too-many-on-link" {
		t.Errorf("problems: %v", problems)
	}
}
