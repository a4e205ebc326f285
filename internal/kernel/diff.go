package kernel

import (
	"slices"
	"strings"
	"time"
)

// Verb is what an operation does to a row.
type Verb uint8

// The verbs. Replace is used only on rows that uplinkd owns; Add never touches an object that exists already.
const (
	Add Verb = iota + 1
	Replace
	Delete
)

// Op is one operation of a plan. For Delete, Row is the row as it was found.
type Op struct {
	Verb Verb
	Row  Row
}

// Plan is an ordered list of operations, made for the instant Now (lifetimes are written relative to the clock at the
// time of writing, not to Now).
type Plan struct {
	Now time.Time
	Ops []Op
}

// Diff returns the plan that turns have into want. Adds and replacements come first, by phase; then everything that
// goes, by phase backwards. So at every point of the plan an address has its rule, a rule has its table, and a
// replacement exists before what it replaces is gone. Both states must be canonical.
//
// An address whose prefix length changes cannot be changed in place (the kernel's identity is the address): the
// applier deletes and adds it in one go.
func Diff(have, want State, now time.Time) Plan {
	var grow, shrink []Op
	grow, _ = diff(grow, nil, have.Sysctls, want.Sysctls, now) // a sysctl is never deleted, see Sysctl
	grow, shrink = diff(grow, shrink, have.Routes, want.Routes, now)
	grow, shrink = diff(grow, shrink, have.Rules, want.Rules, now)
	grow, shrink = diff(grow, shrink, have.Addresses, want.Addresses, now)
	grow, shrink = diff(grow, shrink, have.Tables, want.Tables, now)
	slices.SortStableFunc(grow, func(a, b Op) int { return int(a.Row.Phase()) - int(b.Row.Phase()) })
	slices.SortStableFunc(shrink, func(a, b Op) int { return int(b.Row.Phase()) - int(a.Row.Phase()) })
	return Plan{Now: now, Ops: append(grow, shrink...)}
}

func diff[R row[R]](grow, shrink []Op, have, want []R, now time.Time) (g, s []Op) {
	for len(have) > 0 || len(want) > 0 {
		c := 0
		switch {
		case len(have) == 0:
			c = 1
		case len(want) == 0:
			c = -1
		default:
			c = have[0].Compare(want[0])
		}
		switch {
		case c < 0:
			shrink = append(shrink, Op{Delete, have[0]})
			have = have[1:]
		case c > 0:
			grow = append(grow, Op{Add, want[0]})
			want = want[1:]
		default:
			if !have[0].Equal(want[0], now) {
				grow = append(grow, Op{Replace, want[0]})
			}
			have, want = have[1:], want[1:]
		}
	}
	return grow, shrink
}

// Text is the operation as the command a person would type.
func (o Op) Text(now time.Time) string {
	switch r := o.Row.(type) {
	case Sysctl:
		return "sysctl -w " + r.Text(now)
	case Rule:
		return "ip " + familyFlag(r.Family) + "rule " + o.verb() + " " + r.Text(now)
	case Route:
		return "ip " + familyFlag(familyOf(r.Dst.Addr().Is4())) + "route " + o.verb() + " " + r.Text(now)
	case Address:
		if o.Verb == Delete {
			return "ip address del " + r.Prefix.String() + " dev " + r.Dev
		}
		return "ip address " + o.verb() + " " + r.Text(now)
	case Table:
		return r.command(o.Verb)
	}
	return "?"
}

func (o Op) verb() string {
	switch o.Verb {
	case Add:
		return "add"
	case Replace:
		return "replace"
	}
	return "del"
}

func familyOf(is4 bool) Family {
	if is4 {
		return IPv4
	}
	return IPv6
}

func familyFlag(f Family) string {
	if f == IPv4 {
		return "-4 "
	}
	return "-6 "
}

// Text is the plan as a script, a line per operation; "" for an empty plan.
func (p Plan) Text() string {
	var b strings.Builder
	for _, o := range p.Ops {
		b.WriteString(o.Text(p.Now))
		b.WriteByte('\n')
	}
	return b.String()
}

// OpError is one operation that failed.
type OpError struct {
	Op  Op
	Err error
}

func (e OpError) Error() string { return e.Op.Object() + ": " + e.Err.Error() }
func (e OpError) Unwrap() error { return e.Err }

// Object is the operation without what changes with time, lifetimes, and without the contents of tables.
func (o Op) Object() string {
	switch r := o.Row.(type) {
	case Address:
		return "ip address " + o.verb() + " " + r.Prefix.String() + " dev " + r.Dev
	case Table:
		return r.object(o.Verb)
	}
	return o.Text(time.Time{})
}

// Report is what came of a plan: what was done, what failed. Operations are independent as far as the kernel lets
// them be: after a failure the applier goes on, except that withdrawals wait whose replacement failed (make before
// break, see Plan.Hold).
type Report struct {
	Done    []Op
	Failed  []OpError
	Skipped []Op // withdrawals held back because an addition that replaces them failed
	Writes  int  // requests that the kernel was sent: the figure behind "a second reconcile writes nothing"
}

// Scope says what the reader has to look at besides the rows that carry uplinkd's mark.
type Scope struct {
	Sysctls   []string  // names to read: those wanted and those in the ledger
	Addresses []Address // ours also without the mark: on kernels without IFA_PROTO (before 5.18), and where Born is the same
}
