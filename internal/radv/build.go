package radv

import (
	"net"
	"net/netip"
	"slices"
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
	maxServers  = 8
	maxDomains  = 8
	maxDNSSL    = 31 * 8
	maxPortal   = 31*8 - 2 // octets of a URI; a longer one, which DHCPv6 could carry, is not announced
	maxPREF64   = 4

	pref64Unit     = 8 * time.Second // of lifetimes in PREF64 options (RFC 8781 §4)
	maxPREF64Units = 8191 * pref64Unit

	minMTU       = 1280 // RFC 8200 §5
	headers      = 40 + 16
	hopLimit     = 64 // AdvCurHopLimit: the value of the IANA registry
	maxLifetime  = 65535 * time.Second
	maxDNSLife   = 2700 * time.Second // ND_PREFERRED_LIMIT, RFC 9096 §3.4
	defaultMaxRA = 600 * time.Second  // MaxRtrAdvInterval
	minimumMaxRA = 4 * time.Second
	minimumMinRA = 3 * time.Second
)

// pref64Lengths are the lengths that a PREF64 option has a code for (RFC 8781 §4).
var pref64Lengths = []int{32, 40, 48, 56, 64, 96}

// Build returns the router advertisement that says a on link at now. Lifetimes are what is left at now, rounded down, so
// that no host keeps a prefix for longer than the lease (RFC 9915 §6.3, RFC 9096 §3.3). What does not fit into the link's
// MTU is left out from the end: DNS names first, then the captive portal, NAT64 prefixes, DNS servers, and the last prefixes.
func Build(a policy.Announcement, link kernel.Link, now time.Time) *ndp.RouterAdvertisement {
	return build(a, leftovers{}, link, now)
}

// build is Build with the DNS servers and names that hosts are to forget.
func build(a policy.Announcement, gone leftovers, link kernel.Link, now time.Time) *ndp.RouterAdvertisement {
	ra := &ndp.RouterAdvertisement{CurrentHopLimit: hopLimit}
	if a.Router {
		ra.RouterLifetime = min(max(0, a.RouterLifetime), maxLifetime).Truncate(time.Second)
	}
	room := max(minMTU, link.MTU) - headers
	add := func(size int, o ndp.Option) {
		if size <= room {
			room -= size
			ra.Options = append(ra.Options, o)
		}
	}
	if mac, err := net.ParseMAC(link.MAC); err == nil && len(mac) == 6 {
		add(8, &ndp.LinkLayerAddress{Direction: ndp.Source, Addr: mac})
	}
	if a.MTU >= minMTU {
		add(8, ndp.NewMTU(a.MTU))
	}
	for _, p := range a.Prefixes[:min(len(a.Prefixes), maxPrefixes)] {
		if o := prefixOption(p, now); o != nil {
			add(32, o)
		}
	}
	life := dnsLifetime(a, now)
	addServers := func(servers []netip.Addr, life time.Duration) {
		if servers = announceable(servers); len(servers) > 0 {
			add(8+16*len(servers), &ndp.RecursiveDNSServer{Lifetime: life, Servers: servers})
		}
	}
	addDomains := func(domains []string, life time.Duration) {
		if domains, size := fitting(domains); len(domains) > 0 {
			add(size, &ndp.DNSSearchList{Lifetime: life, DomainNames: domains})
		}
	}
	addServers(a.DNS, life)
	addServers(gone.dns.values(now), 0)
	addNAT64 := func(p netip.Prefix, life time.Duration) {
		if slices.Contains(pref64Lengths, p.Bits()) && p.Addr().Is6() {
			add(16, &ndp.PREF64{Prefix: p.Masked(), Lifetime: life})
		}
	}
	for _, p := range a.PREF64[:min(len(a.PREF64), maxPREF64)] {
		addNAT64(p.Prefix, pref64Lifetime(p, a, now))
	}
	for _, p := range gone.pref64.values(now) {
		addNAT64(p, 0)
	}
	if n := len(a.CaptivePortal); n > 0 && n <= maxPortal {
		add((2+n+7)/8*8, &ndp.CaptivePortal{URI: a.CaptivePortal})
	}
	addDomains(a.Search, life)
	addDomains(gone.search.values(now), 0)
	return ra
}

// prefixOption returns the Prefix Information option for p, or nil for what must not stand in one.
func prefixOption(p policy.AnnouncedPrefix, now time.Time) *ndp.PrefixInformation {
	if !p.Prefix.IsValid() || !p.Prefix.Addr().Is6() || p.Prefix.Addr().Is4In6() {
		return nil
	}
	o := &ndp.PrefixInformation{
		PrefixLength: uint8(p.Prefix.Bits()),
		Prefix:       p.Prefix.Masked().Addr(),
		OnLink:       true,
		// Hosts make addresses from prefixes of 64 bits only (RFC 4862 §5.5.3 d). A stale prefix keeps its flags:
		// without A a host ignores the option, and with it the lifetimes of 0 (RFC 9096 §3.5).
		AutonomousAddressConfiguration: p.Prefix.Bits() == 64,
	}
	if !p.Stale {
		o.ValidLifetime = min(left(p.ValidUntil, now), max(0, p.ValidCap.Truncate(time.Second)))
		o.PreferredLifetime = min(left(p.PreferredUntil, now), max(0, p.PreferredCap.Truncate(time.Second)), o.ValidLifetime)
	}
	return o
}

// left returns what is left of d in whole seconds, rounded down.
func left(d lifetime.Deadline, now time.Time) time.Duration {
	t, ok := d.Time()
	if !ok {
		return ndp.Infinity
	}
	return min(max(0, t.Sub(now)).Truncate(time.Second), ndp.Infinity-time.Second)
}

// dnsLifetime returns how long hosts may use the announced DNS servers and names: three intervals, so that two lost
// advertisements do no harm (RFC 8106 §5.1), but not longer than the prefixes, with which the servers come and go.
func dnsLifetime(a policy.Announcement, now time.Time) time.Duration {
	_, interval := intervals(a)
	life := min(3*interval, maxDNSLife).Truncate(time.Second)
	var longest time.Duration
	for _, p := range a.Prefixes {
		if o := prefixOption(p, now); o != nil {
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
	_, interval := intervals(a)
	life := (3*interval + pref64Unit - 1).Truncate(pref64Unit)
	return min(life, left(p.Until, now).Truncate(pref64Unit), maxPREF64Units)
}

// announceable returns at most maxServers of the addresses that can be a DNS server for a host.
func announceable(servers []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, s := range servers {
		s = s.WithZone("")
		ok := s.Is6() && !s.Is4In6() && !s.IsUnspecified() && !s.IsMulticast() && !s.IsLoopback()
		if ok && !slices.Contains(out, s) && len(out) < maxServers {
			out = append(out, s)
		}
	}
	return out
}

// fitting returns the valid names among domains that one option holds, and the size of that option.
func fitting(domains []string) (out []string, size int) {
	size = 8
	for _, d := range domains {
		d, ok := domain(d)
		if !ok || slices.Contains(out, d) || len(out) == maxDomains || size+len(d)+2 > maxDNSSL {
			continue
		}
		out = append(out, d)
		size += len(d) + 2
	}
	return out, (size + 7) / 8 * 8
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
