package radv

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/policy"
)

// from returns an advertisement of a router; seconds 0 means not a default router.
func from(address string, p preference, now time.Time, seconds uint32) advertisement {
	return advertisement{from: netip.MustParseAddr(address), preference: p, routerUntil: lifetime.After(now, seconds)}
}

func routerList(f Facts) string {
	s := ""
	for _, r := range f.Routers {
		s += r.Address.String() + " "
	}
	return s
}

func TestRoutersAreSortedAndExpire(t *testing.T) {
	var tab table
	tab.hear(from("fe80::3", low, start, 1800))
	tab.hear(from("fe80::2", medium, start, 1800))
	tab.hear(from("fe80::1", medium, start, 1800))
	tab.hear(from("fe80::9", high, start, 60))
	if got := routerList(tab.facts()); got != "fe80::9 fe80::1 fe80::2 fe80::3 " {
		t.Errorf("routers %s", got)
	}
	if at, ok := tab.next().Time(); !ok || !at.Equal(start.Add(time.Minute)) {
		t.Errorf("next deadline %s", tab.next())
	}
	if !tab.expire(start.Add(time.Minute)) {
		t.Error("the end of fe80::9 was not noticed")
	}
	tab.hear(from("fe80::1", medium, start, 0)) // withdrawn
	if tab.expire(start.Add(time.Minute)) {
		t.Error("a withdrawal counts as the end of a lifetime")
	}
	if got := routerList(tab.facts()); got != "fe80::2 fe80::3 " {
		t.Errorf("routers %s", got)
	}
}

func TestRoutersAreBounded(t *testing.T) {
	var tab table
	tab.hear(from("fe80::ffff", medium, start, 1800))
	for i := range 100 {
		a := from(fmt.Sprintf("fe80::%x", i+1), medium, start, 0)
		a.dns = []timed[netip.Addr]{{netip.MustParseAddr("2001:db8::53"), in(time.Hour)}}
		tab.hear(a)
	}
	if len(tab.routers) != maxRouters {
		t.Errorf("%d entries", len(tab.routers))
	}
	if f := tab.facts(); routerList(f) != "fe80::ffff " {
		t.Errorf("routers %q: others pushed out the one in use", routerList(f))
	}
}

// Forged routers that promise 18 hours must neither take the place of the one in use nor keep a real one out.
func TestForgedRouters(t *testing.T) {
	var tab table
	forge := func(n int) {
		for i := range n {
			tab.hear(from(fmt.Sprintf("fe80::%x", i+1), medium, start, 65535))
		}
	}
	best := func(want string) {
		t.Helper()
		if f := tab.facts(); len(f.Routers) == 0 || f.Routers[0].Address != netip.MustParseAddr(want) {
			t.Errorf("routers %q, want %s first", routerList(f), want)
		}
	}
	tab.hear(from("fe80::a:1", medium, start, 1800))
	forge(100)
	best("fe80::a:1") // though its address is higher and it was heard least recently
	tab.hear(from("fe80::a:2", high, start, 1800))
	best("fe80::a:2")
	tab.hear(from("fe80::a:2", medium, start, 1800))
	best("fe80::a:2")
	tab.hear(from("fe80::a:2", low, start, 1800)) // the one in use steps back
	best("fe80::5f")

	tab = table{}
	forge(maxRouters)
	tab.hear(from("fe80::a:1", high, start, 1800))
	best("fe80::a:1")
}

func TestServersMakeRoom(t *testing.T) {
	var tab table
	a := from("fe80::1", medium, start, 1800)
	for i := range maxHeardServers {
		a.dns = append(a.dns, timed[netip.Addr]{netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1)), in(time.Duration(10+i) * time.Minute)})
	}
	tab.hear(a)
	newer := netip.MustParseAddr("2001:db8::53")
	a.dns = []timed[netip.Addr]{{newer, in(time.Hour)}}
	tab.hear(a)
	if dns := tab.facts().DNS; len(dns) != maxHeardServers || dns[0] != newer {
		t.Errorf("servers %v: the one that ends first did not make room", dns)
	}
	a.dns = []timed[netip.Addr]{{newer, lifetime.Deadline{}}}
	tab.hear(a)
	tab.expire(start)
	if dns := tab.facts().DNS; len(dns) != maxHeardServers-1 || dns[0] == newer {
		t.Errorf("servers %v: lifetime 0 did not remove one", dns)
	}
}

var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// TestPREF64 has one come from two routers, run out at one of them, and be withdrawn by the other.
func TestPREF64(t *testing.T) {
	var tab table
	hear := func(router string, until lifetime.Deadline) {
		a := from(router, medium, start, 1800)
		a.pref64 = []timed[netip.Prefix]{{nat64, until}}
		tab.hear(a)
		tab.expire(start)
	}
	want := func(until ...lifetime.Deadline) {
		t.Helper()
		got := tab.facts().PREF64
		if len(got) != len(until) || len(until) > 0 && got[0] != (policy.PREF64{Prefix: nat64, Until: until[0]}) {
			t.Errorf("PREF64 %v, want %v", got, until)
		}
	}
	hear("fe80::1", in(10*time.Minute))
	hear("fe80::2", in(20*time.Minute))
	want(in(20 * time.Minute))
	if at, _ := tab.next().Time(); !at.Equal(start.Add(10 * time.Minute)) {
		t.Errorf("next deadline %s", tab.next())
	}
	hear("fe80::2", lifetime.Deadline{})
	want(in(10 * time.Minute))
	tab.expire(start.Add(10 * time.Minute))
	want()
	for i := range 20 {
		a := from("fe80::1", medium, start, 1800)
		a.pref64 = []timed[netip.Prefix]{{netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i)}), 48), in(time.Hour)}}
		tab.hear(a)
	}
	if n := len(tab.facts().PREF64); n != maxHeardPREF64 {
		t.Errorf("%d PREF64", n)
	}
}

// TestCaptivePortal: the option has no lifetime, so it holds as long as its router is one.
func TestCaptivePortal(t *testing.T) {
	var tab table
	say := func(router string, seconds uint32, uri *string) {
		a := from(router, medium, start, seconds)
		a.portal = uri
		tab.hear(a)
		tab.expire(start)
	}
	want := func(uri string) {
		t.Helper()
		if got := tab.facts().CaptivePortal; got != uri {
			t.Errorf("portal %q, want %q", got, uri)
		}
	}
	say("fe80::2", 1800, new("https://two.example/"))
	say("fe80::1", 1800, nil)
	want("https://two.example/")
	say("fe80::2", 1800, nil) // one of several advertisements
	want("https://two.example/")
	say("fe80::2", 1800, new(""))
	want("")
	say("fe80::1", 1800, new("https://one.example/"))
	want("https://one.example/")
	say("fe80::1", 0, nil)
	want("")
}

// TestInvitation: what was said about DHCPv6 is not taken back.
func TestInvitation(t *testing.T) {
	prefix := Prefix{Prefix: prefixA, PreferPD: true, PreferredUntil: in(time.Hour), ValidUntil: in(time.Hour)}
	for _, c := range []struct {
		name   string
		change func(*advertisement)
		want   Invitation
	}{
		{"nothing", func(*advertisement) {}, Advertised},
		{"M", func(a *advertisement) { a.managed = true }, DHCPv6Served},
		{"O", func(a *advertisement) { a.other = true }, DHCPv6Served},
		{"P", func(a *advertisement) { a.prefixes = []Prefix{prefix} }, DHCPv6Served},
		{"P, deprecated", func(a *advertisement) {
			a.prefixes = []Prefix{prefix}
			a.prefixes[0].PreferredUntil = lifetime.Deadline{}
		}, Advertised},
	} {
		t.Run(c.name, func(t *testing.T) {
			var tab table
			if got := tab.facts().Invitation; got != Silence {
				t.Errorf("before: %d", got)
			}
			a := from("fe80::1", medium, start, 0) // not a default router, and soon forgotten
			c.change(&a)
			tab.hear(a)
			tab.expire(start.Add(2 * time.Hour))
			tab.hear(from("fe80::1", medium, start, 0))
			if got := tab.facts().Invitation; got != c.want {
				t.Errorf("invitation %d, want %d", got, c.want)
			}
		})
	}
}

func TestFactsCompare(t *testing.T) {
	base := func() table {
		var tab table
		a := from("fe80::1", medium, start, 1800)
		a.prefixes = []Prefix{{Prefix: prefixA, OnLink: true, PreferredUntil: in(time.Hour), ValidUntil: in(2 * time.Hour)}}
		a.pref64 = []timed[netip.Prefix]{{nat64, in(time.Hour)}}
		a.mac = "02:00:00:00:01:02"
		tab.hear(a)
		return tab
	}
	before := base()
	for _, c := range []struct {
		name   string
		change func(*heard)
		want   novelty
	}{
		{"nothing", func(h *heard) {}, nothing},
		{"router again", func(h *heard) { h.routerUntil = in(40 * time.Minute) }, refreshed},
		{"router a second less", func(h *heard) { h.routerUntil = in(30*time.Minute - time.Second) }, refreshed},
		{"router for a shorter time", func(h *heard) { h.routerUntil = in(time.Minute) }, changed},
		{"no router", func(h *heard) { h.routerUntil = lifetime.Deadline{} }, changed},
		{"M flag", func(h *heard) { h.managed = true }, changed},
		{"prefix deprecated", func(h *heard) { h.prefixes[0].PreferredUntil = lifetime.Deadline{} }, changed},
		{"prefix for ever", func(h *heard) { h.prefixes[0].ValidUntil = lifetime.Forever() }, refreshed},
		{"prefix not on link", func(h *heard) { h.prefixes[0].OnLink = false }, changed},
		{"P flag", func(h *heard) { h.prefixes[0].PreferPD = true }, changed},
		{"MAC address", func(h *heard) { h.mac = "02:00:00:00:01:03" }, changed},
		{"captive portal", func(h *heard) { h.portal = new("https://portal.example/") }, changed},
		{"no captive portal", func(h *heard) { h.portal = new("") }, nothing},
		{"PREF64 again", func(h *heard) { h.pref64[0].until = in(2 * time.Hour) }, refreshed},
		{"PREF64 for a shorter time", func(h *heard) { h.pref64[0].until = in(time.Minute) }, changed},
		{"PREF64 withdrawn", func(h *heard) { h.pref64 = nil }, changed},
		{"another PREF64", func(h *heard) { h.pref64[0].value = prefixB }, changed},
		{"DNS", func(h *heard) {
			h.dns = []timed[netip.Addr]{{netip.MustParseAddr("2001:db8::53"), in(time.Minute)}}
		}, changed},
	} {
		t.Run(c.name, func(t *testing.T) {
			after := base()
			c.change(&after.routers[0])
			if got := after.facts().compare(before.facts()); got != c.want {
				t.Errorf("novelty %d, want %d", got, c.want)
			}
		})
	}
}
