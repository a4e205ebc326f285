package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/rtnl"
	"uplinkd/internal/netlab"
)

// The demonstration: a provider (simulated, see package isp), a router with the real daemon and a real config file, a LAN
// host and a server on the far side of the provider, each in a network namespace of its own.
const (
	demoPool    = "2001:db8:1100::/40" // the provider delegates /56 prefixes from here
	demoNewPool = "2001:db8:1200::/40" // and from here after it has renumbered
	demoServer  = "2001:db8:ffff::1"
	demoLimit   = 15 * time.Second // for any one step
	demoConfig  = `# The smallest config: an uplink and a downstream.
[uplink.fiber]
interface = "wan0"

[downstream.lan]
interface = "lan0"
`
)

// runDemo shows uplinkd at work. It returns an error if any step was not seen to work.
func runDemo(ctx context.Context, out io.Writer, colour bool) error {
	entered, err := netlab.Prepare()
	if err != nil {
		return err
	}
	if !entered {
		status, err := netlab.Enter(ctx, os.Args[1:]...)
		if err == nil && status != 0 {
			err = errShown
		}
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	d := demo{ctx: ctx, show: screen{out, colour}, began: time.Now()}
	if d.lab, err = netlab.Open(); err != nil {
		return err
	}
	defer d.lab.Close()
	defer d.close()
	for _, step := range d.steps() {
		start := time.Now()
		text, err := step.do()
		if err != nil {
			d.show.failed(step.title, err)
			d.trouble()
			return errShown
		}
		if errors.Is(d.lab.Err(), nil) {
			d.show.done(step.title, time.Since(start), text)
		} else {
			d.show.failed(step.title, d.lab.Err())
			return errShown
		}
	}
	d.show.status(d.status())
	d.show.end(time.Since(d.began))
	return nil
}

// errShown is a failure that the user has been told of already.
var errShown = errors.New("")

type demo struct {
	ctx   context.Context
	show  screen
	began time.Time

	lab                    *netlab.Lab
	far, isp, router, host *netlab.NS
	provider               *isp.Provider
	daemon                 *netlab.Process
	dir                    string
	kernels                map[*netlab.NS]*rtnl.Kernel
	started                time.Time
	first                  netip.Addr // of the host
	cancelProvider         context.CancelFunc
}

type demoStep struct {
	title string
	do    func() (string, error)
}

func (d *demo) steps() []demoStep {
	return []demoStep{
		{"four namespaces: server - provider - router - host", d.build},
		{"the provider offers prefixes from " + demoPool, d.startProvider},
		{"uplinkd starts on the router", d.startDaemon},
		{"a prefix arrives", d.prefixArrives},
		{"the router numbers lan0", d.lanNumbered},
		{"the host makes itself an address (SLAAC)", d.hostNumbered},
		{"the host reaches a server behind the provider", d.hostReaches},
		{"an unused part of the prefix answers 'unreachable', no loop", d.unusedUnreachable},
		{"uplinkd is killed (SIGKILL) and restarted: traffic flows on", d.killed},
		{"the provider renumbers: another prefix, the old one withdrawn", d.renumbered},
		{"the host uses the new prefix, the old one is deprecated", d.hostRenumbered},
		{"the host reaches the server from its new address", d.hostReaches},
	}
}

func (d *demo) build() (string, error) {
	d.far, d.isp, d.router, d.host = d.lab.NS("far"), d.lab.NS("isp"), d.lab.NS("router"), d.lab.NS("host")
	d.kernels = map[*netlab.NS]*rtnl.Kernel{}
	d.isp.Sysctl("net.ipv6.conf.all.forwarding", "1")
	d.lab.Veth(d.far, "eth0", d.isp, "core0")
	d.lab.Veth(d.isp, "up0", d.router, "wan0")
	d.lab.Veth(d.router, "lan0", d.host, "eth0")
	d.far.IP("-6 address add %s/64 dev eth0 nodad", demoServer)
	d.isp.IP("-6 address add 2001:db8:ffff::2/64 dev core0 nodad")
	d.far.IP("-6 route add default via 2001:db8:ffff::2")
	return "", d.lab.Err()
}

func (d *demo) startProvider() (string, error) {
	var err error
	d.provider, err = isp.New(isp.Config{
		Interface: "up0", Pool: netip.MustParsePrefix(demoPool), Length: 56, Preferred: 20, Valid: 30, T1: 5, T2: 10,
		DNS: []netip.Addr{netip.MustParseAddr("2001:db8:ffff::53")}, RapidCommit: true, RA: isp.RA{Interval: 4 * time.Second},
		Route: func(prefix netip.Prefix, via netip.Addr, add bool) error {
			verb := map[bool]string{true: "replace", false: "del"}[add]
			d.isp.IP("-6 route %s %s via %s dev up0", verb, prefix, via)
			return d.lab.Err()
		},
	})
	if err != nil {
		return "", err
	}
	if err := d.isp.Do(func() error { return d.provider.Open(d.ctx) }); err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(d.ctx)
	d.cancelProvider = cancel
	go func() { _ = d.provider.Run(ctx) }()
	return "lifetimes 20/30 s, so that a whole life fits into this demo", nil
}

func (d *demo) startDaemon() (string, error) {
	d.dir = d.lab.Dir()
	text := fmt.Sprintf("state_dir = %q\nrun_dir = %q\n\n%s", filepath.Join(d.dir, "state"), filepath.Join(d.dir, "run"), demoConfig)
	if err := os.WriteFile(filepath.Join(d.dir, "uplinkd.toml"), []byte(text), 0o644); err != nil {
		return "", err
	}
	d.show.quote(demoConfig)
	d.router.LinkLocal("wan0") // so that the times below are uplinkd's and not those of duplicate address detection
	return "", d.spawn()
}

func (d *demo) spawn() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	d.started = time.Now()
	d.daemon = d.router.Start(d.router.Command(d.ctx, self, "run", "--config", filepath.Join(d.dir, "uplinkd.toml")))
	return d.lab.Err()
}

func (d *demo) prefixArrives() (string, error) {
	p, err := d.delegated(demoPool)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %s after the start of uplinkd (RFC 9915 asks to wait 0-1 s before the first Solicit)", p, short(time.Since(d.started))), nil
}

// delegated waits until the daemon shows a preferred delegation in pool.
func (d *demo) delegated(pool string) (netip.Prefix, error) {
	want := netip.MustParsePrefix(pool)
	var found netip.Prefix
	err := d.until("uplinkd shows no prefix from "+pool, func() bool {
		s, err := d.client().Status(d.ctx)
		if err != nil {
			return false
		}
		for _, u := range s.Uplinks {
			for _, g := range u.Delegations {
				if want.Contains(g.Prefix.Addr()) {
					found = g.Prefix
				}
			}
		}
		return found.IsValid()
	})
	return found, err
}

func (d *demo) lanNumbered() (string, error) {
	a, err := d.address(d.router, "lan0", demoPool)
	return a.String(), err
}

func (d *demo) hostNumbered() (string, error) {
	a, err := d.address(d.host, "eth0", demoPool)
	d.first = a.Addr()
	return a.String() + ", after duplicate address detection by the host's kernel", err
}

func (d *demo) hostReaches() (string, error) {
	var out string
	err := d.until("no answer from "+demoServer, func() bool {
		out = d.output(d.host, "ping", "-6", "-n", "-c", "1", "-W", "1", demoServer)
		return strings.Contains(out, "1 received")
	})
	return firstWith(out, "time="), err
}

func (d *demo) unusedUnreachable() (string, error) {
	p, err := d.delegated(demoPool)
	if err != nil {
		return "", err
	}
	unused := p.Addr().As16()
	unused[7], unused[15] = 0x77, 1
	var out string
	err = d.until("no 'unreachable' for "+netip.AddrFrom16(unused).String(), func() bool {
		out = d.output(d.far, "ping", "-6", "-n", "-c", "1", "-W", "1", netip.AddrFrom16(unused).String())
		return strings.Contains(out, "unreachable")
	})
	return firstWith(out, "unreachable"), err
}

// close ends what the lab does not know of.
func (d *demo) close() {
	if d.cancelProvider != nil {
		d.cancelProvider()
	}
	for _, k := range d.kernels {
		k.Close()
	}
}

// address waits for a global address in pool on dev that has passed duplicate address detection.
func (d *demo) address(ns *netlab.NS, dev, pool string) (netip.Prefix, error) {
	var found netip.Prefix
	err := d.until(fmt.Sprintf("no address from %s on %s of the %s", pool, dev, ns.Name), func() bool {
		l, err := d.link(ns, dev)
		if err != nil {
			return false
		}
		for _, g := range l.Globals {
			if netip.MustParsePrefix(pool).Contains(g.Addr()) {
				found = g
			}
		}
		return found.IsValid()
	})
	return found, err
}

func (d *demo) link(ns *netlab.NS, dev string) (kernel.Link, error) {
	if d.kernels[ns] == nil {
		var k *rtnl.Kernel
		if err := ns.Do(func() (err error) { k, err = rtnl.Open(); return err }); err != nil {
			return kernel.Link{}, err
		}
		d.kernels[ns] = k
	}
	links, err := d.kernels[ns].Links(d.ctx)
	for _, l := range links {
		if l.Name == dev {
			return l, nil
		}
	}
	return kernel.Link{}, err
}

// until polls check; after demoLimit it gives up with what.
func (d *demo) until(what string, check func() bool) error {
	for end := time.Now().Add(demoLimit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if check() {
			return nil
		}
		select {
		case <-d.ctx.Done():
			return d.ctx.Err()
		case <-d.daemonDone():
			return fmt.Errorf("uplinkd ended: %v", d.daemon.Err())
		default:
		}
	}
	return fmt.Errorf("%s within %s", what, demoLimit)
}

func (d *demo) daemonDone() <-chan struct{} {
	if d.daemon == nil {
		return nil
	}
	return d.daemon.Done()
}

// output runs a program in ns and returns what it printed, whether or not it succeeded.
func (d *demo) output(ns *netlab.NS, name string, args ...string) string {
	out, _ := ns.Command(d.ctx, name, args...).CombinedOutput()
	return string(out)
}

// trouble prints what helps to find out why a step failed.
func (d *demo) trouble() {
	if d.daemon != nil {
		d.show.quote("what uplinkd printed:\n" + d.daemon.Output())
	}
}

func firstWith(text, word string) string {
	for line := range strings.SplitSeq(text, "\n") {
		if strings.Contains(line, word) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func short(t time.Duration) string {
	if t < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(t.Microseconds())/1000)
	}
	if t < time.Second {
		return fmt.Sprintf("%d ms", t.Milliseconds())
	}
	return fmt.Sprintf("%.2f s", t.Seconds())
}
