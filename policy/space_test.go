package policy

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Property: a space answers like a list of prefixes that is looked through from the start.
func TestSpace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		root := rapid.SampledFrom([]netip.Prefix{pfx("2001:db8:40::/58"), pfx("2001:db8::/60"), pfx("::/0"), pfx("2001:db8::8/125"), pfx("2001:db8::/128")}).Draw(t, "root")
		bits := func(name string) int { return rapid.IntRange(root.Bits(), min(128, root.Bits()+7)).Draw(t, name) }
		part := func() netip.Prefix {
			n := bits("bits")
			return subnetOf(root, n, rapid.Uint64Range(0, subnetCount(root, n)-1).Draw(t, "id"))
		}
		s, taken := newSpace(root), []netip.Prefix(nil)
		for range rapid.IntRange(0, 20).Draw(t, "parts") {
			old, q := *s, part()
			was := old.isFree(q)
			s.take(q, q.String())
			taken = append(taken, q)
			if old.isFree(q) != was {
				t.Fatalf("a copy has changed with its original")
			}
		}
		isFree := func(q netip.Prefix) bool { return !slices.ContainsFunc(taken, q.Overlaps) }
		for range 10 {
			q := part()
			if s.isFree(q) != isFree(q) {
				t.Fatalf("%s is free: %v, although taken are %v", q, s.isFree(q), taken)
			}
			if h, ok := s.overlapping(q); ok == isFree(q) || ok && (!h.prefix.Overlaps(q) || h.who != h.prefix.String()) {
				t.Fatalf("%s overlaps %v of %v", q, h, taken)
			}
			if idOf(root, q) >= subnetCount(root, q.Bits()) || subnetOf(root, q.Bits(), idOf(root, q)) != q {
				t.Fatalf("%s is subnet %d of %s", q, idOf(root, q), root)
			}
		}
		length := bits("length")
		var free []uint64
		for id := range subnetCount(root, length) {
			if isFree(subnetOf(root, length, id)) {
				free = append(free, id)
			}
		}
		first, ok := s.first(length)
		last, _ := s.last(length)
		if ok != (len(free) > 0) || ok != (s.largest() <= length) {
			t.Fatalf("of length %d %v are free, first says %v, the largest is %d", length, free, ok, s.largest())
		}
		if ok && (idOf(root, first) != free[0] || idOf(root, last) != free[len(free)-1] || first.Bits() != length || last.Bits() != length) {
			t.Fatalf("first %s, last %s, free of /%d are %v", first, last, length, free)
		}
		from, end := rapid.Uint64Range(0, subnetCount(root, length)).Draw(t, "from"), rapid.Uint64Range(0, subnetCount(root, length)).Draw(t, "end")
		want := slices.IndexFunc(free, func(id uint64) bool { return id >= from && id < end })
		if next, ok := s.next(length, from, end); ok != (want >= 0) || ok && next != free[want] {
			t.Fatalf("from %d to below %d: %d %v, free are %v", from, end, next, ok, free)
		}
	})
}
