package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/engine"
	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/pd/store"
)

// meeting is over for those who come when n have come.
type meeting struct {
	n    int
	mu   sync.Mutex
	all  chan struct{}
	came int
}

func (m *meeting) come() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.came++; m.came == m.n {
		close(m.all)
	}
	return m.all
}

// Tasks end side by side: hundreds of them one after another take longer than systemd waits.
func TestTasksEndTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTasks(t.Context(), slog.New(slog.DiscardHandler), nil, "", nil)
		m := meeting{n: 3, all: make(chan struct{})}
		var all []running
		for range m.n {
			all = append(all, ts.run("uplink.fiber", func(ctx context.Context) error {
				<-ctx.Done()
				<-m.come()
				return nil
			}))
		}
		stopAll(all) // one after another, this would wait for ever
	})
}

// late is a client whose server answers when all have been asked.
type late struct{ *meeting }

func (l late) Release(ctx context.Context) error {
	select {
	case <-l.come():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func TestReleaseAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Second, errors.New("too late"))
		defer cancel()
		l := late{&meeting{n: 3, all: make(chan struct{})}}
		if err := releaseAll(ctx, []late{l, l, l}); err != nil {
			t.Error(err)
		}
	})
}

// followed are tasks that follow what text says of uplink fiber.
func followed(t *testing.T, state *store.Dir, text string) *tasks {
	t.Helper()
	cfg := fiberWith(t, text)
	ts := newTasks(t.Context(), slog.New(slog.DiscardHandler), state, routersOwn, engine.New(engine.Options{Config: cfg}))
	t.Cleanup(ts.stop)
	ts.follow(cfg)
	return ts
}

func fiberWith(t *testing.T, text string) *config.Config {
	t.Helper()
	return &config.Config{Uplinks: []config.Uplink{uplinkWith(t, text)}}
}

func newState(t *testing.T) (state *store.Dir, dir string) {
	t.Helper()
	dir = t.TempDir()
	state, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	return state, dir
}

// What a client holds at its end is what the next one starts from, also when it has not reached the disk.
func TestLeaseGoesOverReload(t *testing.T) {
	state, dir := newState(t)
	lease := pd.Lease{ServerID: "\x00\x03\x00\x01\x02\x00\x00\x00\x01\x02", Received: time.Now(), Prefixes: []pd.LeasedPrefix{{IAID: pd.IAIDFor("fiber"),
		Prefix: netip.MustParsePrefix("2001:db8:100::/56"), PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()}}}
	if err := state.SaveLease("fiber", lease); err != nil {
		t.Fatal(err)
	}
	ts := followed(t, state, "")
	if err := os.Remove(filepath.Join(dir, "lease-fiber.json")); err != nil { // it has never got there
		t.Fatal(err)
	}
	for _, text := range []string{"dhcpv6.dscp = 48", "dhcpv6.dscp = 8", ""} {
		before := ts.clients("fiber")[0]
		ts.follow(fiberWith(t, text))
		after := ts.clients("fiber")[0]
		got, _ := after.Last() // what it was given, as long as it runs
		if after == before || len(got.Prefixes) != 1 || got.Prefixes[0].Prefix != lease.Prefixes[0].Prefix {
			t.Errorf("%q: the client that follows knows of %+v", text, got)
		}
	}
	ts.follow(&config.Config{}) // the uplink goes and comes back
	ts.follow(fiberWith(t, ""))
	if got, _ := ts.clients("fiber")[0].Last(); len(got.Prefixes) != 1 {
		t.Errorf("after it was away the uplink knows of %+v", got)
	}
}

// The engine hands over links while identities are written to a slow disk: it must not wait, or the watchdog barks.
func TestLinksDoNotWaitForDisk(t *testing.T) {
	state, _ := newState(t)
	ts := followed(t, state, "")
	writing, goOn := make(chan struct{}), make(chan struct{})
	ts.save = func(string, store.Identity) error {
		close(writing)
		<-goOn
		return nil
	}
	done := make(chan struct{})
	go func() { defer close(done); ts.follow(fiberWith(t, "dhcpv6.duid = \"uuid\"")) }()
	<-writing
	handed := make(chan struct{})
	go func() { defer close(handed); ts.setLinks([]kernel.Link{{Name: "wan0"}}) }()
	if !soon(func() bool {
		select {
		case <-handed:
			return true
		default:
			return false
		}
	}) {
		t.Error("the engine waits for the disk")
	}
	close(goOn)
	<-done
	<-handed
}

// The DUID of an interface that is not there at the start is made from its hardware address when the engine tells of it.
func TestHardwareComesLater(t *testing.T) {
	state, _ := newState(t)
	ts := followed(t, state, "dhcpv6.duid = \"ll\"")
	first := ts.clients("fiber")[0]
	ts.setLinks([]kernel.Link{{Name: "wan0", Index: 7, MAC: "02:00:00:00:01:01"}, {Name: "tun0", Index: 8}})
	if !soon(func() bool { return ts.clients("fiber")[0] != first }) {
		t.Fatal("the client was not started anew")
	}
	id, err := state.Identity("fiber")
	if want := pd.DUID("\x00\x03\x00\x01\x02\x00\x00\x00\x01\x01"); err != nil || id.Used != want {
		t.Errorf("DUID %s, %v, want %s", id.Used, err, want)
	}
	hardware := ts.hardware()
	for dev, want := range map[string]bool{"wan0": true, "tun0": true, "none": false} {
		if mac, there := hardware(dev); there != want || (mac != nil) != (dev == "wan0") {
			t.Errorf("%s: %x, %t", dev, mac, there)
		}
	}
}
