package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/netlab"
)

// options are the command line.
type options struct {
	uplinkd string // the binary to measure
	rounds  int    // of the race: every client once per round
	only    string // one section, "" for all
}

func main() {
	var o options
	flag.StringVar(&o.uplinkd, "uplinkd", "build/uplinkd", "the binary to measure, as `make build` makes it")
	flag.IntVar(&o.rounds, "rounds", 12, "how often each DHCPv6 client is started")
	flag.StringVar(&o.only, "only", "", "one section: apply, reconcile, uplinks, storm or race")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	status, err := o.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		status = 1
	}
	os.Exit(status)
}

// run does outside what needs the go command, and the rest in namespaces of its own.
func (o options) run(ctx context.Context) (int, error) {
	entered, err := netlab.Prepare()
	if err != nil {
		return 1, err
	}
	if entered {
		return 0, o.inside(ctx)
	}
	if o.uplinkd, err = filepath.Abs(o.uplinkd); err != nil {
		return 1, err
	}
	if _, err := os.Stat(o.uplinkd); err != nil {
		return 1, fmt.Errorf("%w: run make build first", err)
	}
	fmt.Println(machine())
	if o.wants("apply") {
		if err := applyBesideIP(ctx, os.Stdout); err != nil {
			return 1, err
		}
	}
	return netlab.Enter(ctx, "-uplinkd", o.uplinkd, "-rounds", fmt.Sprint(o.rounds), "-only", o.only)
}

func (o options) inside(ctx context.Context) error {
	if o.wants("reconcile") {
		if err := reconcile(ctx, os.Stdout); err != nil {
			return err
		}
	}
	if o.wants("uplinks") {
		if err := manyUplinks(ctx, os.Stdout, o); err != nil {
			return err
		}
	}
	if o.wants("storm") {
		if err := storms(ctx, os.Stdout, o); err != nil {
			return err
		}
	}
	if o.wants("race") {
		return race(ctx, os.Stdout, o)
	}
	return nil
}

func (o options) wants(section string) bool { return o.only == "" || o.only == section }

// machine describes where the figures come from.
func machine() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	system := "unknown system"
	if b, err := os.ReadFile("/etc/os-release"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				system = strings.Trim(strings.TrimSpace(name), `"`)
			}
		}
	}
	load := "unknown"
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = strings.Fields(string(b))[0]
	}
	version, _ := exec.Command("go", "version").Output()
	return fmt.Sprintf("%s: Linux %s, %s, %d CPUs, load %s; %s", time.Now().Format(time.DateOnly), unix.ByteSliceToString(u.Release[:]), system,
		runtime.NumCPU(), load, strings.TrimSpace(string(version)))
}
