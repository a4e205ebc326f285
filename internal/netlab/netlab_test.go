package netlab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/netlab"
)

// asProgram makes the test binary play a program that uses Enter, for TestEnter.
const asProgram = "NETLAB_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(program())
	}
	netlab.TestMain(m)
}

// program enters, and inside does what its argument says.
func program() int {
	entered, err := netlab.Prepare()
	if err != nil {
		return 1
	}
	if !entered {
		status, err := netlab.Enter(context.Background(), os.Args[1:]...)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return status
	}
	switch os.Args[1] {
	case "status":
		return 42
	case "interfaces":
		interfaces, _ := net.Interfaces()
		for _, i := range interfaces {
			fmt.Println(i.Name, i.Flags&net.FlagUp != 0)
		}
		return 0
	case "daemon": // leaves a process behind that has detached itself, and crashes
		cmd := exec.Command("setsid", "sleep", "600")
		if err := cmd.Start(); err != nil {
			return 1
		}
		fmt.Println(cmd.Process.Pid)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "wait":
		fmt.Println("ready")
		time.Sleep(time.Minute)
	}
	return 1
}

// enterCommand is the program outside of any lab of ours: without the marks of the tests' own.
func enterCommand(t *testing.T, arg string) *exec.Cmd {
	t.Helper()
	netlab.Need(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", arg)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "UPLINKD_NETLAB=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, asProgram+"=1")
	cmd.Stderr = os.Stderr
	return cmd
}

func TestEnterReturnsStatus(t *testing.T) {
	err := enterCommand(t, "status").Run()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 42 {
		t.Fatalf("exit status: %v, want 42", err)
	}
}

func TestEnterIsIsolated(t *testing.T) {
	out, err := enterCommand(t, "interfaces").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		// tunl0, sit0 and others appear by themselves where their module is loaded, always down
		if name, up, _ := strings.Cut(line, " "); (name == "lo") != (up == "true") {
			t.Errorf("interfaces inside:\n%s", out)
		}
	}
}

func TestEnterEndsOrphans(t *testing.T) {
	out, err := enterCommand(t, "daemon").Output()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 128+int(syscall.SIGKILL) {
		t.Fatalf("exit status: %v, want %d", err, 128+int(syscall.SIGKILL))
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after the end of Enter: %v, want it to be gone", pid, err)
	}
}

func TestEnterPassesSignalsOn(t *testing.T) {
	cmd := enterCommand(t, "wait")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(pipe).ReadString('\n'); line != "ready\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 128+int(syscall.SIGTERM) {
		t.Fatalf("exit status: %v, want %d", err, 128+int(syscall.SIGTERM))
	}
}

func TestMachineIsProtected(t *testing.T) {
	netlab.Need(t)
	if err := os.WriteFile("/etc/netlab-test", nil, 0o600); err == nil {
		_ = os.Remove("/etc/netlab-test")
		t.Error("/etc can be written")
	}
	entries, err := os.ReadDir("/run")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "lock" && !strings.HasPrefix(e.Name(), "lab") {
			t.Errorf("/run/%s is visible", e.Name())
		}
	}
}

func TestLabCarriesPackets(t *testing.T) {
	lab := netlab.New(t)
	isp, rtr := lab.NS("isp"), lab.NS("rtr")
	lab.Veth(isp, "up0", rtr, "wan0", "02:00:00:00:01:02", "02:00:00:00:01:01")
	if got := rtr.LinkLocal("wan0").String(); got != "fe80::ff:fe00:101" {
		t.Errorf("link-local address of wan0: %s", got)
	}
	isp.IP("addr add 2001:db8::1/64 dev up0 nodad")
	rtr.IP("addr add 2001:db8::2/64 dev wan0 nodad")

	var server net.PacketConn
	err := isp.Do(func() (err error) {
		server, err = net.ListenPacket("udp6", "[2001:db8::1]:5000")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	err = rtr.Do(func() error {
		c, err := net.Dial("udp6", "[2001:db8::1]:5000")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = io.WriteString(c, "hello")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	_ = server.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, from, err := server.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "hello" || !strings.HasPrefix(from.String(), "[2001:db8::2]") {
		t.Fatalf("received %q from %v, %v", buf[:n], from, err)
	}
}

func TestSysctlIsPerNamespace(t *testing.T) {
	lab := netlab.New(t)
	a, b := lab.NS("a"), lab.NS("b")
	a.Sysctl("net.ipv6.conf.all.forwarding", "1")
	const file = "/proc/sys/net/ipv6/conf/all/forwarding"
	if got := a.Run("cat", file); got != "1\n" {
		t.Errorf("in a: %q, want 1", got)
	}
	if got := b.Run("cat", file); got != "0\n" {
		t.Errorf("in b: %q, want 0", got)
	}
	if got, err := os.ReadFile(file); string(got) != "0\n" {
		t.Errorf("outside: %q, %v, want 0", got, err)
	}
}

// TestDoLeavesNoTrace looks at every thread of the process: none may be left in another namespace.
func TestDoLeavesNoTrace(t *testing.T) {
	lab := netlab.New(t)
	ns := lab.NS("ns")
	for range 20 {
		if err := ns.Do(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	netlab.Eventually(t, 5*time.Second, "threads to be back", func() (bool, string) {
		links, _ := filepath.Glob("/proc/self/task/*/ns/net")
		for _, link := range links {
			if got, err := os.Readlink(link); err == nil && got != own {
				return false, link + " is " + got
			}
		}
		return len(links) > 0, "no threads"
	})
}

func TestDoReturnsErrors(t *testing.T) {
	ns := netlab.New(t).NS("ns")
	want := errors.New("mine")
	if err := ns.Do(func() error { return want }); err != want {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestProcess(t *testing.T) {
	lab := netlab.New(t)
	ns := lab.NS("ns")
	ns.IP("link add one type veth peer name two")
	p := ns.Start(ns.Command(t.Context(), "sh", "-c", "ip -br link show dev one; sleep 600 & echo $!; wait"))
	netlab.Eventually(t, 10*time.Second, "output", func() (bool, string) {
		return strings.HasPrefix(p.Output(), "one@two") && strings.Count(p.Output(), "\n") == 2, p.Output()
	})
	fields := strings.Fields(p.Output())
	if p.Err() != nil {
		t.Errorf("error while running: %v", p.Err())
	}
	if err := p.Stop(); err == nil {
		t.Error("stopped by a signal, and no error")
	}
	netlab.Eventually(t, 5*time.Second, "the end of sleep", func() (bool, string) {
		stat, err := os.ReadFile("/proc/" + fields[len(fields)-1] + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z "), string(stat)
	})
}

func TestNamespaceEndsWithLab(t *testing.T) {
	netlab.Need(t)
	lab, err := netlab.Open()
	if err != nil {
		t.Fatal(err)
	}
	a, b := lab.NS("a"), lab.NS("b")
	lab.Veth(a, "left", b, "right")
	if err := lab.Err(); err != nil {
		t.Fatal(err)
	}
	lab.Close()
	lab.Close()
	if err := a.Do(func() error { return nil }); err == nil {
		t.Error("Do works in a closed lab")
	}
	if _, err := os.Stat(lab.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory after Close: %v", err)
	}
}

func TestFirstErrorIsKept(t *testing.T) {
	netlab.Need(t)
	lab, err := netlab.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	ns := lab.NS("home")
	ns.IP("link set %s up", "nosuch0")
	ns.Sysctl("net.ipv6.conf.nosuch0.forwarding", "1")
	if err := lab.Err(); err == nil || !strings.Contains(err.Error(), "in namespace home: ip link set nosuch0 up") ||
		!strings.Contains(err.Error(), "Cannot find device") {
		t.Errorf("error: %v", err)
	}
	p := ns.Start(ns.Command(t.Context(), "true"))
	if <-p.Done(); p.PID() != 0 {
		t.Error("a process was started after an error")
	}
}

func TestEventuallyFails(t *testing.T) {
	f := &fake{TB: t}
	netlab.Eventually(f, time.Millisecond, "rain", func() (bool, string) { return false, "sunshine" })
	if want := "waited 1ms for rain; last seen: sunshine"; f.fatal != want {
		t.Errorf("failed with %q, want %q", f.fatal, want)
	}
}

// TestProgramMissing wants a skip, or a failure where the environment demands that tests run.
func TestProgramMissing(t *testing.T) {
	for _, required := range []string{"", "1"} {
		t.Setenv(netlab.Required, required)
		f := &fake{TB: t}
		netlab.NeedProgram(f, "no-such-program", "no-such-package")
		want := "no program no-such-program: install the package no-such-package"
		got := f.skip
		if required != "" {
			got = f.fatal
		}
		if !strings.HasSuffix(got, want) || (f.skip != "" && f.fatal != "") {
			t.Errorf("%s=%q: skip %q, fatal %q", netlab.Required, required, f.skip, f.fatal)
		}
	}
}

// fake notes how a test would have ended.
type fake struct {
	netlab.TB
	fatal, skip string
}

func (f *fake) Fatalf(format string, args ...any) { f.fatal = fmt.Sprintf(format, args...) }
func (f *fake) Skipf(format string, args ...any)  { f.skip = fmt.Sprintf(format, args...) }
