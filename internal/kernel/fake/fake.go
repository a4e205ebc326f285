// Package fake is a kernel for tests: it keeps rows as values and follows the kernel's rules of identity. It is no
// simulation of routing, and nothing but tests imports it.
package fake

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
)

// Kernel holds the rows. What stands in Foreign is never shown by Read and makes an Add of the same identity fail, as in
// the real one. It is safe for concurrent use, its fields are not.
type Kernel struct {
	mu      sync.Mutex
	State   kernel.State
	Foreign kernel.State
	Link    []kernel.Link
	Die     func(n int) bool // true: from the n-th operation on nothing is carried out any more (SIGKILL)
	Writes  int
	Log     []kernel.Op
	NoMarks bool // addresses carry no mark of their owner, as before Linux 5.18

	born uint32 // of the newest address
}

// ErrExists is what adding an object of an existing identity gives.
var ErrExists = errors.New("exists already and belongs to somebody else")

// Read returns the owned rows, and of the sysctls those in scope.
func (f *Kernel) Read(_ context.Context, s kernel.Scope) (kernel.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := kernel.State{Routes: slices.Clone(f.State.Routes), Rules: slices.Clone(f.State.Rules)}
	for _, t := range f.State.Tables {
		out.Tables = append(out.Tables, t.Found())
	}
	for _, a := range f.State.Addresses {
		if !a.ValidUntil.Over(time.Now()) && (!a.Unmarked && !f.NoMarks || f.recorded(a, s)) {
			a.Unmarked = a.Unmarked && !f.NoMarks
			out.Addresses = append(out.Addresses, a)
		}
	}
	for _, a := range f.Foreign.Addresses {
		if f.recorded(a, s) {
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
		out.Sysctls = append(out.Sysctls, kernel.Sysctl{Name: name, Value: value})
	}
	return out.Normalize(), nil
}

// recorded reports whether the ledger in s knows a, an address without a mark.
func (f *Kernel) recorded(a kernel.Address, s kernel.Scope) bool {
	return slices.ContainsFunc(s.Addresses, func(r kernel.Address) bool {
		return r.Compare(a) == 0 && (r.Born == a.Born && r.Born != 0 || r.Born == 0 && f.NoMarks)
	})
}

// Links returns the links.
func (f *Kernel) Links(context.Context) ([]kernel.Link, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.Link), nil
}

// Apply carries out p.
func (f *Kernel) Apply(_ context.Context, p kernel.Plan) (r kernel.Report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	holds := p.Hold(nil)
	for _, op := range p.Ops {
		if f.Die != nil && f.Die(f.Writes) {
			return r
		}
		if op.Verb == kernel.Delete && holds(op) {
			r.Skipped = append(r.Skipped, op)
			continue
		}
		f.Writes++
		r.Writes++
		if err := f.do(op); err != nil {
			r.Failed = append(r.Failed, kernel.OpError{Op: op, Err: err})
			holds = p.Hold(r.Failed)
			continue
		}
		f.Log = append(f.Log, op)
		r.Done = append(r.Done, op)
	}
	return r
}

func (f *Kernel) do(op kernel.Op) (err error) {
	switch row := op.Row.(type) {
	case kernel.Sysctl:
		op.Verb = kernel.Replace
		f.State.Sysctls, err = put(f.State.Sysctls, nil, op, row)
	case kernel.Route:
		f.State.Routes, err = put(f.State.Routes, f.Foreign.Routes, op, row)
	case kernel.Rule:
		f.State.Rules, err = put(f.State.Rules, f.Foreign.Rules, op, row)
	case kernel.Address:
		f.born++
		row.Born = f.born
		if i, found := slices.BinarySearchFunc(f.State.Addresses, row, kernel.Address.Compare); found && f.State.Addresses[i].Prefix == row.Prefix {
			row.Born = f.State.Addresses[i].Born
		}
		f.State.Addresses, err = put(f.State.Addresses, f.Foreign.Addresses, op, row)
	case kernel.Table: // the name is the mark: there are none of others
		f.State.Tables, err = put(f.State.Tables, nil, op, row)
	}
	return err
}

func put[R interface{ Compare(R) int }](rows, foreign []R, op kernel.Op, r R) ([]R, error) {
	i, found := slices.BinarySearchFunc(rows, r, R.Compare)
	switch {
	case op.Verb == kernel.Delete:
		if found {
			rows = slices.Delete(rows, i, i+1)
		}
	case found && op.Verb == kernel.Add:
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

// Owned returns the rows as they are now.
func (f *Kernel) Owned() kernel.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return kernel.State{Sysctls: slices.Clone(f.State.Sysctls), Routes: slices.Clone(f.State.Routes), Rules: slices.Clone(f.State.Rules),
		Addresses: slices.Clone(f.State.Addresses), Tables: slices.Clone(f.State.Tables)}
}

// Change runs do while nobody reads or writes: for changing fields in the course of a test.
func (f *Kernel) Change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// Written returns how many operations were carried out so far.
func (f *Kernel) Written() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Writes
}

// SetLink sets a link administratively up or down with the kernel's consequences: down takes IPv6 addresses and routes
// on it away, rules stay.
func (f *Kernel) SetLink(name string, up bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.Link {
		if f.Link[i].Name == name {
			f.Link[i].Up, f.Link[i].Carrier = up, up
		}
	}
	if !up {
		f.State.Addresses = slices.DeleteFunc(f.State.Addresses, func(a kernel.Address) bool { return a.Dev == name })
		f.State.Routes = slices.DeleteFunc(f.State.Routes, func(r kernel.Route) bool { return r.Dev == name })
	}
}

// Modify gives an address another end, as `ip address change` does: the mark of who made it is gone then.
func (f *Kernel) Modify(prefix string, until lifetime.Deadline) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.State.Addresses {
		if a := &f.State.Addresses[i]; a.Prefix.String() == prefix {
			a.PreferredUntil, a.ValidUntil, a.Unmarked = until, until, true
		}
	}
}

// Drop takes an address away, as another program would.
func (f *Kernel) Drop(prefix string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.State.Addresses = slices.DeleteFunc(f.State.Addresses, func(a kernel.Address) bool { return a.Prefix.String() == prefix })
}
