package netlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnavailable says that this machine or user cannot make the namespaces of a lab. The error that wraps it names what
// is missing.
var ErrUnavailable = errors.New("cannot make network namespaces")

// stage is the environment variable by which Enter and Prepare talk: stageEnter in a process that has to prepare itself,
// afterwards the identity of the network namespace it has prepared. Its children inherit the variable and are inside
// exactly when they still live in that namespace.
const (
	stage      = "UPLINKD_NETLAB"
	stageEnter = "enter"
)

// statusFD is where Prepare reports why it failed; closed without a word it means success.
const statusFD = 3

// stopGrace is how long a process may take from SIGTERM to its end.
const stopGrace = 5 * time.Second

// inside is set once by Prepare, before anything else of this package is used.
var inside bool

// Available reports whether this process lives in namespaces of its own, so that labs can be made.
func Available() bool { return inside }

// Enter runs this very program with args in fresh namespaces, which it has to accept by calling Prepare first thing.
// SIGINT, SIGTERM and SIGQUIT are passed on; when ctx is done the program gets SIGTERM. Enter returns its exit status,
// after the program and everything it left behind have ended.
func Enter(ctx context.Context, args ...string) (int, error) {
	return enter(ctx, os.Args[0], args)
}

// enter tries, as root, without a user namespace first: real root may use every device and file of its peers.
func enter(ctx context.Context, arg0 string, args []string) (status int, err error) {
	modes := []bool{true}
	if os.Geteuid() == 0 {
		modes = []bool{false, true}
	}
	var tried []error
	for _, userns := range modes {
		status, err = reexec(ctx, arg0, args, userns)
		if !errors.Is(err, ErrUnavailable) {
			return status, err
		}
		tried = append(tried, err)
	}
	return 1, fmt.Errorf("%w; %s", errors.Join(tried...), adviceUserns)
}

func reexec(ctx context.Context, arg0 string, args []string, userns bool) (int, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 1, err
	}
	defer r.Close()
	defer w.Close()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = arg0
	cmd.Env = append(os.Environ(), stage+"="+stageEnter)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = namespaces(userns)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace

	// The parent-death signal fires when the thread that forked ends, so the thread has to be ours until then.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	adopt := adoptOrphans()
	defer adopt()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("%w: clone %s: %w", ErrUnavailable, flagNames(userns), err)
	}
	w.Close()
	ended := make(chan struct{})
	defer close(ended)
	go forward(signals, cmd.Process, ended)

	reason, _ := io.ReadAll(io.LimitReader(r, 4096)) // ends when the program has prepared itself, or is gone
	err = cmd.Wait()
	if len(reason) > 0 {
		return 1, fmt.Errorf("%w: %s", ErrUnavailable, reason)
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exitStatus(exit.ProcessState), nil
	}
	return exitStatus(cmd.ProcessState), err
}

const adviceUserns = "this needs root, or user namespaces for this user (sysctls user.max_user_namespaces, " +
	"kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"

func flagNames(userns bool) string {
	if userns {
		return "CLONE_NEWUSER|CLONE_NEWNET|CLONE_NEWNS"
	}
	return "CLONE_NEWNET|CLONE_NEWNS"
}

// namespaces puts the program into a process group of its own: a terminal sends Ctrl-C to the foreground group only, that
// is to us, and the program gets it once, from forward.
func namespaces(userns bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true,
	}
	if userns {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return attr
}

func forward(signals <-chan os.Signal, p *os.Process, ended <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			_ = p.Signal(s)
		case <-ended:
			return
		}
	}
}

// exitStatus follows the shell: 128 and the signal's number for a program that was killed.
func exitStatus(s *os.ProcessState) int {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return s.ExitCode()
}

// adoptOrphans makes this process the parent of whatever the program leaves behind when it crashes, is killed or times
// out (daemons that detached themselves, too). The returned function ends and reaps them. Where the kernel does not list
// children (CONFIG_PROC_CHILDREN), they are left alone.
func adoptOrphans() func() {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return func() {}
	}
	others := children()
	return func() {
		for range 100 { // ending one may bring us its children
			left := 0
			for pid := range children() {
				if others[pid] {
					continue
				}
				left++
				_ = unix.Kill(pid, unix.SIGKILL)
				_, _ = unix.Wait4(pid, nil, 0, nil)
			}
			if left == 0 {
				return
			}
		}
	}
}

func children() map[int]bool {
	pids := map[int]bool{}
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		list, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		for _, field := range strings.Fields(string(list)) {
			var pid int
			if _, err := fmt.Sscan(field, &pid); err == nil && pid > 1 {
				pids[pid] = true
			}
		}
	}
	return pids
}
