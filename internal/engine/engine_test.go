package engine

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/fake"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func cutPrefix(s, p string) (string, bool) { return strings.CutPrefix(s, p) }

// memory is a Store without a disk; it stands in where a test is not about files.
type memory struct {
	mu     sync.Mutex
	files  map[string][]byte
	leases map[string]pd.Lease
	log    []string
	fail   error
}

func newMemory() *memory { return &memory{files: map[string][]byte{}, leases: map[string]pd.Lease{}} }

func (m *memory) ReadJSON(name string, _ int, v any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.files[name]
	if !ok {
		return fs.ErrNotExist
	}
	return json.Unmarshal(b, v)
}

func (m *memory) WriteJSON(name string, _ int, v any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	b, err := json.Marshal(v)
	m.files[name] = b
	m.log = append(m.log, "write "+name)
	return err
}

func (m *memory) SaveLease(uplink string, l pd.Lease) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.leases[uplink] = l
	return nil
}

func (m *memory) refuse(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *memory) note(s string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, s)
}

var bound = places[1]

// pass lets virtual time pass, and everything happen that is due by then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestRestartWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern, store := &fake.Kernel{Link: fakeLinks()}, newMemory()
		e, stop := startStoppable(t, kern, store, parse(t, bound.config))
		walker{t, e, kern, kern.SetLink}.visit(bound)
		synctest.Wait()
		stop()
		before := kern.Written()
		if before == 0 {
			t.Fatal("nothing was written at all")
		}
		events := 0
		e = start(t, kern, store, parse(t, bound.config), func(o *Options) {
			o.Leases = store.leases
			o.Events = func(evs []Item, _ policy.Site) { events += len(evs) }
		})
		synctest.Wait()
		if n := kern.Written() - before; n != 0 {
			t.Errorf("the restart wrote %d times before any uplink reported: %v", n, kern.Log[len(kern.Log)-n:])
		}
		walker{t, e, kern, kern.SetLink}.visit(bound)
		synctest.Wait()
		pass(10 * time.Minute) // resyncs
		if n := kern.Written() - before; n != 0 {
			t.Errorf("after the restart it wrote %d times: %v", n, kern.Log[len(kern.Log)-n:])
		}
		if events != 0 {
			t.Errorf("%d events although nothing changed", events)
		}
	})
}

// A crash may come after any write. What a new engine makes of it must not depend on where.
// TestDamagedLeaseIsNoLoss restarts without the stored lease, which was damaged: until the client has asked, nothing is
// withdrawn and nobody is told that the prefix is lost.
func TestDamagedLeaseIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern, store := &fake.Kernel{Link: fakeLinks()}, newMemory()
		e, stop := startStoppable(t, kern, store, parse(t, bound.config))
		walker{t, e, kern, kern.SetLink}.visit(bound)
		synctest.Wait()
		stop()
		before := kern.Written()
		delete(store.leases, "fiber")
		var events []string
		e = start(t, kern, store, parse(t, bound.config), func(o *Options) {
			o.Lost = []string{"fiber"}
			o.Events = func(evs []Item, _ policy.Site) {
				for _, ev := range evs {
					events = append(events, ev.Event.Kind)
				}
			}
		})
		synctest.Wait()
		if n := kern.Written() - before; n != 0 || len(events) > 0 || !e.Snapshot().Ready {
			t.Errorf("before the client reports: %d writes, events %v, ready %v", n, events, e.Snapshot().Ready)
		}
		store.mu.Lock()
		if l := store.leases["fiber"]; len(l.Prefixes) != 1 || l.Prefixes[0].IAID != 0 {
			t.Errorf("the next start would find the lease %+v", l)
		}
		store.mu.Unlock()
		e.Client("fiber", ClientStatus{State: "soliciting", Reported: true}, true)
		synctest.Wait()
		if !slices.Contains(events, policy.PrefixLost) {
			t.Errorf("the client has asked in vain, but the events are %v", events)
		}
	})
}

func TestKillAnywhere(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		from, to := places[rnd.IntN(len(places))], places[rnd.IntN(len(places))]
		n := rnd.IntN(25)
		synctest.Test(t, func(t *testing.T) {
			kern, store := &fake.Kernel{Link: fakeLinks()}, newMemory()
			e, stop := startStoppable(t, kern, store, parse(t, from.config))
			w := walker{t, e, kern, kern.SetLink}
			w.visit(from)
			dead := kern.Written() + n
			kern.Change(func() { kern.Die = func(w int) bool { return w >= dead } })
			w.visit(to)
			stop()
			kern.Change(func() { kern.Die = nil })
			e = start(t, kern, store, parse(t, to.config), func(o *Options) { o.Leases = store.leases })
			golden(t, "walk-"+to.name, walker{t, e, kern, kern.SetLink}.visit(to))
			if t.Failed() {
				t.Fatalf("from %s to %s, killed after %d writes", from.name, to.name, n)
			}
		})
	}
}

func TestNothingIsPrunedBeforeUplinksReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern, store := &fake.Kernel{Link: fakeLinks()}, newMemory()
		e, stop := startStoppable(t, kern, store, parse(t, bound.config))
		walker{t, e, kern, kern.SetLink}.visit(bound)
		synctest.Wait()
		stop()
		held := kern.Owned().Text(time.Now())
		e = start(t, kern, newMemory(), parse(t, bound.config)) // the state directory is lost
		pass(time.Hour)
		if got := kern.Owned().Text(time.Now()); got != held {
			t.Errorf("rows went before the uplink reported:\n%s", got)
		}
		if n := len(e.Snapshot().Waiting); n == 0 {
			t.Error("nothing is shown as waiting")
		}
		e.Client("fiber", ClientStatus{State: "soliciting", Reported: true, Failure: "no answer"}, false)
		pass(2 * time.Minute) // also past the adoption of the next hop
		if got := kern.Owned(); len(got.Addresses) != 0 {
			t.Errorf("addresses stay although the uplink has nothing:\n%s", got.Text(time.Now()))
		}
	})
}

func TestTwoProgramsDoNotFightAtFullSpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern := &fake.Kernel{Link: fakeLinks()}
		e := start(t, kern, newMemory(), parse(t, bound.config))
		walker{t, e, kern, kern.SetLink}.visit(bound)
		synctest.Wait()
		before := kern.Written()
		const minutes = 10
		for range minutes * 60 * 10 { // somebody deletes the address ten times a second
			kern.Drop("2001:db8:1100::1/64")
			e.Hint()
			pass(100 * time.Millisecond)
		}
		n := kern.Written() - before
		if most := 10 + minutes*60/5 + 1; n > most || n < minutes*60/5 {
			t.Errorf("%d repairs in %d minutes, want about one in 5 s and no more than %d", n, minutes, most)
		}
		if !slices.ContainsFunc(e.Snapshot().Problems, func(p policy.Problem) bool { return p.Code == "fighting" }) {
			t.Errorf("no problem says so: %v", e.Snapshot().Problems)
		}
		pass(5 * time.Minute)
		if !strings.Contains(kern.Owned().Text(time.Now()), "2001:db8:1100::1/64") {
			t.Error("the address is not back after the fight")
		}
	})
}

func TestForeignObjectInTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern := &fake.Kernel{Link: fakeLinks(), Foreign: kernel.State{Addresses: []kernel.Address{
			{Dev: "lan0", Prefix: netip.MustParsePrefix("2001:db8:1100::1/64")}}}}
		var events []string
		announced := map[string]policy.Announcement{}
		e := start(t, kern, newMemory(), parse(t, bound.config), func(o *Options) {
			o.Events = func(evs []Item, _ policy.Site) {
				for _, ev := range evs {
					events = append(events, ev.Event.Kind)
				}
			}
			o.Announce = func(d string, a policy.Announcement) { announced[d] = a }
		})
		walker{t, e, kern, kern.SetLink}.visit(bound)
		synctest.Wait()
		if !slices.ContainsFunc(e.Snapshot().Problems, func(p policy.Problem) bool {
			return p.Code == "apply-failed" && p.Path == "downstream.lan" && strings.Contains(p.Message, "ip address add 2001:db8:1100::1/64 dev lan0")
		}) {
			t.Errorf("no problem names the address: %v", e.Snapshot().Problems)
		}
		if !slices.Equal(events, []string{policy.UplinkUp, policy.PrefixNew}) || announced["lan"].Send {
			t.Errorf("what has not come about was reported: events %v, announced %v", events, announced)
		}
		kern.Change(func() { kern.Foreign = kernel.State{} }) // the user removes it
		pass(2 * time.Minute)
		if !slices.Contains(events, policy.SubnetNew) || len(announced["lan"].Prefixes) != 1 {
			t.Errorf("after the obstacle went: events %v, announced %v", events, announced)
		}
	})
}

// What hosts are told must be on disk first: after a crash it is announced as stale (RFC 9096 §3.5).
func TestLedgerIsOnDiskBeforeTheAnnouncement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern, store := &fake.Kernel{Link: fakeLinks()}, newMemory()
		e := start(t, kern, store, parse(t, bound.config), func(o *Options) {
			o.Announce = func(d string, a policy.Announcement) {
				if len(a.Prefixes) > 0 {
					store.note("announce")
				}
			}
		})
		walker{t, e, kern, kern.SetLink}.visit(bound)
		synctest.Wait()
		ledger, announce := slices.Index(store.log, "write ledger.json"), slices.Index(store.log, "announce")
		if ledger < 0 || announce < ledger {
			t.Errorf("order on disk and wire: %v", store.log)
		}
		var saved durable
		if err := store.ReadJSON(ledgerFile, formatVersion, &saved); err != nil || len(saved.Plan.Announced["lan"]) != 1 {
			t.Errorf("ledger %+v, %v", saved, err)
		}
	})
}

func TestLeaseRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern := &fake.Kernel{Link: fakeLinks()}
		var events []string
		e := start(t, kern, newMemory(), parse(t, bound.config), func(o *Options) {
			o.Events = func(evs []Item, _ policy.Site) {
				for _, ev := range evs {
					events = append(events, ev.Event.Kind)
				}
			}
		})
		w := walker{t, e, kern, kern.SetLink}
		w.visit(bound)
		l := pd.Lease{Prefixes: []pd.LeasedPrefix{{Prefix: netip.MustParsePrefix("2001:db8:1100::/56"),
			PreferredUntil: lifetime.After(time.Now(), 20), ValidUntil: lifetime.After(time.Now(), 30)}}}
		e.Client("fiber", ClientStatus{State: "bound", Reported: true, Lease: l}, true)
		pass(21 * time.Second)
		if a := kern.Owned().Addresses; len(a) != 1 || a[0].PreferredUntil.Seconds(time.Now()) != 0 {
			t.Errorf("after the preferred lifetime: %+v", a)
		}
		pass(10 * time.Second)
		if got := w.text(); strings.Contains(got, "1100") {
			t.Errorf("after the valid lifetime:\n%s", got)
		}
		held := func() kernel.State {
			s, err := kern.Read(t.Context(), kernel.Scope{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		if got := held(); len(got.Tables) != 1 || !strings.Contains(got.Text(time.Now()), "route 2001:db8:1100::/64 dev lan0") {
			t.Errorf("hosts that still use the prefix are not told:\n%s", got.Text(time.Now()))
		}
		pass(2 * time.Hour)
		if got := held(); len(got.Tables) != 0 || strings.Contains(got.Text(time.Now()), "1100") {
			t.Errorf("after no host can use the prefix any more:\n%s", got.Text(time.Now()))
		}
		want := []string{policy.UplinkUp, policy.PrefixNew, policy.PrefixDeprecated, policy.PrefixLost}
		if !slices.Equal(events, want) {
			t.Errorf("events %v, want %v", events, want)
		}
	})
}

func TestAnotherBootReportsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		var kern *fake.Kernel
		for i, boot := range []string{"a", "a", "b"} {
			events := 0
			if i != 1 {
				kern = &fake.Kernel{Link: fakeLinks()}
			}
			e, stop := startStoppable(t, kern, store, parse(t, bound.config), func(o *Options) {
				o.BootID, o.Leases = boot, store.leases
				o.Events = func(evs []Item, _ policy.Site) { events += len(evs) }
			})
			synctest.Wait()
			if early := len(e.Snapshot().Site.Uplinks[0].Delegations); (i == 1) != (early == 1) {
				t.Errorf("run %d uses %d delegations before the server's word", i, early)
			}
			walker{t, e, kern, kern.SetLink}.visit(bound)
			synctest.Wait()
			stop()
			if want := []int{2, 0, 2}[i]; events != want {
				t.Errorf("run %d in boot %s: %d events, want %d", i, boot, events, want)
			}
		}
	})
}

func TestDiskFullIsAProblemNotAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern, store := &fake.Kernel{Link: fakeLinks()}, newMemory()
		store.fail = errors.New("no space left on device")
		events := 0
		e := start(t, kern, store, parse(t, bound.config), func(o *Options) {
			o.Events = func(evs []Item, _ policy.Site) { events += len(evs) }
		})
		w := walker{t, e, kern, kern.SetLink}
		golden(t, "walk-bound", w.visit(bound))
		synctest.Wait()
		w.visit(bound)
		synctest.Wait()
		if events == 0 || !slices.ContainsFunc(e.Snapshot().Problems, func(p policy.Problem) bool { return p.Code == "not-saved" }) {
			t.Errorf("events %d, problems %v", events, e.Snapshot().Problems)
		}
	})
}
