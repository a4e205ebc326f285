package hooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// stopGrace lies between SIGTERM and SIGKILL.
	stopGrace = 2 * time.Second

	// pipeGrace is how long the output of a program that has ended is still read: a child that it left running may hold
	// the pipe open for ever.
	pipeGrace = time.Second

	maxOutput      = 8 << 10 // bytes kept of a call's output, the last ones
	maxOutputLines = 20      // of those, lines that are logged
)

// Outcome is what became of a call.
type Outcome struct {
	Exit     int // exit status; -1 if the program did not start or was ended by a signal
	Duration time.Duration
	Output   []string // the last lines, printable
	Err      error    // nil for exit status 0
}

// Run executes the call and waits for its end. When ctx ends first, the program's process group is stopped and the error
// is the cause of ctx.
func (c Call) Run(ctx context.Context) Outcome {
	start := time.Now()
	output := &tail{}
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Env = append([]string{}, c.Env...) // never nil, which would mean the daemon's
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(c.Stdin)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.WaitDelay = pipeGrace
	// No Pdeathsig: it fires when the thread that forked ends, not the process, and Go ends threads as it likes.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}

	err := cmd.Start()
	if err == nil {
		stopped := superviseGroup(ctx, cmd.Process.Pid)
		err = cmd.Wait()
		switch {
		case stopped:
			err = fmt.Errorf("%w; stopped", context.Cause(ctx))
		case errors.Is(err, exec.ErrWaitDelay):
			err = nil // it ended well; only a child of it still holds the pipe
		}
	}
	exit := -1
	if cmd.ProcessState != nil {
		exit = cmd.ProcessState.ExitCode()
	}
	if err != nil {
		err = fmt.Errorf("run %s: %w", strings.Join(c.Argv, " "), withAdvice(err))
	}
	return Outcome{Exit: exit, Duration: time.Since(start), Output: output.lines(), Err: err}
}

// superviseGroup waits until process pid, the leader of its group, has ended. When ctx ends first it stops the group and
// reports true. The leader is not reaped here: while it is a zombie, no other process can get its id, so that the
// signals cannot hit strangers.
func superviseGroup(ctx context.Context, pid int) (stopped bool) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
	}()
	select {
	case <-ended:
		return false
	case <-ctx.Done():
	}
	unix.Kill(-pid, unix.SIGTERM) // fails only if the group is gone
	select {
	case <-ended:
	case <-time.After(stopGrace):
	}
	unix.Kill(-pid, unix.SIGKILL)
	<-ended
	return true
}

// withAdvice says what to do about the usual reasons why a program does not start.
func withAdvice(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; check the path, and the interpreter in its first line", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; is it executable (chmod +x)?", err)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%w; its first line must name the interpreter, such as #!/bin/sh", err)
	}
	return err
}

// tail keeps the last maxOutput bytes written to it.
type tail struct {
	kept []byte
	cut  bool
}

func (t *tail) Write(b []byte) (int, error) {
	t.kept = append(t.kept, b[max(0, len(b)-maxOutput):]...)
	if over := len(t.kept) - maxOutput; over > 0 || len(b) > maxOutput {
		t.kept = append(t.kept[:0], t.kept[max(0, over):]...)
		t.cut = true
	}
	return len(b), nil
}

// lines returns the last lines in a form that is safe to log.
func (t *tail) lines() []string {
	var all []string
	for line := range strings.SplitSeq(string(t.kept), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, printable(line))
		}
	}
	if t.cut && len(all) > 0 {
		all[0] = "…" + all[0]
	}
	return all[max(0, len(all)-maxOutputLines):]
}
