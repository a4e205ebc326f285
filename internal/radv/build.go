package radv

import (
	"time"

	"github.com/mdlayher/ndp"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/policy"
)

// Bounds of an advertisement. The ndp library multiplies the length of an option as an 8-bit number, so an option must
// stay below 256 bytes: 15 DNS servers, and DNS names of 31 units.
const (
	maxPrefixes = 32
	maxRoutes   = 16
	maxServers  = 8
	maxDomains  = 8
	maxDNSSL    = 31 * 8
	maxPortal   = 31*8 - 2 // octets of a URI; DHCPv6 could carry a longer one
	maxPREF64   = 4

	maxResolvers = 4      // with encrypted protocols
	maxResolver  = 31 * 8 // octets of one option

	pref64Unit     = 8 * time.Second // of lifetimes in PREF64 options (RFC 8781 §4)
	maxPREF64Units = 8191 * pref64Unit

	minMTU       = 1280 // RFC 8200 §5
	headers      = 40 + 16
	hopLimit     = 64 // AdvCurHopLimit: the value of the IANA registry
	maxLifetime  = 65535 * time.Second
	ndValidLimit = 5400 * time.Second // ND_VALID_LIMIT, RFC 9096 §4
	defaultMaxRA = 600 * time.Second  // MaxRtrAdvInterval
	minimumMaxRA = 4 * time.Second
	minimumMinRA = 3 * time.Second
)

// pref64Lengths are the lengths that a PREF64 option has a code for (RFC 8781 §4).
var pref64Lengths = []int{32, 40, 48, 56, 64, 96}

// Build returns the router advertisement that says a on link at now. Lifetimes are what is left at now, rounded down, so
// that no host keeps a prefix for longer than the lease (RFC 9915 §6.3, RFC 9096 §3.3). What does not fit into the link's
// MTU is left out from the end: the end of resolvers with encrypted protocols first, then DNS names, the captive portal, such
// resolvers, NAT64 prefixes, routes, DNS servers, and the last prefixes. RFC 4861 §6.2.3 would allow several messages; no home comes near the 36 options that one holds.
func Build(a policy.Announcement, link kernel.Link, now time.Time) *ndp.RouterAdvertisement {
	ra, _ := build(a, leftovers{}, link, now)
	return ra
}

// build is Build with what hosts are to forget. It also returns, in words, what has found no room.
func build(a policy.Announcement, gone leftovers, link kernel.Link, now time.Time) (*ndp.RouterAdvertisement, []string) {
	d := newDraft(a, link)
	d.link(link.MAC, a.MTU)
	for i, p := range a.Prefixes {
		if o := prefixOption(p, a, now); o != nil {
			d.add(32, i < maxPrefixes, o, "prefix "+p.Prefix.String())
		}
	}
	life := dnsLifetime(a, now)
	d.servers(a.DNS, life)
	for i, r := range a.Routes {
		d.route(r.Prefix, routeLifetime(r, a, now), i < maxRoutes)
	}
	for _, p := range gone.routes.values(now) {
		d.route(p, 0, true)
	}
	d.servers(gone.dns.values(now), 0)
	for i, p := range a.PREF64 {
		d.nat64(p.Prefix, pref64Lifetime(p, a, now), i < maxPREF64)
	}
	for _, p := range gone.pref64.values(now) {
		d.nat64(p, 0, true)
	}
	for i, r := range encryptedDNSOf(a.Resolvers) {
		d.resolver(r, life, i < maxResolvers)
	}
	d.portal(a.CaptivePortal)
	d.domains(a.Search, life)
	d.domains(gone.search.values(now), 0)
	for _, r := range gone.resolvers.values(now) { // large ones of a provider that changes them often must not cost what others have to say
		d.resolver(r, 0, true)
	}
	return d.ra, d.omitted
}

// prefixOption returns the Prefix Information option of a for p, or nil for what must not stand in one.
func prefixOption(p policy.AnnouncedPrefix, a policy.Announcement, now time.Time) *ndp.PrefixInformation {
	if !p.Prefix.IsValid() || !p.Prefix.Addr().Is6() || p.Prefix.Addr().Is4In6() {
		return nil
	}
	o := &ndp.PrefixInformation{
		PrefixLength: uint8(p.Prefix.Bits()),
		Prefix:       p.Prefix.Masked().Addr(),
		OnLink:       !a.NotOnLink,
		// Hosts make addresses from prefixes of 64 bits only (RFC 4862 §5.5.3 d).
		AutonomousAddressConfiguration: p.Prefix.Bits() == 64 && !a.NotAutonomous,
	}
	if p.Stale {
		takeBack(o)
		return o
	}
	o.ValidLifetime = min(left(p.ValidUntil, now), max(0, p.ValidCap.Truncate(time.Second)))
	o.PreferredLifetime = min(left(p.PreferredUntil, now), max(0, p.PreferredCap.Truncate(time.Second)), o.ValidLifetime)
	return o
}

// takeBack makes o the end of its prefix for every host. Lifetimes count for addresses only with the A flag (RFC 4862 §5.5.3 a),
// and for what is on-link only with the L flag (RFC 4861 §6.3.4). Both are set, since the flags may have been others when hosts
// heard of the prefix, be it before a reload. With lifetimes of 0 neither flag gives a host anything that it has not.
func takeBack(o *ndp.PrefixInformation) {
	o.ValidLifetime, o.PreferredLifetime = 0, 0
	o.OnLink, o.AutonomousAddressConfiguration = true, o.PrefixLength == 64
}

// left returns what is left of d in whole seconds, rounded down.
func left(d lifetime.Deadline, now time.Time) time.Duration {
	t, ok := d.Time()
	if !ok {
		return ndp.Infinity
	}
	return min(max(0, t.Sub(now)).Truncate(time.Second), ndp.Infinity-time.Second)
}

// threeIntervals is how long hosts may use what is announced without an end of its own: two lost advertisements do no harm
// (RFC 8106 §5.1). RFC 9096 §3.4 allows no more than ND_VALID_LIMIT.
func threeIntervals(a policy.Announcement) time.Duration {
	_, interval := intervals(a)
	return min(3*interval, ndValidLimit).Truncate(time.Second)
}

// routeLifetime returns how long hosts may reach r through this router.
func routeLifetime(r policy.AnnouncedRoute, a policy.Announcement, now time.Time) time.Duration {
	return min(threeIntervals(a), left(r.Until, now))
}

// dnsLifetime returns how long hosts may use the announced DNS servers and names: not longer than the prefixes, with which
// the servers come and go.
func dnsLifetime(a policy.Announcement, now time.Time) time.Duration {
	life := threeIntervals(a)
	var longest time.Duration
	for _, p := range a.Prefixes {
		if o := prefixOption(p, a, now); o != nil {
			longest = max(longest, o.ValidLifetime)
		}
	}
	if len(a.Prefixes) > 0 {
		life = min(life, longest)
	}
	return life
}

// pref64Lifetime returns how long hosts may use p: three intervals rounded up to a unit, as RFC 8781 §4.1 asks, but no
// longer than the provider's router lets us.
func pref64Lifetime(p policy.PREF64, a policy.Announcement, now time.Time) time.Duration {
	return min(longestPREF64(a), left(p.Until, now).Truncate(pref64Unit))
}

func longestPREF64(a policy.Announcement) time.Duration {
	_, interval := intervals(a)
	return min((3*interval + pref64Unit - 1).Truncate(pref64Unit), maxPREF64Units)
}

// intervals returns MinRtrAdvInterval and MaxRtrAdvInterval within the bounds of RFC 4861 §6.2.1.
func intervals(a policy.Announcement) (shortest, longest time.Duration) {
	longest = a.MaxInterval
	if longest <= 0 {
		longest = defaultMaxRA
	}
	longest = max(longest, minimumMaxRA)
	shortest = a.MinInterval
	if shortest <= 0 {
		shortest = longest / 3
	}
	return max(minimumMinRA, min(shortest, longest*3/4)), longest
}
