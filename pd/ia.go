package pd

import (
	"fmt"
	"net/netip"
	"slices"
)

const (
	maxPrefixes  = 32 // of a lease, and of an IA
	maxAddresses = 16 // of a lease
)

// ia names an identity association. IAIDs are unique per type only (RFC 9915 §12).
type ia struct {
	na bool
	id uint32
}

func (i ia) String() string {
	if i.na {
		return fmt.Sprintf("IA_NA 0x%08x", i.id)
	}
	return fmt.Sprintf("IA_PD 0x%08x", i.id)
}

// binding is a prefix or an address of an IA. An address is a /128 here, so that both go the same way.
type binding struct {
	na bool
	LeasedPrefix
}

func (b binding) ia() ia { return ia{na: b.na, id: b.IAID} }

// bindings are all that l holds.
func (l Lease) bindings() []binding {
	bs := make([]binding, 0, len(l.Prefixes)+len(l.Addresses))
	for _, p := range l.Prefixes {
		bs = append(bs, binding{LeasedPrefix: p})
	}
	for _, a := range l.Addresses {
		bs = append(bs, binding{na: true, LeasedPrefix: LeasedPrefix{IAID: a.IAID, Prefix: host(a.Address),
			PreferredUntil: a.PreferredUntil, ValidUntil: a.ValidUntil}})
	}
	return bs
}

// with is l with bs in the place of all that it holds, each prefix and address once and within the bounds; the first wins.
func (l Lease) with(bs []binding) Lease {
	l.Prefixes, l.Addresses = nil, nil
	for _, b := range bs {
		switch {
		case b.na && len(l.Addresses) < maxAddresses && !l.hasAddress(b.Prefix.Addr()):
			l.Addresses = append(l.Addresses, LeasedAddress{IAID: b.IAID, Address: b.Prefix.Addr(),
				PreferredUntil: b.PreferredUntil, ValidUntil: b.ValidUntil})
		case !b.na && len(l.Prefixes) < maxPrefixes && !l.hasPrefix(b.Prefix):
			l.Prefixes = append(l.Prefixes, b.LeasedPrefix)
		}
	}
	slices.SortFunc(l.Prefixes, func(a, b LeasedPrefix) int { return a.Prefix.Compare(b.Prefix) })
	slices.SortFunc(l.Addresses, func(a, b LeasedAddress) int { return a.Address.Compare(b.Address) })
	return l
}

func (l Lease) hasPrefix(p netip.Prefix) bool {
	return slices.ContainsFunc(l.Prefixes, func(h LeasedPrefix) bool { return h.Prefix == p })
}

func (l Lease) hasAddress(a netip.Addr) bool {
	return slices.ContainsFunc(l.Addresses, func(h LeasedAddress) bool { return h.Address == a })
}

// holds reports whether l has anything of i.
func (l Lease) holds(i ia) bool {
	return slices.ContainsFunc(l.bindings(), func(b binding) bool { return b.ia() == i })
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// excluded is exclude if it can be the excluded prefix of p (RFC 6603 §4.2), else the invalid prefix.
func excluded(p, exclude netip.Prefix) netip.Prefix {
	if exclude.IsValid() && exclude == exclude.Masked() && exclude.Bits() > p.Bits() && p.Contains(exclude.Addr()) {
		return exclude
	}
	return netip.Prefix{}
}
