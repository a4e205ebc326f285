package rtnl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

// verdicts turns the answers to a batch into errors.
type verdicts struct {
	k      *Kernel
	batch  []request
	lost   error         // why answers are missing
	now    *kernel.State // what the kernel holds, read when answers were lost
	owners owners
}

func (v *verdicts) of(ctx context.Context, r request, answers []answer) error {
	for _, ans := range answers[r.from:r.to] {
		switch {
		case !ans.here && errors.Is(v.lost, errLost):
			return v.look(ctx, r.op)
		case !ans.here:
			return v.lost
		case ans.err != nil && r.op.Verb != kernel.Delete && errors.Is(ans.err, unix.EEXIST):
			proto, known := v.owners.of(ctx, v.k, r.op.Row)
			return foreign(ans.err, r.op.Row, proto, known)
		case ans.err != nil && r.to-r.from == 2 && gone(ans.err):
			continue // the old length of an address went away by itself
		case ans.err != nil:
			return explain(ans.err, r.op.Row)
		}
	}
	return nil
}

// look finds out in the kernel's tables what came of an operation whose answer was lost.
func (v *verdicts) look(ctx context.Context, op kernel.Op) error {
	if v.now == nil {
		scope := kernel.Scope{}
		for _, r := range v.batch {
			if a, ok := r.op.Row.(kernel.Address); ok {
				scope.Addresses = append(scope.Addresses, a)
			}
		}
		s, err := v.k.read(ctx, scope)
		if err != nil {
			return fmt.Errorf("%w, and the kernel's tables could not be read: %w", errLost, err)
		}
		v.now = &s
	}
	if exists, equal := find(*v.now, op.Row); (op.Verb == kernel.Delete && !exists) || (op.Verb != kernel.Delete && equal) {
		return nil
	}
	return fmt.Errorf("%w, and the kernel's tables show that it did not happen", errLost)
}

// find reports whether s has a row with the identity of row, and whether it has nothing to change.
func find(s kernel.State, row kernel.Row) (exists, equal bool) {
	switch r := row.(type) {
	case kernel.Route:
		return findIn(s.Routes, r)
	case kernel.Rule:
		return findIn(s.Rules, r)
	case kernel.Address:
		return findIn(s.Addresses, r)
	}
	return false, false
}

func findIn[R interface {
	Compare(R) int
	Equal(R, time.Time) bool
}](rows []R, r R) (exists, equal bool) {
	i, ok := slices.BinarySearchFunc(rows, r, R.Compare)
	return ok, ok && rows[i].Equal(r, time.Now())
}
