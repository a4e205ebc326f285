package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"uplinkd/internal/kernel"
)

// Clean removes everything that uplinkd owns from the kernel and gives sysctls their values from before uplinkd. No
// engine may be running. Leases, the DUID, numbers of uplinks and subnet ids stay in the store.
//
// What could not be removed is in the report; it is still in the ledger then, so that Clean can be called again.
func Clean(ctx context.Context, k Kernel, s Store) (kernel.Report, error) {
	saved, err := readLedger(s)
	if err != nil {
		return kernel.Report{}, err
	}
	plan, err := planClean(ctx, k, saved)
	if err != nil {
		return kernel.Report{}, err
	}
	var report kernel.Report
	if len(plan.Ops) > 0 {
		report = k.Apply(ctx, plan)
	}
	if len(report.Failed) > 0 || len(report.Skipped) > 0 || len(saved.Sysctls)+len(saved.Addresses) == 0 {
		return report, nil
	}
	saved.Sysctls, saved.Addresses = map[string]string{}, nil
	if err := s.WriteJSON(ledgerFile, formatVersion, saved); err != nil {
		return report, fmt.Errorf("the kernel is clean, but the ledger could not be written: %w", err)
	}
	return report, nil
}

// CleanPlan returns what Clean would do.
func CleanPlan(ctx context.Context, k Kernel, s Store) (kernel.Plan, error) {
	saved, err := readLedger(s)
	if err != nil {
		return kernel.Plan{}, err
	}
	return planClean(ctx, k, saved)
}

func readLedger(s Store) (saved durable, err error) {
	if err := s.ReadJSON(ledgerFile, formatVersion, &saved); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return durable{}, fmt.Errorf("without the ledger it is unknown what sysctls were before: %w", err)
	}
	_ = saved.sound() // what uplinkd cannot have written is not its to undo
	return saved, nil
}

// planClean withdraws in the reverse order of adding: what is deleted, and then the sysctls, forwarding among the last, so
// that until then nothing is half set up.
func planClean(ctx context.Context, k Kernel, saved durable) (kernel.Plan, error) {
	links, err := k.Links(ctx)
	if err != nil {
		return kernel.Plan{}, fmt.Errorf("read links: %w", err)
	}
	saved.Sysctls = renameSysctls(saved.Sysctls, saved.renamed(links, ""))
	e := Engine{saved: saved}
	want := e.restoring(kernel.State{})
	have, err := k.Read(ctx, e.scope(want))
	if err != nil {
		return kernel.Plan{}, fmt.Errorf("read what uplinkd owns: %w", err)
	}
	p := kernel.Diff(have, want, time.Now())
	restores := slices.IndexFunc(p.Ops, func(o kernel.Op) bool { return o.Verb == kernel.Delete })
	if restores < 0 {
		restores = len(p.Ops)
	}
	sysctls := slices.Clone(p.Ops[:restores])
	slices.Reverse(sysctls)
	p.Ops = append(slices.Clone(p.Ops[restores:]), sysctls...)
	return p, nil
}
