package radv

import (
	"net/netip"
	"slices"
	"time"

	"uplinkd/policy"
)

// maxLeftovers bounds what is remembered of each kind; older ones are forgotten first.
const maxLeftovers = maxServers

// leftovers are the DNS servers and names, resolvers, routes and NAT64 prefixes that were announced, are not any more, and that hosts may
// still hold: they are announced with lifetime 0 until the lifetime last announced has run out (RFC 8106 §5.1, RFC 4191 §2.3,
// RFC 8781 §4.1). Without this a host asks the servers of a withdrawn prefix for up to three intervals.
type leftovers struct {
	dns    forgotten[netip.Addr]
	search forgotten[string]
	routes forgotten[netip.Prefix]
	pref64 forgotten[netip.Prefix]

	resolvers forgotten[string] // with encrypted protocols, as options
}

// replace notes that before was announced until now, and that after is from now on. Nothing was ever announced for longer
// than three intervals. The lifetimes of before may have been shorter, but it may also be that no host has heard of before:
// changes wait for their turn.
func (l *leftovers) replace(before, after policy.Announcement, now time.Time) {
	held := now.Add(threeIntervals(before))
	l.dns.replace(before.DNS, after.DNS, held)
	l.resolvers.replace(encryptedDNSOf(before.Resolvers), encryptedDNSOf(after.Resolvers), held)
	l.search.replace(before.Search, after.Search, held)
	l.routes.replace(routesOf(before.Routes), routesOf(after.Routes), held)
	l.pref64.replace(prefixesOf(before.PREF64), prefixesOf(after.PREF64), now.Add(longestPREF64(before)))
}

// forgotten is a list of values with the time until which each is still worth a mention.
type forgotten[T comparable] []struct {
	value T
	until time.Time
}

// replace notes that the announced list was before and is now after; hosts may hold what is gone until the given time.
func (f *forgotten[T]) replace(before, after []T, until time.Time) {
	for _, v := range before {
		f.drop(v)
		*f = append(*f, struct {
			value T
			until time.Time
		}{v, until})
	}
	for _, v := range after {
		f.drop(v)
	}
	if n := len(*f); n > maxLeftovers {
		*f = slices.Delete(*f, 0, n-maxLeftovers)
	}
}

func (f *forgotten[T]) drop(v T) {
	for i, e := range *f {
		if e.value == v {
			*f = slices.Delete(*f, i, i+1)
			return
		}
	}
}

// values returns what is not over at now.
func (f forgotten[T]) values(now time.Time) []T {
	var out []T
	for _, e := range f {
		if e.until.After(now) {
			out = append(out, e.value)
		}
	}
	return out
}

func routesOf(list []policy.AnnouncedRoute) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range list {
		out = append(out, r.Prefix)
	}
	return out
}

func prefixesOf(list []policy.PREF64) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		out = append(out, p.Prefix)
	}
	return out
}
