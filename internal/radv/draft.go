package radv

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/ndp"

	"uplinkd/internal/kernel"
	"uplinkd/policy"
)

// draft is an advertisement that is being written into the room that one packet has on the link.
type draft struct {
	ra      *ndp.RouterAdvertisement
	room    int
	omitted []string // what has found none, in words for the log
}

// newDraft returns an advertisement without options.
func newDraft(a policy.Announcement, link kernel.Link) *draft {
	d := &draft{ra: &ndp.RouterAdvertisement{CurrentHopLimit: hopLimit, ManagedConfiguration: a.Managed, OtherConfiguration: a.Other}}
	if a.Router {
		d.ra.RouterLifetime = min(max(0, a.RouterLifetime), maxLifetime).Truncate(time.Second)
	}
	d.ra.RouterSelectionPreference = routerPreference(a.Preference, d.ra.RouterLifetime)
	size := max(minMTU, link.MTU)
	if a.MTU >= minMTU {
		size = min(size, int(a.MTU)) // what hosts are told that the whole link carries
	}
	d.room = size - headers
	return d
}

// routerPreference returns the preference of a default router. One that is none must say medium (RFC 4191 §2.2).
func routerPreference(name string, life time.Duration) ndp.Preference {
	switch {
	case life == 0:
		return ndp.Medium
	case name == "low":
		return ndp.Low
	case name == "high":
		return ndp.High
	}
	return ndp.Medium
}

// add adds o, unless it does not fit or is not to be considered at all.
func (d *draft) add(size int, consider bool, o ndp.Option, what string) {
	if !consider || size > d.room {
		d.omitted = append(d.omitted, what)
		return
	}
	d.room -= size
	d.ra.Options = append(d.ra.Options, o)
}

// link adds what hosts need to know of the link itself.
func (d *draft) link(mac string, mtu uint32) {
	if hw, err := net.ParseMAC(mac); err == nil && len(hw) == 6 {
		d.add(8, true, &ndp.LinkLayerAddress{Direction: ndp.Source, Addr: hw}, "link-layer address")
	}
	if mtu >= minMTU {
		d.add(8, true, ndp.NewMTU(mtu), "MTU")
	}
}

// route adds a Route Information option. Its preference is always medium: that of the default router says which way out is
// better, and there is only one router to which the prefix is delegated. A route to everything would make a default router
// of one that has no way out (RFC 7084 G-4).
func (d *draft) route(p netip.Prefix, life time.Duration, consider bool) {
	if !p.IsValid() || !p.Addr().Is6() || p.Addr().Is4In6() || p.Bits() == 0 || p.Addr().IsMulticast() || p.Addr().IsLinkLocalUnicast() {
		return
	}
	size := 16 // RFC 4191 §2.3: the prefix takes 8 octets up to /64, and 16 beyond
	if p.Bits() > 64 {
		size = 24
	}
	o := &ndp.RouteInformation{PrefixLength: uint8(p.Bits()), RouteLifetime: life, Prefix: p.Masked().Addr()}
	d.add(size, consider, o, "route "+p.String())
}

// servers adds a Recursive DNS Server option (RFC 8106 §5.1) with those of the addresses that can be one for a host.
func (d *draft) servers(servers []netip.Addr, life time.Duration) {
	var list []netip.Addr
	for _, s := range servers {
		s = s.WithZone("")
		ok := s.Is6() && !s.Is4In6() && !s.IsUnspecified() && !s.IsMulticast() && !s.IsLoopback()
		switch {
		case !ok || slices.Contains(list, s):
		case len(list) == maxServers:
			d.omitted = append(d.omitted, "DNS server "+s.String())
		default:
			list = append(list, s)
		}
	}
	if len(list) > 0 {
		d.add(8+16*len(list), true, &ndp.RecursiveDNSServer{Lifetime: life, Servers: list}, fmt.Sprintf("DNS servers %v", list))
	}
}

// domains adds a DNS Search List option (RFC 8106 §5.2) with those of the names that are valid.
func (d *draft) domains(names []string, life time.Duration) {
	var list []string
	size := 8
	for _, name := range names {
		name, ok := domain(name)
		switch {
		case !ok || slices.Contains(list, name):
		case len(list) == maxDomains || size+len(name)+2 > maxDNSSL:
			d.omitted = append(d.omitted, "DNS name "+name)
		default:
			list = append(list, name)
			size += len(name) + 2
		}
	}
	if len(list) > 0 {
		d.add((size+7)/8*8, true, &ndp.DNSSearchList{Lifetime: life, DomainNames: list}, fmt.Sprintf("DNS names %v", list))
	}
}

// nat64 adds a PREF64 option.
func (d *draft) nat64(p netip.Prefix, life time.Duration, consider bool) {
	if slices.Contains(pref64Lengths, p.Bits()) && p.Addr().Is6() {
		d.add(16, consider, &ndp.PREF64{Prefix: p.Masked(), Lifetime: life}, "NAT64 prefix "+p.String())
	}
}

// portal adds a Captive-Portal option (RFC 8910 §2.3).
func (d *draft) portal(uri string) {
	if n := len(uri); n > 0 {
		d.add((2+n+7)/8*8, n <= maxPortal, &ndp.CaptivePortal{URI: uri}, "captive portal")
	}
}
