package hooks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"uplinkd/internal/config"
	"uplinkd/policy"
)

// script writes a program and returns its path.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func sh(t *testing.T, text string) Call {
	t.Helper()
	return Call{Argv: []string{script(t, "#!/bin/sh\n"+text)}, Env: fixedEnv}
}

func TestRunGivesOnlyTheCall(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	t.Setenv("LISTEN_FDS", "1")
	env := Call{Argv: []string{"/usr/bin/env"}, Env: []string{"A=1", "B=x y"}}
	if got := env.Run(t.Context()); got.Err != nil || !cmp.Equal(got.Output, []string{"A=1", "B=x y"}) {
		t.Errorf("environment %q, error %v", got.Output, got.Err)
	}
	env.Env = nil
	if got := env.Run(t.Context()); got.Err != nil || len(got.Output) > 0 {
		t.Errorf("environment %q, error %v, want none", got.Output, got.Err)
	}
	cat := sh(t, `pwd; echo "$1:$2"; cat; echo done >&2`)
	cat.Argv, cat.Stdin = append(cat.Argv, "$(id)", "b c"), []byte("{}\n")
	if got := cat.Run(t.Context()); got.Err != nil || !cmp.Equal(got.Output, []string{"/", "$(id):b c", "{}", "done"}) {
		t.Errorf("output %q, error %v", got.Output, got.Err)
	}
}

func TestRunFails(t *testing.T) {
	exit3 := sh(t, "exit 3")
	locked := sh(t, "exit 0")
	if err := os.Chmod(locked.Argv[0], 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		call Call
		exit int
		want string
	}{
		{exit3, 3, "run " + exit3.Argv[0] + ": exit status 3"},
		{sh(t, "kill -9 $$"), -1, "signal: killed"},
		{locked, -1, "permission denied; is it executable (chmod +x)?"},
		{Call{Argv: []string{"/nonexistent/hook"}}, -1, "no such file or directory; check the path, and the interpreter in its first line"},
		{Call{Argv: []string{script(t, "echo no first line\n")}}, -1, "exec format error; its first line must name the interpreter, such as #!/bin/sh"},
	} {
		got := c.call.Run(t.Context())
		if got.Exit != c.exit || got.Err == nil || !strings.Contains(got.Err.Error(), c.want) {
			t.Errorf("exit %d, error %v; want %d, %q", got.Exit, got.Err, c.exit, c.want)
		}
	}
}

func TestRunIgnoresUnreadInput(t *testing.T) {
	call := sh(t, "exec 0<&-; exit 0")
	call.Stdin = make([]byte, 1<<20)
	if got := call.Run(t.Context()); got.Err != nil {
		t.Errorf("a program that does not read its input failed: %v", got.Err)
	}
}

func TestRunBoundsOutput(t *testing.T) {
	got := sh(t, `i=0; while [ $i -lt 3000 ]; do echo "line $i"; i=$((i+1)); done; printf 'esc \033[31m bad \377 \342\200\256end'`).Run(t.Context())
	if got.Err != nil {
		t.Fatal(got.Err)
	}
	var want []string
	for i := 3000 - maxOutputLines + 1; i < 3000; i++ {
		want = append(want, fmt.Sprint("line ", i))
	}
	want = append(want, "esc \uFFFD[31m bad \uFFFD \uFFFDend")
	if diff := cmp.Diff(want, got.Output); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	var long tail
	for range 10 {
		fmt.Fprint(&long, strings.Repeat("x", maxOutput+1))
		fmt.Fprint(&long, "yy")
	}
	if want := []string{"…" + strings.Repeat("x", maxOutput-2) + "yy"}; !cmp.Equal(long.lines(), want) {
		t.Errorf("a long line became %.20q", long.lines())
	}
}

// TestTimeoutStopsGrandchildren has a child in the background, and ignores SIGTERM in both.
func TestTimeoutStopsGrandchildren(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	call := sh(t, "trap '' TERM\nsleep 1000 &\necho $! >"+pidFile+"\nwait\nsleep 1000")
	errLate := errors.New("late")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan Outcome)
	go func() { done <- call.Run(ctx) }()
	grandchild := readPID(t, pidFile)
	cancel(errLate)
	got := <-done
	if !errors.Is(got.Err, errLate) || got.Exit != -1 {
		t.Errorf("exit %d, error %v; want -1, %v", got.Exit, got.Err, errLate)
	}
	waitFor(t, "the grandchild's end", func() bool { return !alive(grandchild) })
}

func TestTimeoutAllowsToCleanUp(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	call := sh(t, "trap 'echo cleaned up; exit 0' TERM\necho $$ >"+pidFile+"\nwhile :; do sleep 1000 & wait; done")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan Outcome)
	go func() { done <- call.Run(ctx) }()
	readPID(t, pidFile)
	cancel()
	if got := <-done; !errors.Is(got.Err, context.Canceled) || !cmp.Equal(got.Output, []string{"cleaned up"}) {
		t.Errorf("output %q, error %v", got.Output, got.Err)
	}
}

func TestBackgroundChildIsLeftAlone(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	got := sh(t, "sleep 1000 &\necho $! >"+pidFile+"\necho started").Run(t.Context())
	pid := readPID(t, pidFile)
	if got.Err != nil || !cmp.Equal(got.Output, []string{"started"}) {
		t.Errorf("output %q, error %v", got.Output, got.Err)
	}
	if !alive(pid) {
		t.Error("the child that the program left behind was stopped")
	}
	if p, err := os.FindProcess(pid); err == nil {
		p.Kill()
	}
}

// readPID waits for a line in a file.
func readPID(t *testing.T, path string) (pid int) {
	t.Helper()
	waitFor(t, path, func() bool {
		b, err := os.ReadFile(path)
		if err != nil || !strings.HasSuffix(string(b), "\n") {
			return false
		}
		_, err = fmt.Sscan(string(b), &pid)
		return err == nil
	})
	return pid
}

// alive reports whether a process runs; a zombie that nobody has collected does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 3000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

func TestExampleHook(t *testing.T) {
	path, err := filepath.Abs("../contrib/hooks/10-log-prefix")
	if err != nil {
		t.Fatal(err)
	}
	hook := config.Hook{Name: "log", Run: []string{path}}
	for _, c := range []struct {
		item Item
		want []string
	}{
		{prefixItem(policy.PrefixNew), []string{"fiber: prefix 2001:db8:0:100::/56 is in use, valid for 4294967295 s",
			"lan: 2001:db8:0:101::/64", "guest: 2001:db8:0:102::/64", "web: 2001:db8:0:103::/64"}},
		{prefixItem(policy.PrefixChanged), []string{"fiber: prefix 2001:db8:0:100::/56 is now valid for 4294967295 s, replacing 2001:db8:0:200::/56",
			"lan: 2001:db8:0:101::/64", "guest: 2001:db8:0:102::/64", "web: 2001:db8:0:103::/64"}},
		{uplinkItem(), []string{"fiber: up on wan0, via fe80::1"}},
		{informedItem(), []string{"fiber: name servers 2001:db8::53 2001:db8::54, NTP 2001:db8::53 ntp.example.net, AFTR aftr.example.net"}},
		{Item{At: epoch, Event: policy.Event{Kind: policy.UplinkDown, Uplink: "fiber"}}, []string{"fiber: down"}},
		{Item{At: epoch, Event: policy.Event{Kind: "prefix.later"}}, nil},
	} {
		call, err := Native(hook, c.item)
		if err != nil {
			t.Fatal(err)
		}
		if got := call.Run(t.Context()); got.Err != nil || !cmp.Equal(got.Output, c.want) {
			t.Errorf("%s: output %q, error %v", c.item.Event.Kind, got.Output, got.Err)
		}
	}
}
