package netlab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Process is a program started by NS.Start.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error
}

// Start starts a command made by n.Command in the background. It gets a process group of its own and is stopped by
// Lab.Close at the latest, or killed when this process dies. Output for which cmd has no writer is kept; see
// Process.Output.
func (n *NS) Start(cmd *exec.Cmd) *Process {
	n.lab.help()
	p := &Process{cmd: cmd, done: make(chan struct{})}
	if n.lab.failed(n.lab.Err()) {
		close(p.done)
		return p
	}
	if err := n.start(p); n.lab.failed(err) {
		p.err = err
		close(p.done)
	}
	return p
}

func (n *NS) start(p *Process) error {
	l := n.lab
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("in namespace %s: start %s: the lab is closed", n.Name, p.cmd)
	}
	p.log = filepath.Join(l.dir, fmt.Sprintf("%s-%d.log", n.Name, len(l.processes)))
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if p.cmd.Stdout == nil {
		p.cmd.Stdout = out
	}
	if p.cmd.Stderr == nil {
		p.cmd.Stderr = out
	}
	if p.cmd.SysProcAttr == nil {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	p.cmd.SysProcAttr.Setpgid = true
	p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	p.cmd.WaitDelay = stopGrace
	started := make(chan error)
	l.keeper <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return fmt.Errorf("in namespace %s: start %s: %w", n.Name, p.cmd, err)
	}
	l.processes = append(l.processes, p)
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return nil
}

// PID is the process id, 0 if the program could not be started.
func (p *Process) PID() int {
	if p.cmd.Process == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Signal sends a signal to the program itself.
func (p *Process) Signal(s os.Signal) error {
	if p.cmd.Process == nil {
		return os.ErrProcessDone
	}
	return p.cmd.Process.Signal(s)
}

// Done is closed when the program has ended; Err then says how.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how the program ended (nil: with status 0), once Done is closed.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Output is what the program has written so far, at most the last 64 KiB.
func (p *Process) Output() string {
	const limit = 64 << 10
	b, err := os.ReadFile(p.log)
	if err != nil {
		return ""
	}
	return string(b[max(0, len(b)-limit):])
}

// Stop ends the program and returns Err: SIGTERM to the program, after some seconds SIGKILL to its process group, which
// also gets what the program left behind in it.
func (p *Process) Stop() error {
	if p.cmd.Process == nil {
		return p.err
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopGrace):
	}
	// The group id stays ours while any member lives, so this cannot hit a stranger.
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
	return p.err
}
