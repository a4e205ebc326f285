package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/engine"
	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/rtnl"
	"uplinkd/internal/lifetime"
	"uplinkd/internal/netlab"
	"uplinkd/pd"
	"uplinkd/policy"
)

const smallest = "[uplink.fiber]\ninterface = \"wan0\"\n[downstream.lan]\ninterface = \"lan0\"\n"

// reconcile measures the engine's step that finds nothing to do, with more and more rows in the kernel.
func reconcile(ctx context.Context, w io.Writer) error {
	rows := [][]string{{"owned rows", "n", "step ms", "us/row", "reading the kernel", "of the step"}}
	for _, size := range []struct{ delegations, n int }{{1, 200}, {249, 50}, {2499, 12}} {
		row, err := reconcileWith(ctx, size.delegations, size.n)
		if err != nil {
			return fmt.Errorf("reconcile with %d delegations: %w", size.delegations, err)
		}
		rows = append(rows, row)
	}
	title(w, "A reconcile that changes nothing, on a real kernel: plan, read, compare, publish")
	table(w, rows...)
	return nil
}

// reconcileWith gives an engine one lease of so many prefixes; each makes four rows.
func reconcileWith(ctx context.Context, delegations, n int) ([]string, error) {
	lab, err := netlab.Open()
	if err != nil {
		return nil, err
	}
	defer lab.Close()
	router := lab.NS("router")
	router.Sysctl("net.ipv6.conf.default.accept_dad", "0") // else thousands of addresses go on changing for a while
	lab.Veth(router, "wan0", router, "wan0-end")
	lab.Veth(router, "lan0", router, "lan0-end")
	if lab.Err() != nil {
		return nil, lab.Err()
	}
	cfg, err := config.Parse(config.File{Name: "bench.toml", Data: []byte(smallest)})
	if err != nil {
		return nil, err
	}
	kern := &timedKernel{}
	if err := router.Do(func() (err error) { kern.Kernel, err = rtnl.Open(); return err }); err != nil {
		return nil, err
	}
	defer kern.Close()
	steps := make(steps, 64)
	e := engine.New(engine.Options{Config: cfg, Kernel: kern, Store: forgetful{}, Log: slog.New(slog.DiscardHandler),
		Alive: func() { steps <- struct{}{} }})
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = router.Do(func() error { return e.Run(ctx) }) // in the namespace, since /proc/sys is that of the thread
	}()
	defer func() { stop(); <-ended }()
	if err := steps.next(); err != nil { // the one at the start
		return nil, err
	}
	e.Client("fiber", engine.ClientStatus{State: "bound", Reported: true, Lease: lease(delegations)}, true)
	if err := steps.next(); err != nil {
		return nil, err
	}
	s := e.Snapshot()
	if len(s.Problems) > 0 || s.Counters.Failed > 0 {
		return nil, fmt.Errorf("%d kernel errors, problems: %v", s.Counters.Failed, s.Problems)
	}
	writes := s.Counters.Writes
	var took, reading, share sample
	for range n {
		kern.reading.Store(0)
		began := time.Now()
		e.Heard("fiber", policy.Heard{}) // any news of an uplink is a reason to look, also none
		if err := steps.next(); err != nil {
			return nil, err
		}
		total, read := time.Since(began), time.Duration(kern.reading.Load())
		took.addTime(total)
		reading.addTime(read)
		share.add(100 * float64(read) / float64(total))
	}
	if n := e.Snapshot().Counters.Writes - writes; n != 0 {
		return nil, fmt.Errorf("%d writes although nothing had changed", n)
	}
	owned := s.Wanted.Len()
	return []string{fmt.Sprint(owned), fmt.Sprint(n), took.text(2), fmt.Sprintf("%.2f", took.median()*1000/float64(owned)), reading.text(2),
		share.average(0) + " %"}, nil
}

// steps gets a token for every step of the engine that could read the kernel.
type steps chan struct{}

func (s steps) next() error {
	select {
	case <-s:
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("the engine made no step within a minute")
	}
}

func lease(n int) (l pd.Lease) {
	for i := range n {
		prefix := netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i >> 8), byte(i)}), 56)
		l.Prefixes = append(l.Prefixes, pd.LeasedPrefix{Prefix: prefix, PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()})
	}
	return l
}

// timedKernel adds up how long reading takes.
type timedKernel struct {
	*rtnl.Kernel
	reading atomic.Int64
}

func (k *timedKernel) Read(ctx context.Context, s kernel.Scope) (kernel.State, error) {
	began := time.Now()
	defer func() { k.reading.Add(int64(time.Since(began))) }()
	return k.Kernel.Read(ctx, s)
}

// forgetful is a store without a disk.
type forgetful struct{}

func (forgetful) ReadJSON(string, int, any) error  { return fs.ErrNotExist }
func (forgetful) WriteJSON(string, int, any) error { return nil }
func (forgetful) SaveLease(string, pd.Lease) error { return nil }
