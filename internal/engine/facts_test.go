package engine

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/fake"
)

// countingKernel counts reads, and refuses them while blind.
type countingKernel struct {
	*fake.Kernel
	reads atomic.Int64
	blind atomic.Bool
}

func (k *countingKernel) Read(ctx context.Context, s kernel.Scope) (kernel.State, error) {
	k.reads.Add(1)
	if k.blind.Load() {
		return kernel.State{}, errors.New("no dump today")
	}
	return k.Kernel.Read(ctx, s)
}

// A client changes its state when an Advertise arrives, half a millisecond before the Reply: the engine must not be busy
// reading the kernel then. What it shows follows all the same.
func TestStateOfClientIsNoReasonToReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern := &countingKernel{Kernel: &fake.Kernel{Link: fakeLinks()}}
		e := start(t, kern, newMemory(), parse(t, bound.config))
		e.Client("fiber", ClientStatus{State: "soliciting"}, false)
		synctest.Wait()
		before := kern.reads.Load()
		e.Client("fiber", ClientStatus{State: "requesting"}, false)
		synctest.Wait()
		if n := kern.reads.Load() - before; n != 0 {
			t.Errorf("the kernel was read %d times", n)
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
