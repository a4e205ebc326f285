package kernel

import (
	"slices"
	"strings"
	"time"
)

// State is a set of rows: canonical when made by New or Normalize (each list sorted by identity, no identity twice).
type State struct {
	Sysctls   []Sysctl
	Routes    []Route
	Rules     []Rule
	Addresses []Address
	Tables    []Table
}

// row is what State, Diff and the fake need of a row type R.
type row[R any] interface {
	Row
	Compare(R) int
	Equal(R, time.Time) bool
}

// Normalize sorts s in place and drops repeated identities (the last one given wins), and returns it.
func (s State) Normalize() State {
	return State{normalize(s.Sysctls), normalize(s.Routes), normalize(s.Rules), normalize(s.Addresses), normalize(s.Tables)}
}

func normalize[R row[R]](rows []R) []R {
	slices.SortStableFunc(rows, R.Compare)
	out := rows[:0]
	for i, r := range rows {
		if i+1 < len(rows) && r.Compare(rows[i+1]) == 0 {
			continue
		}
		out = append(out, r)
	}
	return out
}

// Len is the number of rows.
func (s State) Len() int {
	return len(s.Sysctls) + len(s.Routes) + len(s.Rules) + len(s.Addresses) + len(s.Tables)
}

// Rows returns all rows in the order of their phases.
func (s State) Rows() []Row {
	rows := make([]Row, 0, s.Len())
	rows = appendRows(rows, s.Sysctls)
	for _, p := range []Phase{PhaseAggregate, PhaseRoute} {
		for _, r := range s.Routes {
			if r.Phase() == p {
				rows = append(rows, r)
			}
		}
	}
	rows = appendRows(rows, s.Rules)
	rows = appendRows(rows, s.Addresses)
	return appendRows(rows, s.Tables)
}

func appendRows[R Row](rows []Row, more []R) []Row {
	for _, r := range more {
		rows = append(rows, r)
	}
	return rows
}

// Text is the golden form of s: a line per row, "sysctl ...", "route ...", "rule ...", "address ..." or "table ...", by phase, sorted.
func (s State) Text(now time.Time) string {
	var b strings.Builder
	for _, r := range s.Rows() {
		b.WriteString(Noun(r))
		b.WriteByte(' ')
		b.WriteString(r.Text(now))
		b.WriteByte('\n')
	}
	return b.String()
}

// Noun is the word for the type of r in texts.
func Noun(r Row) string {
	switch r.(type) {
	case Sysctl:
		return "sysctl"
	case Route:
		return "route"
	case Rule:
		return "rule"
	case Table:
		return "table"
	default:
		return "address"
	}
}
