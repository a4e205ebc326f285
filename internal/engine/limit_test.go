package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/fake"
)

// A router on an uplink that has the kernel believe in other on-link prefixes all the time does not have uplinkd write at that
// pace. When it is done, what it said last is followed.
func TestOnLinkThatNeverRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern := &fake.Kernel{Link: fakeLinks()}
		e := start(t, kern, newMemory(), parse(t, bound.config))
		walker{t, e, kern, kern.SetLink}.visit(bound)
		synctest.Wait()
		before, said := kern.Written(), netip.Prefix{}
		const minute = 600
		for i := range minute {
			said = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x3f, 0xff, byte(i >> 8), byte(i)}), 64)
			kern.Change(func() {
				for j := range kern.Link {
					if kern.Link[j].Name == "wan0" {
						kern.Link[j].OnLink = []netip.Prefix{said}
					}
				}
			})
			e.Hint()
			pass(100 * time.Millisecond)
		}
		// Ten times at once, and once every five seconds: three rows come, and three go; and those of the network once.
		if n := kern.Written() - before; n == 0 || n > (10+12)*6+20 {
			t.Errorf("%d writes for %d changes", n, minute)
		}
		local := func(r kernel.Route) bool { return r.Table == kernel.TableLocal && r.Dev == "lan0" }
		if !slices.ContainsFunc(kern.Owned().Routes, local) {
			t.Errorf("what is not followed can draw the hosts' traffic:\n%s", kern.Owned().Text(time.Now()))
		}
		pass(3 * time.Minute)
		routes := kern.Owned().Routes
		if !slices.ContainsFunc(routes, func(r kernel.Route) bool { return r.Dst == said && r.Type == kernel.Throw }) {
			t.Errorf("there is no row for %s:\n%s", said, kern.Owned().Text(time.Now()))
		}
		if slices.ContainsFunc(routes, local) {
			t.Errorf("the link is not taken for steady again:\n%s", kern.Owned().Text(time.Now()))
		}
	})
}

// However many objects there are, buckets that are full again are forgotten, and a bucket that is not counts.
func TestLimiterForgets(t *testing.T) {
	now := time.Now()
	l := newLimiter(time.Second, 1)
	for i := range 10000 {
		if !l.take(fmt.Sprint(i), now) || l.take(fmt.Sprint(i), now) {
			t.Fatalf("object %d is not counted", i)
		}
	}
	now = now.Add(2 * time.Second)
	for i := range 10000 {
		l.take(fmt.Sprint("later", i), now)
	}
	if n := len(l.keys); n > 10000 {
		t.Errorf("%d buckets, of which 10000 are in use", n)
	}
}
