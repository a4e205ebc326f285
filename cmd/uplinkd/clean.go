package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/ctl"
	"uplinkd/internal/engine"
	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/rtnl"
	"uplinkd/pd"
	"uplinkd/pd/store"
)

var cleanVerb = verb{
	name: "clean", summary: "remove exactly what uplinkd has put into the kernel",
	about: `Removes the addresses, routes and rules that carry uplinkd's mark (protocol 200) or stand in its ledger and the nft tables
named uplinkd, and gives kernel variables the values that they had before uplinkd. Objects of others stay. Leases, the DHCP
identity, the ULA prefix, subnet numbers and what inner routers have borrowed stay too, so that the next start gets the same
prefixes.

Refuses while a daemon is running: stop it first. Needs root. Without uplinkd hosts keep what was announced to them
until it runs out; nothing is released at the provider.`,
	failed:   "a daemon is running, or something could not be removed",
	examples: []string{"uplinkd clean --dry-run", "systemctl stop uplinkd && uplinkd clean"},
	run:      cmdClean,
}

func cmdClean(env *environment, args []string) int {
	fs := env.flags("clean")
	env.askFlags(fs)
	dry := fs.Bool("dry-run", false, "print what would be done, and do nothing")
	if _, status, ok := env.parse(fs, args, 0, 0); !ok {
		return status
	}
	cfg, err := env.configOrDefaults()
	if err != nil {
		return env.failConfig(err)
	}
	if err := env.cleanWith(cfg, *dry); err != nil {
		return env.fail(err)
	}
	return exitOK
}

// configOrDefaults loads the configuration; when the default file is gone (the package was removed before somebody
// thought of clean), the default directories are meant.
func (env *environment) configOrDefaults() (*config.Config, error) {
	cfg, err := loadConfig(env.config)
	if env.config == defaultConfig && errors.Is(err, fs.ErrNotExist) {
		return &config.Config{StateDir: config.DefaultStateDir, RunDir: config.DefaultRunDir}, nil
	}
	return cfg, err
}

func (env *environment) cleanWith(cfg *config.Config, dry bool) error {
	if !dry {
		if err := env.nobodyAnswers(cfg); err != nil {
			return err
		}
	}
	state, done, err := openState(cfg.StateDir, dry)
	if err != nil {
		return err
	}
	defer done()
	if !dry {
		release, warning, err := takeNamespace()
		if err != nil {
			return err
		}
		if warning != "" {
			fmt.Fprintln(env.stderr, "uplinkd: warning: "+printable(warning))
		}
		defer release()
	}
	kern, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer kern.Close()
	if dry {
		plan, err := engine.CleanPlan(env.ctx, kern, state)
		if err == nil {
			env.printOps(plan.Ops)
		}
		return err
	}
	report, err := engine.Clean(env.ctx, kern, state)
	if len(report.Done) > 0 || err == nil && len(report.Failed)+len(report.Skipped) == 0 {
		env.printOps(report.Done)
	}
	for _, f := range report.Failed {
		err = errors.Join(err, f)
	}
	if n := len(report.Skipped); n > 0 {
		err = errors.Join(err, fmt.Errorf("%s left alone because of this; correct it and run clean again", count(n, "object")))
	}
	return err
}

// nobodyAnswers returns an error if a daemon runs: it would put everything back.
func (env *environment) nobodyAnswers(cfg *config.Config) error {
	socket := env.socketOf(cfg)
	v, err := ctl.Dial(socket).Version(env.ctx)
	switch {
	case err == nil:
		return fmt.Errorf("uplinkd (process %d) answers on %s and would put everything back; stop it first: systemctl stop uplinkd", v.PID, socket)
	case errors.Is(err, ctl.ErrNotRunning):
		return nil
	}
	return err
}

// openState opens the state directory, for a dry run without its lock. When there is none, there is no ledger either.
func openState(dir string, dry bool) (s engine.Store, done func(), err error) {
	d, err := store.ReadOnly(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return noState{}, func() {}, nil
	}
	if err == nil && !dry {
		d.Close()
		d, err = store.Open(dir)
	}
	if err != nil {
		return nil, nil, err
	}
	return d, func() { d.Close() }, nil
}

// noState is a state directory that does not exist, and need not be made only to be empty.
type noState struct{}

func (noState) ReadJSON(string, int, any) error  { return fs.ErrNotExist }
func (noState) WriteJSON(string, int, any) error { return nil }
func (noState) SaveLease(string, pd.Lease) error { return nil }

func (env *environment) printOps(ops []kernel.Op) {
	if len(ops) == 0 {
		fmt.Fprintln(env.stdout, "nothing to remove")
	}
	now := time.Now()
	for _, o := range ops {
		fmt.Fprintln(env.stdout, printable(o.Text(now)))
	}
}
