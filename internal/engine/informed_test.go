package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel/fake"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

// provider is what a provider of these tests tells at the moment: name servers by DHCPv6, the rest in RAs.
func provider(server string) (pd.Lease, policy.Heard) {
	l := lease(bound.leases["fiber"])
	l.DNS = []netip.Addr{netip.MustParseAddr(server)}
	l.Unknown = []pd.Option{{Code: 17, Data: []byte{1, 2}}}
	return l, policy.Heard{Routers: []policy.Router{{Address: netip.MustParseAddr("fe80::1"), Until: untilFrom(time.Now(), 30*time.Minute)}},
		DNS: []netip.Addr{netip.MustParseAddr("2001:db8:f::64")}, Search: []string{"example.net"}, CaptivePortal: "https://portal.example/",
		PREF64: []policy.PREF64{{Prefix: netip.MustParsePrefix("64:ff9b::/96"), Until: untilFrom(time.Now(), 30*time.Minute)}}}
}

// told collects the events that hooks hear, and what they hear with uplink.informed.
type told struct {
	mu       sync.Mutex
	kinds    []string
	informed []policy.Told
}

// soFar are the events, and what uplink.informed told.
func (o *told) soFar() (kinds []string, informed []policy.Told) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.kinds), slices.Clone(o.informed)
}

func (o *told) options(opt *Options) {
	opt.Events = func(items []Item, _ policy.Site) {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, i := range items {
			o.kinds = append(o.kinds, i.Event.Kind)
			if i.Event.Kind == policy.UplinkInformed {
				o.informed = append(o.informed, *i.Event.Told)
			}
		}
	}
}

func tell(e *Engine, l pd.Lease, h policy.Heard) {
	e.Heard("fiber", h)
	e.Client("fiber", ClientStatus{State: "bound", Reported: true, Lease: l}, true)
}

// What a provider tells is told once, also over a restart, during which no router is heard for a while.
func TestInformedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var first, second told
		kern, store := &fake.Kernel{Link: fakeLinks()}, newMemory()
		e, stop := startStoppable(t, kern, store, parse(t, bound.config), first.options)
		for range 3 { // renewals and further RAs, whose deadlines move
			l, h := provider("2001:db8:f::53")
			tell(e, l, h)
			pass(10 * time.Minute)
		}
		// What the router says and what the lease adds may come in one step or in two.
		kinds, informed := first.soFar()
		if want := []string{policy.UplinkUp, policy.UplinkInformed, policy.PrefixNew}; !slices.Equal(slices.Compact(kinds), want) || len(informed) > 2 {
			t.Errorf("events %v, want %v", kinds, want)
		}
		before := e.Snapshot().Site
		stop()
		var announced atomic.Value
		e = start(t, kern, store, parse(t, bound.config), second.options, func(o *Options) {
			o.Leases = store.leases
			o.Announce = func(_ string, a policy.Announcement) {
				announced.Store(fmt.Sprint(a.DNS, a.Search, a.PREF64[0].Prefix, a.CaptivePortal))
			}
		})
		synctest.Wait()
		a := before.Downstreams[0].Announce
		if want := fmt.Sprint(a.DNS, a.Search, a.PREF64[0].Prefix, a.CaptivePortal); announced.Load() != want {
			t.Errorf("after the restart hosts are told %v, before it %s", announced.Load(), want)
		}
		pass(20 * time.Second)
		l, h := provider("2001:db8:f::53")
		tell(e, l, h)
		pass(10 * time.Minute)
		if kinds, _ := second.soFar(); len(kinds) > 0 {
			t.Errorf("events after a restart with nothing changed: %v", kinds)
		}
	})
}

// What the routers of the last run told is given up when none of them says it again.
func TestAdoptedFactsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard told
		kern, store := &fake.Kernel{Link: fakeLinks()}, newMemory()
		e, stop := startStoppable(t, kern, store, parse(t, bound.config))
		l, h := provider("2001:db8:f::53")
		tell(e, l, h)
		synctest.Wait()
		stop()
		e = start(t, kern, store, parse(t, bound.config), heard.options, func(o *Options) { o.Leases = store.leases })
		e.Heard("fiber", policy.Heard{Routers: h.Routers}) // one of two routers; the other has gone
		pass(adoption - time.Second)
		if kinds, _ := heard.soFar(); len(kinds) > 0 {
			t.Errorf("too soon: %v", kinds)
		}
		pass(2 * time.Second)
		kinds, informed := heard.soFar()
		if len(informed) != 1 || len(kinds) != 1 {
			t.Fatalf("events %v", kinds)
		}
		if got := informed[0]; len(got.DNS) != 1 || len(got.DomainSearch)+len(got.PREF64)+len(got.CaptivePortal) > 0 {
			t.Errorf("still told: %+v", got)
		}
	})
}

// A provider that tells something else with every packet is followed at the limiter's pace, and to the end.
func TestInformedTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard told
		e := start(t, &fake.Kernel{Link: fakeLinks()}, newMemory(), parse(t, bound.config), heard.options)
		for i := range 200 {
			l, h := provider(fmt.Sprintf("2001:db8:f::%x", i+1))
			tell(e, l, h)
			synctest.Wait()
		}
		if _, informed := heard.soFar(); len(informed) < 5 || len(informed) > 15 {
			t.Errorf("%d events at once", len(informed))
		}
		pass(time.Minute)
		_, informed := heard.soFar()
		last := informed[len(informed)-1]
		if want := netip.MustParseAddr("2001:db8:f::c8"); last.DNS[0] != want || len(informed) > 20 {
			t.Errorf("%d events; the last is about %s, not %s", len(informed), last.DNS[0], want)
		}
	})
}

// A bad cable takes an uplink down and up several times a second: hooks hear of it at the limiter's pace, and of how it ends.
func TestFlapsTooOften(t *testing.T) {
	for _, end := range []string{policy.UplinkUp, policy.UplinkDown} {
		synctest.Test(t, func(t *testing.T) {
			var heard told
			kern := &fake.Kernel{Link: fakeLinks()}
			e := start(t, kern, newMemory(), parse(t, bound.config), heard.options)
			w := walker{t, e, kern, kern.SetLink}
			w.visit(bound)
			carrier := func(up bool) {
				links := fakeLinks()
				for i := range links {
					links[i].Carrier = up || links[i].Name != "wan0"
				}
				kern.Change(func() { kern.Link = links })
				e.Hint()
				pass(50 * time.Millisecond)
			}
			for range 200 {
				carrier(false)
				carrier(true)
			}
			carrier(end == policy.UplinkUp)
			flaps := func() (list []string) {
				kinds, _ := heard.soFar()
				return slices.DeleteFunc(kinds, func(k string) bool { return k != policy.UplinkUp && k != policy.UplinkDown })
			}
			if got := flaps(); len(got) < 8 || len(got) > 16 {
				t.Errorf("%d events within 20 s: %v", len(got), got)
			}
			pass(6 * time.Second)
			got := flaps()
			if got[len(got)-1] != end {
				t.Errorf("the last event is %s, want %s", got[len(got)-1], end)
			}
			for i := 1; i < len(got); i++ {
				if got[i] == got[i-1] {
					t.Errorf("%s twice in a row: %v", got[i], got)
				}
			}
		})
	}
}

// A PREF64 ends at its deadline without another word.
func TestPREF64Ends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard told
		e := start(t, &fake.Kernel{Link: fakeLinks()}, newMemory(), parse(t, bound.config), heard.options)
		l, h := provider("2001:db8:f::53")
		h.Routers[0].Until = lifetime.Forever()
		h.PREF64[0].Until = untilFrom(time.Now(), 90*time.Second)
		tell(e, l, h)
		pass(89 * time.Second)
		_, before := heard.soFar()
		if n := len(e.Snapshot().Site.Downstreams[0].Announce.PREF64); n != 1 || len(before) == 0 {
			t.Errorf("%d announced, informed %v", n, before)
		}
		pass(2 * time.Second)
		_, after := heard.soFar()
		if n := len(e.Snapshot().Site.Downstreams[0].Announce.PREF64); n != 0 || len(after) != len(before)+1 || len(after[len(before)].PREF64) > 0 {
			t.Errorf("%d announced, informed %v, before %v", n, after, before)
		}
	})
}
