package engine

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/fake"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

var (
	update = flag.Bool("update", false, "rewrite the golden files in testdata")
	seed   = flag.Uint64("seed", 0, "order of the random walk; 0: a new one, printed")
)

const (
	fiber   = "[uplink.fiber]\ninterface = \"wan0\"\n"
	cable   = "[uplink.cable]\ninterface = \"wan1\"\nmetric = 2000\n"
	lan     = "[downstream.lan]\ninterface = \"lan0\"\n"
	transit = "[downstream.inner]\nkind = \"transit\"\ninterface = \"lan1\"\nvia = \"fe80::99\"\nlength = 60\n"
	service = "[downstream.web]\nkind = \"service\"\n"
	spare   = "[downstream.spare]\nkind = \"reserve\"\n"
	guest   = "[downstream.guest]\ninterface = \"lan1\"\nsubnet = 0x10\naddress = \"::300:0:0:1\"\n"
)

// place is one hand-written state of the site: what is configured and what the world says.
type place struct {
	name, config string
	leases       map[string][]string // uplink → prefixes; "old PREFIX": preferred lifetime over
	routers      map[string]string
	down         []string // links that are administratively down
	inner        bool     // an inner router behind lan has borrowed a prefix; else it has given it back
}

var places = []place{
	{name: "nothing", config: fiber + lan},
	{name: "bound", config: fiber + lan, leases: give("fiber", "2001:db8:1100::/56"), routers: via("fiber", "fe80::1")},
	{name: "no-router", config: fiber + lan, leases: give("fiber", "2001:db8:1100::/56")},
	{name: "other-router", config: fiber + lan, leases: give("fiber", "2001:db8:1100::/56"), routers: via("fiber", "fe80::2")},
	{name: "renumbering", config: fiber + lan, leases: give("fiber", "old 2001:db8:1100::/56", "2001:db8:1200::/56"), routers: via("fiber", "fe80::1")},
	{name: "renumbered", config: fiber + lan, leases: give("fiber", "2001:db8:1200::/56"), routers: via("fiber", "fe80::1")},
	{name: "two-lans", config: fiber + lan + guest, leases: give("fiber", "2001:db8:1100::/56"), routers: via("fiber", "fe80::1")},
	{name: "one-64", config: fiber + lan + guest, leases: give("fiber", "2001:db8:1300::/64"), routers: via("fiber", "fe80::1")},
	{name: "two-uplinks", config: fiber + cable + lan, leases: both(give("fiber", "2001:db8:1100::/56"), give("cable", "2001:db8:2100::/60")),
		routers: both(via("fiber", "fe80::1"), via("cable", "fe80::3"))},
	{name: "lan-down", config: fiber + lan, leases: give("fiber", "2001:db8:1100::/56"), routers: via("fiber", "fe80::1"), down: []string{"lan0"}},
	{name: "wan-down", config: fiber + lan, leases: give("fiber", "2001:db8:1100::/56"), routers: via("fiber", "fe80::1"), down: []string{"wan0"}},
	{name: "kinds", config: fiber + lan + transit + service + spare, leases: give("fiber", "2001:db8:1100::/56"), routers: via("fiber", "fe80::1")},
	{name: "ula", config: "ula = \"fd12:3456:789a::/48\"\n" + fiber + lan, leases: give("fiber", "2001:db8:1100::/56"), routers: via("fiber", "fe80::1")},
	{name: "inner", config: fiber + lan, leases: give("fiber", "2001:db8:1100::/56"), routers: via("fiber", "fe80::1"), inner: true},
	{name: "inner-renumbered", config: fiber + lan, leases: give("fiber", "2001:db8:1200::/56"), routers: via("fiber", "fe80::1"), inner: true},
	{name: "no-lan", config: fiber, leases: give("fiber", "2001:db8:1100::/56"), routers: via("fiber", "fe80::1")},
}

func give(uplink string, prefixes ...string) map[string][]string {
	return map[string][]string{uplink: prefixes}
}
func via(uplink, router string) map[string]string { return map[string]string{uplink: router} }

func both[V any](a, b map[string]V) map[string]V {
	for k, v := range b {
		a[k] = v
	}
	return a
}

// lease makes the lease of a place; everything lasts for ever, so that the kernel's text does not depend on the time.
func lease(prefixes []string) (l pd.Lease) {
	for _, s := range prefixes {
		p := pd.LeasedPrefix{PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()}
		if rest, old := cutPrefix(s, "old "); old {
			s, p.PreferredUntil = rest, lifetime.Deadline{}
		}
		p.Prefix = netip.MustParsePrefix(s)
		l.Prefixes = append(l.Prefixes, p)
	}
	return l
}

// walker drives an engine on some kernel from place to place.
type walker struct {
	t       *testing.T
	e       *Engine
	k       Kernel
	setLink func(name string, up bool)
}

// visit brings the engine to p and returns what the kernel then holds.
func (w walker) visit(p place) string {
	w.t.Helper()
	for _, l := range []string{"wan0", "wan1", "lan0", "lan1"} {
		up := true
		for _, d := range p.down {
			up = up && d != l
		}
		w.setLink(l, up)
	}
	cfg := parse(w.t, p.config)
	if err := w.e.Reload(w.t.Context(), cfg); err != nil {
		w.t.Fatal(err)
	}
	for _, u := range cfg.Uplinks {
		var routers []policy.Router
		if r := p.routers[u.Name]; r != "" {
			routers = []policy.Router{{Address: netip.MustParseAddr(r), Until: lifetime.Forever()}}
		}
		w.e.Heard(u.Name, policy.Heard{Routers: routers})
		w.e.Client(u.Name, ClientStatus{State: "bound", Reported: true, Lease: lease(p.leases[u.Name])}, true)
	}
	if err := w.e.Reload(w.t.Context(), cfg); err != nil { // also waits until the facts before it have been acted on
		w.t.Fatal(err)
	}
	a := Ask{Downstream: "lan", Client: innerRouter, Via: netip.MustParseAddr("fe80::77"), Verb: LendRelease, IAs: []AskedIA{{IAID: 1}}}
	if p.inner {
		a.Verb = LendBind
	}
	if _, err := w.e.Lend(w.t.Context(), a); err != nil && p.inner {
		w.t.Fatal(err)
	}
	return w.text()
}

const innerRouter pd.DUID = "\x00\x03\x00\x01\x02\x00\x00\x00\x00\x77"

// text is what the kernel holds, with the sysctls that are wanted and without what depends on where the site has been:
// routes to hosts that may still use an old prefix, the nft table that answers them, and what keeps it from looping.
func (w walker) text() string {
	w.t.Helper()
	scope := kernel.Scope{}
	for _, s := range w.e.Snapshot().Wanted.Sysctls {
		scope.Sysctls = append(scope.Sysctls, s.Name)
	}
	state, err := w.k.Read(w.t.Context(), scope)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, d := range w.e.Snapshot().Site.Downstreams {
		state.Routes = slices.DeleteFunc(state.Routes, func(r kernel.Route) bool {
			return slices.ContainsFunc(d.Stale, func(s policy.StalePrefix) bool { return s.Prefix == r.Dst && r.Dev == d.Interface })
		})
	}
	for _, u := range w.e.Snapshot().Site.Uplinks {
		withdrawn := func(p netip.Prefix) bool {
			return slices.ContainsFunc(u.Withdrawn, func(r policy.HeldRecord) bool { return r.Prefix == p })
		}
		state.Routes = slices.DeleteFunc(state.Routes, func(r kernel.Route) bool { return r.Table == u.Table && withdrawn(r.Dst) })
		state.Rules = slices.DeleteFunc(state.Rules, func(r kernel.Rule) bool { return r.Action == kernel.Unreachable && withdrawn(r.From) })
	}
	state.Tables = nil
	return state.Text(time.Now())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("kernel at %s (-want +got):\n%s", name, d)
	}
}

// walk visits every place, then n places in random order; the kernel must look the same every time.
func (w walker) walk(n int) {
	w.t.Helper()
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	w.t.Logf("walk with -seed %d", s)
	rnd := rand.New(rand.NewPCG(s, 0))
	for i := range len(places) + n {
		p := places[i%len(places)]
		if i >= len(places) {
			p = places[rnd.IntN(len(places))]
		}
		golden(w.t, "walk-"+p.name, w.visit(p))
		if w.t.Failed() {
			w.t.Fatalf("at step %d, with -seed %d", i, s)
		}
		before := w.e.Snapshot().Counters.Writes
		if again := w.visit(p); again == "" || w.e.Snapshot().Counters.Writes != before {
			w.t.Fatalf("the second visit of %s in a row wrote %d times, with -seed %d", p.name, w.e.Snapshot().Counters.Writes-before, s)
		}
	}
}

func parse(t testing.TB, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse(config.File{Name: "uplinkd.toml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestWalkFake walks on the fake kernel, among foreign objects; the same walk on the real one is in walk_netns_test.go.
func TestWalkFake(t *testing.T) {
	foreign := kernel.State{Routes: []kernel.Route{{Table: 254, Dst: netip.MustParsePrefix("2001:db8:9::/48"), Metric: 5, Type: kernel.Unicast, Dev: "lan0"}}}
	kern := &fake.Kernel{Foreign: foreign, Link: fakeLinks()}
	e := start(t, kern, newMemory(), parse(t, fiber+lan))
	w := walker{t, e, kern, kern.SetLink}
	w.walk(100)
}

func fakeLinks() (ls []kernel.Link) {
	for i, n := range []string{"lan0", "lan1", "wan0", "wan1"} {
		ls = append(ls, kernel.Link{Name: n, Index: i + 2, Up: true, Carrier: true, MTU: 1500, MAC: fmt.Sprintf("02:00:00:00:00:%02x", i)})
	}
	return append(ls, kernel.Link{Name: "lo", Index: 1, Up: true, Carrier: true, MTU: 65536})
}

// start runs an engine until the test ends or stop is called.
func start(t *testing.T, k Kernel, s Store, cfg *config.Config, change ...func(*Options)) *Engine {
	t.Helper()
	e, _ := startStoppable(t, k, s, cfg, change...)
	return e
}

func startStoppable(t *testing.T, k Kernel, s Store, cfg *config.Config, change ...func(*Options)) (*Engine, func()) {
	t.Helper()
	opt := Options{Config: cfg, Kernel: k, Store: s, Log: quiet(), BootID: "boot-1"}
	for _, c := range change {
		c(&opt)
	}
	e := New(opt)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return e, stop
}
