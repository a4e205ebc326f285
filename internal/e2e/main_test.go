package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"uplinkd/internal/netlab"
)

// binaryVar names the program under test. TestMain sets it for the process in the namespaces, where nothing can be
// downloaded any more.
const binaryVar = "UPLINKD_BINARY"

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	_ = flag.Set("test.parallel", "4") // unless the command line says otherwise: these tests mostly wait, for lifetimes and timers of DHCPv6
	if os.Getenv("GORACE") == "" {
		_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // else every end of a program built with -race takes a second
	}
	if os.Getenv(binaryVar) == "" {
		dir, err := os.MkdirTemp("", "uplinkd-e2e")
		if err == nil {
			defer os.RemoveAll(dir)
			err = build(filepath.Join(dir, "uplinkd"))
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "e2e: %v\n", err)
			return 1
		}
	}
	return netlab.Wrap(m).Run()
}

func build(path string) error {
	args := append([]string{"build", "-buildvcs=false", "-o", path}, buildFlags...)
	if out, err := exec.Command("go", append(args, "uplinkd/cmd/uplinkd")...).CombinedOutput(); err != nil {
		return fmt.Errorf("build the program under test: %w\n%s", err, out)
	}
	return os.Setenv(binaryVar, path)
}
