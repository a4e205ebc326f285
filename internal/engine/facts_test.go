package engine

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/fake"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// countingKernel counts reads, and refuses them while blind. Like the real one, it does nothing for a caller who is gone.
type countingKernel struct {
	*fake.Kernel
	reads atomic.Int64
	blind atomic.Bool
}

func (k *countingKernel) Links(ctx context.Context) ([]kernel.Link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return k.Kernel.Links(ctx)
}

func (k *countingKernel) Read(ctx context.Context, s kernel.Scope) (kernel.State, error) {
	k.reads.Add(1)
	if k.blind.Load() {
		return kernel.State{}, errors.New("no dump today")
	}
	return k.Kernel.Read(ctx, s)
}

// A client changes its state when an Advertise arrives, half a millisecond before the Reply: the engine must not reconcile
// then, only warm up. What it shows follows all the same.
func TestStateOfClientIsNoReasonToReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern := &countingKernel{Kernel: &fake.Kernel{Link: fakeLinks()}}
		e := start(t, kern, newMemory(), parse(t, bound.config))
		e.Client("fiber", ClientStatus{State: "soliciting"}, false)
		synctest.Wait()
		reads, steps := kern.reads.Load(), e.Snapshot().Counters.Steps
		e.Client("fiber", ClientStatus{State: "requesting"}, false)
		synctest.Wait()
		if n := kern.reads.Load() - reads; n > 1 || e.Snapshot().Counters.Steps != steps {
			t.Errorf("the kernel was read %d times, in %d reconciles", n, e.Snapshot().Counters.Steps-steps)
		}
		if got := e.Snapshot().Clients["fiber"].State; got != "requesting" {
			t.Errorf("state %q is shown", got)
		}
		e.Client("fiber", ClientStatus{State: "soliciting", Failure: "no answer"}, false)
		synctest.Wait()
		if !slices.ContainsFunc(problems(e), func(code string) bool { return code == "no-prefix" }) {
			t.Errorf("a failure is no problem: %v", problems(e))
		}
	})
}

// An address without a prefix is no success, and the reason is what the server said beside the grant.
func TestAddressButNoPrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, &fake.Kernel{Link: fakeLinks()}, newMemory(), parse(t, bound.config))
		l := pd.Lease{Addresses: []pd.LeasedAddress{{Address: netip.MustParseAddr("2001:db8:77::5"), PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()}}}
		told := func(note string) string {
			e.Client("fiber", ClientStatus{State: "bound", Note: note, Reported: true, Lease: l}, true)
			synctest.Wait()
			for _, p := range e.Snapshot().Problems {
				if p.Code == "no-prefix" {
					return p.Path + ": " + p.Message
				}
			}
			return ""
		}
		if got, want := told("Request: NoPrefixAvail"), "uplink.fiber: Request: NoPrefixAvail"; got != want {
			t.Errorf("problem %q, want %q", got, want)
		}
		l.Prefixes = lease(bound.leases["fiber"]).Prefixes
		if got := told("Renew: NoAddrsAvail"); got != "" { // address = "auto" does without one
			t.Errorf("problem %q beside a prefix", got)
		}
	})
}

// A lease that nobody extends is a problem long before it ends: from rebinding on, or from a failed exchange on.
func TestLeaseThatIsNotExtended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, &fake.Kernel{Link: fakeLinks()}, newMemory(), parse(t, bound.config))
		l := lease(bound.leases["fiber"])
		preferred, valid := time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		l.Prefixes[0].PreferredUntil, l.Prefixes[0].ValidUntil = lifetime.Until(preferred), lifetime.Until(valid)
		tell := func(state, failure string, leased bool) string {
			e.Client("fiber", ClientStatus{State: state, Failure: failure, Reported: true, Lease: l}, leased)
			synctest.Wait()
			for _, p := range e.Snapshot().Problems {
				if p.Code == "lease-not-extended" {
					return p.Path + ": " + p.Message
				}
			}
			return ""
		}
		works := "uplink.fiber: the lease is not extended, 2001:db8:1100::/56 keeps working until " + preferred.Local().Format("15:04:05") +
			"; old connections until " + valid.Local().Format("15:04:05") + "; "
		for _, step := range []struct {
			state, failure string
			leased         bool
			want           string
		}{
			{"bound", "", true, ""},
			{"renewing", "", false, ""},
			{"rebinding", "", false, works + "no server has answered with a longer one yet"},
			{"rebinding", "Rebind: no answer", false, works + "what went wrong last: Rebind: no answer"},
			{"bound", "", true, ""},
			{"renewing", "Renew: UnspecFail", false, works + "what went wrong last: Renew: UnspecFail"},
		} {
			if got := tell(step.state, step.failure, step.leased); got != step.want {
				t.Errorf("%s, failure %q: problem %q, want %q", step.state, step.failure, got, step.want)
			}
		}
		time.Sleep(time.Until(preferred) + time.Second)
		synctest.Wait()
		if got := tell("rebinding", "", false); !strings.Contains(got, "works for old connections only, until") {
			t.Errorf("after the preferred lifetime: %q", got)
		}
		time.Sleep(time.Until(valid) + time.Second)
		synctest.Wait()
		if got := tell("rebinding", "", false); got != "" {
			t.Errorf("after the lease has ended: %q", got)
		}
	})
}

// A reload is carried out as a whole, although nobody waits for its end: the links of the new config are known.
func TestReloadOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern := &countingKernel{Kernel: &fake.Kernel{}}
		e := start(t, kern, newMemory(), parse(t, bound.config))
		synctest.Wait()
		kern.Change(func() { kern.Link = fakeLinks() })
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_ = e.Reload(gone, parse(t, bound.config+guest)) // whether it knows the outcome is chance
		synctest.Wait()
		for _, d := range e.Snapshot().Site.Downstreams {
			if !d.Link {
				t.Errorf("%s is not up for %s", d.Interface, d.Name)
			}
		}
		if n := len(e.Snapshot().Site.Downstreams); n != 2 {
			t.Errorf("%d downstreams", n)
		}
	})
}

func TestLeaseIsSavedAlthoughTheKernelCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern, store := &countingKernel{Kernel: &fake.Kernel{Link: fakeLinks()}}, newMemory()
		e := start(t, kern, store, parse(t, bound.config))
		synctest.Wait()
		kern.blind.Store(true)
		e.Client("fiber", ClientStatus{State: "bound", Reported: true, Lease: lease(bound.leases["fiber"])}, true)
		synctest.Wait()
		store.mu.Lock()
		defer store.mu.Unlock()
		if got := len(store.leases["fiber"].Prefixes); got != 1 {
			t.Errorf("%d prefixes are saved, want 1", got)
		}
	})
}

func problems(e *Engine) (codes []string) {
	for _, p := range e.Snapshot().Problems {
		codes = append(codes, p.Code)
	}
	return codes
}

// A renewal is no interruption: "bound for 3h" is the time since there is a lease.
func TestBoundSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, &fake.Kernel{Link: fakeLinks()}, newMemory(), parse(t, bound.config))
		began := time.Now()
		for _, step := range []struct {
			state string
			since time.Duration
		}{{"requesting", 0}, {"bound", time.Minute}, {"renewing", time.Minute}, {"bound", time.Minute}, {"rebinding", time.Minute}, {"bound", time.Minute},
			{"requesting", time.Minute}, {"bound", time.Minute}, {"soliciting", 8 * time.Minute}, {"bound", 9 * time.Minute}} {
			e.Client("fiber", ClientStatus{State: step.state, Reported: true, Lease: lease(bound.leases["fiber"])}, step.state == "bound")
			synctest.Wait()
			if got := e.Snapshot().Clients["fiber"].Since.Sub(began); got != step.since {
				t.Errorf("%s since %v, want %v", step.state, got, step.since)
			}
			time.Sleep(time.Minute)
		}
	})
}
