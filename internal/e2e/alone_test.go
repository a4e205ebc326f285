package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestSecondDaemonWithOtherState starts a daemon, and clean, with directories of their own beside a daemon that runs.
// They would take its rows for leftovers.
func TestSecondDaemonWithOtherState(t *testing.T) {
	t.Parallel()
	s, _ := bound(t, forever, prompt)
	before := s.kernelText()
	other := s.write("other.toml", fmt.Sprintf("state_dir = %q\nrun_dir = %q\n%s", filepath.Join(s.dir, "state2"), filepath.Join(s.dir, "run2"), prompt))
	try := func(verb string) (string, error) {
		out, err := s.router.Command(t.Context(), os.Getenv(binaryVar), verb, "--config", other).CombinedOutput()
		return string(out), err
	}
	want := fmt.Sprintf("uplinkd: another uplinkd (process %d of user %d) manages this network namespace (abstract socket @uplinkd); "+
		"stop that one first: systemctl stop uplinkd\n", s.daemon.PID(), os.Geteuid())
	for _, verb := range []string{"run", "clean"} {
		out, err := try(verb)
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 || out != want {
			t.Errorf("%s: %v\ngot  %swant %s", verb, err, out, want)
		}
	}
	s.reconciles(1)
	if now := s.kernelText(); now != before {
		t.Errorf("before:\n%safter:\n%s", before, now)
	}
	s.end(syscall.SIGKILL) // the lock goes with the process
	if out, err := try("clean"); err != nil {
		t.Errorf("clean after the end: %v\n%s", err, out)
	}
}
