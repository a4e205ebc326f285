package policy

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"uplinkd/internal/lifetime"
)

// How long hosts can hold a prefix that is announced no more: what they were told last, at most, and no longer than the cap
// (ra.valid_lifetime, 5400 s). A lifetime that was shortened on the way leaves them with the longer one.
func TestRecordEndsWithWhatHostsWereTold(t *testing.T) {
	at := func(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }
	type told struct{ when, until int } // seconds from epoch; until 0: for ever
	for _, tt := range []struct {
		name string
		told []told
		gone int
		want int // Until; 0: no record
	}{
		{"it ran out", []told{{0, 4000}}, 4000, 0},
		{"withdrawn early", []told{{0, 4000}}, 1000, 4000},
		{"withdrawn long before its end", []told{{0, 90000}}, 1000, 6400},
		{"for ever, and withdrawn", []told{{0, 0}}, 1000, 6400},
		{"extended, and run out", []told{{0, 4000}, {2000, 6000}}, 6000, 0},
		{"extended, and withdrawn", []told{{0, 4000}, {2000, 6000}}, 5000, 6000},
		{"shortened, and run out", []told{{0, 4000}, {1000, 1010}}, 1010, 4000},
		{"shortened from much more, and run out", []told{{0, 90000}, {1000, 1010}, {1005, 1010}}, 1010, 6400},
		{"shortened, and extended", []told{{0, 4000}, {1000, 1010}, {1005, 5000}}, 5000, 0},
	} {
		cfg, led := configOf(t, smallest), Ledger{}
		for _, x := range tt.told {
			w := fiberHas("2001:db8:1100::/56")
			w.Now = at(x.when)
			until := lifetime.Until(at(x.until))
			if x.until == 0 {
				until = lifetime.Forever()
			}
			w.Uplinks["fiber"].Delegations[0].PreferredUntil, w.Uplinks["fiber"].Delegations[0].ValidUntil = until, until
			_, _, led = Plan(cfg, w, led)
		}
		old := led.clone()
		w := fiberHas()
		w.Now = at(tt.gone)
		site, _, led := Plan(cfg, w, led)
		records := led.Announced["lan"]
		d := site.Downstreams[0]
		if tt.want == 0 {
			if len(records) > 0 || len(d.Stale) > 0 || len(d.Dead) > 0 || d.Announce.Send {
				t.Errorf("%s: %+v is left; %+v", tt.name, records, d)
			}
		} else if len(records) != 1 || !records[0].Until.Within(lifetime.Until(at(tt.want)), 0, w.Now) || len(d.Stale) != 1 || len(d.Dead) != 1 || !d.Announce.Send {
			t.Errorf("%s: %+v, want one until %d; %+v", tt.name, records, tt.want, d)
		}

		for i := range old.Announced["lan"] { // as an older version has written it
			old.Announced["lan"][i].Valid = lifetime.Deadline{}
		}
		if _, _, led = Plan(cfg, w, old); !led.Announced["lan"][0].Until.Within(lifetime.Until(at(tt.gone+5400)), 0, w.Now) {
			t.Errorf("%s, with an old ledger: %+v", tt.name, led.Announced["lan"])
		}
	}
}

// The same of a loan.
func TestLoanRecordEndsWithWhatWasTold(t *testing.T) {
	for gone, want := range map[int]int{1000: 4000, 4000: 0} {
		w := fiberHas("2001:db8:1100::/56")
		w.Borrowers = []Borrower{inner("lan", "fe80::2", 1, 64)}
		w.Borrowers[0].Until = lifetime.After(epoch, 9000)
		cfg := configOf(t, smallest)
		_, _, led := Plan(cfg, w, Ledger{})
		later := fiberHas()
		later.Now, later.Borrowers = epoch.Add(time.Duration(gone)*time.Second), w.Borrowers
		site, _, _ := Plan(cfg, later, led)
		stale := site.Downstreams[0].StaleLoans
		if want == 0 && len(stale) > 0 || want > 0 && (len(stale) != 1 || !stale[0].Until.Within(lifetime.After(epoch, uint32(want)), 0, later.Now)) {
			t.Errorf("gone after %d s: %+v, want until %d", gone, stale, want)
		}
	}
}

// A loan ends with what the inner router was told last: no later than its delegation, and 5400 s from now in any case.
func TestLoanEndsWithWhatWasTold(t *testing.T) {
	for asked, want := range map[int]int{1000: 1000, 9000: 4000, 90000: 4000} {
		w := fiberHas("2001:db8:1100::/56")
		w.ULA = netip.MustParsePrefix("fd12:3456:789a::/48")
		w.Borrowers = []Borrower{inner("lan", "fe80::2", 1, 64)}
		w.Borrowers[0].Until = lifetime.After(epoch, uint32(asked))
		site, _, _ := Plan(configOf(t, smallest), w, Ledger{})
		for _, l := range site.Downstreams[0].Loans {
			end := want
			if l.Uplink == "" {
				end = min(asked, 5400)
			}
			if got := l.Until.Seconds(epoch); got != uint32(end) {
				t.Errorf("asked for until %d: %s ends after %d s, want %d", asked, l.Prefix, got, end)
			}
		}
		if n := len(site.Downstreams[0].Loans); n != 2 {
			t.Errorf("%d loans, want one of the delegation and one of the ULA prefix", n)
		}
	}
}

// Flags of prefixes (RFC 7084 L-7) are for hosts: the router goes on delivering on the link.
func TestFlags(t *testing.T) {
	w := fiberHas("2001:db8:1100::/56")
	site, _, _ := Plan(configOf(t, smallest), w, Ledger{})
	if a := site.Downstreams[0].Announce; a.Managed || a.NotOnLink || a.NotAutonomous {
		t.Errorf("by default: %+v", a)
	}
	other, _, _ := Plan(configOf(t, smallest+"ra = { autonomous = false, on_link = false, managed = true }\n"), w, Ledger{})
	if a := other.Downstreams[0].Announce; !a.Send || !a.Managed || !a.NotOnLink || !a.NotAutonomous {
		t.Errorf("with other flags: %+v", a)
	}
	if diff := cmp.Diff(Compile(site).Text(epoch), Compile(other).Text(epoch)); diff != "" {
		t.Errorf("the kernel: -by default +with other flags\n%s", diff)
	}
}

// Who announces on a link: a network, else the first pool for inner routers; nobody where one router has it all.
func TestAnnounces(t *testing.T) {
	const pool, other = "[downstream.pool]\nkind = \"transit\"\ninterface = \"lan0\"\n", "[downstream.other]\nkind = \"transit\"\ninterface = \"lan0\"\n"
	for _, tt := range []struct {
		name, config string
		want         []string
	}{
		{"a pool", pool, []string{"pool"}},
		{"two pools", pool + other, []string{"pool"}},
		{"beside a network", pool + network("lan", "lan0"), []string{"lan"}},
		{"a network elsewhere", pool + network("lan", "lan1"), []string{"pool", "lan"}},
		{"one router", pool + "via = \"fe80::2\"\n", nil},
		{"one router and a pool", pool + "via = \"fe80::2\"\n" + other, []string{"other"}},
		{"others", "[downstream.service]\nkind = \"service\"\n[downstream.reserve]\nkind = \"reserve\"\n", nil},
	} {
		cfg := configOf(t, fiberOnly+tt.config)
		site, _, _ := Plan(cfg, fiberHas("2001:db8:1100::/56"), Ledger{})
		var may, do []string
		for i, d := range site.Downstreams {
			if Announces(cfg, cfg.Downstreams[i]) {
				may = append(may, d.Name)
			}
			if d.Announce.Send {
				do = append(do, d.Name)
			}
		}
		if !slices.Equal(may, tt.want) || !slices.Equal(do, tt.want) {
			t.Errorf("%s: %v may announce and %v do, want %v", tt.name, may, do, tt.want)
		}
	}
}

// Inner routers are told of the way out while there is one, and go on hearing of the router when there is none.
func TestRouterForInnerRouters(t *testing.T) {
	cfg := configOf(t, fiberOnly+"[downstream.pool]\nkind = \"transit\"\ninterface = \"lan0\"\n")
	w := fiberHas("2001:db8:1100::/56")
	site, _, _ := Plan(cfg, w, Ledger{})
	if a := site.Downstreams[0].Announce; !a.Send || !a.Router || !a.Other || len(a.Prefixes) > 0 || a.RouterLifetime != 1800*time.Second {
		t.Errorf("bound: %+v", a)
	}
	if a := site.Without(func(string, netip.Prefix) bool { return true }).Downstreams[0].Announce; !a.Send || a.Router {
		t.Errorf("the kernel refuses the delegation: %+v", a)
	}
	if site, _, _ := Plan(configOf(t, fiberOnly+"[downstream.pool]\nkind = \"transit\"\ninterface = \"lan0\"\nra = \"off\"\n"), w, Ledger{}); site.Downstreams[0].Announce.Send {
		t.Errorf("switched off: %+v", site.Downstreams[0].Announce)
	}
	f := w.Uplinks["fiber"]
	f.Heard = Heard{}
	w.Uplinks["fiber"] = f
	if site, _, _ = Plan(cfg, w, Ledger{}); !site.Downstreams[0].Announce.Send || site.Downstreams[0].Announce.Router {
		t.Errorf("without a router: %+v", site.Downstreams[0].Announce)
	}
}
