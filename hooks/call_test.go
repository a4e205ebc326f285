package hooks

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"uplinkd/internal/config"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

var update = flag.Bool("update", false, "rewrite the expected texts in testdata")

var epoch = time.Date(2026, 1, 31, 13, 0, 0, 500, time.FixedZone("CET", 3600))

// prefixItem is an event with every field that a prefix has.
func prefixItem(kind string) Item {
	delegation := netip.MustParsePrefix("2001:db8:0:100::/56")
	return Item{Seq: 7, At: epoch, Event: policy.Event{
		Kind: kind, Uplink: "fiber", Interface: "wan0",
		Prefix: delegation, OldPrefix: netip.MustParsePrefix("2001:db8:0:200::/56"),
		Preferred: 2700, Valid: lifetime.Infinity,
		Subnets: []policy.Subnet{
			{Downstream: "lan", Interface: "lan0", Uplink: "fiber", Delegation: delegation, ID: 1,
				Prefix: netip.MustParsePrefix("2001:db8:0:101::/64"), Address: netip.MustParsePrefix("2001:db8:0:101::1/64"),
				PreferredUntil: lifetime.After(epoch, 2700), ValidUntil: lifetime.Forever(), State: policy.Preferred},
			{Downstream: "guest", Interface: "lan1", Uplink: "fiber", Delegation: delegation, ID: 2,
				Prefix: netip.MustParsePrefix("2001:db8:0:102::/64"), Address: netip.MustParsePrefix("2001:db8:0:102::1/64"),
				PreferredUntil: lifetime.After(epoch, 2700), ValidUntil: lifetime.Forever(), State: policy.Preferred},
			{Downstream: "web", Kind: "service", Uplink: "fiber", Delegation: delegation, ID: 3, Prefix: netip.MustParsePrefix("2001:db8:0:103::/64"),
				PreferredUntil: lifetime.After(epoch, 2700), ValidUntil: lifetime.Forever(), State: policy.Preferred},
		},
	}, Site: map[string]any{"uplinks": []string{"fiber"}}}
}

func uplinkItem() Item {
	return Item{Seq: 8, At: epoch, Test: true, Event: policy.Event{Kind: policy.UplinkUp, Uplink: "fiber", Interface: "wan0", Gateway: netip.MustParseAddr("fe80::1")}}
}

// informedItem is an event about a provider that tells everything.
func informedItem() Item {
	a, b := netip.MustParseAddr("2001:db8::53"), netip.MustParseAddr("2001:db8::54")
	return Item{Seq: 9, At: epoch, Event: policy.Event{Kind: policy.UplinkInformed, Uplink: "fiber", Interface: "wan0", Gateway: netip.MustParseAddr("fe80::1"),
		Told: &policy.Told{Info: pd.Info{DNS: []netip.Addr{a, b}, DomainSearch: []string{"example.net", "example.org"}, NTP: []netip.Addr{a},
			NTPNames: []string{"ntp.example.net"}, SNTP: []netip.Addr{b}, AFTR: "aftr.example.net", CaptivePortal: "https://portal.example/?a=1&b='x';",
			Resolvers: []pd.Resolver{{Priority: 1, Name: "dot.example.net", Addresses: []netip.Addr{a, b}, Params: []byte{0, 1, 0, 4, 3, 'd', 'o', 't'}}, {Priority: 2, Name: "doh.example.net"}},
			S46:       []pd.Option{{Code: 94, Data: []byte{0, 89, 0, 1, 0xff}}},
			Unknown:   []pd.Option{{Code: 143, Data: []byte("x\n")}, {Code: 17, Data: []byte{1}}, {Code: 17}}},
			PREF64: []policy.PREF64{{Prefix: netip.MustParsePrefix("64:ff9b::/96"), Until: lifetime.After(epoch, 1800)}}}}}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, event string
		want           bool
	}{
		{"*", "prefix.new", true},
		{"prefix.*", "prefix.new", true},
		{"prefix.*", "uplink.up", false},
		{"prefix.*", "prefix", false},
		{"prefix.new", "prefix.new", true},
		{"prefix.new", "prefix.newer", false},
		{"uplink.up", "uplink.down", false},
	} {
		if got := Match(c.pattern, c.event); got != c.want {
			t.Errorf("Match(%q, %q) = %v, want %v", c.pattern, c.event, got, c.want)
		}
	}
}

// TestPatternsNameAllEvents keeps the words of the configuration and the events of policy together; neither package may
// import the other for this.
func TestPatternsNameAllEvents(t *testing.T) {
	events := []string{policy.PrefixNew, policy.PrefixChanged, policy.PrefixDeprecated, policy.PrefixLost,
		policy.PrefixRestored, policy.SubnetNew, policy.SubnetLost, policy.UplinkUp, policy.UplinkInformed, policy.UplinkDown}
	patterns := config.EventPatterns()
	for _, e := range events {
		if !slices.Contains(patterns, e) {
			t.Errorf("the configuration does not know the event %s", e)
		}
	}
	for _, p := range patterns {
		if !slices.ContainsFunc(events, func(e string) bool { return Match(p, e) }) {
			t.Errorf("no event matches the pattern %s", p)
		}
	}
}

func TestNative(t *testing.T) {
	for name, i := range map[string]Item{"prefix": prefixItem(policy.PrefixChanged), "uplink": uplinkItem(), "informed": informedItem()} {
		t.Run(name, func(t *testing.T) {
			call, err := Native(config.Hook{Name: "x", Run: []string{"/bin/x", "-v"}}, i)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, strings.Join(call.Argv, " ")+"\n\n"+strings.Join(call.Env, "\n")+"\n\n"+string(call.Stdin))
		})
	}
}

// TestFactsStayInTheirWords spoils each fact in a way that would make a script see others: the program is not called.
func TestFactsStayInTheirWords(t *testing.T) {
	for name, spoil := range map[string]func(*policy.Told){
		"search":       func(o *policy.Told) { o.DomainSearch[0] = "a.example b.example" },
		"empty search": func(o *policy.Told) { o.DomainSearch[0] = "" },
		"AFTR":         func(o *policy.Told) { o.AFTR = "a\tb" },
		"portal":       func(o *policy.Told) { o.CaptivePortal = "https://a/\u00a0x" },
		"resolver":     func(o *policy.Told) { o.Resolvers[0].Name = "a b" },
		"NTP":          func(o *policy.Told) { o.NTPNames[0] = "a b" },
		"zone":         func(o *policy.Told) { o.DNS[0] = netip.MustParseAddr("fe80::1").WithZone("a b") },
		"escape":       func(o *policy.Told) { o.CaptivePortal = "https://a/\x1b[2J" },
		"too long":     func(o *policy.Told) { o.Unknown[0].Data = make([]byte, maxValue/2+1) },
	} {
		i := informedItem()
		spoil(i.Event.Told)
		if call, err := Native(config.Hook{Name: "x", Run: []string{"/bin/x"}}, i); err == nil {
			t.Errorf("%s: accepted as %q", name, call.Env)
		} else if strings.ContainsAny(err.Error(), "\n\x00\x1b\t") || len(err.Error()) > 500 {
			t.Errorf("%s: the error is long or not printable: %q", name, err)
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestNativeRefusesControlCharacters(t *testing.T) {
	for name, spoil := range map[string]func(*policy.Event){
		"event":      func(e *policy.Event) { e.Kind = "prefix.new\n" },
		"uplink":     func(e *policy.Event) { e.Uplink = "a\x00b" },
		"interface":  func(e *policy.Event) { e.Interface = "wan\x1b[0m" },
		"gateway":    func(e *policy.Event) { e.Gateway = netip.MustParseAddr("fe80::1").WithZone("a\nb") },
		"downstream": func(e *policy.Event) { e.Subnets[0].Downstream = "lan\tx" },
		"UTF-8":      func(e *policy.Event) { e.Uplink = "a\xff" },
	} {
		i := prefixItem(policy.PrefixNew)
		spoil(&i.Event)
		if call, err := Native(config.Hook{Name: "x", Run: []string{"/bin/x"}}, i); err == nil {
			t.Errorf("%s: accepted as %q", name, call.Env)
		} else if strings.ContainsAny(err.Error(), "\n\x00\x1b\t") {
			t.Errorf("%s: the error is not printable: %q", name, err)
		}
	}
}
