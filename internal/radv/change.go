package radv

import (
	"slices"
	"time"

	"github.com/mdlayher/ndp"
)

// tolerance is by how much two lifetimes may differ and still say the same: DHCPv6 counts in whole seconds from the
// arrival of a Reply, so a renewal that changes nothing moves a deadline a little.
const tolerance = 2 * time.Second

// sameMeaning reports whether two advertisements made for the same moment tell hosts the same.
func sameMeaning(a, b *ndp.RouterAdvertisement) bool {
	return a.RouterLifetime == b.RouterLifetime && a.CurrentHopLimit == b.CurrentHopLimit &&
		a.RouterSelectionPreference == b.RouterSelectionPreference && a.OtherConfiguration == b.OtherConfiguration &&
		a.ManagedConfiguration == b.ManagedConfiguration &&
		slices.EqualFunc(a.Options, b.Options, sameOption)
}

// samePrefixes reports whether two advertisements made for the same moment tell hosts the same about their addresses.
func samePrefixes(a, b *ndp.RouterAdvertisement) bool {
	other := func(o ndp.Option) bool {
		_, prefix := o.(*ndp.PrefixInformation)
		return !prefix
	}
	return slices.EqualFunc(slices.DeleteFunc(slices.Clone(a.Options), other), slices.DeleteFunc(slices.Clone(b.Options), other), sameOption)
}

func sameOption(a, b ndp.Option) bool {
	switch a := a.(type) {
	case *ndp.LinkLayerAddress:
		b, ok := b.(*ndp.LinkLayerAddress)
		return ok && slices.Equal(a.Addr, b.Addr)
	case *ndp.MTU:
		b, ok := b.(*ndp.MTU)
		return ok && a.MTU == b.MTU
	case *ndp.PrefixInformation:
		b, ok := b.(*ndp.PrefixInformation)
		return ok && a.Prefix == b.Prefix && a.PrefixLength == b.PrefixLength && a.OnLink == b.OnLink &&
			a.AutonomousAddressConfiguration == b.AutonomousAddressConfiguration &&
			sameLifetime(a.ValidLifetime, b.ValidLifetime) && sameLifetime(a.PreferredLifetime, b.PreferredLifetime)
	case *ndp.RouteInformation:
		b, ok := b.(*ndp.RouteInformation)
		return ok && a.Prefix == b.Prefix && a.PrefixLength == b.PrefixLength && sameLifetime(a.RouteLifetime, b.RouteLifetime)
	case *ndp.RecursiveDNSServer:
		b, ok := b.(*ndp.RecursiveDNSServer)
		return ok && slices.Equal(a.Servers, b.Servers) && sameLifetime(a.Lifetime, b.Lifetime)
	case *ndp.DNSSearchList:
		b, ok := b.(*ndp.DNSSearchList)
		return ok && slices.Equal(a.DomainNames, b.DomainNames) && sameLifetime(a.Lifetime, b.Lifetime)
	case *ndp.PREF64:
		b, ok := b.(*ndp.PREF64)
		// The unit makes small steps of the deadline large ones.
		return ok && a.Prefix == b.Prefix && (a.Lifetime == 0) == (b.Lifetime == 0) && (a.Lifetime-b.Lifetime).Abs() <= pref64Unit
	case *ndp.RawOption:
		b, ok := b.(*ndp.RawOption)
		return ok && sameResolver(a, b)
	case *ndp.CaptivePortal:
		b, ok := b.(*ndp.CaptivePortal)
		return ok && a.URI == b.URI
	}
	return false
}

// sameLifetime reports whether a and b mean the same; 0 (withdrawn) equals nothing but 0.
func sameLifetime(a, b time.Duration) bool {
	return (a == 0) == (b == 0) && (a-b).Abs() <= tolerance
}

// withdraw turns ra into the last word of a router that goes away: not a default router any more (RFC 4861 §6.2.5). With
// everything set, the prefixes, routes, DNS servers and NAT64 prefixes are withdrawn too; otherwise they are left out and
// hosts keep them, since another program may have taken over the same prefixes. A captive portal has no lifetime: it is left
// out.
func withdraw(ra *ndp.RouterAdvertisement, everything bool) {
	ra.RouterLifetime, ra.RouterSelectionPreference = 0, ndp.Medium
	keep := ra.Options[:0]
	for _, o := range ra.Options {
		switch o := o.(type) {
		case *ndp.PrefixInformation:
			takeBack(o)
		case *ndp.RouteInformation:
			o.RouteLifetime = 0
		case *ndp.RecursiveDNSServer:
			o.Lifetime = 0
		case *ndp.DNSSearchList:
			o.Lifetime = 0
		case *ndp.PREF64:
			o.Lifetime = 0
		case *ndp.RawOption:
			setLifetime(o, 0)
		case *ndp.CaptivePortal:
			continue
		default:
			keep = append(keep, o)
			continue
		}
		if everything {
			keep = append(keep, o)
		}
	}
	ra.Options = keep
}
