package policy

import (
	"encoding/binary"
	"net/netip"
)

// space is the address space of a prefix and who has which part of it: a binary tree with a level per bit, in which what
// nobody has is nil. Every question costs a step per bit, however many parts there are.
type space struct {
	root netip.Prefix
	tree *block
}

// block is a part of a space in which somebody has something. Blocks are never modified, so that a copy of a space costs nothing.
type block struct {
	half  [2]*block
	owner *holding // of all of it; nil: look at the halves
	best  int      // length of the largest part that is free; nothing when none is
}

// holding is a part of a space that somebody has.
type holding struct {
	prefix netip.Prefix
	who    string
}

// nothing is a length that no prefix has.
const nothing = 129

func newSpace(root netip.Prefix) *space { return &space{root: root} }

// take gives p, or what of it lies in s, to who. What was taken before stays with its owner, unless p contains it.
func (s *space) take(p netip.Prefix, who string) {
	if !s.root.Overlaps(p) {
		return
	}
	h := &holding{p.Masked(), who}
	if p.Bits() <= s.root.Bits() {
		s.tree = &block{owner: h, best: nothing}
		return
	}
	s.tree = s.tree.take(s.root.Bits(), h)
}

func (b *block) take(depth int, h *holding) *block {
	switch {
	case b != nil && b.owner != nil:
		return b
	case depth == h.prefix.Bits():
		return &block{owner: h, best: nothing}
	}
	var n block
	if b != nil {
		n = *b
	}
	i := bit(h.prefix.Addr(), depth)
	n.half[i] = n.half[i].take(depth+1, h)
	n.best = min(n.half[0].free(depth+1), n.half[1].free(depth+1))
	return &n
}

// free is the length of the largest free part of b, which is at depth.
func (b *block) free(depth int) int {
	if b == nil {
		return depth
	}
	return b.best
}

// largest is the length of the largest free part; nothing when there is none.
func (s *space) largest() int { return s.tree.free(s.root.Bits()) }

// overlapping returns who has p or a part of it.
func (s *space) overlapping(p netip.Prefix) (holding, bool) {
	b := s.tree
	for depth := s.root.Bits(); b != nil; depth++ {
		if b.owner != nil || depth >= p.Bits() {
			return b.any(), true
		}
		b = b.half[bit(p.Addr(), depth)]
	}
	return holding{}, false
}

func (b *block) any() holding {
	for b.owner == nil {
		if b.half[0] != nil {
			b = b.half[0]
		} else {
			b = b.half[1]
		}
	}
	return *b.owner
}

// isFree reports whether all of p is in s and free.
func (s *space) isFree(p netip.Prefix) bool {
	if p.Bits() < s.root.Bits() || !s.root.Contains(p.Addr()) {
		return false
	}
	_, taken := s.overlapping(p)
	return !taken
}

// first returns the free part of the given length with the lowest address.
func (s *space) first(length int) (netip.Prefix, bool) { return s.search(length, 0) }

// last returns the free part of the given length with the highest address.
func (s *space) last(length int) (netip.Prefix, bool) { return s.search(length, 1) }

func (s *space) search(length int, side int) (netip.Prefix, bool) {
	if s.largest() > length {
		return netip.Prefix{}, false
	}
	a, b := s.root.Addr().As16(), s.tree
	for depth := s.root.Bits(); depth < length; depth++ {
		i := side
		if b != nil {
			if b.half[i].free(depth+1) > length {
				i = 1 - i
			}
			b = b.half[i]
		}
		a[depth/8] |= byte(i) << (7 - depth%8)
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), length), true
}

// bit is the bit of a behind the first n.
func bit(a netip.Addr, n int) int {
	b := a.As16()
	return int(b[n/8]>>(7-n%8)) & 1
}

// subnetCount is how many prefixes of length fit into g, at most 2^63.
func subnetCount(g netip.Prefix, length int) uint64 { return 1 << min(63, length-g.Bits()) }

// subnetOf returns subnet id of the given length in g; id must be below subnetCount.
func subnetOf(g netip.Prefix, length int, id uint64) netip.Prefix {
	b := g.Masked().Addr().As16()
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	switch {
	case length <= 64:
		hi |= id << (64 - length)
	default:
		lo |= id << (128 - length)
		if length-64 < 64 {
			hi |= id >> (length - 64)
		}
	}
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.PrefixFrom(netip.AddrFrom16(b), length)
}

// idOf is the id of the subnet p of g; its lowest 63 bits where it has more.
func idOf(g, p netip.Prefix) (id uint64) {
	for n := max(g.Bits(), p.Bits()-63); n < p.Bits(); n++ {
		id = id<<1 | uint64(bit(p.Addr(), n))
	}
	return id
}

// next returns the lowest id of a free subnet of the given length that is at least from and below end.
func (s *space) next(length int, from, end uint64) (uint64, bool) {
	for id := from; id < end; {
		prefix := subnetOf(s.root, length, id)
		h, taken := s.overlapping(prefix)
		if !taken {
			return id, true
		}
		next := id + 1
		if wide := h.prefix.Bits(); wide < length { // skip all of a larger part
			if wide <= s.root.Bits() {
				break
			}
			per := subnetCount(h.prefix, length)
			next = (id/per + 1) * per
		}
		if next <= id {
			break
		}
		id = next
	}
	return 0, false
}
