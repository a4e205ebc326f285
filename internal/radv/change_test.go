package radv

import (
	"net/netip"
	"testing"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

func TestSameMeaning(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*policy.Announcement)
		same   bool
	}{
		{"nothing", func(a *policy.Announcement) {}, true},
		{"renewed beyond the caps", func(a *policy.Announcement) {
			a.Prefixes[0].PreferredUntil, a.Prefixes[0].ValidUntil = in(5*time.Hour), in(6*time.Hour)
		}, true},
		{"other intervals", func(a *policy.Announcement) { a.MaxInterval = 500 * time.Second }, true},
		{"prefix added", func(a *policy.Announcement) { a.Prefixes = append(a.Prefixes, announce(start, prefixB).Prefixes...) }, false},
		{"prefix removed", func(a *policy.Announcement) { a.Prefixes = nil }, false},
		{"prefix stale", func(a *policy.Announcement) { a.Prefixes[0].Stale = true }, false},
		{"prefix deprecated", func(a *policy.Announcement) { a.Prefixes[0].PreferredUntil = in(0) }, false},
		{"lease cut short", func(a *policy.Announcement) { a.Prefixes[0].ValidUntil = in(time.Minute) }, false},
		{"no way out", func(a *policy.Announcement) { a.Router = false }, false},
		{"DNS added", func(a *policy.Announcement) { a.DNS = []netip.Addr{netip.MustParseAddr("2001:db8::53")} }, false},
		{"NAT64 prefix", func(a *policy.Announcement) {
			a.PREF64 = []policy.PREF64{{Prefix: netip.MustParsePrefix("64:ff9b::/96"), Until: lifetime.Forever()}}
		}, false},
		{"resolver", func(a *policy.Announcement) { a.Resolvers = []pd.Resolver{{Priority: 1, Name: "a"}} }, false},
		{"captive portal", func(a *policy.Announcement) { a.CaptivePortal = "https://portal.example/" }, false},
		{"MTU", func(a *policy.Announcement) { a.MTU = 1400 }, false},
		{"preference", func(a *policy.Announcement) { a.Preference = "high" }, false},
		{"preference spelt out", func(a *policy.Announcement) { a.Preference = "medium" }, true},
		{"O flag", func(a *policy.Announcement) { a.Other = true }, false},
		{"M flag", func(a *policy.Announcement) { a.Managed = true }, false},
		{"L flag", func(a *policy.Announcement) { a.NotOnLink = true }, false},
		{"A flag", func(a *policy.Announcement) { a.NotAutonomous = true }, false},
		{"route", func(a *policy.Announcement) {
			a.Routes = []policy.AnnouncedRoute{{Prefix: prefixB, Until: lifetime.Forever()}}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := announce(start, prefixA), announce(start, prefixA)
			c.change(&b)
			if got := sameMeaning(Build(a, lan, start), Build(b, lan, start)); got != c.same {
				t.Errorf("same meaning: %t, want %t", got, c.same)
			}
		})
	}
}

func TestSameMeaningToleratesJitterOfRenewals(t *testing.T) {
	a, b := announce(start, prefixA), announce(start, prefixA)
	a.Prefixes[0].ValidUntil, b.Prefixes[0].ValidUntil = in(time.Minute), in(time.Minute+1500*time.Millisecond)
	for _, x := range []struct {
		a     *policy.Announcement
		until time.Duration
	}{{&a, 63 * time.Second}, {&b, 64 * time.Second}} { // in two different units of 8 s
		x.a.CaptivePortal, x.a.PREF64 = "https://portal.example/", []policy.PREF64{{Prefix: netip.MustParsePrefix("64:ff9b::/96"), Until: in(x.until)}}
	}
	a.Resolvers = []pd.Resolver{{Priority: 1, Name: "a"}}
	b.Resolvers = a.Resolvers
	if !sameMeaning(Build(a, lan, start), Build(b, lan, start)) {
		t.Error("1.5 s count as a change")
	}
	b.Resolvers = []pd.Resolver{{Priority: 2, Name: "a"}}
	if sameMeaning(Build(a, lan, start), Build(b, lan, start)) {
		t.Error("another priority of a resolver counts as no change")
	}
	b.Resolvers = a.Resolvers
	b.PREF64[0].Until = in(80 * time.Second)
	if sameMeaning(Build(a, lan, start), Build(b, lan, start)) {
		t.Error("a NAT64 prefix for 16 s longer counts as no change")
	}
}
