package main

import (
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

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

	mu          sync.Mutex
	uplinks     map[string]*uplinkTask
	downstreams map[string]*downstreamTask
	servers     map[string]*serverTask // by interface
	config      *config.Config         // that the servers follow
	site        policy.Site            // likewise
	links       map[string]kernel.Link
	said        map[string]policy.Announcement // by downstream
	traces      map[string]*trace.Ring         // by uplink
	stopped     bool                           // nothing is started any more
}

type uplinkTask struct {
	config   config.Uplink
	client   *client.Client
	listener *radv.Listener
	waits    bool // for the interface, to know the DUID
	running
}

type downstreamTask struct {
	config config.Downstream
	sender *radv.Sender
	running
}

func newTasks(ctx context.Context, log *slog.Logger, state *store.Dir, duid pd.DUID, e *engine.Engine) *tasks {
	return &tasks{ctx: ctx, log: log, store: state, duid: duid, engine: e, uplinks: map[string]*uplinkTask{},
		downstreams: map[string]*downstreamTask{}, servers: map[string]*serverTask{}, config: &config.Config{}, links: map[string]kernel.Link{}, said: map[string]policy.Announcement{},
		traces: map[string]*trace.Ring{}}
}

// running is a set of goroutines that end together.
type running struct {
	cancel context.CancelFunc
	wg     *sync.WaitGroup
}

func (r running) stop() {
	r.cancel()
	r.wg.Wait()
}

func (t *tasks) run(fs ...func(context.Context) error) running {
	ctx, cancel := context.WithCancel(t.ctx)
	r := running{cancel, new(sync.WaitGroup)}
	for _, f := range fs {
		r.wg.Go(func() {
			if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.log.Error("task ended", "err", err)
			}
		})
	}
	return r
}

// follow makes the running tasks those of cfg.
func (t *tasks) follow(cfg *config.Config) {
	for _, stop := range t.obsolete(cfg) {
		stop() // without the lock: a task may be waiting for the engine, and the engine for setLinks
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	for _, u := range cfg.Uplinks {
		if t.uplinks[u.Name] == nil {
			t.uplinks[u.Name] = t.startUplink(u)
		}
	}
	for _, d := range cfg.Downstreams {
		if announces(d) && t.downstreams[d.Name] == nil {
			t.downstreams[d.Name] = t.startDownstream(d)
		}
	}
	t.startServers()
}

// announces reports whether there are router advertisements on d, or may be after a reload.
func announces(d config.Downstream) bool { return d.Kind == config.Access }

// obsolete takes out the tasks that cfg does not have in this form and returns how to stop them.
func (t *tasks) obsolete(cfg *config.Config) (stops []func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, task := range t.uplinks {
		kept := false
		for _, u := range cfg.Uplinks {
			kept = kept || u.Name == name && u.Interface == task.config.Interface && reflect.DeepEqual(u.DHCPv6, task.config.DHCPv6)
		}
		if !kept {
			delete(t.uplinks, name)
			stops = append(stops, task.stop)
		}
	}
	for name, task := range t.downstreams {
		kept := false
		for _, d := range cfg.Downstreams {
			kept = kept || d.Name == name && d.Interface == task.config.Interface && announces(d)
		}
		if !kept {
			delete(t.downstreams, name)
			task.sender.Final() // nobody announces here any more
			stops = append(stops, task.stop)
		}
	}
	return append(stops, t.followServers(cfg)...)
}

func (t *tasks) startUplink(u config.Uplink) *uplinkTask {
	lease, err := t.store.Lease(u.Name)
	if err != nil {
		t.log.Error("stored lease is of no use; soliciting afresh", "uplink", u.Name, "err", err)
	}
	id := t.identify(u, lease.At(time.Now()))
	machine := machineConfig(u, id)
	t.warnOfIAIDs(u.Name, machine, lease.At(time.Now()))
	task := &uplinkTask{config: u, waits: id.waits}
	task.client = client.New(client.Config{
		Uplink:  u.Name,
		Machine: machine, DSCP: u.DHCPv6.DSCP, Priority: u.DHCPv6.Priority, Trace: t.traceOf(u.Name).Record,
		Saved: lease, ReportAfter: u.DHCPv6.ReportAfter, WaitingFor: waitsFor(u.DHCPv6.Start), Logger: t.log,
		Observe: observer(t.engine, u.Name),
	})
	var signs radv.Signs // the listener calls from one goroutine
	task.listener = radv.NewListener(u.Name, func(f radv.Facts) {
		t.engine.Heard(u.Name, f.Heard)
		if begins(u.DHCPv6.Start, f.Invitation) {
			task.client.Begin()
		}
		if why := signs.Read(f, time.Now()); why != "" {
			task.client.Suspect(why)
		}
	}, t.log)
	task.client.SetLink(t.link(u.Interface))
	task.listener.SetLink(t.link(u.Interface))
	task.running = t.run(task.client.Run, task.listener.Run)
	return task
}

func (t *tasks) startDownstream(d config.Downstream) *downstreamTask {
	task := &downstreamTask{config: d, sender: radv.NewSender(d.Name, t.log)}
	task.sender.SetLink(t.link(d.Interface))
	if a, ok := t.said[d.Name]; ok {
		task.sender.Set(a)
	}
	task.running = t.run(task.sender.Run)
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
		if u.waits && t.link(u.config.Interface).Index > 0 {
			u.waits = false
			go t.appeared(name, u)
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

// clients are the client of an uplink, or with an empty name those of all.
func (t *tasks) clients(uplink string) (found []*client.Client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, u := range t.uplinks {
		if uplink == "" || name == uplink {
			found = append(found, u.client)
		}
	}
	return found
}

// release gives back the leases of the uplinks whose config asks for it, all at once, waiting at most limit.
func (t *tasks) release(limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var wg sync.WaitGroup
	t.mu.Lock()
	for _, u := range t.uplinks {
		if u.config.DHCPv6.Release {
			wg.Go(func() {
				if err := u.client.Release(ctx); err != nil {
					t.log.Warn("release at the end", "uplink", u.config.Name, "err", err)
				}
			})
		}
	}
	t.mu.Unlock()
	wg.Wait()
}

// stop ends all tasks and waits for them. Hosts are told nothing: the kernel goes on routing for them.
func (t *tasks) stop() {
	var stops []func()
	t.mu.Lock()
	t.stopped = true
	for _, u := range t.uplinks {
		stops = append(stops, u.stop)
	}
	for _, d := range t.downstreams {
		stops = append(stops, d.stop)
	}
	for _, s := range t.servers {
		stops = append(stops, s.stop)
	}
	t.mu.Unlock()
	for _, stop := range stops {
		stop() // without the lock, as in follow
	}
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

// newDUID makes the client's identity: from the first MAC address of the uplinks, at random when they have none.
func newDUID(cfg *config.Config) pd.DUID {
	var mac []byte
	for _, u := range cfg.Uplinks {
		if i, err := net.InterfaceByName(u.Interface); err == nil && len(i.HardwareAddr) > 0 {
			mac = i.HardwareAddr
			break // each look is a dump of all interfaces
		}
	}
	random := make([]byte, 16)
	cryptorand.Read(random) // never fails (crypto/rand)
	return pd.NewDUID(mac, time.Now(), random)
}
