package rtnl

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"uplinkd/internal/kernel"
)

// onLinkOf is what is on-link on the two devices of the lab.
func onLinkOf(t *testing.T, k *Kernel) (v0, v1 []netip.Prefix) {
	t.Helper()
	links, err := k.Links(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		switch l.Name {
		case "v0":
			v0 = l.OnLink
		case "v1":
			v1 = l.OnLink
		}
	}
	return v0, v1
}

// TestOnLink makes routes of all kinds; both ways of filtering dumps find the same ones.
func TestOnLink(t *testing.T) {
	for _, noStrict := range []bool{false, true} {
		t.Run(fmt.Sprintf("noStrict %v", noStrict), func(t *testing.T) {
			k := lab(t, options{noStrict: noStrict})
			for _, args := range []string{
				"address add 2001:db8:2::1/64 dev v0 nodad",
				"address add 2001:db8:3::1/64 dev v0 nodad noprefixroute",
				"address add 2001:db8:4::1/128 dev v0 nodad",                   // a route, but to nobody
				"address add 2001:db8:a::/64 dev v0 nodad",                     // an address of zeros, and a route to its prefix
				"address add 2001:db8:5::1 peer 2001:db8:5::2/128 dev v0",      // a neighbour
				"-6 route add 2001:db8:1::/48 dev v0 proto ra metric 100",      // as NetworkManager has it
				"-6 route add 2001:db8:2::/64 dev v0 proto ra metric 100",      // twice the same
				"-6 route add 2000::/3 dev v1 proto kernel",                    // as of a rogue RA
				"-6 route add fd00:6::/64 dev v1 proto kernel",                 //
				"-6 route add default dev v1 proto kernel",                     // as of another one
				"-6 route add 2001:db8:6::/64 dev v0 proto static",             // the user's
				"-6 route add 2001:db8:7::/64 dev v0 proto ra table 1001",      // in no way of others
				"-6 route add 2001:db8:8::/64 via fe80::77 dev v0 proto ra",    // a Route Information option
				"-6 route add unreachable 2001:db8:9::/64 proto kernel dev lo", // to nobody
			} {
				ip(t, args)
			}
			v0, v1 := onLinkOf(t, k)
			if want := []netip.Prefix{prefix("2001:db8:1::/48"), prefix("2001:db8:2::/64"), prefix("2001:db8:5::2/128"), prefix("2001:db8:a::/64")}; !slices.Equal(v0, want) {
				t.Errorf("on-link on v0: %v, want %v", v0, want)
			}
			if want := []netip.Prefix{prefix("::/0"), prefix("2000::/3"), prefix("fd00:6::/64")}; !slices.Equal(v1, want) {
				t.Errorf("on-link on v1: %v, want %v", v1, want)
			}
			ip(t, "-6 route del unreachable 2001:db8:9::/64") // everything else goes with the devices
		})
	}
}

// TestOnLinkBounded has more prefixes on-link than are told: the longest are left out.
func TestOnLinkBounded(t *testing.T) {
	k := lab(t, options{})
	var lines strings.Builder
	for i := range kernel.MaxOnLink + 6 {
		fmt.Fprintf(&lines, "route add 2001:db8:%x::/64 dev v0 proto kernel\n", i)
	}
	batch(t, lines.String())
	ip(t, "-6 route add 3fff::/20 dev v0 proto kernel")
	v0, v1 := onLinkOf(t, k)
	if len(v0) != kernel.MaxOnLink || !slices.Contains(v0, prefix("3fff::/20")) || !slices.IsSortedFunc(v0, netip.Prefix.Compare) || len(v1) != 0 {
		t.Errorf("on-link on v0: %d, %v; on v1: %v", len(v0), v0, v1)
	}
}

// TestWatchOnLink hears of what becomes on-link and of its end. Others' routes are no reason to dump main again.
func TestWatchOnLink(t *testing.T) {
	k := lab(t, options{})
	settled(t, k, 0)
	h := newHints()
	watching(t, k, h.hint)
	h.next(t, "the watch stands")
	for _, change := range []struct {
		args  string
		want  int
		fresh bool
	}{
		{"-6 route add 2001:db8:1::/64 dev v0 proto kernel expires 1000", 1, false},
		{"-6 route add 2001:db8:2::/48 via fe80::77 dev v0 proto static", 1, true},
		{"-6 route del 2001:db8:1::/64 dev v0", 0, false},
		{"address add 2001:db8:3::1/64 dev v0 nodad", 1, false},
		{"link set v0 down", 0, false},
	} {
		h.quiet()
		onLinkOf(t, k)
		ip(t, change.args)
		h.next(t, change.args)
		k.onLink.mu.Lock()
		fresh := k.onLink.fresh
		k.onLink.mu.Unlock()
		if v0, _ := onLinkOf(t, k); len(v0) != change.want || fresh != change.fresh {
			t.Errorf("%s: on-link on v0: %v; what was read before counts: %v", change.args, v0, fresh)
		}
	}
}
