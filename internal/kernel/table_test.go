package kernel_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"uplinkd/internal/kernel"
)

// The table for dead sources: prefixes that were withdrawn while hosts may still use addresses of them.
//
// A packet from such an address to somewhere else gets an answer at once: a reset ends a TCP connection (ICMPv6 errors are
// advice to TCP and end none), everything else gets ICMPv6 unreachable code 5 (RFC 4443 §3.1, RFC 7084 L-14). It is caught
// in prerouting (Linux 5.9), since what has no route never gets to forward, and before conntrack, which need not hear of it. What
// the router itself is asked goes on, all of NDP, and what stays within the site; so do bridged packets from host to host,
// which br_netfilter shows to this chain. Neither answer can loop: the kernel answers no reset with a reset and no
// ICMPv6 error with another, and limits errors to one per host and second (net.ipv6.icmp.ratelimit).
func Example_deadSources() {
	lans := []string{"lan1", "lan0"}
	dead := []netip.Prefix{netip.MustParsePrefix("2001:db8:2::/56"), netip.MustParsePrefix("2001:db8:1::/48"), netip.MustParsePrefix("2001:db8:1:5::/64")}
	rules := kernel.Ruleset{
		Sets: []kernel.Set{kernel.DeviceSet("downstreams", lans), kernel.PrefixSet("dead", dead)},
		Chains: []kernel.Chain{
			{Name: "dead_source", Rules: []string{
				"ip6 daddr { fe80::/10, ff00::/8 } return",
				"fib daddr type { local, anycast } return",
				"fib daddr oifname " + kernel.Devices(lans) + " return",
				"meta l4proto tcp reject with tcp reset",
				"reject with icmpv6 type policy-fail",
			}},
			{Name: "prerouting", Hook: kernel.Hook{Type: "filter", Point: "prerouting", Priority: "raw"}, Rules: []string{
				"iifname @downstreams ip6 saddr @dead jump dead_source",
			}},
		},
	}
	fmt.Print(kernel.Table{Family: "ip6", Body: rules.Text()}.Script())
	// Output:
	// add table ip6 uplinkd
	// delete table ip6 uplinkd
	// table ip6 uplinkd {
	// 	set downstreams {
	// 		type ifname
	// 		elements = { "lan0", "lan1" }
	// 	}
	// 	set dead {
	// 		type ipv6_addr
	// 		flags interval
	// 		elements = { 2001:db8:1::/48, 2001:db8:2::/56 }
	// 	}
	// 	chain dead_source {
	// 		ip6 daddr { fe80::/10, ff00::/8 } return
	// 		fib daddr type { local, anycast } return
	// 		fib daddr oifname { "lan0", "lan1" } return
	// 		meta l4proto tcp reject with tcp reset
	// 		reject with icmpv6 type policy-fail
	// 	}
	// 	chain prerouting {
	// 		type filter hook prerouting priority raw; policy accept;
	// 		iifname @downstreams ip6 saddr @dead jump dead_source
	// 	}
	// }
}

// Equal rules have one text, however they were put together; empty ones have none.
func TestRulesetIsCanonical(t *testing.T) {
	prefixes := []netip.Prefix{netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2001:db8:1::1/48"), netip.MustParsePrefix("fd00::/8"),
		netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2001:db9::/48")}
	devices := []string{"lan1", "lan0", "lan1", "eth0.7"}
	text := func() string {
		return kernel.Ruleset{Sets: []kernel.Set{kernel.PrefixSet("p", prefixes), kernel.DeviceSet("d", devices), kernel.PrefixSet("none", nil)}}.Text()
	}
	const want = `	set p {
		type ipv6_addr
		flags interval
		elements = { 2001:db8::/32, 2001:db9::/48, fd00::/8 }
	}
	set d {
		type ifname
		elements = { "eth0.7", "lan0", "lan1" }
	}
	set none {
		type ipv6_addr
		flags interval
	}
`
	for range 2 {
		if got := text(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		slices.Reverse(prefixes)
		slices.Reverse(devices)
	}
	if got := (kernel.Ruleset{}).Text(); got != "" {
		t.Errorf("an empty ruleset: %q", got)
	}
}

// Names of devices come from the configuration and from the kernel, which allows almost everything.
func TestSpellable(t *testing.T) {
	for name, want := range map[string]bool{"lan0": true, "eth0.7": true, "br-lan@x": true, "": false, "a\"b": false, "a*": false, "a b": false,
		"a\\b": false, "ä": false, "a\nb": false, "sixteen-letters-": false} {
		if got := kernel.Spellable(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
		if text := (kernel.Ruleset{Sets: []kernel.Set{kernel.DeviceSet("d", []string{name})}}).Text(); !want && text != "\tset d {\n\t\ttype ifname\n\t}\n" {
			t.Errorf("%q: %s", name, text)
		}
	}
}

func TestTableTexts(t *testing.T) {
	wanted := kernel.Table{Family: "ip6", Body: "\tchain a {\n\t\tcounter\n\t}\n"}
	changed := kernel.Table{Family: "ip6"}
	for _, c := range []struct{ got, want string }{
		{kernel.State{Tables: []kernel.Table{wanted}}.Text(now), "table ip6 uplinkd { chain a { counter; }; }\n"},
		{kernel.State{Tables: []kernel.Table{wanted.Found()}}.Text(now), "table ip6 uplinkd # as written, text " + kernel.TextSum(wanted.Body) + "\n"},
		{kernel.State{Tables: []kernel.Table{changed}}.Text(now), "table ip6 uplinkd # changed by somebody else, or half done\n"},
		{kernel.Op{Verb: kernel.Add, Row: wanted}.Object(), "nft add table ip6 uplinkd"},
		{kernel.Op{Verb: kernel.Replace, Row: wanted}.Object(), "nft replace table ip6 uplinkd"},
		{kernel.Op{Verb: kernel.Delete, Row: changed}.Object(), "nft delete table ip6 uplinkd"},
	} {
		if c.got != c.want {
			t.Errorf("got  %s\nwant %s", c.got, c.want)
		}
	}
}

// Without the program nft a router still loses the prefixes that it has to lose.
func TestFailedTableHoldsNothing(t *testing.T) {
	gone := kernel.State{
		Addresses: []kernel.Address{{Dev: "lan0", Prefix: netip.MustParsePrefix("2001:db8:1::1/64")}},
		Rules:     []kernel.Rule{{Family: kernel.IPv6, Priority: 1, From: netip.MustParsePrefix("2001:db8:1::/48"), Action: kernel.Unicast, Table: 1001}},
		Tables:    []kernel.Table{{Family: "inet"}},
	}
	table := kernel.Table{Family: "ip6", Body: "\tchain a {\n\t}\n"}
	plan := kernel.Diff(gone, kernel.State{Tables: []kernel.Table{table}}, now)
	holds := plan.Hold([]kernel.OpError{{Op: plan.Ops[0]}})
	if slices.ContainsFunc(plan.Ops, holds) || plan.Ops[0].Row != kernel.Row(table) {
		t.Errorf("holds something back of\n%s", plan.Text())
	}
}
