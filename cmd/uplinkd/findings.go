package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"uplinkd/internal/config"
	"uplinkd/policy"
)

// findings are the problems that the engine does not know of: a config that was not loaded, a DHCPv6 server without its port,
// damaged state files.
func (d *daemon) findings() (ps []policy.Problem) {
	if msg := d.rejected.Load(); msg != nil {
		ps = append(ps, policy.Problem{Path: "config", Code: "config-not-loaded", Message: *msg})
	}
	ps = append(ps, d.tasks.serverProblems()...)
	names, err := d.state.SetAside()
	if err != nil {
		d.log.Error("look for damaged state files", "err", err)
	}
	for _, name := range names {
		file, _, _ := strings.Cut(name, ".corrupt-")
		ps = append(ps, policy.Problem{Path: "state_dir", Code: "state-damaged", Message: fmt.Sprintf(
			"%s was damaged, uplinkd goes on without what it said; look at %s or report it, then remove that file and this message goes away",
			file, name)})
	}
	return ps
}

// reject notes that a new config cannot be used, until one that can.
func (d *daemon) reject(err error) {
	inForce := fmt.Sprintf("the configuration of %s stays in force", when(d.loaded, time.Now()))
	d.log.Error("config not loaded; " + inForce)
	list := mistakes(err)
	for _, m := range list {
		d.log.Error("config not loaded", "err", m)
	}
	msg := list[0]
	if n := len(list) - 1; n > 0 {
		msg += fmt.Sprintf(" (and %s)", count(n, "more mistake"))
	}
	msg += "; " + inForce
	d.rejected.Store(&msg)
}

// mistakes are what err says, one by one.
func mistakes(err error) []string {
	var all config.Errors
	if !errors.As(err, &all) || len(all) == 0 {
		return []string{err.Error()}
	}
	texts := make([]string, len(all))
	for i, m := range all {
		texts[i] = m.Error()
	}
	return texts
}

// when is the local time of t, with the date if that is not today's.
func when(t, now time.Time) string {
	if t.Local().Format(time.DateOnly) == now.Local().Format(time.DateOnly) {
		return t.Local().Format("15:04")
	}
	return t.Local().Format("2006-01-02 15:04")
}
