package engine

import (
	"net/netip"
	"testing"
	"testing/synctest"

	"uplinkd/internal/kernel/fake"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// TestKeep: what a client learns before its stored lease is confirmed reaches the disk, and changes nothing else.
func TestKeep(t *testing.T) {
	prefix := pd.LeasedPrefix{IAID: 7, Prefix: netip.MustParsePrefix("2001:db8:1100::/56"), PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()}
	stored := pd.Lease{ServerID: "server", Prefixes: []pd.LeasedPrefix{prefix}}
	learned := stored
	learned.SolMaxRT = 120
	for _, c := range []struct {
		name string
		boot string // of the report on disk; that of the engine is "boot-1"
		keep pd.Lease
		want pd.Lease
	}{
		{"after a reboot", "boot-0", learned, learned},
		{"in the same boot", "boot-1", learned, learned},
		{"in the same boot, of a client that has nothing", "boot-1", pd.Lease{SolMaxRT: 120}, learned},
		{"of a client that never had anything", "boot-0", pd.Lease{SolMaxRT: 120}, pd.Lease{SolMaxRT: 120}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kern, store := &fake.Kernel{Link: fakeLinks()}, newMemory()
				if err := store.WriteJSON(reportedFile, formatVersion, reported{BootID: c.boot}); err != nil {
					t.Fatal(err)
				}
				e := start(t, kern, store, parse(t, bound.config), func(o *Options) { o.Leases = map[string]pd.Lease{"fiber": stored} })
				synctest.Wait()
				steps, held := e.Snapshot().Counters.Steps, len(e.Snapshot().Clients["fiber"].Lease.Prefixes)
				e.Keep("fiber", c.keep)
				e.Keep("copper", c.keep) // which is not there
				synctest.Wait()
				store.mu.Lock()
				defer store.mu.Unlock()
				if got := store.leases["fiber"]; got.SolMaxRT != c.want.SolMaxRT || len(got.Prefixes) != len(c.want.Prefixes) || len(store.leases) != 1 {
					t.Errorf("on disk: %+v, want %+v", store.leases, c.want)
				}
				now := e.Snapshot()
				if len(now.Clients["fiber"].Lease.Prefixes) != held || now.Clients["fiber"].Reported || now.Counters.Steps != steps {
					t.Errorf("the engine made something of it: %+v, %d steps", now.Clients["fiber"], now.Counters.Steps-steps)
				}
				if confirmed := c.boot == "boot-1"; (held == 1) != confirmed {
					t.Errorf("%d prefixes in use before anybody has confirmed them", held)
				}
			})
		})
	}
}
