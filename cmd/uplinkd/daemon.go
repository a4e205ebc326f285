package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"uplinkd/hooks"
	"uplinkd/internal/config"
	"uplinkd/internal/ctl"
	"uplinkd/internal/engine"
	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/rtnl"
	"uplinkd/pd"
	"uplinkd/pd/store"
	"uplinkd/policy"
)

// daemon is `uplinkd run`: everything wired together.
type daemon struct {
	file   string                         // of the config
	load   func() (*config.Config, error) // reads the config again
	log    *slog.Logger
	system *supervisor
	hangup <-chan os.Signal // SIGHUP: read the config again

	reloading sync.Mutex // one reload at a time
	cfg       *config.Config
	loaded    time.Time              // cfg
	rejected  atomic.Pointer[string] // what is wrong with a newer config; nil: nothing
	state     *store.Dir
	engine    *engine.Engine
	tasks     *tasks
	hooks     *hooks.Runner
	submit    func([]hooks.Item) // to hooks
}

// run is the life of the daemon. It returns nil after a stop that was asked for.
func (d *daemon) run(ctx context.Context) error {
	cfg, err := d.load()
	if err != nil {
		return err
	}
	d.cfg, d.loaded = cfg, time.Now()
	if err := privileged(); err != nil {
		return err
	}
	state, err := store.Open(cfg.StateDir)
	if err != nil {
		return err
	}
	defer state.Close()
	d.state = state
	if err := state.CheckMode(); err != nil {
		d.log.Warn("stored state can be forged", "err", err)
	}
	release, warning, err := takeNamespace()
	if err != nil {
		return err
	}
	if warning != "" {
		d.log.Warn(warning)
	}
	defer release()
	kern, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer kern.Close()
	duid, err := state.DUID(func() pd.DUID { return newDUID(cfg) })
	if duid == "" {
		return err
	}
	if err != nil {
		d.log.Error("the DHCP identity is a new one; providers may delegate other prefixes", "err", err)
	}
	own, err := ownOf(state, cfg, d.log)
	if err != nil {
		return err
	}
	socket, err := ctl.Listen(filepath.Join(cfg.RunDir, "control.sock"))
	if err != nil {
		return err
	}
	d.hooks = hooks.New(cfg.Hooks, d.log)
	d.submit = d.hooks.Submit
	options := d.options(kern, state)
	options.ULA, options.Secret = own.ula, own.secret
	d.engine = engine.New(options)
	d.log.Info("uplinkd starts", "version", options.Version, "config", d.file, "uplinks", uplinkNames(cfg), "stored_leases", len(options.Leases))
	return d.work(ctx, kern, duid, socket)
}

// work runs everything until ctx ends or the engine fails. It stops the tasks before the engine, which carries out what they say
// last.
func (d *daemon) work(ctx context.Context, kern *rtnl.Kernel, duid pd.DUID, socket net.Listener) error {
	taskCtx, stopTasks := context.WithCancel(context.Background())
	defer stopTasks()
	d.tasks = newTasks(taskCtx, d.log, d.state, duid, d.engine)
	server := ctl.Server{Source: d.engine, Log: d.log, Version: versionText(), Actions: ctl.Actions{Renew: d.renew, Release: d.release,
		Reload: d.reload, Trace: d.tasks.ring, Hooks: d.hookStatus, Problems: d.findings}}
	d.reloading.Lock() // the first config is followed before a second one
	engineCtx, stopEngine := context.WithCancel(context.Background())
	defer stopEngine()
	var group errgroup.Group
	group.Go(func() error { defer stopTasks(); return d.engine.Run(engineCtx) })
	group.Go(func() error { return kern.Watch(engineCtx, d.engine.Hint) })
	group.Go(func() error { return d.hooks.Run(engineCtx) })
	group.Go(func() error { return server.Serve(engineCtx, socket) })
	group.Go(func() error { d.signals(engineCtx); return nil })
	group.Go(func() error { defer d.reloading.Unlock(); d.tasks.follow(d.cfg); return nil }) // for long, on a slow disk

	select {
	case <-ctx.Done():
	case <-taskCtx.Done(): // the engine ended by itself: its error tells why
	}
	d.system.stopping()
	d.tasks.release(stopPatience)
	d.settle() // hosts hear that a released prefix is gone while there is somebody to tell them
	d.tasks.stop()
	d.settle()
	stopEngine()
	d.log.Info("uplinkd stops; the kernel is left as it is, traffic flows on (uplinkd clean removes everything)")
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// stopPatience bounds each step of a stop that waits for somebody.
const stopPatience = 5 * time.Second

// settle lets the last word of the tasks reach the kernel: a prefix that was given back may be somebody else's soon.
func (d *daemon) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	if err := d.engine.Settle(ctx); err != nil {
		d.log.Warn("stopping", "err", err)
	}
}

func (d *daemon) options(kern *rtnl.Kernel, state *store.Dir) engine.Options {
	leases := map[string]pd.Lease{}
	var lost []string
	for _, u := range d.cfg.Uplinks {
		l, err := state.Lease(u.Name)
		if err != nil {
			d.log.Error("stored lease is of no use; soliciting afresh", "uplink", u.Name, "err", err)
			lost = append(lost, u.Name)
		}
		if l = l.At(time.Now()); l.Held() {
			leases[u.Name] = l
		}
	}
	return engine.Options{Config: d.cfg, Kernel: kern, Store: state, Log: d.log, BootID: bootID(), Leases: leases, Lost: lost, Version: versionText(),
		Damaged: store.ErrCorrupt, Repaired: state.Repaired, NoOwnerMark: !kern.Caps().IFAProto, Tick: d.system.tick(),
		Links:    func(ls []kernel.Link) { d.tasks.setLinks(ls) },
		Announce: func(name string, a policy.Announcement) { d.tasks.announce(name, a) },
		Serve:    func(site policy.Site) { d.tasks.serve(site) }, Filtered: kern.Filtered,
		Events: d.tellHooks, Ready: d.system.ready, Alive: d.system.alive, Status: d.system.status}
}

func uplinkNames(cfg *config.Config) string {
	names := make([]string, len(cfg.Uplinks))
	for i, u := range cfg.Uplinks {
		names[i] = u.Name
	}
	return strings.Join(names, ",")
}

// bootID tells one boot from the next: kernel rows do not outlive it. In a container it is the network namespace that
// is made anew.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	ns, _ := os.Readlink("/proc/self/ns/net")
	return strings.TrimSpace(string(id)) + " " + ns
}

func (d *daemon) tellHooks(items []engine.Item, site policy.Site) {
	d.submit(hookItems(items, site))
}

// hookItems are events as hooks are told of them.
func hookItems(items []engine.Item, site policy.Site) []hooks.Item {
	doc := ctl.SiteOf(site, site.Now)
	out := make([]hooks.Item, len(items))
	for i, it := range items {
		out[i] = hooks.Item{Seq: it.Seq, At: it.Time, Event: it.Event, Site: doc}
	}
	return out
}

func (d *daemon) hookStatus() (out []ctl.HookStatus) {
	for _, h := range d.hooks.Status() {
		s := ctl.HookStatus{Name: h.Name, OK: h.LastError == "", Runs: h.Calls, Failures: h.Failures, Waiting: h.Queued, Error: h.LastError,
			LastText: h.LastLine}
		if !h.LastStart.IsZero() {
			s.LastRun = new(h.LastStart.Add(h.LastTime))
		}
		if !h.NextRetry.IsZero() {
			s.NextTry = &h.NextRetry
		}
		out = append(out, s)
	}
	return out
}

// signals reloads on SIGHUP until ctx ends.
func (d *daemon) signals(ctx context.Context) {
	for {
		select {
		case <-d.hangup:
			_ = d.reload(ctx) // it has logged why not
		case <-ctx.Done():
			return
		}
	}
}

// reload reads the config and brings everything to it. With a bad config nothing changes.
func (d *daemon) reload(ctx context.Context) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	d.system.reloading()
	defer d.system.ready()
	cfg, err := d.load()
	if err == nil && (cfg.StateDir != d.cfg.StateDir || cfg.RunDir != d.cfg.RunDir) {
		err = errors.New("state_dir and run_dir cannot change while uplinkd runs: restart it")
	}
	if err != nil {
		d.reject(err)
		return err
	}
	d.cfg, d.loaded = cfg, time.Now()
	d.rejected.Store(nil)
	d.hooks.Reload(cfg.Hooks)
	d.tasks.silence(cfg)
	// Once begun it is carried out, although the client that has asked for it may go away: engine and tasks follow one config.
	err = d.engine.Reload(context.WithoutCancel(ctx), cfg)
	d.tasks.follow(cfg)
	if err != nil {
		d.log.Error("config loaded, but not everything follows it yet", "err", err)
		return err
	}
	d.log.Info("config reloaded", "uplinks", len(cfg.Uplinks), "downstreams", len(cfg.Downstreams))
	return nil
}

func (d *daemon) renew(uplink string) error {
	found := d.tasks.clients(uplink)
	for _, c := range found {
		c.Renew()
	}
	return d.unknown(uplink, len(found))
}

func (d *daemon) release(ctx context.Context, uplink string) error {
	found := d.tasks.clients(uplink)
	return errors.Join(releaseAll(ctx, found), d.unknown(uplink, len(found)))
}

// unknown is the error for an uplink that does not exist.
func (d *daemon) unknown(uplink string, found int) error {
	if found > 0 {
		return nil
	}
	var names []string
	for _, u := range d.engine.Snapshot().Site.Uplinks {
		names = append(names, u.Name)
	}
	slices.Sort(names)
	return fmt.Errorf("no uplink %q; there is: %s", uplink, strings.Join(names, ", "))
}
