package radv

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/ndp"
	"pgregory.net/rapid"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

func in(d time.Duration) lifetime.Deadline { return lifetime.Until(start.Add(d)) }

func TestBuild(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*policy.Announcement)
		want   string
	}{
		{"caps hold back a long lease", func(a *policy.Announcement) {}, `
router 30m0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 1h30m0s preferred 45m0s
`},
		{"lifetimes end with the lease, rounded down", func(a *policy.Announcement) {
			a.Prefixes[0].PreferredUntil, a.Prefixes[0].ValidUntil = in(59*time.Second+900*time.Millisecond), in(99*time.Second+999*time.Millisecond)
		}, `
router 30m0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 1m39s preferred 59s
`},
		{"preferred never exceeds valid", func(a *policy.Announcement) {
			a.Prefixes[0].PreferredUntil, a.Prefixes[0].ValidUntil = lifetime.Forever(), in(time.Minute)
		}, `
router 30m0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 1m0s preferred 1m0s
`},
		{"a lease for ever is capped", func(a *policy.Announcement) {
			a.Prefixes[0].PreferredUntil, a.Prefixes[0].ValidUntil = lifetime.Forever(), lifetime.Forever()
		}, `
router 30m0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 1h30m0s preferred 45m0s
`},
		{"a stale prefix has lifetimes 0 and its flags", func(a *policy.Announcement) { a.Prefixes[0].Stale = true }, `
router 30m0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 0s preferred 0s
`},
		{"deadlines that are over", func(a *policy.Announcement) {
			a.Prefixes[0].PreferredUntil, a.Prefixes[0].ValidUntil = in(-time.Hour), in(time.Minute)
		}, `
router 30m0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 1m0s preferred 0s
`},
		{"no way out, another length, MTU", func(a *policy.Announcement) {
			a.Router, a.MTU, a.Prefixes[0].Prefix = false, 1480, netip.MustParsePrefix("2001:db8:a::/60")
		}, `
router 0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
mtu 1480
prefix 2001:db8:a::/60 onlink true auto false valid 1h30m0s preferred 45m0s
`},
		{"DNS for three intervals, without what cannot be one", func(a *policy.Announcement) {
			a.DNS = []netip.Addr{netip.MustParseAddr("2001:db8::53"), netip.MustParseAddr("ff02::1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::53")}
			a.Search = []string{"Lan.Example.", "bad name", "-x.example", strings.Repeat("a", 64) + ".example"}
		}, `
router 30m0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 1h30m0s preferred 45m0s
rdnss [2001:db8::53] lifetime 30m0s
dnssl [lan.example] lifetime 30m0s
`},
		{"DNS not for longer than the prefixes", func(a *policy.Announcement) {
			a.DNS = []netip.Addr{netip.MustParseAddr("2001:db8::53")}
			a.Prefixes[0].ValidUntil = in(10 * time.Second)
		}, `
router 30m0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 10s preferred 10s
rdnss [2001:db8::53] lifetime 10s
`},
		{"a preferred router with more to tell by DHCPv6", func(a *policy.Announcement) { a.Preference, a.Other = "high", true }, `
router 30m0s hoplimit 64 managed false other true preference high
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 1h30m0s preferred 45m0s
`},
		{"other flags (RFC 7084 L-7)", func(a *policy.Announcement) { a.Managed, a.NotOnLink, a.NotAutonomous = true, true, true }, `
router 30m0s hoplimit 64 managed true other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink false auto false valid 1h30m0s preferred 45m0s
`},
		{"a stale prefix has both flags, whatever those of the others are", func(a *policy.Announcement) {
			a.NotOnLink, a.NotAutonomous, a.Prefixes[0].Stale = true, true, true
		}, `
router 30m0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 0s preferred 0s
`},
		{"no default router has no preference (RFC 4191 §2.2)", func(a *policy.Announcement) { a.Router, a.Preference = false, "low" }, `
router 0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 1h30m0s preferred 45m0s
`},
		{"routes without a way out (RFC 7084 L-3), for three intervals, with their prefix, over, and none to everything", func(a *policy.Announcement) {
			a.Router = false
			a.Routes = []policy.AnnouncedRoute{{Prefix: netip.MustParsePrefix("::/0"), Until: lifetime.Forever()},
				{Prefix: netip.MustParsePrefix("2001:db8:a::/56"), Until: lifetime.Forever()},
				{Prefix: netip.MustParsePrefix("2001:db8:a:0:8000::/65"), Until: in(99*time.Second + 900*time.Millisecond)},
				{Prefix: netip.MustParsePrefix("fd00:0:1::/48"), Until: in(0)}, {Prefix: netip.MustParsePrefix("fe80::/64"), Until: lifetime.Forever()}}
		}, `
router 0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 1h30m0s preferred 45m0s
route 2001:db8:a::/56 preference medium lifetime 30m0s
route 2001:db8:a:0:8000::/65 preference medium lifetime 1m39s
route fd00:0:1::/48 preference medium lifetime 0s
`},
		{"the caps of RFC 9096 §3.4 at the longest interval that the config allows", func(a *policy.Announcement) {
			a.MaxInterval, a.RouterLifetime = 1801*time.Second, 2700*time.Second
			a.DNS, a.Search = []netip.Addr{netip.MustParseAddr("2001:db8::53")}, []string{"lan.example"}
			a.Routes = []policy.AnnouncedRoute{{Prefix: netip.MustParsePrefix("2001:db8:a::/56"), Until: lifetime.Forever()}}
			a.Prefixes[0].ValidUntil = lifetime.Forever()
		}, `
router 45m0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 1h30m0s preferred 45m0s
rdnss [2001:db8::53] lifetime 1h30m0s
route 2001:db8:a::/56 preference medium lifetime 1h30m0s
dnssl [lan.example] lifetime 1h30m0s
`},
		{"a NAT64 prefix for three intervals in units of 8 s, not beyond its end; a captive portal", func(a *policy.Announcement) {
			a.MaxInterval = 601 * time.Second
			a.PREF64 = []policy.PREF64{{Prefix: netip.MustParsePrefix("64:ff9b::/96"), Until: lifetime.Forever()},
				{Prefix: netip.MustParsePrefix("2001:db8:64::/48"), Until: in(39 * time.Second)},
				{Prefix: netip.MustParsePrefix("2001:db8:64::/50"), Until: lifetime.Forever()}}
			a.CaptivePortal = "https://portal.example/api"
		}, `
router 30m0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 1h30m0s preferred 45m0s
pref64 64:ff9b::/96 lifetime 30m8s
pref64 2001:db8:64::/48 lifetime 32s
portal https://portal.example/api
`},
		{"resolvers with encrypted protocols (RFC 9463), as DNS servers, padded; none without a name", func(a *policy.Announcement) {
			a.Resolvers = []pd.Resolver{{Priority: 1, Name: "dot.example", Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::53")}, Params: []byte("\x00\x01\x00\x04\x03dot")},
				{Priority: 258, Name: "a"}, {Priority: 1}, {Name: "a"}}
			a.Prefixes[0].ValidUntil = in(10 * time.Second)
		}, `
router 30m0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 10s preferred 10s
option 144 lifetime 10s "\x00\x01\x00\x00\x00\n\x00\r\x03dot\aexample\x00\x00\x10 \x01\r\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00S\x00\b\x00\x01\x00\x04\x03dot\x00\x00\x00\x00\x00"
option 144 lifetime 10s "\x01\x02\x00\x00\x00\n\x00\x03\x01a\x00\x00\x00\x00"
`},
		{"a resolver that no option holds", func(a *policy.Announcement) {
			long := pd.Resolver{Priority: 1, Name: "a", Addresses: slices.Repeat([]netip.Addr{netip.MustParseAddr("2001:db8::53")}, 16)}
			a.Resolvers = []pd.Resolver{long, {Priority: 1, Name: "b"}}
		}, `
router 30m0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 1h30m0s preferred 45m0s
option 144 lifetime 30m0s "\x00\x01\x00\x00\a\b\x00\x03\x01b\x00\x00\x00\x00"
`},
		{"the longest intervals, and a portal that no option holds", func(a *policy.Announcement) {
			a.MaxInterval = 30000 * time.Second
			a.PREF64 = []policy.PREF64{{Prefix: netip.MustParsePrefix("64:ff9b::/96"), Until: lifetime.Forever()}}
			a.CaptivePortal = "https://" + strings.Repeat("p", maxPortal-7)
		}, `
router 30m0s hoplimit 64 managed false other false
lladdr 02:00:00:00:01:01
prefix 2001:db8:a::/64 onlink true auto true valid 1h30m0s preferred 45m0s
pref64 64:ff9b::/96 lifetime 18h12m8s
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := announce(start, prefixA)
			c.change(&a)
			if diff := cmp.Diff(strings.TrimPrefix(c.want, "\n"), text(Build(a, lan, start))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// The last word about a prefix is for hosts that know it by other flags, too.
func TestWithdrawFlags(t *testing.T) {
	a := announce(start, prefixA)
	a.NotOnLink, a.NotAutonomous = true, true
	a.Resolvers = []pd.Resolver{{Priority: 1, Name: "a"}}
	ra := Build(a, lan, start)
	withdraw(ra, true)
	for _, want := range []string{"prefix 2001:db8:a::/64 onlink true auto true valid 0s preferred 0s\n", "option 144 lifetime 0s "} {
		if got := text(ra); !strings.Contains(got, want) {
			t.Errorf("no line %q in:\n%s", want, got)
		}
	}
}

func TestBuildWithoutLinkLayerAddress(t *testing.T) {
	link := lan
	link.MAC = ""
	if got := text(Build(announce(start), link, start)); strings.Contains(got, "lladdr") {
		t.Errorf("a link without MAC has a link-layer address option:\n%s", got)
	}
}

func textOf(a policy.Announcement, gone leftovers, now time.Time) string {
	ra, _ := build(a, gone, lan, now)
	return text(ra)
}

// A provider whose large resolvers become others all the time does not keep hosts from what another one has to say.
func TestLargeResolversLeaveRoom(t *testing.T) {
	var gone leftovers
	large := func(n int) (list []pd.Resolver) {
		for range 4 {
			list = append(list, pd.Resolver{Priority: 1, Name: fmt.Sprintf("r%d.%s.example", n, strings.Repeat("a", 60)), Addresses: []netip.Addr{prefixA.Addr().Next()},
				Params: append([]byte{0, 1, 0, 120}, make([]byte, 120)...)})
			n++
		}
		return list
	}
	for n := range 3 {
		gone.resolvers.replace(encryptedDNSOf(large(4*n)), nil, start.Add(time.Hour))
	}
	a := announce(start, prefixA)
	a.Resolvers, a.Search, a.CaptivePortal = large(100), []string{"lan.example"}, "https://portal.example"
	a.PREF64 = []policy.PREF64{{Prefix: netip.MustParsePrefix("64:ff9b::/96"), Until: lifetime.Forever()}}
	ra, omitted := build(a, gone, lan, start)
	for _, want := range []string{"pref64 64:ff9b::/96", "lan.example", "https://portal.example", "r100", "r103"} {
		if got := text(ra); !strings.Contains(got, want) {
			t.Errorf("no %s in:\n%s", want, got)
		}
	}
	if len(omitted) == 0 {
		t.Error("everything has found room: this tests nothing")
	}
}

func TestForgottenServersAreWithdrawn(t *testing.T) {
	var gone leftovers
	before, after := []netip.Addr{netip.MustParseAddr("2001:db8:a::1"), netip.MustParseAddr("2001:db8::53")}, []netip.Addr{netip.MustParseAddr("2001:db8::53")}
	gone.dns.replace(before, after, start.Add(time.Minute))
	gone.routes.replace([]netip.Prefix{netip.MustParsePrefix("2001:db8:a::/56"), netip.MustParsePrefix("2001:db8:b::/56")},
		[]netip.Prefix{netip.MustParsePrefix("2001:db8:b::/56")}, start.Add(time.Minute))
	gone.search.replace([]string{"old.example"}, nil, start.Add(time.Minute))
	gone.resolvers.replace(encryptedDNSOf([]pd.Resolver{{Priority: 1, Name: "a"}, {Priority: 1, Name: "b"}}), encryptedDNSOf([]pd.Resolver{{Priority: 1, Name: "b"}}), start.Add(time.Minute))
	gone.pref64.replace([]netip.Prefix{netip.MustParsePrefix("64:ff9b::/96")}, nil, start.Add(time.Minute))
	a := announce(start)
	a.DNS, a.Resolvers = after, []pd.Resolver{{Priority: 1, Name: "b"}}
	a.Routes = []policy.AnnouncedRoute{{Prefix: netip.MustParsePrefix("2001:db8:b::/56"), Until: in(time.Hour)}}
	got := textOf(a, gone, start)
	for _, want := range []string{"rdnss [2001:db8:a::1] lifetime 0s\n", "dnssl [old.example] lifetime 0s\n", "rdnss [2001:db8::53] lifetime 30m0s\n",
		"option 144 lifetime 0s \"\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x03\\x01a", "option 144 lifetime 30m0s \"\\x00\\x01\\x00\\x00\\a\\b\\x00\\x03\\x01b",
		"pref64 64:ff9b::/96 lifetime 0s\n", "route 2001:db8:a::/56 preference medium lifetime 0s\n",
		"route 2001:db8:b::/56 preference medium lifetime 30m0s\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q in:\n%s", want, got)
		}
	}
	if got := textOf(a, gone, start.Add(time.Minute)); strings.Contains(got, "lifetime 0s") {
		t.Errorf("withdrawn for longer than hosts can hold it:\n%s", got)
	}
}

// TestBuildBounds builds from arbitrary announcements: the message must be correct, fit and never promise too much.
func TestBuildBounds(t *testing.T) {
	deadline := rapid.Custom(func(t *rapid.T) lifetime.Deadline {
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0:
			return lifetime.Forever()
		case 1:
			return lifetime.Deadline{}
		}
		return in(time.Duration(rapid.Int64Range(-1e9, 1e13).Draw(t, "left")))
	})
	rapid.Check(t, func(t *rapid.T) {
		a := policy.Announcement{
			Send: true, Router: rapid.Bool().Draw(t, "router"),
			RouterLifetime: time.Duration(rapid.Int64Range(-1e9, 1e14).Draw(t, "routerlife")),
			MaxInterval:    time.Duration(rapid.Int64Range(0, 2e12).Draw(t, "max")),
			MTU:            rapid.Uint32Range(0, 9000).Draw(t, "mtu"),
		}
		for i := range rapid.IntRange(0, 60).Draw(t, "prefixes") {
			a.Prefixes = append(a.Prefixes, policy.AnnouncedPrefix{
				Prefix:         netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i)}), rapid.IntRange(40, 128).Draw(t, "length")),
				PreferredUntil: deadline.Draw(t, "preferred"), ValidUntil: deadline.Draw(t, "valid"),
				PreferredCap: time.Duration(rapid.Int64Range(0, 1e13).Draw(t, "pcap")), ValidCap: time.Duration(rapid.Int64Range(0, 1e13).Draw(t, "vcap")),
				Stale: rapid.Bool().Draw(t, "stale"),
			})
		}
		for i := range rapid.IntRange(0, 20).Draw(t, "dns") {
			a.DNS = append(a.DNS, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)}))
		}
		for i := range rapid.IntRange(0, 6).Draw(t, "nat64") {
			a.PREF64 = append(a.PREF64, policy.PREF64{Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte{0, 0x64, 15: byte(i)}),
				rapid.IntRange(0, 128).Draw(t, "nat64 length")), Until: deadline.Draw(t, "nat64 until")})
		}
		for i := range rapid.IntRange(0, 30).Draw(t, "routes") {
			a.Routes = append(a.Routes, policy.AnnouncedRoute{Until: deadline.Draw(t, "route until"),
				Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i), 15: 1}), rapid.OneOf(rapid.Just(0), rapid.IntRange(40, 128)).Draw(t, "route length"))})
		}
		a.Preference, a.Other = rapid.SampledFrom([]string{"", "low", "medium", "high"}).Draw(t, "preference"), rapid.Bool().Draw(t, "other")
		a.Managed, a.NotOnLink, a.NotAutonomous = rapid.Bool().Draw(t, "managed"), rapid.Bool().Draw(t, "not on-link"), rapid.Bool().Draw(t, "not autonomous")
		a.CaptivePortal = rapid.StringMatching(`[a-z0-9/:.]{0,300}`).Draw(t, "portal")
		for i := range rapid.IntRange(0, 6).Draw(t, "resolvers") {
			a.Resolvers = append(a.Resolvers, pd.Resolver{Priority: uint16(i), Name: rapid.StringMatching(`[a-z]{1,64}(\.[a-z]{0,9})?`).Draw(t, "resolver"),
				Addresses: slices.Repeat([]netip.Addr{prefixA.Addr()}, rapid.IntRange(0, 16).Draw(t, "of resolver"))})
		}
		a.Search = rapid.SliceOfN(rapid.StringMatching(`[a-z0-9.-]{0,80}`), 0, 20).Draw(t, "search")
		link := lan
		link.MTU = rapid.IntRange(0, 9000).Draw(t, "linkmtu")

		built, omitted := build(a, leftovers{}, link, start)
		b, err := ndp.MarshalMessage(built)
		if err != nil {
			t.Fatal(err)
		}
		mtu := max(1280, link.MTU)
		if a.MTU >= 1280 {
			mtu = min(mtu, int(a.MTU))
		}
		if size := 40 + len(b); size > mtu {
			t.Fatalf("%d bytes on a link with MTU %d", size, mtu)
		}
		m, err := ndp.ParseMessage(b)
		if err != nil {
			t.Fatal(err)
		}
		ra := m.(*ndp.RouterAdvertisement)
		if ra.OtherConfiguration != a.Other || ra.ManagedConfiguration != a.Managed {
			t.Fatalf("flags of %+v", ra)
		}
		if ra.RouterLifetime == 0 && ra.RouterSelectionPreference != ndp.Medium {
			t.Fatalf("preference %s of a router that is no default router", ra.RouterSelectionPreference)
		}
		prefixes := 0
		for _, o := range ra.Options {
			if r, ok := o.(*ndp.RouteInformation); ok {
				checkRoute(t, r, a)
			}
			o, ok := o.(*ndp.PrefixInformation)
			if !ok {
				continue
			}
			prefixes++
			p := a.Prefixes[o.Prefix.As16()[4]]
			if o.PreferredLifetime > o.ValidLifetime || o.ValidLifetime > p.ValidCap || o.PreferredLifetime > p.PreferredCap ||
				p.Stale && o.ValidLifetime > 0 || o.OnLink == (a.NotOnLink && !p.Stale) ||
				o.AutonomousAddressConfiguration != (o.PrefixLength == 64 && (p.Stale || !a.NotAutonomous)) {
				t.Fatalf("%+v from %+v", o, p)
			}
			if end, ok := p.ValidUntil.Time(); ok && o.ValidLifetime > 0 && start.Add(o.ValidLifetime).After(end) {
				t.Fatalf("valid for %s, the lease only until %s", o.ValidLifetime, p.ValidUntil)
			}
		}
		if prefixes < len(a.Prefixes) && len(omitted) < len(a.Prefixes)-prefixes {
			t.Fatalf("%d of %d prefixes are announced, and only %q is said to be left out", prefixes, len(a.Prefixes), omitted)
		}
	})
}

func checkRoute(t *rapid.T, o *ndp.RouteInformation, a policy.Announcement) {
	r := a.Routes[o.Prefix.As16()[4]]
	if o.PrefixLength == 0 || netip.PrefixFrom(o.Prefix, int(o.PrefixLength)) != r.Prefix.Masked() || o.RouteLifetime > ndValidLimit {
		t.Fatalf("%+v from %+v", o, r)
	}
	if end, ok := r.Until.Time(); ok && o.RouteLifetime > 0 && start.Add(o.RouteLifetime).After(end) {
		t.Fatalf("route for %s, the prefix only until %s", o.RouteLifetime, r.Until)
	}
}
