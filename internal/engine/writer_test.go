package engine

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel/fake"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

// slow is a disk that can hang: then every write waits for the end of it.
type slow struct {
	*memory
	mu     sync.Mutex
	hung   chan struct{} // nil: it does not
	leases int           // written
}

func (s *slow) wait() {
	s.mu.Lock()
	hung := s.hung
	s.mu.Unlock()
	if hung != nil {
		<-hung
	}
}

func (s *slow) WriteJSON(name string, version int, v any) error {
	s.wait()
	return s.memory.WriteJSON(name, version, v)
}

func (s *slow) SaveLease(uplink string, l pd.Lease) error {
	s.wait()
	s.mu.Lock()
	s.leases++
	s.mu.Unlock()
	return s.memory.SaveLease(uplink, l)
}

// The engine goes on with the kernel while the disk hangs, keeps little for it, and has it written when it is back: each file
// once, with what is newest, before consumers hear of it.
func TestDiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard told
		kern, store := &fake.Kernel{Link: fakeLinks()}, &slow{memory: newMemory()}
		e := start(t, kern, store, parse(t, bound.config), heard.options)
		walker{t, e, kern, kern.SetLink}.visit(bound)
		pass(time.Minute)
		before, _ := heard.soFar()
		store.mu.Lock()
		store.hung, store.leases = make(chan struct{}), 0
		store.mu.Unlock()
		var last pd.Lease
		for i := range 500 {
			last = lease([]string{fmt.Sprintf("2001:db8:%x::/56", 0x1200+i)})
			e.Client("fiber", ClientStatus{State: "bound", Reported: true, Lease: last}, true)
			pass(6 * time.Second) // as often as the limiter lets it
		}
		if got := e.Snapshot().Site.Uplinks[0].Delegations; len(got) != 1 || got[0].Prefix != last.Prefixes[0].Prefix {
			t.Errorf("while the disk hangs the site has %v, want %s", got, last.Prefixes[0].Prefix)
		}
		if kinds, _ := heard.soFar(); len(kinds) != len(before) {
			t.Errorf("%d events before the disk has what they follow from", len(kinds)-len(before))
		}
		close(store.hung)
		pass(time.Second)
		store.mu.Lock()
		written := store.leases
		store.mu.Unlock()
		if got := store.memory.leases["fiber"]; written > 2 || len(got.Prefixes) != 1 || got.Prefixes[0].Prefix != last.Prefixes[0].Prefix {
			t.Errorf("%d leases were written, the last one is %v", written, got.Prefixes)
		}
		kinds, _ := heard.soFar()
		if n := len(slices.DeleteFunc(kinds[len(before):], func(k string) bool { return k != policy.PrefixNew })); n != 500 {
			t.Errorf("%d prefixes were told of, want 500", n)
		}
	})
}

// What waits in the queue is one version per file, and who waits for something waits for all that was put in before.
func TestQueue(t *testing.T) {
	q := queue{wake: make(chan struct{}, 1)}
	lease := func(seconds uint32) *pd.Lease {
		return &pd.Lease{Prefixes: []pd.LeasedPrefix{{ValidUntil: lifetime.After(time.Time{}, seconds)}}}
	}
	tried := make(chan struct{})
	first, newest, other := lease(1), lease(2), lease(3)
	q.put(job{uplink: "fiber", lease: first})
	q.put(job{uplink: "cable", lease: other})
	q.put(job{ledger: &durable{}, done: 1})
	q.put(job{uplink: "fiber", lease: newest})
	q.put(job{ledger: &durable{}, reported: &reported{}, done: 2})
	q.put(job{reported: &reported{BootID: "newest"}, done: 3})
	q.put(job{ledger: &durable{}, tried: tried})
	q.put(job{ledger: &durable{}, done: 4})
	q.close()
	var got []string
	for {
		j, ok, over := q.take()
		if over {
			break
		}
		s := fmt.Sprintf("%s done=%d", j.uplink, j.done)
		if !ok || j.lease == first {
			t.Fatalf("%+v, %t", j, ok)
		}
		if j.ledger != nil {
			s += " ledger"
		}
		if j.reported != nil {
			s += " " + j.reported.BootID
		}
		if j.tried != nil {
			s += " tried"
		}
		got = append(got, s)
	}
	if want := []string{"fiber done=0", "cable done=0", " done=1 ledger", " done=3 newest", " done=0 tried", " done=4"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
