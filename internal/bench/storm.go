package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"uplinkd/internal/ctl"
	"uplinkd/internal/isp"
	"uplinkd/internal/netlab"
)

const (
	stormRate   = 10000 // forged messages a second
	stormRenews = 4     // that are waited for in each weather
	renewEvery  = 10    // seconds: the shortest T1 that the client follows
)

// storms has one uplink renew its lease while somebody floods another one.
func storms(ctx context.Context, w io.Writer, o options) error {
	rows := [][]string{{"on the other uplink", "forged/s", "Renews", "sent again", "Reply to kernel ms", "CPU %", "RSS MiB"}}
	for _, weather := range []struct {
		name  string
		storm bool
		kind  isp.StormKind
	}{
		{"nothing", false, 0},
		{"forged DHCPv6", true, isp.ForgedDHCPv6},
		{"forged RAs", true, isp.ForgedRAs},
	} {
		f, err := weatherTheStorm(ctx, o.uplinkd, weather.storm, weather.kind)
		if err != nil {
			return fmt.Errorf("%s: %w", weather.name, err)
		}
		rows = append(rows, []string{weather.name, fmt.Sprintf("%.0f", f.rate), strconv.Itoa(stormRenews), strconv.Itoa(f.repeated), f.toKernel.text(2),
			fmt.Sprintf("%.1f", f.cpu), fmt.Sprintf("%.1f", f.memory.rss/1024)})
	}
	title(w, "A storm of %d forged messages a second on one uplink, and the Renews of another (n = %d)", stormRate, stormRenews)
	table(w, rows...)
	return nil
}

// forecast is what was seen of one daemon in one weather.
type forecast struct {
	rate     float64 // messages that were sent a second
	repeated int     // Renews without an answer to the one before
	toKernel sample  // ms, from the Reply on the wire to the lifetime in the kernel
	cpu      float64 // percent
	memory   memory
}

func weatherTheStorm(ctx context.Context, uplinkd string, stormy bool, kind isp.StormKind) (f forecast, err error) {
	lab, err := netlab.Open()
	if err != nil {
		return f, err
	}
	defer lab.Close()
	router, providers, err := connectCrowd(ctx, lab, 1, isp.Config{Preferred: 3000, Valid: 4000, T1: renewEvery, T2: 2000})
	if err != nil {
		return f, err
	}
	attacker := lab.NS("attacker")
	attacker.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	lab.Veth(attacker, "storm0", router, "w2", "", "02:00:00:00:02:02")
	config, err := crowdConfig(lab.Dir(), 2)
	if err != nil {
		return f, err
	}
	var t track // of which only the ears are used
	if err := router.Do(func() (err error) {
		if t.wire, err = openWire("w1"); err != nil {
			return err
		}
		t.arrivals, err = watchAddresses("lan0")
		return err
	}); err != nil {
		return f, err
	}
	var running errgroup.Group
	ctx, stop := context.WithCancel(ctx)
	defer func() { stop(); err = errors.Join(err, running.Wait()) }()
	running.Go(func() error { return providers[0].Run(ctx) })
	p := router.Start(router.Command(ctx, uplinkd, "run", "--config", config))
	if _, err := awaitCrowd(ctx, t.arrivals, 1, p); err != nil {
		return f, err
	}
	end := func() (float64, error) { return 0, nil }
	if stormy {
		if end, err = rain(ctx, attacker, kind, isp.Target{Hardware: net.HardwareAddr{2, 0, 0, 0, 2, 2}, Address: router.LinkLocal("w2")}); err != nil {
			return f, err
		}
	}
	if err = f.renewals(&t, p); err != nil {
		return f, fmt.Errorf("%w; uplinkd said:\n%s", err, p.Output())
	}
	if f.memory, err = memoryOf(router); err != nil {
		return f, err
	}
	if f.rate, err = end(); err != nil {
		return f, err
	}
	s, err := ctl.Dial(filepath.Join(lab.Dir(), "run", ctl.SocketName)).Status(ctx)
	if err == nil && len(s.Uplinks[0].Delegations) != 1 {
		err = fmt.Errorf("after the storm: %s", s.Summary)
	}
	return f, err
}

// rain begins a storm; end ends it and returns how many messages it has sent a second.
func rain(ctx context.Context, attacker *netlab.NS, kind isp.StormKind, to isp.Target) (end func() (float64, error), err error) {
	var storm *isp.Storm
	if err := attacker.Do(func() (err error) { storm, err = isp.OpenStorm("storm0", kind, to); return err }); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	var rate float64
	over := make(chan error, 1)
	go func() {
		sent, took, err := storm.Run(ctx, stormRate)
		rate = float64(sent) / took.Seconds()
		over <- errors.Join(err, storm.Close())
	}()
	return func() (float64, error) { stop(); err := <-over; return rate, err }, nil
}

// renewals waits for Renews and times them.
func (f *forecast) renewals(t *track, p *netlab.Process) error {
	again := func() {
		time.Sleep(100 * time.Millisecond) // the kernel tells of an address twice, and what a Renew got no answer for is asked for again
		forgetArrivals(t.arrivals)
		t.wire.drain()
	}
	again()
	began := time.Now()
	before, err := cpuOf(p.PID())
	if err != nil {
		return err
	}
	for range stormRenews {
		var a arrival
		select {
		case a = <-t.arrivals:
		case <-time.After(3 * renewEvery * time.Second):
			return errors.New("no Renew has reached the kernel")
		}
		messages := t.wire.drain()
		answered, ok := first(messages, reply)
		if !ok {
			return fmt.Errorf("a lifetime has changed without a Reply: %v", messages)
		}
		f.toKernel.addTime(a.at.Round(0).Sub(answered))
		sent := 0
		for _, m := range messages {
			if m.typ == renew {
				sent++
			}
		}
		f.repeated += sent - 1
		again()
	}
	after, err := cpuOf(p.PID())
	f.cpu = 100 * (after - before).Seconds() / time.Since(began).Seconds()
	return err
}
