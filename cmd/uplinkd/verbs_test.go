package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"uplinkd/internal/ctl"
	"uplinkd/internal/engine"
	"uplinkd/pd/trace"
	"uplinkd/policy"
)

// still is a daemon in which nothing moves; whoever watches is told of the same events.
type still struct {
	snapshot *engine.Snapshot
	events   []engine.Item
	hooks    []ctl.HookStatus
	ring     *trace.Ring // of uplink fiber
}

func (s still) Snapshot() *engine.Snapshot { return s.snapshot }

func (s still) Watch() (<-chan engine.Item, func()) {
	items := make(chan engine.Item, len(s.events))
	for _, e := range s.events {
		items <- e
	}
	return items, func() {}
}

func (s still) actions(asked func(string)) ctl.Actions {
	return ctl.Actions{
		Renew: func(u string) error {
			asked("renew " + u)
			if u == "fibre" {
				return errors.New(`no uplink "fibre"; there is: fiber`)
			}
			return nil
		},
		Release: func(_ context.Context, u string) error { asked("release " + u); return nil },
		Trace: func(u string) (*trace.Ring, error) {
			if u != "" && u != "fiber" {
				return nil, fmt.Errorf("no uplink %q; there is: fiber", u)
			}
			return s.ring, nil
		},
		Hooks: func() []ctl.HookStatus { return s.hooks },
	}
}

// listen runs the control socket of s until stop is called or the test ends.
func (s still) listen(t *testing.T, asked func(string)) (socket string, stop func()) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), ctl.SocketName)
	l, err := ctl.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := ctl.Server{Source: s, Actions: s.actions(asked), Log: slog.New(slog.DiscardHandler), Version: "v0.1"}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return socket, stop
}

// outcome is what a verb left behind.
type outcome struct {
	status         int
	stdout, stderr string
}

func verbIn(ctx context.Context, args ...string) outcome {
	return verbTo(ctx, io.Discard, args...)
}

// verbTo runs a verb; w gets its standard output too.
func verbTo(ctx context.Context, w io.Writer, args ...string) outcome {
	var out, errs bytes.Buffer
	env := &environment{ctx: ctx, stdout: io.MultiWriter(&out, w), stderr: &errs, config: "/nonexistent/uplinkd.toml"}
	status := env.main(args)
	return outcome{status, out.String(), errs.String()}
}

func TestVerbsAskTheDaemon(t *testing.T) {
	var asked []string
	socket, _ := still{snapshot: scenes()["ok"].snapshot(t)}.listen(t, func(s string) { asked = append(asked, s) })
	for _, tt := range []struct {
		args           string
		status         int
		stdout, stderr string // regular expressions; "" for nothing at all
	}{
		{"status", 0, `^OK: 1 uplink up`, ""},
		{"plan", 0, `(?m)^ip -6 route add unreachable 2001:db8:100::/56 table 1001 metric 2147483647 proto 200$`, ""},
		{"plan --json", 0, `"phase": "aggregate"`, ""},
		{"explain 2001:db8:100::1", 0, `the router's own address on lan0`, ""},
		{"explain 2001:db8:ffff::1", 1, `is not ours`, ""},
		{"explain 2001:db8:ffff::1 --json", 1, `"ours": false`, ""},
		{"renew", 0, `^fiber: the provider is asked to extend the lease\nwhat comes of it: uplinkd status\n$`, ""},
		{"renew fibre", 1, "", `^uplinkd: no uplink "fibre"; there is: fiber\n$`},
		{"release fiber", 0, `released`, ""},
	} {
		got := verbIn(t.Context(), append([]string{"--socket", socket}, strings.Fields(tt.args)...)...)
		if got.status != tt.status || !matches(tt.stdout, got.stdout) || !matches(tt.stderr, got.stderr) {
			t.Errorf("%s: status %d\nstdout: %s\nstderr: %s", tt.args, got.status, got.stdout, got.stderr)
		}
	}
	if got := strings.Join(asked, ","); got != "renew ,renew fibre,release fiber" {
		t.Errorf("the daemon was asked: %s", got)
	}
	var s ctl.Status
	if err := json.Unmarshal([]byte(verbIn(t.Context(), "status", "--json", "--socket", socket).stdout), &s); err != nil || s.Health != "ok" || s.SchemaVersion != 1 {
		t.Errorf("status --json: %v: %+v", err, s)
	}
}

// TestRenewSaysWhatItAsksFor looks at the answer for an uplink with a lease, without one, and without a link.
func TestRenewSaysWhatItAsksFor(t *testing.T) {
	for scene, want := range map[string]string{"ok": "fiber: the provider is asked to extend the lease", "released": "fiber: has no lease, the provider is asked for one",
		"renumbering": "cable: wan1 has no link now, the provider is asked as soon as it has"} {
		socket, _ := still{snapshot: scenes()[scene].snapshot(t)}.listen(t, func(string) {})
		if got := verbIn(t.Context(), "renew", "--socket", socket); got.status != exitOK || !strings.Contains(got.stdout, want+"\n") {
			t.Errorf("%s: status %d, %q %q; want %q", scene, got.status, got.stdout, got.stderr, want)
		}
	}
	socket, _ := still{snapshot: scenes()["renumbering"].snapshot(t)}.listen(t, func(string) {})
	if got := verbIn(t.Context(), "renew", "fiber", "--socket", socket); strings.Contains(got.stdout, "cable") {
		t.Errorf("renew fiber: %s", got.stdout)
	}
}

// TestTimesInJSON holds all times of all documents to one form: UTC, whole seconds.
func TestTimesInJSON(t *testing.T) {
	daemon := still{snapshot: scenes()["renumbering"].snapshot(t)}
	odd := night.Add(123456789).In(time.FixedZone("x", 3600))
	client := daemon.snapshot.Clients["fiber"]
	client.Since, client.Lease.Received = odd, odd
	daemon.snapshot.Clients["fiber"] = client
	daemon.hooks = []ctl.HookStatus{{Name: "ddns", LastRun: &odd, NextTry: &odd}}
	daemon.events = []engine.Item{{Seq: 1, Time: odd, Event: policy.Event{Kind: policy.UplinkUp}}}
	socket, stop := daemon.listen(t, func(string) {})
	var all strings.Builder
	for _, args := range []string{"status", "plan", "explain 2001:db8:100::1"} {
		all.WriteString(verbIn(t.Context(), append(strings.Fields(args), "--json", "--socket", socket)...).stdout)
	}
	all.WriteString(verbTo(t.Context(), &afterLines{1, stop}, "watch", "--json", "--socket", socket).stdout)
	times := regexp.MustCompile(`"\d{4}-\d\d-\d\dT[^"]*"`).FindAllString(all.String(), -1)
	if len(times) < 10 {
		t.Errorf("only these times were found: %s", times)
	}
	for _, text := range times {
		if !regexp.MustCompile(`T\d\d:\d\d:\d\dZ"$`).MatchString(text) {
			t.Errorf("time %s is not in UTC and whole seconds", text)
		}
	}
}

func matches(pattern, text string) bool {
	if pattern == "" {
		return text == ""
	}
	return regexp.MustCompile(pattern).MatchString(text)
}

// afterLines calls do once n lines have been written to it.
type afterLines struct {
	n  int
	do func()
}

func (a *afterLines) Write(b []byte) (int, error) {
	for range bytes.Count(b, []byte("\n")) {
		if a.n--; a.n == 0 {
			go a.do()
		}
	}
	return len(b), nil
}

func TestWatch(t *testing.T) {
	daemon := still{snapshot: scenes()["ok"].snapshot(t)}
	for i, e := range policy.Events(policy.Site{}, daemon.snapshot.Site, nil) {
		daemon.events = append(daemon.events, engine.Item{Seq: uint64(i + 1), Time: night, Event: e})
	}
	socket, stop := daemon.listen(t, func(string) {})
	ctx, interrupt := context.WithCancel(t.Context())
	got := verbTo(ctx, &afterLines{3, interrupt}, "watch", "--socket", socket)
	clock := night.Local().Format("2006-01-02 15:04:05")
	want := clock + "  uplink.up         fiber  via fe80::1\n" +
		clock + "  uplink.informed   fiber  name servers 2001:db8:ffff::53, 2001:db8:ffff::54\n" +
		clock + "  prefix.new        fiber  2001:db8:100::/56  lan=2001:db8:100::/64\n"
	if got.status != exitOK || got.stdout != want {
		t.Errorf("interrupted: status %d, %s%s", got.status, got.stdout, got.stderr)
	}
	got = verbTo(t.Context(), &afterLines{3, stop}, "watch", "--json", "--socket", socket)
	lines := strings.Split(got.stdout, "\n")
	var e ctl.EventRecord
	if err := json.Unmarshal([]byte(lines[0]), &e); err != nil || e.Event != "uplink.up" || e.Seq != 1 || e.SchemaVersion != 1 || len(lines) != 5 {
		t.Errorf("watch --json: %v: %s", err, got.stdout)
	}
	if want := `{"schema_version":1,"error":"the daemon went away: the daemon stops; see: systemctl status uplinkd"}`; lines[len(lines)-2] != want {
		t.Errorf("the last line of watch --json is %s, want %s", lines[len(lines)-2], want)
	}
	if got.status != exitFailed || !strings.Contains(got.stderr, "the daemon went away: the daemon stops; see: systemctl status uplinkd") {
		t.Errorf("daemon stopped: status %d, %s", got.status, got.stderr)
	}
}
