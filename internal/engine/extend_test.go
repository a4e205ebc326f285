package engine

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel/fake"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// TestRenewedLifetimesCountAfterReboot: a Renew writes the lease and not the ledger, and what hosts were told then still counts
// when the prefix is gone after a power failure. Of a lease that is damaged nobody knows what they were told.
func TestRenewedLifetimesCountAfterReboot(t *testing.T) {
	for _, c := range []struct {
		name string
		lost []string
		want time.Duration // after the start of the first boot
	}{
		{"lease", nil, 3100 * time.Second},
		{"damaged lease", []string{"fiber"}, 200*time.Second + 5400*time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, store := time.Now(), newMemory()
				lease := func(prefix string) pd.Lease {
					until := lifetime.After(time.Now(), 3000)
					return pd.Lease{Prefixes: []pd.LeasedPrefix{{Prefix: netip.MustParsePrefix(prefix), PreferredUntil: until, ValidUntil: until}}}
				}
				kern := &fake.Kernel{Link: fakeLinks()}
				e, stop := startStoppable(t, kern, store, parse(t, bound.config))
				e.Client("fiber", ClientStatus{State: "bound", Reported: true, Lease: lease("2001:db8:1100::/56")}, true)
				pass(100 * time.Second)
				store.log = nil
				e.Client("fiber", ClientStatus{State: "bound", Reported: true, Lease: lease("2001:db8:1100::/56")}, true)
				pass(100 * time.Second)
				if slices.Contains(store.log, "write ledger.json") {
					t.Errorf("a Renew writes %v", store.log)
				}
				stop()

				kern = &fake.Kernel{Link: fakeLinks()}
				e = start(t, kern, store, parse(t, bound.config), func(o *Options) {
					o.BootID, o.Leases, o.Lost = "another", store.leases, c.lost
				})
				e.Client("fiber", ClientStatus{State: "bound", Reported: true, Lease: lease("2001:db8:1200::/56")}, true)
				synctest.Wait()
				for _, r := range e.Snapshot().Ledger.Announced["lan"] {
					if r.Prefix == netip.MustParsePrefix("2001:db8:1100::/64") && !r.Until.Within(lifetime.Until(begin.Add(c.want)), 2*time.Second, time.Now()) {
						t.Errorf("hosts can use %s until %s, want %s", r.Prefix, r.Until, begin.Add(c.want))
					} else if r.Prefix == netip.MustParsePrefix("2001:db8:1100::/64") {
						return
					}
				}
				t.Errorf("announced: %+v", e.Snapshot().Ledger.Announced)
			})
		})
	}
}
