package netlab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// commandTimeout bounds every command that the lab waits for.
const commandTimeout = 30 * time.Second

// NS is an anonymous network namespace of a Lab. It is held by an open file, not by a process or a name.
type NS struct {
	Name string
	lab  *Lab
	file *os.File
}

// create makes the namespace on a thread of its own, which ends with it.
func (n *NS) create() error {
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare --net: %w", err)
		}
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("ip link set lo up: %w", err)
		}
		var err error
		n.file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return fmt.Errorf("namespace %s: %w", n.Name, err)
	}
	return nil
}

// Path names the namespace for ip, nsenter --net and people, as long as this process lives.
func (n *NS) Path() string {
	if n.file == nil {
		return fmt.Sprintf("/proc/%d/fd/none", os.Getpid())
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd())
}

// Do runs f in the namespace, on a thread of its own. Sockets opened by f stay in the namespace wherever they are used
// later; goroutines started by f do not run in it. f must not end the test (t.Fatal).
func (n *NS) Do(f func() error) error {
	if n.file == nil {
		return n.gone()
	}
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("setns %s: %w", n.Name, err)
		}
		return f()
	})
}

func (n *NS) gone() error { return fmt.Errorf("namespace %s: was not made", n.Name) }

// Command is exec.Command for a program that shall run in the namespace.
func (n *NS) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + n.Path(), "--", name}, args...)...)
}

// Run runs a program to its end, at most half a minute, and returns what it wrote to its standard output.
func (n *NS) Run(name string, args ...string) string {
	n.lab.help()
	if n.lab.failed(n.lab.Err()) {
		return ""
	}
	out, err := n.run(name, args...)
	n.lab.failed(err)
	return out
}

func (n *NS) run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	out, err := n.Command(ctx, name, args...).Output()
	if err != nil {
		err = fmt.Errorf("in namespace %s: %s %s: %w", n.Name, name, strings.Join(args, " "), err)
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && len(exit.Stderr) > 0 {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}

// IP runs ip(8) with the words of the formatted line: n.IP("-6 addr add %s dev lan0", prefix).
func (n *NS) IP(format string, args ...any) string {
	n.lab.help()
	return n.Run("ip", strings.Fields(fmt.Sprintf(format, args...))...)
}

// Sysctl sets a sysctl of the namespace: net.ipv6.conf.all.forwarding, or with slashes where an interface's name has dots.
func (n *NS) Sysctl(name, value string) {
	n.lab.help()
	if n.lab.failed(n.lab.Err()) {
		return
	}
	if !strings.Contains(name, "/") {
		name = strings.ReplaceAll(name, ".", "/")
	}
	n.lab.failed(n.Do(func() error {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
			return fmt.Errorf("in namespace %s: sysctl %s=%s: %w", n.Name, name, value, err)
		}
		return nil
	}))
}

// LinkLocal waits until dev has a link-local address that can be used: duplicate address detection holds it back for one
// to two seconds.
func (n *NS) LinkLocal(dev string) netip.Addr {
	n.lab.help()
	var addr netip.Addr
	last, ok := poll(commandTimeout, func() (bool, string) {
		out, err := n.run("ip", "-6", "-o", "addr", "show", "dev", dev, "scope", "link", "-tentative")
		if err != nil {
			return false, err.Error()
		}
		if fields := strings.Fields(out); len(fields) > 3 {
			prefix, err := netip.ParsePrefix(fields[3])
			addr = prefix.Addr()
			return err == nil, out
		}
		return false, "none that is not tentative"
	})
	if !ok {
		n.lab.failed(fmt.Errorf("in namespace %s: link-local address of %s: %s", n.Name, dev, last))
	}
	return addr
}

// onThread runs f on an operating system thread that may be changed in any way, because it ends with f.
func onThread(f func() error) error {
	err := errors.New("the function did not return")
	done := make(chan struct{})
	goThread(func() {
		defer close(done)
		err = f()
	})
	<-done
	return err
}

// goThread starts f in a goroutine with an operating system thread of its own. It is never the main thread: that one
// cannot end, and /proc/self would go on showing what f did to it.
func goThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		locked := make(chan struct{})
		go func() {
			runtime.LockOSThread() // another thread: the main one is taken by the goroutine that waits below
			close(locked)
			f()
		}()
		<-locked
		runtime.UnlockOSThread()
	}()
}
