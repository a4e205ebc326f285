package hooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"uplinkd/internal/config"
	"uplinkd/policy"
)

var errBroken = errors.New("exit status 1")

func hook(name string, on ...string) config.Hook {
	return config.Hook{Name: name, Run: []string{"/hooks/" + name}, Dialect: "uplinkd", On: on, Timeout: 30 * time.Second}
}

func items(kind string, from, to uint64) (all []Item) {
	for seq := from; seq <= to; seq++ {
		all = append(all, Item{Seq: seq, At: epoch, Event: policy.Event{Kind: kind}})
	}
	return all
}

// stage is a Runner in a synctest bubble whose programs are functions.
type stage struct {
	*Runner
	log  bytes.Buffer
	stop func()

	mu    sync.Mutex
	calls []string // "12s log 7": seconds since the start, program, sequence number
}

// start runs hooks whose calls are answered by program; nil always succeeds at once.
func start(t *testing.T, program func(ctx context.Context, name string, seq string) error, hooks ...config.Hook) *stage {
	t.Helper()
	s := &stage{}
	s.Runner = New(hooks, slog.New(slog.NewTextHandler(&s.log, nil)))
	begin := time.Now()
	s.execute = func(ctx context.Context, c Call) Outcome {
		name, seq := filepath.Base(c.Argv[0]), ""
		for _, v := range c.Env {
			if n, ok := strings.CutPrefix(v, "UPLINKD_SEQ="); ok {
				seq = n
			}
		}
		s.mu.Lock()
		s.calls = append(s.calls, fmt.Sprintf("%v %s %s", time.Since(begin), name, seq))
		s.mu.Unlock()
		if program == nil {
			return Outcome{}
		}
		return Outcome{Err: program(ctx, name, seq)}
	}
	for _, w := range s.workers {
		w.execute = s.execute
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	return s
}

// of returns the calls of one program so far.
func (s *stage) of(name string) (calls []string) {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		if strings.Contains(c, " "+name+" ") {
			calls = append(calls, c)
		}
	}
	return calls
}

func (s *stage) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if diff := cmp.Diff(want, s.calls); diff != "" {
		t.Errorf("calls (-want +got)\n%s", diff)
	}
	s.calls = nil
}

func TestOrderAndFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(_ context.Context, name, _ string) error {
			if name == "slow" {
				time.Sleep(time.Second)
			}
			return nil
		}
		s := start(t, slow, hook("slow", "*"), hook("up", "uplink.up"))
		defer s.stop()
		s.Submit(append(items("prefix.new", 1, 2), items("uplink.up", 3, 3)...))
		s.Submit(items("uplink.down", 4, 4))
		time.Sleep(time.Minute)
		got := s.Status()
		if len(got) != 2 || got[0].Calls != 4 || got[1].Calls != 1 || got[0].Queued != 0 {
			t.Errorf("status %+v", got)
		}
		if diff := cmp.Diff([]string{"0s slow 1", "1s slow 2", "2s slow 3", "3s slow 4"}, s.of("slow")); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, func(_ context.Context, _, seq string) error {
			if seq == "1" {
				return errBroken
			}
			return nil
		}, hook("log", "*"))
		defer s.stop()
		s.Submit(items("prefix.new", 1, 2))
		s.expect(t, "0s log 1")
		got := s.Status()[0]
		if got.Event != "prefix.new" || time.Until(got.NextRetry) != time.Second || got.Queued != 1 || got.LastError != "exit status 1" {
			t.Errorf("status while it waits: %+v", got)
		}
		time.Sleep(time.Minute)
		s.expect(t, "1s log 1", "3s log 1", "7s log 1", "15s log 1", "15s log 2")
		got = s.Status()[0]
		if got.Calls != 6 || got.Failures != 5 || got.Abandoned != 1 || got.LastError != "" || got.Event != "" || !got.NextRetry.IsZero() {
			t.Errorf("status after it: %+v", got)
		}
		if !strings.Contains(s.log.String(), `msg="event given up" hook=log event=prefix.new seq=1 err="exit status 1"`) {
			t.Errorf("log:\n%s", &s.log)
		}
	})
}

func TestUnprintableEventIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, nil, hook("log", "*"))
		defer s.stop()
		s.Submit(append(items("prefix.new\n", 1, 1), items("prefix.new", 2, 2)...))
		s.expect(t, "0s log 2")
		if got := s.Status()[0]; got.Abandoned != 1 || got.Calls != 1 {
			t.Errorf("status %+v", got)
		}
	})
}

func TestOverflowDropsOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan bool)
		s := start(t, func(_ context.Context, _, seq string) error {
			if seq == "1" {
				<-release
			}
			return nil
		}, hook("log", "*"))
		defer s.stop()
		s.Submit(items("prefix.new", 1, 1))
		s.expect(t, "0s log 1")
		s.Submit(items("prefix.new", 2, maxQueue+4)) // three more than wait
		if got := s.Status()[0]; got.Dropped != 3 || got.Queued != maxQueue {
			t.Errorf("status %+v", got)
		}
		close(release)
		var want []string
		for seq := 5; seq <= maxQueue+4; seq++ {
			want = append(want, fmt.Sprint("0s log ", seq))
		}
		s.expect(t, want...)
		if !strings.Contains(s.log.String(), `msg="events dropped: the program is slower than the events come" hook=log count=3`) {
			t.Errorf("log:\n%s", &s.log)
		}
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, func(ctx context.Context, _, _ string) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}, hook("log", "*"))
		s.Submit(items("prefix.new", 1, 1))
		time.Sleep(30 * time.Second)
		s.expect(t, "0s log 1")
		if got := s.Status()[0]; got.LastError != "not finished after 30s" || got.LastExit != 0 {
			t.Errorf("status %+v", got)
		}
		s.stop()
	})
}

func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mended atomic.Bool
		s := start(t, func(_ context.Context, _, _ string) error {
			if !mended.Load() {
				return errBroken
			}
			return nil
		}, hook("kept", "*"), hook("changed", "*"), hook("removed", "*"))
		defer s.stop()
		s.Submit(append(items("prefix.new", 1, 2), items("uplink.up", 3, 3)...))
		time.Sleep(4 * time.Second) // the next try is due at 7 s
		for _, name := range []string{"kept", "changed", "removed"} {
			if diff := cmp.Diff([]string{"0s " + name + " 1", "1s " + name + " 1", "3s " + name + " 1"}, s.of(name)); diff != "" {
				t.Errorf("before (-want +got)\n%s", diff)
			}
		}
		mended.Store(true)

		changed := hook("changed", "prefix.*")
		changed.Run = []string{"/hooks/mended"}
		moved := hook("kept", "*")
		moved.Pos.Line = 99 // a hook that has only moved in the file is unchanged
		s.Reload([]config.Hook{hook("added", "*"), changed, moved})
		s.Submit(items("prefix.lost", 4, 4))
		synctest.Wait()
		var names []string
		for _, h := range s.Status() {
			names = append(names, h.Name)
		}
		if diff := cmp.Diff([]string{"added", "changed", "kept"}, names); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		for name, want := range map[string][]string{
			"mended": {"4s mended 1", "4s mended 2", "4s mended 4"}, // at once, without what it no longer wants
			"added":  {"4s added 4"},
		} {
			if diff := cmp.Diff(want, s.of(name)); diff != "" {
				t.Errorf("%s (-want +got)\n%s", name, diff)
			}
		}
		time.Sleep(time.Minute)
		if diff := cmp.Diff([]string{"7s kept 1", "7s kept 2", "7s kept 3", "7s kept 4"}, s.of("kept")[3:]); diff != "" {
			t.Errorf("kept (-want +got)\n%s", diff)
		}
		if got := s.of("removed"); len(got) != 3 {
			t.Errorf("a removed hook was called again: %q", got)
		}
	})
}

// TestChangedHookHasAllTriesAgain changes one field at a time while an event is being repeated.
func TestChangedHookHasAllTriesAgain(t *testing.T) {
	for field, change := range map[string]func(*config.Hook){
		"run":     func(h *config.Hook) { h.Run = append(h.Run, "-v") },
		"on":      func(h *config.Hook) { h.On = []string{"prefix.*"} },
		"timeout": func(h *config.Hook) { h.Timeout = time.Minute },
		"dialect": func(h *config.Hook) { h.Dialect = "other" },
	} {
		t.Run(field, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, func(_ context.Context, _, _ string) error { return errBroken }, hook("log", "*"))
				defer s.stop()
				s.Submit(items("prefix.new", 1, 1))
				time.Sleep(4 * time.Second)
				changed := hook("log", "*")
				change(&changed)
				s.Reload([]config.Hook{changed})
				time.Sleep(time.Minute)
				s.expect(t, "0s log 1", "1s log 1", "3s log 1", "4s log 1", "5s log 1", "7s log 1", "11s log 1", "19s log 1")
			})
		})
	}
}

// TestReturningHookDoesNotOverlapItself removes a hook while its program runs and adds it again.
func TestReturningHookDoesNotOverlapItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, func(_ context.Context, _, _ string) error {
			time.Sleep(10 * time.Second)
			return nil
		}, hook("log", "*"))
		defer s.stop()
		s.Submit(items("prefix.new", 1, 2))
		synctest.Wait()
		s.Reload(nil)
		if got := s.Status(); len(got) != 0 {
			t.Errorf("status of a removed hook: %+v", got)
		}
		s.Reload([]config.Hook{hook("log", "*")})
		s.Submit(items("prefix.lost", 3, 3))
		time.Sleep(time.Minute)
		s.expect(t, "0s log 1", "10s log 3")
	})
}

func TestStopLetsAProgramFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan string, 2)
		begin := time.Now()
		s := start(t, func(ctx context.Context, name, _ string) error {
			wait := 3 * time.Second
			if name == "stuck" {
				wait = 20 * time.Second
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			ends <- fmt.Sprint(name, " ", time.Since(begin), " ", context.Cause(ctx))
			return context.Cause(ctx)
		}, hook("quick", "*"), hook("stuck", "*"))
		s.Submit(items("prefix.new", 1, 2))
		time.Sleep(time.Second)
		s.stop()
		if diff := cmp.Diff([]string{"quick 3s <nil>", "stuck 6s uplinkd is stopping"}, []string{<-ends, <-ends}); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		if !strings.Contains(s.log.String(), `msg="events dropped: uplinkd is stopping" hook=quick count=1`) {
			t.Errorf("log:\n%s", &s.log)
		}
	})
}

// TestRealPrograms runs programs, not functions: the order of calls, a failure that heals, and what is in the status.
func TestRealPrograms(t *testing.T) {
	dir := t.TempDir()
	record := filepath.Join(dir, "record")
	h := hook("real", "prefix.*")
	h.Run = []string{script(t, `#!/bin/sh
echo "$1 $UPLINKD_SEQ $UPLINKD_PREFIX" >>`+record+`
if [ "$UPLINKD_SEQ" = 7 ] && [ ! -e `+dir+`/mended ]; then
	touch `+dir+`/mended
	echo "not yet"
	exit 4
fi
`)}
	r := New([]config.Hook{h}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	second := prefixItem(policy.PrefixLost)
	second.Seq = 9
	r.Submit([]Item{prefixItem(policy.PrefixNew), uplinkItem(), second})
	waitFor(t, "three calls", func() bool { return r.Status()[0].Calls == 3 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	want := "prefix.new 7 2001:db8:0:100::/56\nprefix.new 7 2001:db8:0:100::/56\nprefix.lost 9 2001:db8:0:100::/56\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if s := r.Status()[0]; s.Failures != 1 || s.Abandoned != 0 || s.LastExit != 0 || s.LastError != "" {
		t.Errorf("status %+v", s)
	}
}
