package policy

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func configOf(t testing.TB, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse(config.File{Name: "uplinkd.toml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func link(name string, index int) kernel.Link {
	return kernel.Link{Name: name, Index: index, Up: true, Carrier: true, MTU: 1500, MAC: "02:00:00:00:01:01"}
}

func world(now time.Time, links ...string) World {
	w := World{Now: now, Links: map[string]kernel.Link{}, Uplinks: map[string]UplinkFacts{}}
	for i, l := range links {
		w.Links[l] = link(l, i+2)
	}
	return w
}

func granted(now time.Time, p string, preferred, valid uint32) Granted {
	return Granted{Prefix: pfx(p), PreferredUntil: lifetime.After(now, preferred), ValidUntil: lifetime.After(now, valid)}
}

func router(now time.Time, a string) Router {
	return Router{Address: netip.MustParseAddr(a), Until: lifetime.After(now, 1800)}
}

const smallest = "[uplink.fiber]\ninterface = \"wan0\"\n\n[downstream.lan]\ninterface = \"lan0\"\n"

// text renders everything Plan and Compile decide about w.
func text(site Site, problems []Problem, led Ledger, now time.Time) string {
	var b strings.Builder
	b.WriteString(kernel.Diff(kernel.State{}, Compile(site), now).Text())
	for _, d := range site.Downstreams {
		fmt.Fprintf(&b, "ra %s: send %v router %v dns %v\n", d.Name, d.Announce.Send, d.Announce.Router, d.Announce.DNS)
		for _, p := range d.Announce.Prefixes {
			fmt.Fprintf(&b, "ra %s: prefix %s preferred %s valid %s stale %v\n", d.Name, p.Prefix, p.PreferredUntil.Text(now), p.ValidUntil.Text(now), p.Stale)
		}
	}
	for _, d := range site.Downstreams {
		for _, r := range d.Announce.Routes {
			fmt.Fprintf(&b, "ra %s: route %s valid %s\n", d.Name, r.Prefix, r.Until.Text(now))
		}
		for _, l := range d.Loans {
			fmt.Fprintf(&b, "loan %s: %s to %s preferred %s valid %s offered %v\n", d.Name, l.Prefix, l.Via, l.PreferredUntil.Text(now), l.ValidUntil.Text(now), l.Offered)
		}
		for _, l := range d.StaleLoans {
			fmt.Fprintf(&b, "loan %s: %s preferred 0 valid 0, told for another %s\n", d.Name, l.Prefix, l.Until.Text(now))
		}
	}
	for _, p := range problems {
		fmt.Fprintf(&b, "problem %s: %s: %s\n", p.Path, p.Code, p.Message)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	fiber := func(now time.Time, gs ...Granted) map[string]UplinkFacts {
		return map[string]UplinkFacts{"fiber": {Reported: true, Delegations: gs, Heard: Heard{Routers: []Router{router(now, "fe80::1")}},
			Told: pd.Info{DNS: []netip.Addr{netip.MustParseAddr("2001:db8:f::53")}}}}
	}
	tests := []struct {
		name, config string
		world        func(w *World)
		ledger       Ledger
	}{
		{name: "nothing-yet", config: smallest},
		{name: "bound", config: smallest, world: func(w *World) { w.Uplinks = fiber(w.Now, granted(w.Now, "2001:db8:1100::/56", 3000, 4000)) }},
		{name: "no-router", config: smallest, world: func(w *World) {
			w.Uplinks = fiber(w.Now, granted(w.Now, "2001:db8:1100::/56", 3000, 4000))
			f := w.Uplinks["fiber"]
			f.Heard = Heard{}
			w.Uplinks["fiber"] = f
		}},
		{name: "renumbering", config: smallest, world: func(w *World) {
			w.Uplinks = fiber(w.Now, granted(w.Now, "2001:db8:1100::/56", 0, 90), granted(w.Now, "2001:db8:1200::/56", 60, 90))
		}},
		{name: "stale", config: smallest, world: func(w *World) { w.Uplinks = fiber(w.Now, granted(w.Now, "2001:db8:1200::/56", 60, 90)) },
			ledger: Ledger{Subnets: map[string]uint64{"lan": 3}, Announced: map[string][]AnnouncedRecord{"lan": {
				{Prefix: pfx("2001:db8:1100::/64"), Until: lifetime.Forever()},
				{Prefix: pfx("2001:db8:1000::/64"), Until: lifetime.Until(epoch.Add(-time.Second))}}}}},
		{name: "lan-missing", config: smallest, world: func(w *World) {
			w.Uplinks = fiber(w.Now, granted(w.Now, "2001:db8:1100::/56", 3000, 4000))
			delete(w.Links, "lan0")
		}},
		{name: "no-lan", config: "[uplink.fiber]\ninterface = \"wan0\"\n", world: func(w *World) {
			w.Uplinks = fiber(w.Now, granted(w.Now, "2001:db8:1100::/56", 0, 90), granted(w.Now, "2001:db8:1200::/64", 60, 90), granted(w.Now, "2001:db8:1300::/128", 60, 90))
		}},
		{name: "wan-down", config: smallest, world: func(w *World) {
			w.Uplinks = fiber(w.Now, granted(w.Now, "2001:db8:1100::/56", 3000, 4000))
			l := w.Links["wan0"]
			l.Up, l.Carrier = false, false
			w.Links["wan0"] = l
		}},
		{name: "forever", config: smallest, world: func(w *World) {
			w.Uplinks = fiber(w.Now, granted(w.Now, "2001:db8:1100::/64", lifetime.Infinity, lifetime.Infinity))
		}},
		{name: "too-short", config: smallest + "[downstream.guest]\ninterface = \"lan1\"\n[downstream.iot]\ninterface = \"lan2\"\nsubnet = 5\n",
			world: func(w *World) { w.Uplinks = fiber(w.Now, granted(w.Now, "2001:db8:1100::/63", 3000, 4000)) }},
		{name: "three-lans", config: smallest + "[downstream.guest]\ninterface = \"lan1\"\nsubnet = 0x10\naddress = \"::300:0:0:1\"\n[downstream.iot]\ninterface = \"lan2\"\nlength = 60\n",
			world: func(w *World) { w.Uplinks = fiber(w.Now, granted(w.Now, "2001:db8:1100::/56", 3000, 4000)) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := world(epoch, "lan0", "lan1", "lan2", "wan0", "lo")
			if tt.world != nil {
				tt.world(&w)
			}
			site, problems, led := Plan(configOf(t, tt.config), w, tt.ledger)
			golden(t, tt.name, text(site, problems, led, w.Now))
			again, _, led2 := Plan(configOf(t, tt.config), w, led)
			if d := cmp.Diff(text(site, nil, led, w.Now), text(again, nil, led2, w.Now)); d != "" {
				t.Errorf("a second plan from the first one's ledger differs:\n%s", d)
			}
		})
	}
}

// golden compares got with a file in testdata.
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
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// lans gives each named downstream a subnet of the first delegation.
func lans(s Site, names ...string) Site {
	g := s.Uplinks[0].Delegations[0].Prefix
	for i, n := range names {
		s.Downstreams = append(s.Downstreams, Downstream{Name: n, Subnets: []Subnet{{Downstream: n, Uplink: "fiber", Delegation: g,
			Prefix: subnetOf(g, 64, uint64(i))}}})
	}
	return s
}

// tells is s with what its uplink tells.
func tells(s Site, t Told) Site {
	s.Uplinks[0].Told = t
	return s
}

func TestEvents(t *testing.T) {
	site := func(up bool, gs ...Delegation) Site {
		return Site{Now: epoch, Uplinks: []Uplink{{Name: "fiber", Interface: "wan0", Up: up, Gateway: netip.MustParseAddr("fe80::1"), Delegations: gs}}}
	}
	g := func(p string, s State) Delegation {
		return Delegation{Prefix: pfx(p), PreferredUntil: lifetime.After(epoch, 60), ValidUntil: lifetime.After(epoch, 90), State: s}
	}
	const a, b = "2001:db8:1100::/56", "2001:db8:1200::/56"
	tests := []struct {
		name     string
		old, now Site
		lost     []netip.Prefix
		want     []string
	}{
		{"first", Site{}, site(true, g(a, Preferred)), nil, []string{"uplink.up fiber", "prefix.new fiber " + a}},
		{"nothing", site(true, g(a, Preferred)), site(true, g(a, Preferred)), nil, nil},
		{"renumbered", site(true, g(a, Preferred)), site(true, g(b, Preferred)), nil,
			[]string{"prefix.new fiber " + b, "prefix.changed fiber " + b + " from " + a, "prefix.lost fiber " + a}},
		{"gracefully", site(true, g(a, Preferred)), site(true, g(a, Deprecated), g(b, Preferred)), nil,
			[]string{"prefix.new fiber " + b, "prefix.changed fiber " + b + " from " + a, "prefix.deprecated fiber " + a}},
		{"outage", site(true, g(a, Preferred)), site(false), nil, []string{"prefix.lost fiber " + a, "uplink.down fiber"}},
		{"return", site(false), site(true, g(a, Preferred)), []netip.Prefix{pfx(a)}, []string{"uplink.up fiber", "prefix.restored fiber " + a}},
		{"preferred again", site(true, g(a, Deprecated)), site(true, g(a, Preferred)), nil, []string{"prefix.restored fiber " + a}},
		{"another LAN", lans(site(true, g(a, Preferred)), "lan"), lans(site(true, g(a, Preferred)), "lan", "guest"), nil, []string{"subnet.new fiber " + a + " guest"}},
		{"LAN gone", lans(site(true, g(a, Preferred)), "lan", "guest"), lans(site(true, g(a, Preferred)), "lan"), nil, []string{"subnet.lost fiber " + a + " guest"}},
		{"told", site(true, g(a, Preferred)), tells(site(true, g(a, Preferred)), Told{Info: pd.Info{AFTR: "aftr.example"}}), nil, []string{"uplink.informed fiber AFTR aftr.example"}},
		{"told first", Site{}, tells(site(true, g(a, Preferred)), Told{Info: pd.Info{AFTR: "aftr.example"}}), nil,
			[]string{"uplink.up fiber AFTR aftr.example", "uplink.informed fiber AFTR aftr.example", "prefix.new fiber " + a + " AFTR aftr.example"}},
		{"told no more", tells(site(true), Told{Info: pd.Info{AFTR: "aftr.example"}}), site(true), nil, []string{"uplink.informed fiber"}},
		{"told and removed", tells(site(true), Told{Info: pd.Info{AFTR: "aftr.example"}}), Site{Now: epoch}, nil, []string{"uplink.down fiber"}},
		{"lost with word", tells(site(true, g(a, Preferred)), Told{Info: pd.Info{AFTR: "a.example"}}), tells(site(false), Told{Info: pd.Info{AFTR: "a.example"}}), nil,
			[]string{"prefix.lost fiber " + a + " AFTR a.example", "uplink.down fiber AFTR a.example"}},
		{"uplink removed", site(true, g(a, Preferred)), Site{Now: epoch}, nil, []string{"prefix.lost fiber " + a, "uplink.down fiber"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, e := range Events(tt.old, tt.now, tt.lost) {
				s := e.Kind + " " + e.Uplink
				if e.Prefix.IsValid() {
					s += " " + e.Prefix.String()
				}
				if e.OldPrefix.IsValid() {
					s += " from " + e.OldPrefix.String()
				}
				if _, there := find(tt.now.Uplinks, e.Uplink); there != (e.Told != nil) {
					t.Errorf("%s: told %v", e.Kind, e.Told)
				} else if there && e.Told.AFTR != "" {
					s += " AFTR " + e.Told.AFTR
				}
				if strings.HasPrefix(e.Kind, "subnet.") {
					s += " " + e.Subnets[0].Downstream
				}
				got = append(got, s)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// An uplink keeps its table over restarts and absence, and a hundred renamed uplinks do not run out of numbers.
func TestUplinkNumbers(t *testing.T) {
	var led Ledger
	number := func(name string) uint32 {
		site, _, next := Plan(configOf(t, "[uplink."+name+"]\ninterface = \"wan0\"\n"), world(epoch), led)
		led = next
		return site.Uplinks[0].Number
	}
	if a, b, again := number("a"), number("b"), number("a"); a != 1 || b != 2 || again != 1 {
		t.Errorf("a got %d, b %d, a again %d", a, b, again)
	}
	for i := range 300 {
		if n := number(fmt.Sprintf("u%d", i)); n < 1 || n > config.MaxUplinks {
			t.Fatalf("the %d. name got number %d", i, n)
		}
	}
}

// Whoever has a delegation keeps it: an uplink that is newly given what overlaps it does not draw its traffic away, also
// not the first one in the config.
func TestNobodyTakesAnothersDelegation(t *testing.T) {
	cfg := configOf(t, "[uplink.a]\ninterface = \"wan0\"\n[uplink.b]\ninterface = \"wan1\"\n[downstream.lan]\ninterface = \"lan0\"\n")
	w := world(epoch, "wan0", "wan1", "lan0")
	w.Uplinks = map[string]UplinkFacts{"b": {Delegations: []Granted{granted(epoch, "2001:db8:bb00::/56", 100, 200)}}}
	_, _, led := Plan(cfg, w, Ledger{})
	w.Uplinks["a"] = UplinkFacts{Delegations: []Granted{granted(epoch, "2001:db8:bb00::/48", 100, 200)}}
	site, problems, led := Plan(cfg, w, led)
	if len(site.Uplinks[0].Delegations) != 0 || len(site.Uplinks[1].Delegations) != 1 {
		t.Errorf("a has %v, b has %v", site.Uplinks[0].Delegations, site.Uplinks[1].Delegations)
	}
	if len(problems) != 1 || problems[0].Path != "uplink.a" || problems[0].Code != "delegation-overlap" {
		t.Errorf("problems %v", problems)
	}
	delete(w.Uplinks, "b") // once it is free, it is free
	if site, _, _ = Plan(cfg, w, led); len(site.Uplinks[0].Delegations) != 1 {
		t.Errorf("a has %v after b has lost its own", site.Uplinks[0].Delegations)
	}
}

// Some providers number the link to the router out of the delegation: that subnet is not for a LAN, also where the router has
// no address in it. And the router's address there leaves through that uplink.
func TestAddressesOnTheUplink(t *testing.T) {
	w := world(epoch, "wan0", "lan0")
	l := w.Links["wan0"]
	l.Globals = []netip.Prefix{pfx("2001:db8:1100::99/64"), pfx("2001:db8:77::5/64")}
	l.OnLink = []netip.Prefix{pfx("2001:db8:1100::/56"), pfx("2001:db8:1100::/64"), pfx("2001:db8:1100:1::/64"), pfx("2001:db8:77::/64")}
	w.Links["wan0"] = l
	w.Uplinks["fiber"] = UplinkFacts{Delegations: []Granted{granted(epoch, "2001:db8:1100::/56", 100, 200)}}
	site, problems, _ := Plan(configOf(t, smallest), w, Ledger{})
	if got := site.Downstreams[0].Subnets; len(got) != 1 || got[0].Prefix != pfx("2001:db8:1100:2::/64") || len(problems) > 0 {
		t.Errorf("subnets %v, problems %v", got, problems)
	}
	got := Compile(site).Text(epoch)
	if !strings.Contains(got, "pref 10001 from 2001:db8:77::5/128 lookup 1001") || strings.Contains(got, "::99/128") {
		t.Errorf("rules:\n%s", got)
	}
	_, problems, _ = Plan(configOf(t, smallest+"subnet = 0\n"), w, Ledger{})
	if len(problems) != 1 || problems[0].Code != "subnet-overlap" {
		t.Errorf("an explicit id on the uplink: %v", problems)
	}
}

// What the provider keeps for its own link is no subnet of a downstream (RFC 6603), and the router's leased address stands
// on the uplink with a rule of its own.
func TestExcludedPrefixAndLeasedAddress(t *testing.T) {
	w := world(epoch, "wan0", "lan0")
	g := granted(epoch, "2001:db8:1100::/56", 100, 200)
	g.Exclude = pfx("2001:db8:1100::/64")
	w.Uplinks["fiber"] = UplinkFacts{Delegations: []Granted{g}, Addresses: []Leased{
		{Address: netip.MustParseAddr("2001:db8:77::5"), PreferredUntil: lifetime.After(epoch, 60), ValidUntil: lifetime.After(epoch, 90)},
		{Address: netip.MustParseAddr("2001:db8:77::6")}}}
	site, problems, _ := Plan(configOf(t, smallest), w, Ledger{})
	if got := site.Downstreams[0].Subnets; len(got) != 1 || got[0].Prefix != pfx("2001:db8:1100:1::/64") || len(problems) > 0 {
		t.Errorf("subnets %v, problems %v", got, problems)
	}
	got := Compile(site).Text(epoch)
	for _, want := range []string{"address 2001:db8:77::5/128 dev wan0 valid_lft 90 preferred_lft 60", "rule pref 10001 from 2001:db8:77::5/128 lookup 1001"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "2001:db8:77::6") {
		t.Errorf("an address whose time is over is wanted:\n%s", got)
	}
}

// A provider that delegates a /64 at a time serves several LANs with several IA_PDs.
func TestOneDelegationPerLAN(t *testing.T) {
	w := world(epoch, "wan0", "lan0", "lan1")
	w.Uplinks["fiber"] = UplinkFacts{Delegations: []Granted{granted(epoch, "2001:db8:1::/64", 100, 200), granted(epoch, "2001:db8:2::/64", 100, 200)}}
	cfg := configOf(t, smallest+"[downstream.guest]\ninterface = \"lan1\"\n")
	site, problems, led := Plan(cfg, w, Ledger{})
	lan, guest := site.Downstreams[0].Subnets, site.Downstreams[1].Subnets
	if len(lan) != 1 || len(guest) != 1 || lan[0].Prefix == guest[0].Prefix || len(problems) > 0 {
		t.Fatalf("lan %v, guest %v, problems %v", lan, guest, problems)
	}
	again, _, _ := Plan(cfg, w, led)
	if again.Downstreams[0].Subnets[0] != lan[0] || again.Downstreams[1].Subnets[0] != guest[0] {
		t.Errorf("a second plan deals out otherwise: %v", again.Downstreams)
	}
	w.Uplinks["fiber"] = UplinkFacts{Delegations: w.Uplinks["fiber"].Delegations[:1]}
	if _, problems, _ = Plan(cfg, w, led); len(problems) != 1 || problems[0].Code != "delegation-full" || problems[0].Path != "downstream.guest" {
		t.Errorf("with one of them: %v", problems)
	}
}
