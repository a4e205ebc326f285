package netlab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Lab is a set of network namespaces that live and end together. Its methods and those of NS return no errors: the first
// failure fails the test (New: call them from the test's own goroutine, then), or is kept and turns everything after it
// into a no-op (Open); see Err.
type Lab struct {
	t      TB // nil for Open
	dir    string
	keeper chan func() // to the thread that starts processes; their parent-death signal fires when it ends, so it ends last

	mu        sync.Mutex
	err       error
	closed    bool
	spaces    []*NS
	processes []*Process
}

// New returns an empty lab that is closed at the end of the test, after showing the output of its processes if the test
// failed. It skips the test where no lab can be made.
func New(t TB) *Lab {
	t.Helper()
	Need(t)
	l, err := Open()
	if err != nil {
		t.Fatalf("%v", err)
	}
	l.t = t
	t.Cleanup(func() {
		l.Close()
		if t.Failed() {
			l.show(t)
		}
		_ = os.RemoveAll(l.dir)
	})
	return l
}

// Open returns an empty lab outside tests. The caller closes it.
func Open() (*Lab, error) {
	if !Available() {
		return nil, fmt.Errorf("%w here: the program was not started by netlab.Enter", ErrUnavailable)
	}
	// Directly under /run: the paths of Unix sockets have to fit into 107 octets, those of t.TempDir often do not.
	dir, err := os.MkdirTemp("/run", "lab")
	if err != nil {
		return nil, err
	}
	l := &Lab{dir: dir, keeper: make(chan func())}
	goThread(func() {
		for f := range l.keeper {
			f()
		}
	})
	return l, nil
}

// Dir is a directory of the lab on the private /run, for sockets, pid files and configuration of peers.
func (l *Lab) Dir() string { return l.dir }

// Err is the first thing that failed in a lab made by Open.
func (l *Lab) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Close stops the processes started by NS.Start, the last one first, and gives up the namespaces. They vanish with the
// last process in them. Close may be called more than once.
func (l *Lab) Close() {
	l.mu.Lock()
	processes, spaces := l.processes, l.spaces
	l.spaces = nil
	l.mu.Unlock()
	for _, p := range slices.Backward(processes) {
		p.Stop()
	}
	for _, n := range spaces {
		_ = n.file.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.keeper)
	}
	if l.t == nil {
		_ = os.RemoveAll(l.dir)
	}
}

// show logs the output of every process that had any.
func (l *Lab) show(t TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.processes {
		if out := p.Output(); out != "" {
			t.Logf("--- %s:\n%s", filepath.Base(p.log), out)
		}
	}
}

// failed takes in the outcome of a step and reports whether the caller has to give up.
func (l *Lab) failed(err error) bool {
	if err == nil {
		return false
	}
	if l.t != nil {
		l.t.Helper()
		l.t.Fatalf("%v", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	return true
}

// NS returns a new namespace in which lo is up. name is for people.
func (l *Lab) NS(name string) *NS {
	l.help()
	n := &NS{Name: name, lab: l}
	if l.failed(l.Err()) {
		return n
	}
	if err := n.create(); l.failed(err) {
		return n
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spaces = append(l.spaces, n)
	return n
}

// Veth connects two namespaces by a pair of interfaces, both up, optionally with the MAC addresses macs[0] and macs[1].
// Sysctls of conf/default, accept_dad for one, have to be set before.
func (l *Lab) Veth(a *NS, aName string, b *NS, bName string, macs ...string) {
	l.help()
	address := func(i int) string {
		if i < len(macs) && macs[i] != "" {
			return "address " + macs[i]
		}
		return ""
	}
	a.IP("link add %s %s type veth peer name %s %s netns %s", aName, address(0), bName, address(1), b.Path())
	a.IP("link set %s up", aName)
	b.IP("link set %s up", bName)
}

func (l *Lab) help() {
	if l.t != nil {
		l.t.Helper()
	}
}
