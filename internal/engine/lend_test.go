package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel/fake"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

// lendLab is an engine on a fake kernel, with a delegation on fiber.
type lendLab struct {
	*Engine
	t     *testing.T
	kern  *fake.Kernel
	store *memory
	stop  func()
}

func inLendLab(t *testing.T, f func(*testing.T, *lendLab)) {
	synctest.Test(t, func(t *testing.T) {
		l := &lendLab{t: t, kern: &fake.Kernel{Link: fakeLinks()}, store: newMemory()}
		l.start("boot-1")
		l.granted("2001:db8:1100::/56")
		f(t, l)
	})
}

func (l *lendLab) start(boot string) {
	l.Engine, l.stop = startStoppable(l.t, l.kern, l.store, parse(l.t, bound.config), func(o *Options) { o.BootID, o.Leases = boot, l.store.leases })
	synctest.Wait()
}

// granted has the provider grant these prefixes for a day, "old PREFIX": as deprecated.
func (l *lendLab) granted(prefixes ...string) {
	x := lease(prefixes)
	for i := range x.Prefixes {
		x.Prefixes[i].ValidUntil = lifetime.After(time.Now(), 86400)
		if x.Prefixes[i].PreferredUntil.IsForever() {
			x.Prefixes[i].PreferredUntil = lifetime.After(time.Now(), 43200)
		}
	}
	l.Heard("fiber", policy.Heard{Routers: []policy.Router{{Address: netip.MustParseAddr("fe80::1"), Until: lifetime.Forever()}}})
	l.Client("fiber", ClientStatus{State: "bound", Reported: true, Lease: x}, true)
	synctest.Wait()
}

// ask asks for client n and returns the answer as text: "2001:db8::/64", "stale 2001:db8::/64".
func (l *lendLab) ask(verb LendVerb, n int, named ...string) string {
	l.t.Helper()
	text, err := l.try(verb, n, named...)
	if err != nil {
		l.t.Fatal(err)
	}
	return text
}

func (l *lendLab) try(verb LendVerb, n int, named ...string) (string, error) {
	a := Ask{Downstream: "lan", Client: inner(n), Via: viaOf(n), Verb: verb, IAs: []AskedIA{{IAID: 1}}}
	for _, p := range named {
		a.IAs[0].Prefixes = append(a.IAs[0].Prefixes, netip.MustParsePrefix(p))
	}
	list, err := l.Lend(l.t.Context(), a)
	var parts []string
	for _, x := range list {
		s := x.Prefix.String()
		if x.Stale {
			s = "stale " + s
		} else if x.PreferredUntil.Over(time.Now()) {
			s = "old " + s
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, " "), err
}

func inner(n int) pd.DUID     { return pd.DUID(fmt.Sprintf("\x00\x03\x00\x01inner%04d", n)) }
func viaOf(n int) netip.Addr  { return netip.MustParseAddr(fmt.Sprintf("fe80::1:%d", n)) }
func routeTo(s string) string { return "route " + s + " via fe80::1:" }

func (l *lendLab) routed(prefix string) bool {
	return strings.Contains(l.kern.Owned().Text(time.Now()), routeTo(prefix))
}

const lent = "2001:db8:1100:fe::/64"

func TestLend(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		if got := l.ask(LendOffer, 1); got != lent || l.routed(lent) {
			t.Errorf("offered %q, routed %v", got, l.routed(lent))
		}
		if got := l.ask(LendBind, 1, lent); got != lent || !l.routed(lent) {
			t.Errorf("bound %q, routed %v", got, l.routed(lent))
		}
		var saved durable
		if err := l.store.ReadJSON(ledgerFile, formatVersion, &saved); err != nil || len(saved.Borrowers) != 1 || saved.Borrowers[0].Client != inner(1) {
			t.Errorf("on disk when the answer came: %+v, %v", saved.Borrowers, err)
		}
		writes := l.kern.Written()
		if got := l.ask(LendExtend, 1, lent); got != lent {
			t.Errorf("extended %q", got)
		}
		if got := l.ask(LendOffer, 1); got != lent || !l.routed(lent) {
			t.Errorf("offered to one who starts anew: %q, routed %v", got, l.routed(lent))
		}
		if n := l.kern.Written() - writes; n > 0 {
			t.Errorf("extending wrote %d times", n)
		}
		if got := l.ask(LendBind, 2); got != "2001:db8:1100:fd::/64" {
			t.Errorf("the second gets %q", got)
		}
		if got := l.ask(LendRelease, 1, lent); got != "stale "+lent || l.routed(lent) {
			t.Errorf("released %q, routed %v", got, l.routed(lent))
		}
		if got := l.ask(LendRelease, 1, lent); got != "" {
			t.Errorf("released again: %q", got)
		}
	})
}

// Nobody is told what the kernel does not have.
func TestLendWaitsForRoute(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		l.refuseRoute(lent)
		if got := l.ask(LendBind, 1); got != "" {
			t.Errorf("lent %q without a route", got)
		}
		if got := l.Snapshot().Problems; !slices.ContainsFunc(got, func(p policy.Problem) bool { return p.Code == "apply-failed" }) {
			t.Errorf("problems %v", got)
		}
	})
}

// A full disk does not keep inner routers without a prefix.
func TestLendWithFullDisk(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		l.store.refuse(errors.New("no space left on device"))
		if got := l.ask(LendBind, 1); got != lent {
			t.Errorf("lent %q", got)
		}
	})
}

func TestLendOutlivesRestart(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		l.ask(LendBind, 1)
		l.stop()
		before := l.kern.Written()
		l.start("boot-1")
		pass(time.Minute)
		if n := l.kern.Written() - before; n > 0 || !l.routed(lent) {
			t.Errorf("the restart wrote %d times: %v", n, l.kern.Log[len(l.kern.Log)-n:])
		}
		if got := l.ask(LendExtend, 1, lent); got != lent {
			t.Errorf("extended after the restart: %q", got)
		}
	})
}

// The power fails in the moment in which an inner router is told of its prefix. It still has it afterwards, and nobody else gets it.
func TestLendSurvivesPowerLoss(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		for n := range 5 {
			got := l.ask(LendBind, n)
			disk := newMemory()
			l.store.mu.Lock()
			disk.files, disk.leases = maps.Clone(l.store.files), maps.Clone(l.store.leases)
			l.store.mu.Unlock()
			after := &lendLab{t: t, kern: &fake.Kernel{Link: fakeLinks()}, store: disk}
			after.start("boot-2")
			after.granted("2001:db8:1100::/56")
			for other := range 10 {
				if other != n && other > 4 && after.ask(LendBind, other) == got {
					t.Errorf("%s is lent twice", got)
				}
			}
			if again := after.ask(LendExtend, n, got); again != got || !after.routed(got) {
				t.Errorf("client %d was lent %s and has %s after the power loss, routed %v", n, got, again, after.routed(got))
			}
			after.stop()
		}
	})
}

// After a reboot nobody hears that a prefix is gone before the provider has said so.
func TestLendAfterReboot(t *testing.T) {
	for again, want := range map[string]string{
		"2001:db8:1100::/56": lent,
		"2001:db8:1200::/56": "2001:db8:1200:fe::/64 stale " + lent,
	} {
		inLendLab(t, func(t *testing.T, l *lendLab) {
			l.ask(LendBind, 1)
			l.stop()
			l.kern = &fake.Kernel{Link: fakeLinks()}
			l.start("boot-2")
			if got, err := l.try(LendExtend, 1, lent); !errors.Is(err, errEarly) {
				t.Errorf("before the provider's word: %q, %v", got, err)
			}
			l.granted(again)
			if got := l.ask(LendExtend, 1, lent); got != want {
				t.Errorf("the provider has granted %s again: %q, want %q", again, got, want)
			}
		})
	}
}

func TestLendRenumbering(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		const next = "2001:db8:1200:fe::/64"
		l.ask(LendBind, 1)
		l.granted("old 2001:db8:1100::/56", "2001:db8:1200::/56")
		if got := l.ask(LendExtend, 1, lent); got != next+" old "+lent || !l.routed(lent) || !l.routed(next) {
			t.Errorf("with both delegations: %q", got)
		}
		l.granted("2001:db8:1200::/56")
		if got := l.ask(LendExtend, 1, lent, next); got != next+" stale "+lent || !l.routed(next) {
			t.Errorf("when the old one is gone: %q", got)
		}
		if got := l.ask(LendRelease, 1, lent); got != "" || !l.routed(next) {
			t.Errorf("giving back the old one ends %q, the new one is routed: %v", got, l.routed(next))
		}
	})
}

// Who renews often does not wear out the disk.
func TestExtendingSparesTheDisk(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		l.ask(LendBind, 1)
		before := len(l.store.log)
		for range 60 { // two hours
			pass(2 * time.Minute)
			l.ask(LendExtend, 1, lent)
		}
		if n := len(l.store.log) - before; n > 15 {
			t.Errorf("%d writes for 60 Renews: %v", n, l.store.log[before:])
		}
		if !l.routed(lent) {
			t.Error("the route has gone")
		}
	})
}

func TestLendToNobody(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		a := Ask{Downstream: "gone", Client: inner(1), Via: viaOf(1), Verb: LendBind, IAs: []AskedIA{{IAID: 1}}}
		if _, err := l.Lend(t.Context(), a); err == nil || !strings.Contains(err.Error(), "no downstream gone") {
			t.Errorf("of a downstream that is gone: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		a.Downstream = "lan"
		if _, err := l.Lend(ctx, a); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("after the caller has given up: %v", err)
		}
		l.ask(LendBind, 1)
		if err := l.Reload(t.Context(), parse(t, fiber+lan+"dhcpv6.delegate = false\n")); err != nil {
			t.Fatal(err)
		}
		if l.routed(lent) {
			t.Error("the route stays although nothing is delegated any more")
		}
		if got := l.ask(LendExtend, 1, lent); got != "stale "+lent {
			t.Errorf("the inner router hears %q", got)
		}
		if got := l.ask(LendBind, 2); got != "" {
			t.Errorf("a new one gets %q", got)
		}
		l.stop()
		if _, err := l.Lend(t.Context(), a); err == nil || !strings.Contains(err.Error(), "has stopped") {
			t.Errorf("after the engine's end: %v", err)
		}
	})
}
