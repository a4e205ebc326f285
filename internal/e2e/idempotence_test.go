package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"uplinkd/internal/kernel"
)

// TestNothingToWrite counts what is written to the kernel when nothing has changed, in two ways: by what an independent
// socket hears from the kernel, and by the daemon's own account.
func TestNothingToWrite(t *testing.T) {
	t.Parallel()
	s, _ := bound(t, forever, prompt)
	log := subscribe(t, s.router)
	quiet := func(what string) {
		t.Helper()
		if heard := written(log.take()); len(heard) > 0 {
			t.Errorf("%s wrote to the kernel:\n%s", what, show(heard))
		}
	}
	before := s.statusNow().Counters
	if before.KernelWrites == 0 {
		t.Error("the daemon has counted no writes although it has numbered the site")
	}

	s.reconciles(2)
	quiet("reconciling twice")
	s.hangup()
	quiet("SIGHUP with an unchanged file")
	if now := s.statusNow().Counters; now.KernelWrites != before.KernelWrites || now.Reconciles < before.Reconciles+3 {
		t.Errorf("counters before %+v and after %+v: want more reconciles, no more writes", before, now)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		s.end(sig)
		quiet(fmt.Sprintf("ending by %v", sig))
		s.start()
		s.awaitHealthy()
		s.eventually("the lease to be confirmed by the provider", func() (bool, string) {
			c := s.statusNow().Uplinks[0].Client
			return c.State == "bound", c.State
		})
		s.reconciles(1)
		quiet(fmt.Sprintf("a restart after %v", sig))
		if n := s.statusNow().Counters.KernelWrites; n != 0 {
			t.Errorf("after %v and a restart the daemon has written %d times", sig, n)
		}
	}
}

// written leaves out what the kernel does by itself, and the routes of reconciles.
func written(list []notification) []notification {
	return slices.DeleteFunc(list, func(m notification) bool { return m.Proto != kernel.Protocol && m.Kind != "netconf" })
}

// reconciles provokes more than n reconciles by routes that are none of uplinkd's business.
func (s *site) reconciles(n uint64) {
	s.t.Helper()
	before := s.statusNow().Counters.Reconciles
	for i := uint64(0); i < n; i++ {
		s.router.IP("-6 route add 2001:db8:9:%x::/64 via fe80::9 dev lan0", i)
		s.eventually("a reconcile after somebody else's route", func() (bool, string) {
			now := s.statusNow().Counters.Reconciles
			return now > before+i, fmt.Sprintf("%d reconciles, %d before", now, before)
		})
	}
	s.router.IP("-6 route flush to root 2001:db8:9::/48")
	s.eventually("a reconcile after somebody else's routes went", func() (bool, string) {
		now := s.statusNow().Counters.Reconciles
		return now > before+n, fmt.Sprintf("%d reconciles, %d before", now, before)
	})
}

// TestRenewedLeaseWritesLifetimesOnly restarts with a lease that the provider extends at once: the address gets its new
// lifetimes, and nothing else is written.
func TestRenewedLeaseWritesLifetimesOnly(t *testing.T) {
	t.Parallel()
	s, v := bound(t, brief.simulated(), prompt)
	v.SetLifetimes(3000, 4000, 1000, 2000)
	log := subscribe(t, s.router)
	s.end(syscall.SIGKILL)
	s.start()
	s.eventually("the address to have the new lifetimes", func() (bool, string) {
		list := addresses(s.router, "lan0")
		return len(list) == 1 && list[0].Valid > 100, fmt.Sprint(list)
	})
	s.reconciles(1)
	heard := written(log.take())
	for _, m := range heard {
		if m.Gone || m.Kind != "address" {
			t.Errorf("a restart that only extends the lease wrote:\n%s", show(heard))
		}
	}
	if len(heard) == 0 || strings.Contains(show(heard), "deleted") {
		t.Errorf("heard:\n%s", show(heard))
	}
}
