package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"uplinkd/internal/ctl"
	"uplinkd/internal/isp"
	"uplinkd/internal/netlab"
)

const (
	settling  = 5 * time.Second  // after the last address, until memory and processor are looked at
	idleWatch = 25 * time.Second // how long the idle processor is watched
)

// manyUplinks measures one daemon with more and more uplinks, each a veth pair to a provider with Rapid Commit, and one
// LAN that has a subnet of each delegation.
func manyUplinks(ctx context.Context, w io.Writer, o options) error {
	rows := [][]string{{"uplinks", "all bound s", "CPU until then s", "writes", "rows", "idle RSS MiB", "per uplink kB", "idle CPU %", "steps/min", "writes while idle"}}
	var one crowd
	for _, n := range []int{1, 16, 256} {
		c, err := measureCrowd(ctx, o.uplinkd, n)
		if err != nil {
			return fmt.Errorf("%d uplinks: %w", n, err)
		}
		per := "-"
		if n == 1 {
			one = c
		} else {
			per = fmt.Sprintf("%.0f", (c.memory.rss-one.memory.rss)/float64(n-1))
		}
		rows = append(rows, []string{strconv.Itoa(n), seconds(c.bound), seconds(c.boundCPU), strconv.FormatUint(c.writes, 10), strconv.Itoa(c.rows),
			fmt.Sprintf("%.1f", c.memory.rss/1024), per, fmt.Sprintf("%.2f", 100*c.idleCPU.Seconds()/idleWatch.Seconds()),
			fmt.Sprintf("%.0f", float64(c.idleSteps)*60/idleWatch.Seconds()), strconv.FormatUint(c.idleWrites, 10)})
	}
	title(w, "Many uplinks in one process: Rapid Commit, no random delay, RAs every %s on each (memory after %s, idle CPU over %s)", crowdRA, settling, idleWatch)
	table(w, rows...)
	return crowdsOfDhcpcd(ctx, w)
}

// crowd is what was seen of one daemon.
type crowd struct {
	bound, boundCPU time.Duration // from the start of the process to the last address on the LAN
	writes          uint64
	rows            int
	memory          memory
	idleCPU         time.Duration
	idleSteps       uint64
	idleWrites      uint64
}

// crowdRA is how often each provider advertises itself. Real routers do so every 200 to 600 s (RFC 4861 §6.2.1); this is
// some ten times as often.
const crowdRA = 30 * time.Second

func measureCrowd(ctx context.Context, uplinkd string, n int) (c crowd, err error) {
	lab, err := netlab.Open()
	if err != nil {
		return c, err
	}
	defer lab.Close()
	router, providers, err := connectCrowd(ctx, lab, n, isp.Config{RA: isp.RA{Interval: crowdRA}})
	if err != nil {
		return c, err
	}
	var running errgroup.Group
	ctx, stop := context.WithCancel(ctx)
	for _, p := range providers {
		running.Go(func() error { return p.Run(ctx) })
	}
	defer func() { stop(); err = errors.Join(err, running.Wait()) }()
	var arrivals <-chan arrival
	if err := router.Do(func() (err error) { arrivals, err = watchAddresses("lan0"); return err }); err != nil {
		return c, err
	}
	config, err := crowdConfig(lab.Dir(), n)
	if err != nil {
		return c, err
	}
	began := time.Now()
	p := router.Start(router.Command(ctx, uplinkd, "run", "--config", config))
	if err := lab.Err(); err != nil {
		return c, err
	}
	last, err := awaitCrowd(ctx, arrivals, n, p)
	if err != nil {
		return c, err
	}
	c.bound = last.Sub(began)
	if c.boundCPU, err = cpuOf(p.PID()); err != nil {
		return c, err
	}
	time.Sleep(settling)
	return c, c.rest(ctx, router, p, filepath.Join(lab.Dir(), "run", ctl.SocketName), n)
}

// rest looks at a daemon that has nothing to do.
func (c *crowd) rest(ctx context.Context, router *netlab.NS, p *netlab.Process, socket string, n int) (err error) {
	if c.memory, err = memoryOf(router); err != nil { // before the first status, which is work too
		return err
	}
	before, err := crowdStatus(ctx, socket)
	if err != nil {
		return err
	}
	if len(before.Uplinks) != n || before.Health != ctl.OK {
		return fmt.Errorf("%d uplinks in status, which says: %s", len(before.Uplinks), before.Summary)
	}
	c.rows, c.writes = before.Rows, before.Counters.KernelWrites
	time.Sleep(time.Second) // the status has been paid for
	cpu, err := cpuOf(p.PID())
	if err != nil {
		return err
	}
	time.Sleep(idleWatch)
	after, err := cpuOf(p.PID())
	if err != nil {
		return err
	}
	now, err := crowdStatus(ctx, socket)
	c.idleCPU, c.idleSteps, c.idleWrites = after-cpu, now.Counters.Reconciles-before.Counters.Reconciles, now.Counters.KernelWrites-before.Counters.KernelWrites
	return err
}

// crowdStatus asks without a process in the daemon's namespace, whose memory would be counted.
func crowdStatus(ctx context.Context, socket string) (ctl.Status, error) {
	return ctl.Dial(socket).Status(ctx)
}

// connectCrowd makes n uplinks, w1 … wn, with an open provider like cfg at the other end of each, and lan0.
func connectCrowd(ctx context.Context, lab *netlab.Lab, n int, cfg isp.Config) (router *netlab.NS, providers []*isp.Provider, err error) {
	isps, router := lab.NS("isp"), lab.NS("router")
	for _, ns := range []*netlab.NS{isps, router} {
		ns.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	}
	lab.Veth(router, "lan0", router, "lan0-end")
	for i := range n {
		lab.Veth(isps, fmt.Sprintf("p%d", i+1), router, fmt.Sprintf("w%d", i+1))
	}
	if err := lab.Err(); err != nil {
		return nil, nil, err
	}
	for i := range n {
		cfg.Interface, cfg.Pool, cfg.RapidCommit = fmt.Sprintf("p%d", i+1), crowdPool(i), true
		p, err := isp.New(cfg)
		if err != nil {
			return nil, nil, err
		}
		if err := isps.Do(func() error { return p.Open(ctx) }); err != nil {
			return nil, nil, err
		}
		providers = append(providers, p)
	}
	return router, providers, nil
}

// crowdPool is what the provider of uplink i delegates from.
func crowdPool(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x10 | byte(i>>8), byte(i)}), 48)
}

func crowdConfig(dir string, n int) (path string, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "state_dir = %q\nrun_dir = %q\n", filepath.Join(dir, "state"), filepath.Join(dir, "run"))
	for i := range n {
		fmt.Fprintf(&b, "[uplink.u%d]\ninterface = \"w%d\"\ndhcpv6.delay = false\n", i+1, i+1)
	}
	b.WriteString("[downstream.lan]\ninterface = \"lan0\"\n")
	path = filepath.Join(dir, "uplinkd.toml")
	return path, os.WriteFile(path, []byte(b.String()), 0o644)
}

// awaitCrowd returns when the n-th subnet had its address on the LAN.
func awaitCrowd(ctx context.Context, arrivals <-chan arrival, n int, p *netlab.Process) (last time.Time, err error) {
	const patience = 3 * time.Minute
	seen := map[netip.Addr]bool{}
	for limit := time.After(patience); len(seen) < n; {
		select {
		case a := <-arrivals:
			seen[a.addr], last = true, a.at
		case <-p.Done():
			return last, fmt.Errorf("uplinkd ended: %v\n%s", p.Err(), p.Output())
		case <-ctx.Done():
			return last, ctx.Err()
		case <-limit:
			return last, fmt.Errorf("%d addresses on lan0 after %s\n%s", len(seen), patience, p.Output())
		}
	}
	return last, nil
}

// cpuOf is the processor time that a process has had, user and system.
func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name in brackets may hold anything
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	var ticks int64
	for _, f := range fields[11:13] { // utime, stime: numbers 14 and 15 of proc(5)
		v, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		ticks += v
	}
	return time.Duration(ticks) * (time.Second / userHZ), nil
}

// userHZ is the unit of times in /proc on every Linux architecture that Go knows.
const userHZ = 100

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }
