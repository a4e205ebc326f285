package rtnl

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

// onLink keeps the routes from which on-link prefixes were read last. Even for a dump that is filtered the kernel walks through the
// whole table, 27 ms for 100,000 routes, and a table of that size changes all the time. So while a watch stands, and has heard of
// nothing but other programs' routes, these routes are not dumped again.
type onLink struct {
	routes []found[kernel.Route] // guarded by Kernel.mu

	mu      sync.Mutex
	watches int       // that stand
	fresh   bool      // nothing else was heard since the routes were read
	read    time.Time // when that was
}

// onLinkAge is how long routes are kept at most: the engine reads everything anew every 30 to 60 seconds.
const onLinkAge = 20 * time.Second

// watched says that a watch stands from now on, or does not any more. Before it nothing was heard, so the routes are not fresh.
func (o *onLink) watched(stands bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fresh = false
	if stands {
		o.watches++
	} else {
		o.watches--
	}
}

// note takes in a notification: unless it is about another program's route, the routes have to be read again. Of routes that go
// with their device the kernel need not tell (net.ipv6.route.skip_notify_on_dev_down), but it always tells of the device.
func (o *onLink) note(b []byte) {
	if len(b) >= unix.NLMSG_HDRLEN+unix.SizeofRtMsg {
		typ, family, protocol := native.Uint16(b[4:]), b[unix.NLMSG_HDRLEN], b[unix.NLMSG_HDRLEN+5]
		isRoute := typ == unix.RTM_NEWROUTE || typ == unix.RTM_DELROUTE
		if isRoute && (family != unix.AF_INET6 || !slices.Contains(onLinkProtocols, protocol)) {
			return
		}
	}
	o.spoil()
}

// onLinkProtocols are the protocols of routes that the kernel makes of addresses and of Prefix Information options, and of those
// that programs make which handle the RAs on a link in the kernel's place.
var onLinkProtocols = []uint8{unix.RTPROT_KERNEL, unix.RTPROT_RA}

// onLinkRoutes are the IPv6 routes of these protocols in main. The dumps name protocol and table, so that nothing else is copied.
func (k *Kernel) onLinkRoutes(ctx context.Context) (routes []found[kernel.Route], err error) {
	if k.onLink.counts() {
		return k.onLink.routes, nil
	}
	for _, protocol := range onLinkProtocols {
		dumped, err := k.dumpRoutes(ctx, unix.AF_INET6, protocol, kernel.TableMain)
		if err != nil {
			k.onLink.spoil()
			return nil, err
		}
		routes = append(routes, dumped...)
	}
	k.onLink.routes = routes
	return routes, nil
}

// counts reports whether the routes that were read last are fresh. If not, those that the caller reads now will be, unless
// something is heard from now on.
func (o *onLink) counts() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fresh && time.Since(o.read) < onLinkAge {
		return true
	}
	o.fresh, o.read = o.watches > 0, time.Now()
	return false
}

func (o *onLink) spoil() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fresh = false
}

// readOnLink adds to links what is on-link there: where main leads to a prefix without a next hop.
func (k *Kernel) readOnLink(ctx context.Context, links map[uint32]*kernel.Link, addrs []address) error {
	routes, err := k.onLinkRoutes(ctx)
	if err != nil {
		return err
	}
	type place struct {
		index  uint32
		prefix netip.Prefix
	}
	own := map[place]bool{} // the kernel makes a route to an address of length 128 as well, but there nobody else is
	for _, a := range addrs {
		own[place{a.index, netip.PrefixFrom(a.row.Prefix.Addr(), 128)}] = true
	}
	for _, f := range routes {
		if l := links[f.index]; l != nil && isOnLink(f.row) && !own[place{f.index, f.row.Dst}] {
			l.OnLink = append(l.OnLink, f.row.Dst)
			if l.OnLinkMetric == 0 || f.row.Metric < l.OnLinkMetric {
				l.OnLinkMetric = f.row.Metric
			}
		}
	}
	for _, l := range links {
		slices.SortFunc(l.OnLink, func(a, b netip.Prefix) int { return cmp.Or(cmp.Compare(a.Bits(), b.Bits()), a.Compare(b)) })
		l.OnLink = slices.Compact(l.OnLink)
		l.OnLink = l.OnLink[:min(len(l.OnLink), kernel.MaxOnLink)] // the short ones: they draw most
		slices.SortFunc(l.OnLink, netip.Prefix.Compare)
	}
	return nil
}

// isOnLink reports whether r leads to neighbours. Routers can say so of ::/0 as well.
func isOnLink(r kernel.Route) bool {
	return r.Type == kernel.Unicast && !r.Gateway.IsValid() && !r.Dst.Addr().IsLinkLocalUnicast() && !r.Dst.Addr().IsMulticast()
}
