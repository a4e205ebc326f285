package radv

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/policy"
)

// seen are facts about interface 3 with one default router and prefixA.
func seen(change ...func(*Facts)) Facts {
	f := Facts{
		Interface: 3, MACs: []string{"02:00:00:00:01:02"},
		Heard:    policy.Heard{Routers: []policy.Router{{Address: router1, Until: in(time.Hour)}}},
		Prefixes: []Prefix{{Prefix: prefixA, OnLink: true, Autonomous: true, PreferredUntil: in(time.Hour), ValidUntil: in(2 * time.Hour)}},
	}
	for _, c := range change {
		c(&f)
	}
	return f
}

func TestSigns(t *testing.T) {
	other := policy.Router{Address: netip.MustParseAddr("fe80::b"), Until: in(time.Hour)}
	router := func(r policy.Router, mac string) func(*Facts) {
		return func(f *Facts) { f.Routers, f.MACs = []policy.Router{r}, []string{mac} }
	}
	mac := func(mac string) func(*Facts) { return func(f *Facts) { f.MACs = []string{mac} } }
	noRouter := func(f *Facts) { f.Routers, f.MACs = nil, nil }
	prefix := func(change func(*Prefix)) func(*Facts) { return func(f *Facts) { change(&f.Prefixes[0]) } }
	extra := func(onLink bool) func(*Facts) {
		return func(f *Facts) {
			f.Prefixes = append(f.Prefixes, Prefix{Prefix: prefixB, OnLink: onLink, Autonomous: true, PreferredUntil: in(time.Hour), ValidUntil: in(time.Hour)})
		}
	}
	noPrefix := func(f *Facts) { f.Prefixes = nil }
	deprecated := prefix(func(p *Prefix) { p.PreferredUntil = lifetime.Deadline{} })
	for _, c := range []struct {
		name  string
		facts []Facts
		at    time.Duration // of the last of them
		want  string
	}{
		{"the first", []Facts{seen()}, 0, ""},
		{"the same", []Facts{seen(), seen()}, 0, ""},
		{"another router", []Facts{seen(), seen(router(other, ""))}, 0, "another default router: fe80::b"},
		{"another router after none", []Facts{seen(), seen(noRouter), seen(router(other, ""))}, 0, "another default router: fe80::b"},
		{"the router is gone", []Facts{seen(), seen(noRouter)}, 0, ""},
		{"the router is back", []Facts{seen(), seen(noRouter), seen()}, 0, "default router is back: fe80::a"},
		{"the router is back, and stays", []Facts{seen(), seen(noRouter), seen(mac("02:00:00:00:01:09")), seen(mac("02:00:00:00:01:09"))}, 0, ""},
		{"the first router, later than a prefix", []Facts{seen(noRouter), seen()}, 0, ""},
		{"another MAC address", []Facts{seen(), seen(mac("02:00:00:00:01:09"))}, 0, "default router fe80::a has another MAC address: 02:00:00:00:01:09"},
		{"another MAC address after silence about it", []Facts{seen(), seen(mac("")), seen(mac("02:00:00:00:01:09"))}, 0,
			"default router fe80::a has another MAC address: 02:00:00:00:01:09"},
		{"back with another MAC address", []Facts{seen(), seen(noRouter), seen(mac("02:00:00:00:01:09"))}, 0,
			"default router fe80::a has another MAC address: 02:00:00:00:01:09"},
		{"a MAC address, later", []Facts{seen(mac("")), seen()}, 0, ""},
		{"a link without MAC addresses", []Facts{seen(mac("")), seen(mac(""))}, 0, ""},
		{"deprecated", []Facts{seen(), seen(deprecated)}, 0, "prefix deprecated by a router: 2001:db8:a::/64"},
		{"still deprecated", []Facts{seen(), seen(deprecated), seen(deprecated)}, 0, ""},
		{"no longer preferred in time", []Facts{seen(), seen(deprecated)}, time.Hour, ""},
		{"withdrawn", []Facts{seen(), seen(noPrefix)}, 0, "prefix withdrawn by a router: 2001:db8:a::/64"},
		{"run out", []Facts{seen(), seen(noPrefix)}, 2*time.Hour - tolerance, ""},
		{"neither on link nor for addresses", []Facts{seen(prefix(func(p *Prefix) { p.OnLink, p.Autonomous = false, false })), seen(noPrefix)}, 0, ""},
		{"new on link", []Facts{seen(), seen(extra(true))}, 0, "new on-link prefix: 2001:db8:b::/64"},
		{"now on link", []Facts{seen(extra(false)), seen(extra(true))}, 0, "new on-link prefix: 2001:db8:b::/64"},
		{"new, not on link", []Facts{seen(), seen(extra(false))}, 0, ""},
		{"renumbered", []Facts{seen(), seen(deprecated, extra(true))}, 0,
			"prefix deprecated by a router: 2001:db8:a::/64, new on-link prefix: 2001:db8:b::/64"},
		{"another interface", []Facts{seen(), seen(router(other, "02:00:00:00:01:09"), noPrefix, func(f *Facts) { f.Interface = 4 })}, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s Signs
			for i, f := range c.facts {
				now, want := start, ""
				if i == len(c.facts)-1 {
					now, want = start.Add(c.at), c.want
				}
				switch {
				case c.name == "still deprecated" && i == 1:
					want = "prefix deprecated by a router: 2001:db8:a::/64"
				case c.name == "the router is back, and stays" && i == 2:
					want = "default router fe80::a has another MAC address: 02:00:00:00:01:09"
				}
				if got := s.Read(f, now); got != want {
					t.Errorf("facts %d: %q, want %q", i, got, want)
				}
			}
		})
	}
}

// TestTwoRoutersOneAddress has two routers call themselves fe80::a and advertise in turn, for a day. A third one is news at any
// time, and so is the first one after a day of its own.
func TestTwoRoutersOneAddress(t *testing.T) {
	var s Signs
	heard := func(mac string, now time.Time) bool {
		return s.Read(seen(func(f *Facts) { f.MACs = []string{mac} }), now) != ""
	}
	now, signs, lately := start, 0, 0
	for i := range 24 * 60 {
		now = start.Add(time.Duration(i) * time.Minute)
		if heard(fmt.Sprintf("02:00:00:00:01:%02x", i%2), now) {
			signs++
			if i >= 20*60 {
				lately++
			}
		}
	}
	if signs < 10 || signs > 40 || lately > 4 {
		t.Errorf("%d signs in a day, %d of them in the last four hours, want fewer and fewer", signs, lately)
	}
	if !heard("02:00:00:00:01:09", now) {
		t.Error("a third MAC address says nothing")
	}
	if heard("02:00:00:00:01:00", now.Add(time.Second)) {
		t.Error("one of the two says something at once")
	}
	now = now.Add(25 * time.Hour)
	for i := range 3 {
		if now = now.Add(time.Hour + longMACPause); !heard(fmt.Sprintf("02:00:00:00:01:%02x", i%2+1), now) {
			t.Errorf("number %d takes the place of another one, hours later, and that says nothing", i)
		}
	}
	for i := range 100 { // forged
		heard(fmt.Sprintf("02:00:00:00:02:%02x", i), now)
	}
	if len(s.macs.known) != maxMACs {
		t.Errorf("%d MAC addresses are kept", len(s.macs.known))
	}
}

// TestManySigns has a forged advertisement bring more than fits into a line of the log.
func TestManySigns(t *testing.T) {
	var s Signs
	s.Read(seen(), start)
	got := s.Read(seen(func(f *Facts) {
		f.Prefixes = nil
		for i := range byte(100) {
			p := netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, i}), 64)
			f.Prefixes = append(f.Prefixes, Prefix{Prefix: p, OnLink: true, PreferredUntil: in(time.Hour), ValidUntil: in(time.Hour)})
		}
	}), start)
	want := "new on-link prefix: 2001:db8::/64, new on-link prefix: 2001:db8:1::/64, new on-link prefix: 2001:db8:2::/64, " +
		"new on-link prefix: 2001:db8:3::/64, 95 more" // prefixA was there before
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestSignsOfTable goes the whole way, from advertisements to words.
func TestSignsOfTable(t *testing.T) {
	var tab table
	var s Signs
	read := func(want string, options ...[]byte) {
		t.Helper()
		a, err := parseAdvertisement(rawRA(0, 1800, options...), start)
		if err != nil {
			t.Fatal(err)
		}
		tab.hear(a)
		tab.expire(start)
		f := tab.facts()
		f.Interface = 3
		if got := s.Read(f, start); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	read("", []byte{1, 1, 2, 0, 0, 0, 1, 2}, rawPrefix(prefixA, 0xc0, 7200, 3600), rawPrefix(prefixB, 0xc0, 7200, 3600))
	read("prefix deprecated by a router: 2001:db8:a::/64, prefix withdrawn by a router: 2001:db8:b::/64",
		rawPrefix(prefixA, 0xc0, 7200, 0), rawPrefix(prefixB, 0xc0, 0, 0))
	read("default router fe80::a has another MAC address: 02:00:00:00:01:03", []byte{1, 1, 2, 0, 0, 0, 1, 3})
}
