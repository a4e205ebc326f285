package netlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// TestingM is *testing.M. The package does not import testing, because the demo is part of the released program.
type TestingM interface{ Run() int }

// TB is the part of testing.TB that the package uses.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(func())
	Failed() bool
}

// Required is the environment variable that turns "skipped, because this machine cannot" into a failure.
const Required = "UPLINKD_NETNS"

// unavailable is why TestMain could not make namespaces.
var unavailable error

// TestMain runs the tests of a package in namespaces of their own; it does not return:
//
//	func TestMain(m *testing.M) { netlab.TestMain(m) }
//
// Where that is impossible the tests run all the same and those that call Need or New are skipped, or, with Required
// set, the whole run fails.
func TestMain(m TestingM) { os.Exit(Wrap(m).Run()) }

// Wrap returns an m for other wrappers of TestMain such as testscript.Main; its Run does what TestMain describes.
func Wrap(m TestingM) TestingM { return wrapped{m} }

type wrapped struct{ m TestingM }

func (w wrapped) Run() int {
	entered, err := Prepare()
	if err != nil {
		return 1 // Enter has been told, and says it
	}
	if entered {
		return w.m.Run()
	}
	status, err := Enter(context.Background(), os.Args[1:]...)
	switch {
	case err == nil:
		return status
	case errors.Is(err, ErrUnavailable) && os.Getenv(Required) == "":
		unavailable = err
		return w.m.Run()
	}
	fmt.Fprintf(os.Stderr, "netlab: %v\n", err)
	return 1
}

// Need skips the test where no lab can be made, and says why.
func Need(t TB) {
	t.Helper()
	if Available() {
		return
	}
	if unavailable == nil {
		t.Fatalf("the package has no TestMain that calls netlab.TestMain")
	}
	missing(t, unavailable.Error())
}

// NeedProgram skips the test where a program is not installed, and names the Debian package that has it.
func NeedProgram(t TB, name, debianPackage string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		missing(t, fmt.Sprintf("no program %s: install the package %s", name, debianPackage))
	}
	if groups, _ := os.ReadFile("/proc/self/setgroups"); givesUpRoot[name] && strings.HasPrefix(string(groups), "deny") {
		missing(t, name+" wants to give up root, and an ordinary user's namespace has no setgroups(2): run as root")
	}
}

// givesUpRoot are programs that change to a user of their own when they are started by root.
var givesUpRoot = map[string]bool{"dnsmasq": true, "tcpdump": true}

// NeedFile skips the test where this process cannot open a device file for reading and writing.
func NeedFile(t TB, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		missing(t, fmt.Sprintf("%v: run as root", err))
		return
	}
	_ = f.Close()
}

// NeedRoot skips the test where the user is not root, nor root of a lab, and says what for.
func NeedRoot(t TB, what string) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "needs root: "+what)
	}
}

// missing asks for the variable in every test that is skipped, not only in TestMain: go test caches results, and notices
// a changed environment only for variables that were read while tests ran.
func missing(t TB, what string) {
	t.Helper()
	if os.Getenv(Required) != "" {
		t.Fatalf("%s is set, but: %s", Required, what)
		return
	}
	t.Skipf("skipped: %s", what)
}

// pollInterval is short beside everything the tests wait for and long beside the cost of asking.
const pollInterval = 20 * time.Millisecond

// Eventually waits until check returns true. After timeout it fails the test with what was awaited and what check said
// last.
func Eventually(t TB, timeout time.Duration, what string, check func() (bool, string)) {
	t.Helper()
	if last, ok := poll(timeout, check); !ok {
		t.Fatalf("waited %s for %s; last seen: %s", timeout, what, last)
	}
}

func poll(timeout time.Duration, check func() (bool, string)) (last string, ok bool) {
	for end := time.Now().Add(timeout); ; time.Sleep(pollInterval) {
		if ok, last = check(); ok {
			return last, true
		}
		if time.Now().After(end) {
			return last, false
		}
	}
}

// NeedLinkType skips the test where the kernel of ns has no links of a type, such as "vlan". Unlike a privilege, nobody can
// give it a module that it lacks: that is no failure, even where nothing else may be missing.
func NeedLinkType(t TB, ns *NS, kind string) {
	t.Helper()
	if out, _ := ns.Command(context.Background(), "ip", "link", "add", "probe", "type", kind).CombinedOutput(); strings.Contains(string(out), "Unknown device type") {
		t.Skipf("skipped: this kernel has no links of type %s", kind)
	}
	_ = ns.Command(context.Background(), "ip", "link", "del", "probe").Run()
}
