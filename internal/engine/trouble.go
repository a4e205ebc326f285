package engine

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/policy"
)

// refuse keeps what the kernel does not carry out, until it does or nobody wants it any more, and returns what is new of it: an
// object of somebody else in the way is tried again at every step, and is news once.
func (e *Engine) refuse(r kernel.Report, h holdings) (news []kernel.OpError) {
	next := make(map[string]kernel.OpError, len(r.Failed))
	for _, f := range r.Failed {
		what := f.Op.Object()
		if was, known := e.refused[what]; !known || was.Error() != f.Error() {
			news = append(news, f)
		}
		next[what] = f
	}
	for _, op := range h.fighting { // it was not tried
		if was, known := e.refused[op.Object()]; known {
			next[op.Object()] = was
		}
	}
	e.refused = next
	return news
}

// findings turns what went wrong in the kernel into problems.
func (e *Engine) findings(r kernel.Report, h holdings) (ps []policy.Problem) {
	const most = 20 // of a kind: a broken kernel must not fill the screen
	failed := r.Failed
	fights := 0
	for _, op := range h.fighting {
		if f, known := e.refused[op.Object()]; known { // nobody undoes what was never done
			failed = append(failed[:len(failed):len(failed)], f)
			continue
		}
		if fights++; fights <= most {
			ps = append(ps, policy.Problem{Path: path(op.Row.Why()), Code: "fighting",
				Message: "another program keeps undoing this, so it is repaired only every few seconds: " + op.Text(time.Now())})
		}
	}
	for i, f := range failed {
		if i == most {
			ps = append(ps, policy.Problem{Path: "kernel", Code: "apply-failed", Message: fmt.Sprintf("and %d more operations", len(failed)-most)})
			break
		}
		ps = append(ps, policy.Problem{Path: path(f.Op.Row.Why()), Code: "apply-failed", Message: f.Error()})
	}
	return ps
}

func path(why kernel.Reason) string {
	switch {
	case why.Downstream != "":
		return "downstream." + why.Downstream
	case why.Uplink != "":
		return "uplink." + why.Uplink
	}
	return "kernel"
}

// log writes down what was done, and what was refused for the first time.
func (e *Engine) log(r kernel.Report, refused []kernel.OpError) {
	const most = 50 // lines per step; a table of thousands is a number in the log, its rows are in `uplinkd plan`
	now := time.Now()
	for _, op := range r.Done[:min(most, len(r.Done))] {
		if why := op.Row.Why().Rule; why != "" {
			e.opt.Log.Info(op.Text(now), "why", why)
		} else {
			e.opt.Log.Info(op.Text(now))
		}
	}
	if len(r.Done) > most {
		e.opt.Log.Info(fmt.Sprintf("and %d more operations", len(r.Done)-most))
	}
	gone := func(f kernel.OpError) bool { return errors.Is(f, syscall.ENODEV) }
	if i := slices.IndexFunc(refused, gone); i >= 0 { // between the look at the links and the writing; the next look will tell
		e.opt.Log.Warn("an interface has gone meanwhile", "err", refused[i])
		refused = slices.DeleteFunc(slices.Clone(refused), gone)
	}
	for _, f := range refused[:min(most, len(refused))] {
		e.opt.Log.Error(f.Error())
	}
	if len(refused) > most {
		e.opt.Log.Error(fmt.Sprintf("and %d more operations failed", len(refused)-most))
	}
}
