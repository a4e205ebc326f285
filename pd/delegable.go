package pd

import (
	"fmt"
	"net/netip"
)

// minDelegation is the shortest prefix length that is taken for a delegation. A /29 is what a whole provider gets of RIPE NCC
// unless it can show that it needs more. A shorter one would hold other providers' prefixes, so that these could not be used as
// delegations of other uplinks, which must not overlap.
const minDelegation = 29

// delegated are the ranges that delegations come from: global unicast and unique local addresses (RFC 4193).
var delegated = []netip.Prefix{netip.MustParsePrefix("2000::/3"), netip.MustParsePrefix("fc00::/7")}

// neverDelegated are ranges that no server can have delegated, whatever it says.
var neverDelegated = []struct {
	prefix netip.Prefix
	why    string
}{
	{netip.MustParsePrefix("ff00::/8"), "overlaps multicast ff00::/8"},
	{netip.MustParsePrefix("fe80::/10"), "overlaps link-local fe80::/10"},
	{netip.MustParsePrefix("::/127"), "contains the unspecified or the loopback address"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "overlaps the IPv4-mapped addresses ::ffff:0:0/96"},
	{netip.MustParsePrefix("64:ff9b::/96"), "overlaps the IPv4 Internet behind NAT64 64:ff9b::/96"},
	{netip.MustParsePrefix("2002::/16"), "overlaps 6to4 2002::/16"},
}

// Undelegable says why the IPv6 prefix p cannot be a delegation or, as a /128, a leased address, in words that can follow its
// name; "" if it can be one.
func Undelegable(p netip.Prefix) string {
	for _, n := range neverDelegated {
		if p.Overlaps(n.prefix) {
			return n.why
		}
	}
	if p.Bits() < minDelegation {
		return fmt.Sprintf("shorter than /%d, which no provider delegates", minDelegation)
	}
	for _, d := range delegated {
		if d.Contains(p.Addr()) {
			return ""
		}
	}
	return "outside of 2000::/3 and fc00::/7"
}

// delegable reports whether p can be a delegated prefix or a leased address. The decoder has checked it already; the disk has not.
func delegable(p netip.Prefix) bool {
	return p.IsValid() && p == p.Masked() && p.Addr().Is6() && p.Addr().Zone() == "" && Undelegable(p) == ""
}
