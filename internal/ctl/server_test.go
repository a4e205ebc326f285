package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/engine"
	"uplinkd/internal/netlab"
	"uplinkd/policy"
)

// source is an engine with one snapshot and events from a channel.
type source struct {
	snapshot engine.Snapshot
	events   chan engine.Item

	mu      sync.Mutex
	stopped int
}

func (s *source) Snapshot() *engine.Snapshot { return &s.snapshot }

func (s *source) Watch() (<-chan engine.Item, func()) {
	return s.events, func() { s.mu.Lock(); defer s.mu.Unlock(); s.stopped++ }
}

// serve runs a server on a socket of its own until the test ends, and returns the socket's path.
func serve(t *testing.T, src Source, actions Actions) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", SocketName)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := Server{Source: src, Actions: actions, Log: slog.New(slog.DiscardHandler), Version: "test"}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there after the end: %v", err)
		}
	})
	return path
}

func TestActionsReachTheDaemon(t *testing.T) {
	var got []string
	note := func(s string) error { got = append(got, s); return nil }
	c := Dial(serve(t, &source{}, Actions{
		Renew:   func(u string) error { return note("renew " + u) },
		Release: func(_ context.Context, u string) error { return errors.New(`no uplink "` + u + `"; there is: fiber`) },
		Reload:  func(context.Context) error { return note("reload") },
	}))
	ctx := t.Context()
	if err := errors.Join(c.Renew(ctx, "a&b=c"), c.Renew(ctx, ""), c.Reload(ctx)); err != nil {
		t.Fatal(err)
	}
	if want := "renew a&b=c,renew ,reload"; strings.Join(got, ",") != want {
		t.Errorf("daemon got %q, want %q", strings.Join(got, ","), want)
	}
	if err := c.Release(ctx, "fibre"); err == nil || err.Error() != `no uplink "fibre"; there is: fiber` {
		t.Errorf("Release: %v", err)
	}
	v, err := c.Version(ctx)
	if err != nil || v.Daemon != "test" || v.PID != os.Getpid() {
		t.Errorf("Version: %+v, %v", v, err)
	}
	if _, err := c.Explain(ctx, netip.MustParseAddr("fe80::1%lan0")); err != nil {
		t.Errorf("Explain with a zone: %v", err)
	}
}

func TestProblemsOfTheDaemonAreShown(t *testing.T) {
	src := &source{snapshot: engine.Snapshot{Problems: []policy.Problem{{Path: "kernel", Code: "read-failed"}}}}
	c := Dial(serve(t, src, Actions{Problems: func() []policy.Problem {
		return []policy.Problem{{Path: "config", Code: "config-not-loaded", Message: "uplinkd.toml:3:1: unknown key"}}
	}}))
	for range 2 { // the first must not have added to the source's own
		s, err := c.Status(t.Context())
		p, perr := c.Plan(t.Context())
		if err != nil || perr != nil {
			t.Fatal(err, perr)
		}
		for _, list := range [][]Problem{s.Problems, p.Problems} {
			if len(list) != 2 || list[1].Path != "config" || list[1].Advice == "" {
				t.Errorf("problems: %+v", list)
			}
		}
	}
}

func TestOthersMayLookButNotAct(t *testing.T) {
	for _, tt := range []struct {
		who  peer
		self int
		may  bool
	}{
		{peer{0, true}, 100, true}, {peer{100, true}, 100, true}, {peer{1000, true}, 100, false}, {peer{1000, true}, 0, false},
		{peer{}, 0, false}, // nothing known is not root
	} {
		if got := tt.who.mayAct(tt.self); got != tt.may {
			t.Errorf("%+v with a daemon of uid %d: mayAct = %v", tt.who, tt.self, got)
		}
	}
}

// TestForbidden asks as another user, over a real socket with SO_PEERCRED.
func TestForbidden(t *testing.T) {
	netlab.NeedRoot(t, "connects as another user")
	path := serve(t, &source{}, Actions{Renew: func(string) error { t.Error("renewed for a stranger"); return nil }})
	if out := askAsNobody(t, path, "GET /v1/version"); !strings.Contains(out, "200 OK") {
		t.Errorf("GET as nobody: %s", out)
	}
	if out := askAsNobody(t, path, "POST /v1/renew"); !strings.Contains(out, "403 Forbidden") || !strings.Contains(out, "only root") {
		t.Errorf("POST as nobody: %s", out)
	}
}

// askAsNobody sends a request to the socket at path, which is opened to everybody as an administrator might do, from a
// process of another user, and returns the whole answer.
func askAsNobody(t *testing.T, path, request string) string {
	t.Helper()
	for dir := filepath.Dir(path); dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("perl", "-MIO::Socket::UNIX", "-e", `$s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die $!; print $s $ARGV[1]; print while <$s>`,
		path, request+" HTTP/1.0\r\n\r\n")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestEvents(t *testing.T) {
	src := &source{events: make(chan engine.Item, 2)}
	c := Dial(serve(t, src, Actions{}))
	prefix := netip.MustParsePrefix("2001:db8:100::/56")
	src.events <- engine.Item{Seq: 7, Time: time.Unix(1e9, 0), Event: policy.Event{Kind: policy.PrefixNew, Uplink: "fiber", Prefix: prefix}}
	ctx, cancel := context.WithCancel(t.Context())
	var got []EventRecord
	err := c.Events(ctx, func() {}, func(e EventRecord) error { got = append(got, e); cancel(); return nil })
	if err != nil {
		t.Fatalf("stream ended by the client: %v", err)
	}
	if len(got) != 1 || got[0].Seq != 7 || got[0].Event != "prefix.new" || got[0].Prefix != prefix || got[0].Time.Unix() != 1e9 {
		t.Errorf("got %+v", got)
	}
	close(src.events) // as the engine does with a reader that is too slow
	err = c.Events(t.Context(), func() {}, func(EventRecord) error { return nil })
	if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "too slow") {
		t.Errorf("too slow: %v", err)
	}
}

func TestEventsEndWithTheDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), SocketName)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	src := &source{events: make(chan engine.Item)}
	s := Server{Source: src, Log: slog.New(slog.DiscardHandler)}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	err = Dial(path).Events(t.Context(), stop, func(EventRecord) error { return nil })
	if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "the daemon stops") {
		t.Errorf("stream: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if src.stopped != 1 {
		t.Errorf("the subscription was stopped %d times", src.stopped)
	}
}

func TestBadRequests(t *testing.T) {
	path := serve(t, &source{}, Actions{})
	c := Dial(path)
	for _, tt := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/v1/explain", 400}, {"GET", "/v1/explain?addr=fe80::1%1b", 400}, {"GET", "/v1/explain?addr=10.0.0.256", 400},
		{"GET", "/v2/status", 404}, {"GET", "/v1/renew", 405}, {"DELETE", "/v1/status", 405},
		{"GET", "/v1/status?" + strings.Repeat("x", maxHeader+8<<10), 431},
	} {
		req, err := http.NewRequest(tt.method, "http://uplinkd"+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tt.code {
			t.Errorf("%s %.40s: %s, want %d: %s", tt.method, tt.path, resp.Status, tt.code, b)
		}
	}
}

func TestClientSaysWhyNobodyAnswers(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	_, err := Dial(path).Status(t.Context())
	want := "no uplinkd answers on " + path + ": is it running? systemctl status uplinkd"
	if err == nil || err.Error() != want || !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v\nwant %s", err, want)
	}
	deadSocket(t, path)
	_, err = Dial(path).Status(t.Context())
	if err == nil || !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "its daemon is gone") {
		t.Errorf("dead socket: %v", err)
	}
	c := Dial(path)
	if err := c.unreachable(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)}); errors.Is(err, ErrNotRunning) ||
		!strings.Contains(err.Error(), "only root and the group") {
		t.Errorf("no permission: %v", err)
	}
}

// deadSocket leaves a socket at path that nobody listens on, as SIGKILL does.
func deadSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", SocketName)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]os.FileMode{path: os.ModeSocket | socketMode, filepath.Dir(path): os.ModeDir | runDirMode} {
		if info, err := os.Stat(p); err != nil || info.Mode() != want {
			t.Errorf("mode of %s: %v, %v; want %v", p, info.Mode(), err, want)
		}
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another uplinkd answers on "+path) {
		t.Errorf("second daemon: %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first daemon after that: %v", err)
	} else {
		c.Close()
	}
	l.Close()
	deadSocket(t, path)
	if l, err = Listen(path); err != nil {
		t.Fatalf("after a daemon that died: %v", err)
	}
	l.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file in the way: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file in the way is now %q", b)
	}
}

func TestDocumentsAreNeverNull(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, doc := range []any{StatusOf(&engine.Snapshot{}, nil, now), PlanOf(&engine.Snapshot{}, now), Explain(&engine.Snapshot{}, netip.IPv6Loopback(), now)} {
		b, err := json.Marshal(doc)
		if err != nil || strings.Contains(string(b), "null") {
			t.Errorf("%s: %v", b, err)
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), SocketName)
	inner, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	l := newBounded(inner, 1)
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	for range 2 {
		c, err := net.Dial("unix", path) // the kernel's queue takes it
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := <-accepted
	if len(l.slots) != 1 {
		t.Errorf("%d slots taken by one connection", len(l.slots))
	}
	first.Close()
	first.Close() // gives back one slot, not two
	second := <-accepted
	if len(l.slots) != 1 {
		t.Errorf("%d slots taken by one connection after another", len(l.slots))
	}
	l.Close() // Accept waits for a slot and must not go on waiting
	if _, more := <-accepted; more {
		t.Error("accepted beyond the bound")
	}
	second.Close()
}
