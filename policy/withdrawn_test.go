package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"uplinkd/internal/lifetime"
)

// held is the facts about an uplink that has these delegations.
func held(gs ...Granted) UplinkFacts {
	return UplinkFacts{Reported: true, Delegations: gs, Heard: Heard{Routers: []Router{router(epoch, "fe80::1")}}}
}

func TestWithdrawn(t *testing.T) {
	const old, other = "2001:db8:1100::/56", "2001:db8:1200::/56"
	for _, tt := range []struct {
		name  string
		valid uint32 // of the old delegation, in seconds
		after time.Duration
		then  UplinkFacts
		want  []netip.Prefix
	}{
		{"replaced", 4000, time.Minute, held(granted(epoch, other, 3000, 4000)), []netip.Prefix{pfx(old)}},
		{"nothing instead", 4000, time.Minute, held(), []netip.Prefix{pfx(old)}},
		{"at its end", 4000, 4000 * time.Second, held(), nil},
		{"for ever", lifetime.Infinity, time.Minute, held(), []netip.Prefix{pfx(old)}},
		{"still there", 4000, time.Minute, held(granted(epoch, old, 3000, 4000)), nil},
		{"not confirmed after a reboot", 4000, time.Minute, UplinkFacts{}, nil},
		{"longer now", 4000, time.Minute, held(granted(epoch, "2001:db8:1100::/60", 3000, 4000)), []netip.Prefix{pfx(old)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, w := configOf(t, smallest), fiberHas()
			w.Uplinks["fiber"] = held(granted(epoch, old, 3000, tt.valid))
			_, _, led := Plan(cfg, w, Ledger{})
			w.Now, w.Uplinks["fiber"] = epoch.Add(tt.after), tt.then
			site, _, led := Plan(cfg, w, led)
			again, _, _ := Plan(cfg, w, led)
			for _, s := range []Site{site, again} {
				if got := s.Uplinks[0].Withdrawn; !slices.EqualFunc(got, tt.want, func(r HeldRecord, p netip.Prefix) bool { return r.Prefix == p }) {
					t.Errorf("withdrawn: %v, want %v", got, tt.want)
				}
			}
			until := min(time.Duration(tt.valid)*time.Second, tt.after+90*time.Minute)
			for _, at := range []struct {
				after time.Duration
				n     int
			}{{until - time.Second, len(tt.want)}, {until, 0}} {
				w.Now = epoch.Add(at.after)
				if site, _, _ := Plan(cfg, w, led); len(site.Uplinks[0].Withdrawn) != at.n {
					t.Errorf("%s later: %v withdrawn", at.after, site.Uplinks[0].Withdrawn)
				}
			}
		})
	}
}

// What a delegation was, before it is taken back, it is again at once when it returns, be it to another uplink: the sources
// are that one's.
func TestWithdrawnReturns(t *testing.T) {
	const config = fiberOnly + "[uplink.cable]\ninterface = \"lan2\"\n[downstream.lan]\ninterface = \"lan0\"\n"
	cfg, w := configOf(t, config), fiberHas("2001:db8:1100::/56")
	w.Uplinks["cable"] = UplinkFacts{Reported: true}
	_, _, led := Plan(cfg, w, Ledger{})
	w.Uplinks["fiber"] = held()
	_, _, led = Plan(cfg, w, led)
	src, far := netip.MustParseAddr("2001:db8:1100::7"), netip.MustParseAddr("2001:db8:ffff::1")
	if site, _, _ := Plan(cfg, w, led); lookup(Compile(site), src, far, "wg0") != "" {
		t.Errorf("a source from a withdrawn delegation leaves:\n%s", Compile(site).Text(epoch))
	}
	w.Uplinks["cable"] = held(granted(epoch, "2001:db8:1100::/56", 3000, 4000))
	site, _, led := Plan(cfg, w, led)
	if got := lookup(Compile(site), src, far, "wg0"); got != "lan2" {
		t.Errorf("a source from a delegation that has come to another uplink leaves by %q:\n%s", got, Compile(site).Text(epoch))
	}
	w.Uplinks["cable"], w.Uplinks["fiber"] = held(), held(granted(epoch, "2001:db8:1100::/56", 3000, 4000))
	site, _, _ = Plan(cfg, w, led)
	if got := lookup(Compile(site), src, far, "wg0"); got != "wan0" || len(site.Uplinks[0].Withdrawn) > 0 {
		t.Errorf("a source from a delegation that is back leaves by %q:\n%s", got, Compile(site).Text(epoch))
	}
}

// A server that gives a part of what it gave before, or a whole, with or without a word about the old one, has the new one used at
// once. Hosts keep what is in both.
func TestSamePlaceAnotherLength(t *testing.T) {
	for _, tt := range []struct {
		name     string
		old, new string
		change   func(old *Granted)
		want     string
	}{
		{"a part", "2001:db8:1100::/48", "2001:db8:1100::/56", func(old *Granted) { old.Unlisted = true }, "2001:db8:1100::/56"},
		{"a whole", "2001:db8:1100:ff00::/56", "2001:db8:1100::/48", func(old *Granted) { old.Unlisted = true }, "2001:db8:1100::/48"},
		{"a part, gracefully", "2001:db8:1100::/48", "2001:db8:1100::/56", func(old *Granted) { old.PreferredUntil = lifetime.Deadline{} }, "2001:db8:1100::/56"},
		{"both at once", "2001:db8:1100::/48", "2001:db8:1100::/56", func(*Granted) {}, "2001:db8:1100::/48"},
		{"a whole of which another uplink has a part", "2001:db8:2200:ff00::/56", "2001:db8:2200::/48", func(old *Granted) { old.Unlisted = true }, "2001:db8:2200:ff00::/56"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, w := configOf(t, fiberOnly+"[uplink.cable]\ninterface = \"lan2\"\n"+network("lan", "lan0")), fiberHas(tt.old)
			w.Uplinks["cable"] = held(granted(epoch, "2001:db8:2200:1100::/56", 3000, 4000))
			_, _, led := Plan(cfg, w, Ledger{})
			was := granted(epoch, tt.old, 3000, 4000)
			tt.change(&was)
			w.Now, w.Uplinks["fiber"] = epoch.Add(time.Minute), held(was, granted(epoch, tt.new, 3000, 4000))
			site, _, led := Plan(cfg, w, led)
			if gs := site.Uplinks[0].Delegations; len(gs) != 1 || gs[0].Prefix != pfx(tt.want) || len(site.Downstreams[0].Subnets) != 2 {
				t.Errorf("in use: %v; the network has %v", gs, site.Downstreams[0].Subnets)
			}
			if again, _, _ := Plan(cfg, w, led); len(again.Uplinks[0].Delegations) != 1 || again.Uplinks[0].Delegations[0].Prefix != pfx(tt.want) {
				t.Errorf("in the next plan: %v", again.Uplinks[0].Delegations)
			}
		})
	}
}

// Property: however fast a server delegates and withdraws, at most 16 are kept, those that last longest, and each no longer
// than its lease would have lasted.
func TestWithdrawnBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg, w, led := configOf(silent{}, smallest), fiberHas(), Ledger{}
		ends := map[netip.Prefix]time.Time{}
		var current netip.Prefix
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			w.Now = w.Now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "pause")) * time.Second)
			g := granted(w.Now, fmt.Sprintf("2001:db8:%x00::/56", rapid.IntRange(1, 30).Draw(t, "prefix")), 10, uint32(rapid.IntRange(20, 9000).Draw(t, "valid")))
			w.Uplinks["fiber"] = held(g)
			if last, limit := ends[current], w.Now.Add(90*time.Minute); current != g.Prefix && last.After(limit) {
				ends[current] = limit // from now on it is withdrawn
			}
			current = g.Prefix
			var site Site
			site, _, led = Plan(cfg, w, led)
			list := site.Uplinks[0].Withdrawn
			if len(list) > maxWithdrawn || len(led.Holds["fiber"]) > maxWithdrawn+1 {
				t.Fatalf("%d withdrawn, %d records", len(list), len(led.Holds["fiber"]))
			}
			for _, r := range list {
				if q := r.Prefix; !ends[q].After(w.Now) || q == g.Prefix {
					t.Fatalf("%s is kept although it ended at %s, now %s", q, ends[q], w.Now)
				}
			}
			delete(ends, g.Prefix)
			kept := 0
			for _, end := range ends {
				if end.After(w.Now) {
					kept++
				}
			}
			if len(list) != min(kept, maxWithdrawn) {
				t.Fatalf("%d are kept of %d that have not ended", len(list), kept)
			}
			end, _ := g.ValidUntil.Time()
			ends[g.Prefix] = end
		}
	})
}
