package policy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
)

const dslAndFiber = "[uplink.dsl]\ninterface = \"wan1\"\n" + smallest

// rogueDSL is a world in which fiber delegates one prefix, and dsl another and what else the test makes of it.
func rogueDSL() World {
	w := fiberHas("2001:db8:1100::/56")
	w.Links["wan1"] = link("wan1", 9)
	w.Uplinks["dsl"] = UplinkFacts{Reported: true, Heard: Heard{Routers: []Router{router(epoch, "fe80::d51")}},
		Delegations: []Granted{granted(epoch, "2001:db8:2200::/56", 3000, 4000)}}
	return w
}

// An uplink that leases, or lets the kernel have, an address that belongs to somebody else gets neither address nor rule for
// it: the rule of the first uplink in the config would come before that of the second one's delegation.
func TestForeignAddressesOfUplinks(t *testing.T) {
	for _, tt := range []struct {
		name, address string
		owner         string // "": used
	}{
		{"nobody's", "3fff::1", ""},
		{"its own", "2001:db8:2200:ff::1", ""},
		{"another uplink's", "2001:db8:1100:1::77", "2001:db8:1100::/56 of uplink fiber"},
		{"a host's", "2001:db8:1100::77", "2001:db8:1100::/56 of uplink fiber"},
		{"the site's", "fd00:1:2:3::4", "the ULA prefix fd00:1:2::/48"},
	} {
		for _, leased := range []bool{true, false} {
			w := rogueDSL()
			w.ULA = pfx("fd00:1:2::/48")
			a := netip.MustParseAddr(tt.address)
			if f := w.Uplinks["dsl"]; leased {
				f.Addresses = []Leased{{Address: a, PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()}}
				w.Uplinks["dsl"] = f
			} else {
				l := w.Links["wan1"]
				l.Globals = []netip.Prefix{netip.PrefixFrom(a, 64)}
				w.Links["wan1"] = l
			}
			site, problems, led := Plan(configOf(t, dslAndFiber), w, Ledger{})
			rows := Compile(site).Text(epoch)
			if got := strings.Contains(rows, tt.address); got != (tt.owner == "" && (leased || tt.name != "its own")) {
				t.Errorf("%s, leased %v:\n%s", tt.name, leased, rows)
			}
			said := slices.ContainsFunc(problems, func(p Problem) bool {
				return p.Path == "uplink.dsl" && p.Code == "address-overlap" && strings.Contains(p.Message, tt.address) && strings.Contains(p.Message, tt.owner)
			})
			if said != (tt.owner != "") {
				t.Errorf("%s, leased %v: %v", tt.name, leased, problems)
			}
			if again, _, _ := Plan(configOf(t, dslAndFiber), w, led); Compile(again).Text(epoch) != rows {
				t.Errorf("%s, leased %v: a second plan differs", tt.name, leased)
			}
		}
	}
}

// RAs with a network's own /64: on another uplink they move nothing, on its own one they move it once.
func TestNetworksAreNotChased(t *testing.T) {
	for uplink, most := range map[string]int{"wan1": 0, "wan0": 1} {
		cfg, w, led := configOf(t, dslAndFiber), rogueDSL(), Ledger{}
		lan := func() (netip.Prefix, []Problem) {
			site, problems, next := Plan(cfg, w, led)
			led = next
			i := slices.IndexFunc(site.Downstreams[0].Subnets, func(n Subnet) bool { return n.Uplink == "fiber" })
			return site.Downstreams[0].Subnets[i].Prefix, problems
		}
		at, problems := lan()
		moves := 0
		for n := range 16 {
			l := w.Links[uplink]
			l.Globals = append(slices.Clone(l.Globals), netip.PrefixFrom(at.Addr().Next().Next(), 64))
			w.Links[uplink] = l
			w.Now = epoch.Add(time.Duration(n) * time.Second)
			var now netip.Prefix
			if now, problems = lan(); now != at {
				at = now
				moves++
			}
		}
		if moves != most {
			t.Errorf("addresses on %s move the network %d times, want %d", uplink, moves, most)
		}
		if !slices.ContainsFunc(problems, func(p Problem) bool { return p.Code == "address-overlap" }) {
			t.Errorf("addresses on %s: %v", uplink, problems)
		}
	}
}

// What an uplink delegates may be somebody else's: destinations in it are unreachable only for its own sources.
func TestDelegationsTakeNoDestinations(t *testing.T) {
	w := rogueDSL()
	f := w.Uplinks["dsl"]
	f.Delegations = append(f.Delegations, granted(epoch, "3fff:f00::/32", 3000, 4000))
	w.Uplinks["dsl"] = f
	site, _, _ := Plan(configOf(t, dslAndFiber), w, Ledger{})
	state := Compile(site)
	for src, want := range map[string]string{"2001:db8:1100::5": "wan0", "2001:db8:2200::5": "", "3fff:f00::5": ""} {
		if got := lookup(state, netip.MustParseAddr(src), netip.MustParseAddr("3fff:f00:ffff::1"), "lan0"); got != want {
			t.Errorf("a packet from %s leaves through %q, want %q", src, got, want)
		}
	}
}

// Property: what is for a part of a delegation that nobody has goes nowhere when it comes in through its uplink, or from a
// source of it (RFC 7084 WPD-5), whatever sources of others do.
func TestUnusedPartsGoNowhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := anyUses(t, true)
		site, _, _ := Plan(cfg, anySite(t, cfg), Ledger{})
		state := Compile(site)
		state.Rules = slices.DeleteFunc(state.Rules, func(r kernel.Rule) bool { return r.Table == site.AnyIPTable }) // which answers for everything
		for _, u := range site.Uplinks {
			for _, g := range u.Delegations {
				dst := netip.PrefixFrom(g.Prefix.Addr(), g.Prefix.Bits()).Addr().As16()
				for i := g.Prefix.Bits(); i < 128; i++ {
					dst[i/8] |= 0x80 >> (i % 8)
				}
				to := netip.AddrFrom16(dst)
				if slices.ContainsFunc(state.Routes, func(r kernel.Route) bool { return r.Type == kernel.Unicast && r.Dst.Bits() > 0 && r.Dst.Contains(to) }) {
					continue
				}
				if dev := lookup(state, netip.MustParseAddr("2001:db8:ffff::1"), to, u.Interface); dev != "" {
					t.Fatalf("from the provider to %s, which nobody has: leaves through %s", to, dev)
				}
				if dev := lookup(state, g.Prefix.Addr().Next(), to, "lan0"); dev != "" {
					t.Fatalf("from %s to %s, which nobody has: leaves through %s", g.Prefix, to, dev)
				}
			}
		}
	})
}

// Where a provider delegates a /64 at a time, the prefix asked for because of a new network is the new network's, also when it
// is the first of all by address.
func TestAnotherNetworkAnotherPrefix(t *testing.T) {
	const lans = fiberOnly + "[downstream.lan]\ninterface = \"lan0\"\n[downstream.iot]\ninterface = \"lan1\"\n"
	for _, last := range []string{"2001:db8:1000::/64", "2001:db8:1150::/64", "2001:db8:1300::/64"} {
		_, _, led := Plan(configOf(t, lans), fiberHas("2001:db8:1100::/64", "2001:db8:1200::/64"), Ledger{})
		had := map[string]netip.Prefix{"guest": pfx(last)}
		for name, list := range led.Had {
			had[name] = list[0]
		}
		site, problems, _ := Plan(configOf(t, lans+"[downstream.guest]\ninterface = \"lan2\"\n"), fiberHas("2001:db8:1100::/64", last, "2001:db8:1200::/64"), led)
		for _, d := range site.Downstreams {
			if len(d.Subnets) != 1 || d.Subnets[0].Prefix != had[d.Name] {
				t.Errorf("%s has %v, want %s", d.Name, d.Subnets, had[d.Name])
			}
		}
		if len(problems) > 0 {
			t.Error(problems)
		}
	}
}
