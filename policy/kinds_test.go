package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
)

const fiberOnly = "[uplink.fiber]\ninterface = \"wan0\"\n"

// fiberHas is a world in which fiber has a router and delegations that are valid for 4000 s.
func fiberHas(prefixes ...string) World {
	w := world(epoch, "lan0", "lan1", "lan2", "wan0", "lo")
	f := UplinkFacts{Reported: true, Heard: Heard{Routers: []Router{router(epoch, "fe80::1")}}}
	for _, p := range prefixes {
		f.Delegations = append(f.Delegations, granted(epoch, p, 3000, 4000))
	}
	w.Uplinks["fiber"] = f
	return w
}

func inner(downstream, via string, iaid uint32, length uint8) Borrower {
	return Borrower{Downstream: downstream, Client: "\x00\x03\x00\x01" + "inner" + "1", IAID: iaid, Via: netip.MustParseAddr(via), Length: length,
		Until: lifetime.After(epoch, 5400)}
}

// Each kind with what it is made of in the kernel.
func TestKinds(t *testing.T) {
	both := func(p string) World { return fiberHas(p) }
	for _, tt := range []struct {
		name, config string
		world        World
		change       func(*World)
	}{
		{"kind-transit-via", fiberOnly + "[downstream.inner]\nkind = \"transit\"\ninterface = \"lan0\"\nvia = \"fe80::2\"\nlength = 60\naddress = \"::1\"\n", both("2001:db8:1100::/56"), nil},
		{"kind-transit-pool", fiberOnly + "[downstream.inner]\nkind = \"transit\"\ninterface = \"lan0\"\nlength = 60\n", both("2001:db8:1100::/56"), func(w *World) {
			w.Borrowers = []Borrower{inner("inner", "fe80::22", 1, 0), inner("inner", "fe80::33", 2, 62)}
			w.Borrowers[1].Offered = true
		}},
		{"kind-access-loans", smallest, both("2001:db8:1100::/56"), func(w *World) {
			w.Borrowers = []Borrower{inner("lan", "fe80::22", 1, 0), inner("lan", "fe80::22", 2, 48)}
			w.Borrowers[1].Named = []netip.Prefix{pfx("2001:db8:1100:40::/60")}
		}},
		{"kind-service-subnet", fiberOnly + "[downstream.svc]\nkind = \"service\"\nanyip.nonlocal_bind = true\n", both("2001:db8:1100::/56"), nil},
		{"kind-service-interface", fiberOnly + "[downstream.svc]\nkind = \"service\"\ninterface = \"wan0\"\nanyip.mode = \"interface\"\n[downstream.lan]\ninterface = \"lan0\"\n" +
			"[downstream.inner]\nkind = \"transit\"\ninterface = \"lan1\"\nvia = \"fe80::2\"\n", both("2001:db8:1100::/56"), func(w *World) {
			w.Filtered = true
			w.Uplinks["fiber"].Delegations[0].Exclude = pfx("2001:db8:1100:ff::/64")
			l := w.Links["lan2"] // somebody else's network
			l.OnLink = []netip.Prefix{pfx("3fff:1::/64")}
			w.Links["lan2"] = l
			l = w.Links["wan0"] // of what a router on the uplink says, not all is believed
			l.OnLink, l.OnLinkMetric = []netip.Prefix{pfx("2000::/3"), pfx("3fff:2::/64")}, 256
			w.Links["wan0"] = l
			w.Borrowers = []Borrower{inner("lan", "fe80::22", 1, 0)}
		}},
		{"kind-service-unfiltered", fiberOnly + "[downstream.svc]\nkind = \"service\"\ninterface = \"wan0\"\nanyip.mode = \"interface\"\n", both("2001:db8:1100::/56"), nil},
		{"kind-service-mark", fiberOnly + "[downstream.web]\nkind = \"service\"\ninterface = \"wan0\"\nanyip.mode = \"mark\"\nanyip.ports = [\"tcp/80\", \"udp/443\", \"tcp/443\"]\n" +
			"[downstream.own]\nkind = \"service\"\nanyip.mode = \"mark\"\nanyip.mark = 0x80\n[downstream.lan]\ninterface = \"lan0\"\n", both("2001:db8:1100::/56"), nil},
		{"kind-reserve", fiberOnly + "[downstream.later]\nkind = \"reserve\"\n[downstream.lan]\ninterface = \"lan0\"\n", both("2001:db8:1100::/63"), nil},
		{"ula", fiberOnly + "[downstream.lan]\ninterface = \"lan0\"\n[downstream.svc]\nkind = \"service\"\n", both("2001:db8:1100::/56"), func(w *World) { w.ULA = pfx("fd00:1:2::/48") }},
		{"ula-alone", smallest, world(epoch, "lan0", "wan0", "lo"), func(w *World) { w.ULA = pfx("fd00:1:2::/48") }},
		{"ra-off", fiberOnly + "[downstream.lan]\ninterface = \"lan0\"\nra = \"off\"\n", both("2001:db8:1100::/56"), nil},
		{"ladder", fiberOnly + "[downstream.pool]\nkind = \"transit\"\ninterface = \"lan0\"\nlength = 60\n[downstream.a]\ninterface = \"lan1\"\n[downstream.b]\ninterface = \"lan2\"\nsubnet = 6\n" +
			"[downstream.wide]\nkind = \"reserve\"\nlength = 60\n", both("2001:db8:1100::/61"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := tt.world
			if tt.change != nil {
				tt.change(&w)
			}
			cfg := configOf(t, tt.config)
			site, problems, led := Plan(cfg, w, Ledger{})
			golden(t, tt.name, text(site, problems, led, w.Now))
		})
	}
}

// moment is what is known at a moment of a renumbering.
type moment struct {
	name   string
	after  time.Duration
	change func(w *World)
}

// In each way in which a prefix can come and go, every kind of downstream follows at once, and what hosts and inner routers
// may still have is taken back: step by step, as changes of the kernel, announcements, loans and events.
func TestRenumbering(t *testing.T) {
	const config = fiberOnly + "[downstream.lan]\ninterface = \"lan0\"\n[downstream.inner]\nkind = \"transit\"\ninterface = \"lan1\"\nlength = 60\n[downstream.svc]\nkind = \"service\"\n"
	give := func(gs ...Granted) func(w *World) {
		return func(w *World) {
			f := w.Uplinks["fiber"]
			f.Delegations = gs
			w.Uplinks["fiber"] = f
		}
	}
	at := func(after time.Duration) time.Time { return epoch.Add(after) }
	a := granted(epoch, "2001:db8:1100::/56", 3000, 4000)
	b := func(after time.Duration) Granted { return granted(at(after), "2001:db8:1200::/56", 3000, 4000) }
	old := a
	old.PreferredUntil = lifetime.Deadline{}
	silent := a
	silent.Unlisted = true
	carrier := func(up bool) func(w *World) {
		return func(w *World) {
			l := w.Links["wan0"]
			l.Carrier = up
			w.Links["wan0"] = l
		}
	}
	first, end := moment{"bound", 0, nil}, moment{"no host or inner router has the old one any more", 3 * time.Hour, give(b(3 * time.Hour))}
	for _, tt := range []struct {
		name    string
		moments []moment
	}{
		{"r1-graceful", []moment{first, {"the old one deprecated beside the new one", time.Minute, give(old, b(time.Minute))}, {"the old one is over", 4001 * time.Second, give(b(4001 * time.Second))}, end}},
		{"r2-nobinding", []moment{first, {"another one", time.Minute, give(b(time.Minute))}, end}},
		{"r3-flash", []moment{first, {"no carrier", 10 * time.Second, carrier(false)}, {"carrier", 20 * time.Second, carrier(true)}, {"another one", time.Minute, give(b(time.Minute))}, end}},
		{"r4-silent", []moment{first, {"another one, and not a word about the old one", time.Minute, give(silent, b(time.Minute))}, {"the old one is over", 4001 * time.Second, give(b(4001 * time.Second))}, end}},
		{"r5-return", []moment{first, {"over", 4001 * time.Second, give()}, {"the same one again", 4100 * time.Second, give(granted(at(4100*time.Second), "2001:db8:1100::/56", 3000, 4000))}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, w, led := configOf(t, config), fiberHas("2001:db8:1100::/56"), Ledger{}
			w.Borrowers = []Borrower{inner("inner", "fe80::22", 1, 0)}
			w.Borrowers[0].Until = lifetime.After(epoch, 3600*4)
			var was Site
			var out strings.Builder
			for _, m := range tt.moments {
				w.Now = at(m.after)
				f := w.Uplinks["fiber"]
				f.Heard.Routers = []Router{router(w.Now, "fe80::1")}
				w.Uplinks["fiber"] = f
				if m.change != nil {
					m.change(&w)
				}
				site, problems, next := Plan(cfg, w, led)
				fmt.Fprintf(&out, "== %s: %s\n%s", m.after, m.name, kernel.Diff(Compile(was), Compile(site), w.Now).Text())
				_, said, _ := strings.Cut(text(site, problems, next, w.Now), "ra lan:")
				out.WriteString("ra lan:" + said)
				for _, e := range Events(was, site, nil) {
					fmt.Fprintf(&out, "event %s %s %s %v\n", e.Kind, e.Prefix, e.OldPrefix, subnetTexts(e.Subnets))
				}
				was, led = site, next
			}
			golden(t, tt.name, out.String())
		})
	}
}

func subnetTexts(list []Subnet) (texts []string) {
	for _, n := range list {
		texts = append(texts, n.Downstream+"="+n.Prefix.String())
	}
	return texts
}
