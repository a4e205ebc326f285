package main

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"uplinkd/internal/config"
	"uplinkd/internal/engine"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/pd/server"
	"uplinkd/pd/store"
	"uplinkd/policy"
)

func parsed(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse(config.File{Name: "uplinkd.toml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

const lan0, pool0 = "[downstream.lan]\ninterface = \"lan0\"\n", "[downstream.pool]\ninterface = \"lan0\"\nkind = \"transit\"\nlength = 60\n"

// Downstreams on one interface have one server; a transit is what inner routers borrow from.
func TestLenders(t *testing.T) {
	const uplink = "[uplink.fiber]\ninterface = \"wan0\"\n"
	for text, want := range map[string]map[string]string{
		lan0:                                 {"lan0": "lan"},
		lan0 + pool0:                         {"lan0": "pool"},
		pool0 + lan0:                         {"lan0": "pool"},
		lan0 + pool0 + "dhcpv6 = \"off\"\n":  {"lan0": "lan"},
		lan0 + "dhcpv6 = \"off\"\n":          {},
		pool0 + "via = \"fe80::2\"\n":        {},
		lan0 + "dhcpv6.delegate = false\n":   {"lan0": "lan"},
		"[downstream.x]\nkind = \"service\"": {},
		lan0 + "dhcpv6.delegate = false\n[downstream.b]\ninterface = \"lan1\"\n": {"lan0": "lan", "lan1": "b"},
	} {
		if got := lenders(parsed(t, uplink+text)); !maps.Equal(got, want) {
			t.Errorf("%s\nservers %v, want %v", text, got, want)
		}
	}
}

func TestServiceOn(t *testing.T) {
	a := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	dot := pd.Resolver{Priority: 1, Name: "dot.example.net", Addresses: []netip.Addr{a("2001:db8::53")}, Params: []byte{0, 1, 0, 1, 'x'}}
	site := policy.Site{
		Uplinks: []policy.Uplink{
			{Name: "fiber", Told: policy.Told{Info: pd.Info{DNS: []netip.Addr{a("2001:db8::53")}, NTP: []netip.Addr{a("2001:db8::123")}, DomainSearch: []string{"example.net"},
				AFTR: "aftr.example.net", CaptivePortal: "https://one.example.net", Resolvers: []pd.Resolver{dot, dot}}}},
			{Name: "cable", Told: policy.Told{Info: pd.Info{DNS: []netip.Addr{a("2001:db8::53"), a("2001:db8:1::53")}, CaptivePortal: "https://two.example.net"}}},
			{Name: "other", Told: policy.Told{Info: pd.Info{DNS: []netip.Addr{a("2001:db8:2::53")}}}},
		},
		Downstreams: []policy.Downstream{
			{Name: "lan", Interface: "lan0", Subnets: []policy.Subnet{{Uplink: "fiber"}, {Uplink: ""}}},
			{Name: "pool", Interface: "lan0", Loans: []policy.Loan{{Uplink: "cable"}}},
			{Name: "third", Interface: "lan1", Subnets: []policy.Subnet{{Uplink: "other"}}},
		},
	}
	const uplinks = "[uplink.fiber]\ninterface = \"wan0\"\n[uplink.cable]\ninterface = \"wan1\"\n[uplink.other]\ninterface = \"wan2\"\n"
	both := pd.Info{DNS: []netip.Addr{a("2001:db8::53"), a("2001:db8:1::53")}, NTP: []netip.Addr{a("2001:db8::123")}, DomainSearch: []string{"example.net"},
		CaptivePortal: "https://one.example.net", Resolvers: []pd.Resolver{dot}}
	own := both
	own.DNS, own.Resolvers = []netip.Addr{a("fd00::53")}, nil
	for _, c := range []struct {
		text string
		want server.Service
	}{
		{lan0 + pool0, server.Service{Mode: server.Delegating, Info: both, MaxValid: 5400}},
		{lan0 + "ra.dns = [\"fd00::53\"]\n" + pool0, server.Service{Mode: server.Delegating, Info: own, MaxValid: 5400}},
		{lan0 + "dhcpv6.delegate = false\n", server.Service{Mode: server.Stateless, Info: pd.Info{DNS: both.DNS[:1], NTP: both.NTP, DomainSearch: both.DomainSearch,
			CaptivePortal: both.CaptivePortal, Resolvers: both.Resolvers}, MaxValid: 5400}},
		{lan0 + "dhcpv6 = \"off\"\n", server.Service{MaxValid: 5400}},
	} {
		got := serviceOn(parsed(t, uplinks+c.text), site, "lan0")
		if d := cmp.Diff(c.want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Errorf("%s\n(-want +got)\n%s", c.text, d)
		}
	}
}

// Who is told to renew: those whose prefixes have become others, and nobody else.
func TestRelent(t *testing.T) {
	loan := func(client pd.DUID, prefix string, valid time.Duration) policy.Loan {
		return policy.Loan{Client: client, IAID: 1, Prefix: netip.MustParsePrefix(prefix), State: policy.Preferred, ValidUntil: at(valid)}
	}
	const long = 24 * time.Hour
	one, two, old := loan("one", "2001:db8:1::/64", long), loan("two", "2001:db8:1:1::/64", long), loan("one", "2001:db8:1::/64", long)
	old.State = policy.Deprecated
	next, offered := loan("one", "2001:db8:2::/64", long), loan("one", "2001:db8:2::/64", long)
	offered.Offered = true
	stale := policy.LoanRecord{Client: "one", IAID: 1, Prefix: one.Prefix}
	forever := one
	forever.ValidUntil = lifetime.Forever()
	had := func(l ...policy.Loan) policy.Downstream { return policy.Downstream{Loans: l} }
	gone := policy.Downstream{StaleLoans: []policy.LoanRecord{stale}}
	for _, c := range []struct {
		name    string
		was, is policy.Downstream
		want    bool
	}{
		{"nothing", had(one), had(one), false},
		{"another comes", had(one), had(one, two), false},
		{"another leaves", had(one, two), had(one), false},
		{"a second prefix", had(one), had(one, next), true},
		{"renumbered", had(one), had(next), true},
		{"withdrawn", had(one), gone, true},
		{"the downstream lends no more", had(one, two), policy.Downstream{}, true},
		{"withdrawn before", policy.Downstream{}, gone, false},
		{"deprecated", had(one), had(old), true},
		{"an offer", had(one), had(one, offered), false},
		{"extended", had(one), had(loan("one", "2001:db8:1::/64", 2*long)), false},
		{"ends earlier, but later than it was told", had(one), had(loan("one", "2001:db8:1::/64", 2*time.Hour)), false},
		{"ends earlier than it was told", had(one), had(loan("one", "2001:db8:1::/64", 10*time.Minute)), true},
		{"ended for ever, ends soon", had(forever), had(loan("one", "2001:db8:1::/64", 10*time.Minute)), true},
		{"a provider that counts down", had(loan("one", "2001:db8:1::/64", 30*time.Minute)), had(loan("one", "2001:db8:1::/64", 30*time.Minute-3*time.Second)), false},
	} {
		if got := relent(c.was, c.is, night); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestKeeper(t *testing.T) {
	dir := t.TempDir()
	state, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	key := bytes.Repeat([]byte{7}, 16)
	list := []server.Client{{ID: "\x00\x03\x00\x01\x02\x00\x00\x00\x00\x77", Via: netip.MustParseAddr("fe80::77"), Key: key, Replay: 64}}
	saved := func() (list []server.Client) {
		if err := state.ReadOptional("clients-lan0.json", clientsVersion, &list); err != nil {
			t.Error(err)
		}
		return list
	}
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(slog.New(slog.DiscardHandler), state, "lan0")
		if got := saved(); len(got) != 0 {
			t.Errorf("before anything was kept: %v", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- k.run(ctx) }()

		obstacle := filepath.Join(dir, "clients-lan0.json.tmp")
		if err := os.MkdirAll(filepath.Join(obstacle, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		k.keep(list) // the disk refuses it
		time.Sleep(time.Second / 2)
		if got := saved(); len(got) != 0 {
			t.Errorf("on disk in spite of the obstacle: %v", got)
		}
		if err := os.RemoveAll(obstacle); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := saved(); len(got) != 1 || !bytes.Equal(got[0].Key, key) || got[0].Replay != 64 {
			t.Errorf("kept %v", got)
		}
		k.keep(nil)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := saved(); len(got) != 0 {
			t.Errorf("what was kept last before the end is not on disk: %v", got)
		}
	})
}

// A server that the config has no more goes on for those who have borrowed, and for no longer than they need to hear of it.
func TestServersHaveALastWord(t *testing.T) {
	const uplink = "[uplink.fiber]\ninterface = \"wan0\"\n"
	lent := policy.Downstream{Name: "lan", Interface: "lan0", Loans: []policy.Loan{{Client: "one", IAID: 1, Prefix: netip.MustParsePrefix("2001:db8:1::/64")}}}
	for _, c := range []struct {
		name, then string
		had        policy.Downstream
		goesOn     bool
	}{
		{"off", lan0 + "dhcpv6 = \"off\"\n", lent, true},
		{"off, and nobody has borrowed", lan0 + "dhcpv6 = \"off\"\n", policy.Downstream{Name: "lan", Interface: "lan0"}, false},
		{"the downstream is gone", "", lent, false},
		{"another one lends", pool0, lent, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			ts := newTasks(t.Context(), slog.New(slog.DiscardHandler), nil, "", nil)
			ts.config, ts.site = parsed(t, uplink+lan0), policy.Site{Downstreams: []policy.Downstream{c.had}}
			s := &serverTask{downstream: "lan", server: server.New(server.Config{Downstream: "lan"})}
			ts.servers["lan0"] = s
			cfg := parsed(t, uplink+c.then)
			ts.dismissServers(cfg)
			ts.site = policy.Site{Downstreams: []policy.Downstream{{Name: "lan", Interface: "lan0"}}} // the engine has followed
			if stops := ts.followServers(cfg); len(stops) != 0 == c.goesOn || (ts.servers["lan0"] == s) != c.goesOn {
				t.Fatalf("%s: %d servers end", c.name, len(stops))
			}
			if !c.goesOn {
				return
			}
			ts.setServices()
			if s.set.Mode != server.Stateless {
				t.Errorf("%s: mode %d at first", c.name, s.set.Mode)
			}
			time.Sleep(lastWord)
			ts.serve(ts.site)
			if s.set.Mode != server.Off {
				t.Errorf("%s: mode %d in the end", c.name, s.set.Mode)
			}
			ts.dismissServers(ts.config)
			if stops := ts.followServers(ts.config); len(stops) != 1 {
				t.Errorf("%s: it does not end with the next reload", c.name)
			}
		})
	}
}

// Every question of the server reaches the engine as what it is.
func TestLendVerbs(t *testing.T) {
	seen := map[engine.LendVerb]server.Verb{}
	for _, v := range []server.Verb{server.Offer, server.Bind, server.Extend, server.Rebind, server.Release} {
		e, ok := lendVerbs[v]
		if other, twice := seen[e]; !ok || twice {
			t.Errorf("%s is %d, like %s", v, e, other)
		}
		seen[e] = v
	}
}
