package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/ctl"
	"uplinkd/internal/engine"
	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/rtnl"
	"uplinkd/internal/netlab"
	"uplinkd/pd/store"
	"uplinkd/policy"
)

// router makes a namespace with the interfaces of the small config, and that config in a file.
func router(t *testing.T) (ns *netlab.NS, config string) {
	t.Helper()
	lab := netlab.New(t)
	ns = lab.NS("router")
	other := lab.NS("others")
	lab.Veth(ns, "wan0", other, "isp0")
	lab.Veth(ns, "lan0", other, "host0")
	// The kernel adds a route to a link-local address when DAD is over: until then nothing can be compared.
	ns.LinkLocal("wan0")
	ns.LinkLocal("lan0")
	config = filepath.Join(lab.Dir(), "uplinkd.toml")
	text := fmt.Sprintf("state_dir = %q\nrun_dir = %q\n%s", filepath.Join(lab.Dir(), "state"), filepath.Join(lab.Dir(), "run"), smallConfig)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return ns, config
}

// TestPlanIsTheKernel pastes the script of `uplinkd plan` into a shell and compares the kernel with what the plan wants.
// Only the mark of addresses is missing, which ip(8) cannot write.
func TestPlanIsTheKernel(t *testing.T) {
	ns, config := router(t)
	plan := verbIn(t.Context(), "plan", "--config", config, "--prefix", "2001:db8:100::/56")
	if plan.status != exitOK {
		t.Fatal(plan.stderr)
	}
	ns.Run("sh", "-e", "-c", plan.stdout)
	cfg, err := loadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	inv := invention{prefixes: prefixList{netip.MustParsePrefix("2001:db8:100::/56")}, uplink: "fiber", gateway: netip.MustParseAddr("fe80::1"),
		valid: 2 * time.Hour, preferred: time.Hour}
	site, _ := inv.site(cfg, time.Now())
	want := policy.Compile(site)
	var scope kernel.Scope
	for _, s := range want.Sysctls {
		scope.Sysctls = append(scope.Sysctls, s.Name)
	}
	have := read(t, ns, scope)
	if diff := kernel.Diff(have, want, time.Now()).Text(); strings.Count(diff, "\n") != 1 || !strings.HasPrefix(diff, "ip address add 2001:db8:100::1/64 dev lan0 ") {
		t.Errorf("after the script, these are still to do:\n%s", diff)
	}
	if out := ns.IP("-6 address show dev lan0"); !strings.Contains(out, "inet6 2001:db8:100::1/64") || !strings.Contains(out, "noprefixroute") {
		t.Errorf("the address is not there:\n%s", out)
	}
}

// TestPlanOfADaemonIsTheKernel does what the manual says for the emergency: plan of a running daemon, clean, and the plan
// as a script brings everything back.
func TestPlanOfADaemonIsTheKernel(t *testing.T) {
	ns, config := router(t)
	snap := settled(t, ns, config)
	snap.Waiting = []kernel.Op{{Verb: kernel.Delete, Row: snap.Wanted.Addresses[0]}} // must not be part of the script
	var script bytes.Buffer
	page{w: &script}.plan(ctl.PlanOf(snap, time.Now()))
	if out, err := ns.Command(t.Context(), "uplinkd", "clean", "--config", config).CombinedOutput(); err != nil {
		t.Fatalf("clean: %v: %s", err, out)
	}
	if out := ns.IP("-6 route show table all proto 200"); out != "" {
		t.Fatalf("clean left: %s", out)
	}
	ns.Run("sh", "-e", "-c", script.String())
	var scope kernel.Scope
	for _, s := range snap.Wanted.Sysctls {
		scope.Sysctls = append(scope.Sysctls, s.Name)
	}
	diff := kernel.Diff(read(t, ns, scope), snap.Wanted, time.Now()).Text()
	if strings.Count(diff, "\n") != 1 || !strings.HasPrefix(diff, "ip address add 2001:db8:100::1/64 dev lan0 ") {
		t.Errorf("after the script, these are still to do:\n%s", diff)
	}
	if out := ns.IP("-6 address show dev lan0"); !strings.Contains(out, "inet6 2001:db8:100::1/64") {
		t.Errorf("the address is not there:\n%s", out)
	}
}

func read(t *testing.T, ns *netlab.NS, scope kernel.Scope) (s kernel.State) {
	t.Helper()
	within(t, ns, func(k *rtnl.Kernel) (err error) { s, err = k.Read(context.Background(), scope); return err })
	return s
}

func within(t *testing.T, ns *netlab.NS, do func(*rtnl.Kernel) error) {
	t.Helper()
	err := ns.Do(func() error {
		k, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer k.Close()
		return do(k)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// settled runs an engine in ns until the small config with a delegation is in the kernel, ends it like a SIGKILL would, and
// returns what it knew last.
func settled(t *testing.T, ns *netlab.NS, config string) *engine.Snapshot {
	t.Helper()
	cfg, err := loadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	state, err := store.Open(cfg.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	started, done := make(chan *engine.Engine, 1), make(chan error, 1)
	// Run stays on the thread that is in ns: sysctls are those of the thread that writes them.
	go func() {
		done <- ns.Do(func() error {
			k, err := rtnl.Open()
			if err != nil {
				return err
			}
			defer k.Close()
			e := engine.New(engine.Options{Config: cfg, Kernel: k, Store: state, Log: slog.New(slog.DiscardHandler), BootID: "test", Damaged: store.ErrCorrupt})
			started <- e
			return e.Run(ctx)
		})
	}()
	var e *engine.Engine
	select {
	case e = <-started:
	case err := <-done:
		t.Fatal(err)
	}
	g := scenes()["forever"].facts["fiber"].Delegations[0]
	e.Client("fiber", boundClient(g), true)
	e.Heard("fiber", policy.Heard{Routers: []policy.Router{{Address: netip.MustParseAddr("fe80::1"), Until: g.ValidUntil}}})
	ok := soon(func() bool {
		s := e.Snapshot()
		return s.Ready && len(s.Wanted.Addresses) == 1 && s.Site.Uplinks[0].Up
	})
	cancel()
	if err := <-done; err != nil || !ok {
		t.Fatalf("the engine has not settled: %v; problems: %v", err, e.Snapshot().Problems)
	}
	return e.Snapshot()
}

// soon waits until check is true; after ten seconds it gives up.
func soon(check func() bool) bool {
	for range 2000 {
		if check() {
			return true
		}
		time.Sleep(5 * time.Millisecond)
	}
	return false
}

// TestClean sees that clean takes away what an engine has set up, and nothing else.
func TestClean(t *testing.T) {
	ns, config := router(t)
	ns.Sysctl("net.ipv6.conf.wan0.accept_ra", "1")
	ns.IP("-6 address add 2001:db8:9::9/64 dev lan0 nodad")
	ns.IP("-6 route add 2001:db8:8::/48 dev lan0 proto static")
	ns.IP("-6 rule add pref 10001 from 2001:db8:8::/48 lookup 1001 protocol 4")
	sysctls := func() string {
		return ns.Run("sysctl", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.wan0.accept_ra", "net.ipv6.conf.wan0.accept_ra_defrtr")
	}
	show := func() string {
		return ns.IP("-6 address show dev lan0 scope global") + ns.IP("-6 route show table all") + ns.IP("-6 rule") + sysctls()
	}
	netlab.Eventually(t, 10*time.Second, "the address of somebody else in use", func() (bool, string) {
		routes := ns.IP("-6 route show table local") // it appears there a moment after the link is up
		return strings.Contains(routes, "local 2001:db8:9::9 "), routes
	})
	before := show()
	settled(t, ns, config)
	if show() == before {
		t.Fatal("the engine has changed nothing, so this test shows nothing")
	}

	clean := func(args ...string) outcome {
		cmd := ns.Command(t.Context(), "uplinkd", append([]string{"clean", "--config", config}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return outcome{exitFailed, string(out), err.Error()}
		}
		return outcome{exitOK, string(out), ""}
	}
	during := show()
	dry := clean("--dry-run")
	if dry.status != exitOK || !strings.Contains(dry.stdout, "ip address del 2001:db8:100::1/64 dev lan0\n") || show() != during {
		t.Errorf("dry run: %+v\nand the kernel:\n%s", dry, show())
	}
	wet := clean()
	if wet != dry {
		t.Errorf("clean did something else than the dry run said:\n%+v\n%+v", wet, dry)
	}
	if after := show(); after != before {
		t.Errorf("before:\n%s\nafter clean:\n%s", before, after)
	}
	if again := clean(); again.status != exitOK || again.stdout != "nothing to remove\n" {
		t.Errorf("clean again: %+v", again)
	}
	ns.Sysctl("net.ipv6.conf.wan0.accept_ra", "0")
	if clean(); !strings.Contains(sysctls(), "wan0.accept_ra = 0") {
		t.Errorf("clean went on restoring what somebody has changed since: %s", sysctls())
	}
}

func TestCleanRefusesBesideADaemon(t *testing.T) {
	ns, config := router(t)
	snapshot := scenes()["ok"].snapshot(t)
	socket, _ := still{snapshot: snapshot}.listen(t, func(string) {})
	out, err := ns.Command(t.Context(), "uplinkd", "clean", "--config", config, "--socket", socket).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "answers on "+socket+" and would put everything back; stop it first") {
		t.Errorf("%v: %s", err, out)
	}
	// A daemon whose socket is elsewhere still holds the state directory.
	cfg, err := loadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	state, err := store.Open(cfg.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	out, err = ns.Command(t.Context(), "uplinkd", "clean", "--config", config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), store.ErrLocked.Error()) {
		t.Errorf("%v: %s", err, out)
	}
}
