package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/fake"
	"uplinkd/policy"
)

// A downstream whose address the kernel refuses has no part in the delegation; the others have theirs, nothing is
// reported as lost, and an uplink that loses its prefix loses it in the kernel too.
func TestBrokenDownstreamHurtsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern := &fake.Kernel{Link: fakeLinks(), Foreign: kernel.State{Routes: inTheWay("2001:db8:1100:10::/64", "lan1")}}
		var events []string
		announced := map[string]policy.Announcement{}
		e := start(t, kern, newMemory(), parse(t, fiber+cable+lan+guest), func(o *Options) {
			o.Events = func(items []Item, _ policy.Site) {
				for _, i := range items {
					events = append(events, i.Event.Kind+" "+i.Event.Prefix.String())
				}
			}
			o.Announce = func(d string, a policy.Announcement) { announced[d] = a }
		})
		give := func(uplink string, prefixes ...string) {
			e.Client(uplink, ClientStatus{State: "bound", Reported: true, Lease: lease(prefixes)}, true)
			pass(time.Second)
		}
		give("fiber", "2001:db8:1100::/56")
		give("cable", "2001:db8:2100::/60")
		if n := len(announced["lan"].Prefixes); n != 2 {
			t.Errorf("lan announces %d prefixes, want 2: %v", n, announced["lan"].Prefixes)
		}
		if n := len(announced["guest"].Prefixes); n != 0 {
			t.Errorf("guest announces what it does not have: %v", announced["guest"].Prefixes)
		}
		give("cable")
		pass(2 * time.Hour) // until no host can use it any more
		if got := kern.Owned().Text(time.Now()); strings.Contains(got, "2100") {
			t.Errorf("the lost prefix of the other uplink is still there:\n%s", got)
		}
		if want := []string{"prefix.new 2001:db8:1100::/56", "prefix.new 2001:db8:2100::/60", "prefix.lost 2001:db8:2100::/60"}; !slices.Equal(events, want) {
			t.Errorf("events %v, want %v", events, want)
		}
		kern.Change(func() { kern.Foreign = kernel.State{} })
		pass(2 * time.Minute)
		if len(announced["guest"].Prefixes) == 0 || !slices.Contains(events, "subnet.new 2001:db8:1100::/56") {
			t.Errorf("after the obstacle went: guest announces %v, events %v", announced["guest"].Prefixes, events)
		}
	})
}

func TestFailedWriteIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern, store := &fake.Kernel{Link: fakeLinks()}, newMemory()
		store.refuse(errors.New("no space left on device"))
		e := start(t, kern, store, parse(t, bound.config))
		walker{t, e, kern, kern.SetLink}.visit(bound)
		pass(time.Minute)
		store.refuse(nil)
		pass(2 * time.Minute)
		var saved durable
		if err := store.ReadJSON(ledgerFile, formatVersion, &saved); err != nil || len(saved.Plan.Announced["lan"]) != 1 {
			t.Errorf("after room was made the ledger is %+v, %v", saved, err)
		}
		if store.leases["fiber"].Prefixes == nil {
			t.Error("the lease is not on disk")
		}
		e.Client("fiber", ClientStatus{State: "renewing", Reported: true, Failure: "x"}, false) // a step, for a new snapshot
		pass(time.Second)
		if slices.ContainsFunc(e.Snapshot().Problems, func(p policy.Problem) bool { return p.Code == "not-saved" }) {
			t.Errorf("still a problem: %v", e.Snapshot().Problems)
		}
	})
}

// The kernel takes addresses away by itself when a link goes down; the ledger must not keep them for ever.
func TestLedgerDoesNotGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern, store := &fake.Kernel{Link: fakeLinks()}, newMemory()
		e := start(t, kern, store, parse(t, bound.config))
		w := walker{t, e, kern, kern.SetLink}
		for i := range 8 {
			w.visit(place{config: bound.config, leases: give("fiber", fmt.Sprintf("2001:db8:%x00::/56", 0x11+i)), routers: via("fiber", "fe80::1")})
			w.setLink("lan0", false)
			pass(time.Minute)
		}
		w.visit(bound)
		e.Reload(t.Context(), parse(t, bound.config))
		synctest.Wait()
		if n := len(e.saved.Addresses); n != 1 {
			t.Errorf("%d addresses in the ledger, want 1: %v", n, e.saved.Addresses)
		}
	})
}

// A provider that gives other prefixes with every Reply changes the site ten times, and then every 5 s.
func TestProviderCannotDriveTheSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern := &fake.Kernel{Link: fakeLinks()}
		var events atomic.Int64
		e := start(t, kern, newMemory(), parse(t, bound.config), func(o *Options) {
			o.Events = func(items []Item, _ policy.Site) {
				for _, i := range items {
					if i.Event.Kind == policy.PrefixNew {
						events.Add(1)
					}
				}
			}
		})
		for i := range 60 {
			e.Client("fiber", ClientStatus{State: "bound", Reported: true, Lease: lease([]string{fmt.Sprintf("2001:db8:%x00::/56", 0x11+i)})}, true)
			pass(time.Second)
		}
		if n := events.Load(); n > 10+60/5+1 || n < 10 {
			t.Errorf("%d new prefixes in a minute", n)
		}
		pass(time.Minute)
		if got := kern.Owned().Text(time.Now()); !strings.Contains(got, "2001:db8:4c00::1/64") {
			t.Errorf("the last prefix was not taken in the end:\n%s", got)
		}
	})
}

// An object of somebody else in the way is one line in the log, however often it is tried again; so is the next one after it was
// gone. The limiter changes nothing in what status says of it.
func TestRefusalIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		theirs := kernel.State{Routes: inTheWay("2001:db8:1100::/64", "lan0")}
		kern := &fake.Kernel{Link: fakeLinks(), Foreign: theirs}
		var log strings.Builder
		e := start(t, kern, newMemory(), parse(t, bound.config), func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		e.Client("fiber", ClientStatus{State: "bound", Reported: true, Lease: lease([]string{"2001:db8:1100::/56"})}, true)
		check := func(lines int) {
			t.Helper()
			for range 40 {
				e.Hint() // somebody else's routes change all the time
				pass(100 * time.Millisecond)
				if p := e.Snapshot().Problems; len(p) != 1 || p[0].Code != "apply-failed" || !strings.Contains(p[0].Message, fake.ErrExists.Error()) {
					t.Fatalf("problems %v", p)
				}
			}
			if n := strings.Count(log.String(), "level=ERROR"); n != lines {
				t.Errorf("%d lines, want %d:\n%s", n, lines, log.String())
			}
		}
		check(1)
		kern.Change(func() { kern.Foreign = kernel.State{} })
		pass(2 * time.Minute)
		if p := e.Snapshot().Problems; len(p) != 0 {
			t.Errorf("problems %v", p)
		}
		kern.Change(func() { kern.Foreign, kern.State.Routes = theirs, nil })
		check(2)
	})
}

// unplugged has an interface that goes between the look at the links and the writing.
type unplugged struct {
	*fake.Kernel
	dev string
}

func (k *unplugged) Apply(ctx context.Context, p kernel.Plan) (r kernel.Report) {
	for _, op := range p.Ops {
		err := fmt.Errorf("there is no device %s: %w", k.dev, syscall.ENODEV)
		if route, ok := op.Row.(kernel.Route); ok && route.Dev == k.dev {
			r.Failed = append(r.Failed, kernel.OpError{Op: op, Err: err})
		} else if a, ok := op.Row.(kernel.Address); ok && a.Dev == k.dev {
			r.Failed = append(r.Failed, kernel.OpError{Op: op, Err: err})
		}
	}
	return r
}

func TestInterfaceGoneMeanwhileIsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		e := start(t, &unplugged{&fake.Kernel{Link: fakeLinks()}, "lan0"}, newMemory(), parse(t, bound.config), func(o *Options) {
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
		})
		e.Client("fiber", ClientStatus{State: "bound", Reported: true, Lease: lease([]string{"2001:db8:1100::/56", "2001:db8:1200::/56"})}, true)
		pass(time.Second)
		if errs, warnings := strings.Count(log.String(), "level=ERROR"), strings.Count(log.String(), "an interface has gone meanwhile"); errs != 0 || warnings != 1 {
			t.Errorf("%d errors and %d lines about it:\n%s", errs, warnings, log.String())
		}
		if n := len(e.Snapshot().Problems); n < 2 {
			t.Errorf("status shows %d problems", n)
		}
	})
}
