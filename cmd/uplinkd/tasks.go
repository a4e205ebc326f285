package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"uplinkd/internal/config"
	"uplinkd/internal/engine"
	"uplinkd/internal/kernel"
	"uplinkd/internal/radv"
	"uplinkd/pd"
	"uplinkd/pd/client"
	"uplinkd/pd/store"
	"uplinkd/pd/trace"
	"uplinkd/policy"
)

// tasks are the goroutines that follow the config: per uplink a DHCPv6 client and an RA listener, per access downstream an RA
// sender, per interface of downstreams a DHCPv6 server. A reload stops and starts only those whose section changed.
type tasks struct {
	ctx    context.Context
	log    *slog.Logger
	store  *store.Dir
	duid   pd.DUID
	engine *engine.Engine
	save   func(uplink string, id store.Identity) error

	following sync.Mutex // held by who starts and stops tasks; it may wait for the disk and for tasks

	mu          sync.Mutex // held for a moment only: the engine waits for it
	uplinks     map[string]*uplinkTask
	downstreams map[string]*downstreamTask
	servers     map[string]*serverTask // by interface
	inherits    map[string]bool        // interfaces whose server is to go on under another downstream's name
	config      *config.Config         // that the servers follow
	site        policy.Site            // likewise
	links       map[string]kernel.Link
	said        map[string]policy.Announcement // by downstream
	traces      map[string]*trace.Ring         // by uplink
	ended       map[string]*client.Client      // by uplink: the last one, when there is none now
	stopped     bool                           // nothing is started any more
}

type downstreamTask struct {
	config config.Downstream
	sender *radv.Sender
	running
}

func newTasks(ctx context.Context, log *slog.Logger, state *store.Dir, duid pd.DUID, e *engine.Engine) *tasks {
	return &tasks{ctx: ctx, log: log, store: state, duid: duid, engine: e, save: state.SaveIdentity, uplinks: map[string]*uplinkTask{},
		downstreams: map[string]*downstreamTask{}, servers: map[string]*serverTask{}, inherits: map[string]bool{}, config: &config.Config{}, links: map[string]kernel.Link{},
		said: map[string]policy.Announcement{}, traces: map[string]*trace.Ring{}, ended: map[string]*client.Client{}}
}

// running is a set of goroutines that end together.
type running struct {
	cancel context.CancelFunc
	wg     *sync.WaitGroup
}

// stopAll ends tasks and waits for them. All are told first: closing one socket can take the kernel tens of milliseconds.
func stopAll(tasks []running) {
	for _, r := range tasks {
		r.cancel()
	}
	for _, r := range tasks {
		r.wg.Wait()
	}
}

// run starts the tasks that serve what, a section of the config.
func (t *tasks) run(what string, fs ...func(context.Context) error) running {
	ctx, cancel := context.WithCancel(t.ctx)
	r := running{cancel, new(sync.WaitGroup)}
	for _, f := range fs {
		r.wg.Go(func() {
			if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.log.Error("task ended", "of", what, "err", err)
			}
		})
	}
	return r
}

// follow makes the running tasks those of cfg.
func (t *tasks) follow(cfg *config.Config) {
	t.following.Lock()
	defer t.following.Unlock()
	stopAll(t.obsolete(cfg)) // without t.mu: a task may be waiting for the engine, and the engine for setLinks
	t.followDownstreams(cfg, t.keysFor(cfg))
	hardware := t.hardware()
	for _, u := range cfg.Uplinks {
		if t.lacks(u.Name) {
			t.startUplink(u, t.origin(u, hardware))
		}
	}
}

func (t *tasks) followDownstreams(cfg *config.Config, keys map[string]keys) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	for _, d := range cfg.Downstreams {
		if policy.Announces(cfg, d) && t.downstreams[d.Name] == nil {
			t.downstreams[d.Name] = t.startDownstream(d)
		}
	}
	t.startServers(keys)
}

// obsolete takes out the tasks that cfg does not have in this form and returns them, to be stopped.
func (t *tasks) obsolete(cfg *config.Config) (stops []running) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, task := range t.uplinks {
		kept := false
		for _, u := range cfg.Uplinks {
			kept = kept || u.Name == name && u.Interface == task.config.Interface && reflect.DeepEqual(u.DHCPv6, task.config.DHCPv6)
		}
		if !kept {
			delete(t.uplinks, name)
			t.ended[name] = task.client
			stops = append(stops, task.running)
		}
	}
	return append(append(stops, t.silenced(cfg)...), t.followServers(cfg)...)
}

// silence has hosts told that announcements which cfg does not have any more are over, and inner routers that what they have
// borrowed is. It comes before the engine follows cfg: a sender that is to announce something else, or nothing, could not say what
// has ended.
func (t *tasks) silence(cfg *config.Config) {
	t.following.Lock()
	defer t.following.Unlock()
	t.mu.Lock()
	stops := t.silenced(cfg)
	t.dismissServers(cfg)
	maps.DeleteFunc(t.said, func(name string, _ policy.Announcement) bool { return t.downstreams[name] == nil }) // it was for another interface
	t.mu.Unlock()
	stopAll(stops)
}

// silenced takes out the senders that cfg does not have in this form and returns them, to be stopped. The caller holds t.mu.
func (t *tasks) silenced(cfg *config.Config) (stops []running) {
	for name, task := range t.downstreams {
		kept := slices.ContainsFunc(cfg.Downstreams, func(d config.Downstream) bool {
			return d.Name == name && d.Interface == task.config.Interface && policy.Announces(cfg, d)
		})
		if !kept {
			delete(t.downstreams, name)
			task.sender.Final() // nobody announces here any more, or under another name
			stops = append(stops, task.running)
		}
	}
	return stops
}

func (t *tasks) startDownstream(d config.Downstream) *downstreamTask {
	task := &downstreamTask{config: d, sender: radv.NewSender(d.Name, t.log)}
	task.sender.SetLink(t.link(d.Interface))
	if a, ok := t.said[d.Name]; ok {
		task.sender.Set(a)
	}
	task.running = t.run("downstream."+d.Name, task.sender.Run)
	return task
}

// link is the interface of that name, or one that does not exist.
func (t *tasks) link(name string) kernel.Link {
	if l, ok := t.links[name]; ok {
		return l
	}
	return kernel.Link{Name: name}
}

// setLinks hands links to the tasks. The engine calls it; it does not block.
func (t *tasks) setLinks(links []kernel.Link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.links = make(map[string]kernel.Link, len(links))
	for _, l := range links {
		t.links[l.Name] = l
	}
	for name, u := range t.uplinks {
		if t.noticeInterface(name, u) {
			continue
		}
		for _, a := range t.link(u.config.Interface).Duplicates {
			u.client.Conflict(a) // one that is not of its lease leaves the client cold
		}
		u.client.SetLink(t.link(u.config.Interface))
		u.listener.SetLink(t.link(u.config.Interface))
	}
	for _, d := range t.downstreams {
		d.sender.SetLink(t.link(d.config.Interface))
	}
	for iface, s := range t.servers {
		s.server.SetLink(t.link(iface))
	}
}

// announce hands an announcement to its sender. The engine calls it; it does not block.
func (t *tasks) announce(downstream string, a policy.Announcement) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.said[downstream] = a
	if d := t.downstreams[downstream]; d != nil {
		d.sender.Set(a)
	}
}

// stop ends all tasks and waits for them. Hosts are told nothing: the kernel goes on routing for them.
func (t *tasks) stop() {
	var all []running
	t.mu.Lock()
	t.stopped = true
	for _, u := range t.uplinks {
		all = append(all, u.running)
	}
	for _, d := range t.downstreams {
		all = append(all, d.running)
	}
	for _, s := range t.servers {
		all = append(all, s.running)
	}
	t.mu.Unlock()
	stopAll(all) // without t.mu, as in follow
}

// traceOf is the trace of an uplink. It outlives the task: who follows it while the config is changed goes on following.
// The caller holds t.mu.
func (t *tasks) traceOf(uplink string) *trace.Ring {
	if t.traces[uplink] == nil {
		t.traces[uplink] = new(trace.Ring)
	}
	return t.traces[uplink]
}

// ring is the trace of an uplink that there is; with an empty name, of the only one.
func (t *tasks) ring(uplink string) (*trace.Ring, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := slices.Sorted(maps.Keys(t.uplinks))
	if uplink == "" && len(names) == 1 {
		uplink = names[0]
	}
	if t.uplinks[uplink] != nil {
		return t.traceOf(uplink), nil
	}
	if uplink == "" {
		return nil, fmt.Errorf("which uplink? there is: %s", strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("no uplink %q; there is: %s", uplink, strings.Join(names, ", "))
}
