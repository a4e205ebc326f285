package kernel

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Fake is a kernel for tests: it keeps rows as values and follows the kernel's rules of identity. It is no simulation
// of routing. What stands in Foreign is never shown by Read and makes an Add of the same identity fail, as in the real
// one. It is safe for concurrent use.
type Fake struct {
	mu      sync.Mutex
	State   State
	Foreign State
	Link    []Link
	Now     func() time.Time         // for deadlines; nil: time.Now
	Fail    func(n int, op Op) error // nil or a failure for the n-th operation ever (from 0)
	Die     func(n int) bool         // true: from the n-th operation on nothing is carried out any more (SIGKILL)
	Writes  int
	Log     []Op
}

// ErrExists is what adding an object of an existing identity gives.
var ErrExists = errors.New("exists already and belongs to somebody else")

// Read returns the owned rows, and of the sysctls those in scope.
func (f *Fake) Read(_ context.Context, s Scope) (State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := State{Routes: slices.Clone(f.State.Routes), Rules: slices.Clone(f.State.Rules)}
	for _, a := range f.State.Addresses {
		if !a.ValidUntil.Over(f.now()) {
			out.Addresses = append(out.Addresses, a)
		}
	}
	for _, name := range s.Sysctls {
		value := "0"
		for _, v := range f.State.Sysctls {
			if v.Name == name {
				value = v.Value
			}
		}
		out.Sysctls = append(out.Sysctls, Sysctl{Name: name, Value: value})
	}
	return out.Normalize(), nil
}

// Links returns the links.
func (f *Fake) Links(context.Context) ([]Link, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.Link), nil
}

// Apply carries out p.
func (f *Fake) Apply(_ context.Context, p Plan) (r Report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, op := range p.Ops {
		if f.Die != nil && f.Die(f.Writes) {
			return r
		}
		if op.Verb == Delete && len(r.Failed) > 0 {
			r.Skipped = append(r.Skipped, op)
			continue
		}
		var err error
		if f.Fail != nil {
			err = f.Fail(f.Writes, op)
		}
		f.Writes++
		r.Writes++
		if err == nil {
			err = f.do(op)
		}
		if err != nil {
			r.Failed = append(r.Failed, OpError{op, err})
			continue
		}
		f.Log = append(f.Log, op)
		r.Done = append(r.Done, op)
	}
	return r
}

func (f *Fake) do(op Op) (err error) {
	switch row := op.Row.(type) {
	case Sysctl:
		f.State.Sysctls, err = put(f.State.Sysctls, nil, Op{Replace, row}, row)
	case Route:
		f.State.Routes, err = put(f.State.Routes, f.Foreign.Routes, op, row)
	case Rule:
		f.State.Rules, err = put(f.State.Rules, f.Foreign.Rules, op, row)
	case Address:
		f.State.Addresses, err = put(f.State.Addresses, f.Foreign.Addresses, op, row)
	}
	return err
}

func put[R row[R]](rows, foreign []R, op Op, r R) ([]R, error) {
	i, found := slices.BinarySearchFunc(rows, r, R.Compare)
	switch {
	case op.Verb == Delete:
		if found {
			rows = slices.Delete(rows, i, i+1)
		}
	case found && op.Verb == Add:
		return rows, ErrExists
	case found:
		rows[i] = r
	case slices.ContainsFunc(foreign, func(x R) bool { return x.Compare(r) == 0 }):
		return rows, ErrExists
	default:
		rows = slices.Insert(rows, i, r)
	}
	return rows, nil
}

func (f *Fake) now() time.Time {
	if f.Now != nil {
		return f.Now()
	}
	return time.Now()
}

// SetLink sets a link administratively up or down with the kernel's consequences: down takes IPv6 addresses and routes
// on it away, rules stay.
func (f *Fake) SetLink(name string, up bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.Link {
		if f.Link[i].Name == name {
			f.Link[i].Up, f.Link[i].Carrier = up, up
		}
	}
	if !up {
		f.State.Addresses = slices.DeleteFunc(f.State.Addresses, func(a Address) bool { return a.Dev == name })
		f.State.Routes = slices.DeleteFunc(f.State.Routes, func(r Route) bool { return r.Dev == name })
	}
}

// Drop takes an address away, as another program would.
func (f *Fake) Drop(prefix string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.State.Addresses = slices.DeleteFunc(f.State.Addresses, func(a Address) bool { return a.Prefix.String() == prefix })
}
