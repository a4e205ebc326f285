package engine

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/fake"
	"uplinkd/internal/lifetime"
)

// forMarks runs a test on a kernel that marks addresses and on one that does not.
func forMarks(t *testing.T, test func(t *testing.T, k *fake.Kernel, old func(*Options))) {
	for name, none := range map[string]bool{"IFA_PROTO": false, "no IFA_PROTO": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				test(t, &fake.Kernel{Link: fakeLinks(), NoMarks: none}, func(o *Options) { o.NoOwnerMark = none })
			})
		})
	}
}

// An address of ours that somebody changes is put right, while the engine runs and when it has been stopped meanwhile, and
// nobody hears of a lost prefix. Changed and left, it goes with Clean.
func TestChangedAddress(t *testing.T) {
	forMarks(t, func(t *testing.T, kern *fake.Kernel, old func(*Options)) {
		store := newMemory()
		e, stop := startStoppable(t, kern, store, parse(t, bound.config), old)
		w := walker{t, e, kern, kern.SetLink}
		want := w.visit(bound)
		pass(time.Minute)
		events, prefix := e.Snapshot().Counters.Events, address(t, kern)
		check := func(what string) {
			t.Helper()
			if got := w.text(); got != want {
				t.Errorf("%s: the kernel has\n%swant\n%s", what, got, want)
			}
			s := e.Snapshot()
			if len(s.Problems) > 0 || s.Counters.Failed > 0 || s.Counters.Events != events {
				t.Errorf("%s: %d failures, %d events, problems %v", what, s.Counters.Failed, s.Counters.Events-events, s.Problems)
			}
		}
		shorten(kern, prefix)
		e.Hint()
		pass(time.Second)
		check("changed by somebody")

		stop()
		shorten(kern, prefix)
		e, stop = startStoppable(t, kern, store, parse(t, bound.config), old, func(o *Options) { o.Leases = store.leases })
		w.e, events = e, 0
		w.visit(bound)
		pass(time.Minute)
		check("changed while the engine was stopped")

		stop()
		shorten(kern, prefix)
		if r, err := Clean(t.Context(), kern, store); err != nil || len(r.Failed) > 0 {
			t.Fatal(r.Failed, err)
		}
		if left := kern.Owned().Addresses; len(left) != 0 {
			t.Errorf("clean left %v", left)
		}
	})
}

// shorten changes an address as `ip address change` does.
func shorten(k *fake.Kernel, prefix string) {
	k.Modify(prefix, lifetime.Until(time.Now().Add(time.Hour)))
}

// address is the only address in the kernel.
func address(t *testing.T, k *fake.Kernel) string {
	t.Helper()
	if n := k.Owned().Addresses; len(n) == 1 {
		return n[0].Prefix.String()
	}
	t.Fatalf("addresses: %v, want one", k.Owned().Addresses)
	return ""
}

// An address that somebody else had made before is never taken over, however often it is looked at, restarts and Clean
// included. Once it is gone, ours comes.
func TestForeignAddressStays(t *testing.T) {
	forMarks(t, func(t *testing.T, kern *fake.Kernel, old func(*Options)) {
		store := newMemory()
		until := lifetime.Until(time.Now().Add(1000 * time.Hour))
		theirs := kernel.Address{Dev: "lan0", Prefix: netip.MustParsePrefix(wantedAddress(t)), PreferredUntil: until, ValidUntil: until, Born: 4711}
		kern.Foreign.Addresses = []kernel.Address{theirs}
		for range 2 {
			e, stop := startStoppable(t, kern, store, parse(t, bound.config), old, func(o *Options) { o.Leases = store.leases })
			walker{t, e, kern, kern.SetLink}.visit(bound)
			pass(10 * time.Minute)
			if p := e.Snapshot().Problems; len(p) != 1 || p[0].Code != "apply-failed" || !strings.Contains(p[0].Message, theirs.Prefix.String()) {
				t.Errorf("problems: %v", p)
			}
			stop()
		}
		for _, op := range kern.Log {
			if _, ok := op.Row.(kernel.Address); ok {
				t.Errorf("%s was carried out", op.Text(time.Now()))
			}
		}
		if strings.Contains(string(store.files[ledgerFile]), theirs.Prefix.String()) {
			t.Errorf("the ledger claims it: %s", store.files[ledgerFile])
		}
		plan, err := CleanPlan(context.Background(), kern, store)
		if err != nil || strings.Contains(plan.Text(), theirs.Prefix.String()) {
			t.Errorf("clean would touch it: %v\n%s", err, plan.Text())
		}
		e := start(t, kern, store, parse(t, bound.config), old, func(o *Options) { o.Leases = store.leases })
		walker{t, e, kern, kern.SetLink}.visit(bound)
		kern.Change(func() { kern.Foreign.Addresses = nil })
		pass(2 * time.Minute)
		if address(t, kern) != theirs.Prefix.String() || len(e.Snapshot().Problems) != 0 {
			t.Errorf("after it was gone: %v, problems %v", kern.Owned().Addresses, e.Snapshot().Problems)
		}
	})
}

// wantedAddress is the address of lan0 in the place "bound".
func wantedAddress(t *testing.T) string {
	t.Helper()
	kern := &fake.Kernel{Link: fakeLinks()}
	e, stop := startStoppable(t, kern, newMemory(), parse(t, bound.config))
	walker{t, e, kern, kern.SetLink}.visit(bound)
	stop()
	return address(t, kern)
}

// The walk on a kernel without marks, where the ledger alone says which addresses are ours.
func TestWalkWithoutMarks(t *testing.T) {
	kern := &fake.Kernel{Link: fakeLinks(), NoMarks: true}
	e := start(t, kern, newMemory(), parse(t, fiber+lan), func(o *Options) { o.NoOwnerMark = true })
	walker{t, e, withAll{kern}, kern.SetLink}.walk(50)
}

// withAll shows all addresses that the engine has made, whatever the ledger says.
type withAll struct{ *fake.Kernel }

func (k withAll) Read(ctx context.Context, s kernel.Scope) (kernel.State, error) {
	s.Addresses = k.Owned().Addresses
	return k.Kernel.Read(ctx, s)
}
