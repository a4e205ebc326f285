package rtnl

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

// readOnLink adds to links what is on-link there: where main leads to a prefix without a next hop, by a route that the kernel
// made of an address or of a Prefix Information option, or that the program made in whose hands RAs are on that link. The
// dumps name a protocol and a table, so that a full routing table stays in the kernel.
func (k *Kernel) readOnLink(ctx context.Context, links map[uint32]*kernel.Link, addrs []address) error {
	type place struct {
		index  uint32
		prefix netip.Prefix
	}
	own := map[place]bool{} // the kernel makes a route to an address of length 128 as well, but there nobody else is
	for _, a := range addrs {
		own[place{a.index, a.row.Prefix}] = true
	}
	for _, protocol := range []uint8{unix.RTPROT_KERNEL, unix.RTPROT_RA} {
		dumped, err := k.dumpRoutes(ctx, unix.AF_INET6, protocol, kernel.TableMain)
		if err != nil {
			return err
		}
		for _, f := range dumped {
			if l := links[f.index]; l != nil && isOnLink(f.row) && !own[place{f.index, f.row.Dst}] {
				l.OnLink = append(l.OnLink, f.row.Dst)
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

// isOnLink reports whether r leads to neighbours.
func isOnLink(r kernel.Route) bool {
	return r.Type == kernel.Unicast && !r.Gateway.IsValid() && r.Dst.Bits() > 0 && !r.Dst.Addr().IsLinkLocalUnicast() && !r.Dst.Addr().IsMulticast()
}
