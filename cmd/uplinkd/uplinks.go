package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/radv"
	"uplinkd/pd"
	"uplinkd/pd/client"
)

type uplinkTask struct {
	config   config.Uplink
	client   *client.Client
	listener *radv.Listener
	waits    bool // for the interface, to know the DUID
	running
}

// origin is what the client of an uplink starts from.
type origin struct {
	lease  pd.Lease
	window pd.Window
	id     clientIdentity
}

// lacks reports whether an uplink has no task and may have one.
func (t *tasks) lacks(uplink string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.stopped && t.uplinks[uplink] == nil
}

// origin finds what the client of u starts from. It may wait for the disk, so the caller does not hold t.mu.
//
// Lease and send window come from the client that was there before, if there was one: what it held may not be on disk yet,
// or not fit there.
func (t *tasks) origin(u config.Uplink, hardware hardware) origin {
	var o origin
	t.mu.Lock()
	before := t.ended[u.Name]
	t.mu.Unlock()
	if before != nil {
		o.lease, o.window = before.Last()
	} else {
		var err error
		if o.lease, err = t.store.Lease(u.Name); err != nil {
			t.log.Error("stored lease is of no use; soliciting afresh", "uplink", u.Name, "err", err)
		}
	}
	o.id = t.identify(u, o.lease.At(time.Now()), hardware)
	return o
}

// startUplink starts the tasks of u, in the place of those that were there.
func (t *tasks) startUplink(u config.Uplink, o origin) {
	machine := machineConfig(u, o.id)
	t.warnOfIAIDs(u.Name, machine, o.lease.At(time.Now()))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	task := &uplinkTask{config: u, waits: o.id.waits}
	task.client = client.New(client.Config{
		Uplink:  u.Name,
		Machine: machine, DSCP: u.DHCPv6.DSCP, Priority: u.DHCPv6.Priority, Trace: t.traceOf(u.Name).Record,
		Saved: o.lease, Window: o.window, ReportAfter: u.DHCPv6.ReportAfter, WaitingFor: waitsFor(u.DHCPv6.Start), Logger: t.log,
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
	task.running = t.run("uplink."+u.Name, task.client.Run, task.listener.Run)
	t.uplinks[u.Name] = task
	delete(t.ended, u.Name)
	t.noticeInterface(u.Name, task)
}

// noticeInterface has the client of an uplink started anew whose interface has come and may have the hardware address that
// its DUID wants. The caller holds t.mu.
func (t *tasks) noticeInterface(name string, task *uplinkTask) (anew bool) {
	if !task.waits || t.link(task.config.Interface).Index == 0 {
		return false
	}
	task.waits = false
	go t.appeared(name, task)
	return true
}

// appeared starts a client anew. Nothing is lost: without an interface it has said nothing.
func (t *tasks) appeared(name string, task *uplinkTask) {
	t.following.Lock()
	defer t.following.Unlock()
	t.mu.Lock()
	current := !t.stopped && t.uplinks[name] == task
	if current {
		t.ended[name] = task.client
	}
	t.mu.Unlock()
	if current {
		stopAll([]running{task.running})
		t.startUplink(task.config, t.origin(task.config, t.hardware()))
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

// release gives back the leases of the uplinks whose config asks for it, waiting at most limit.
func (t *tasks) release(limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var asked []*client.Client
	t.mu.Lock()
	for _, u := range t.uplinks {
		if u.config.DHCPv6.Release {
			asked = append(asked, u.client)
		}
	}
	t.mu.Unlock()
	if err := releaseAll(ctx, asked); err != nil {
		t.log.Warn("release at the end", "err", err)
	}
}

// releaseAll gives leases back, all at once: a server that does not answer keeps nobody else from being told.
func releaseAll[C interface{ Release(context.Context) error }](ctx context.Context, clients []C) error {
	errs := make([]error, len(clients))
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() { errs[i] = c.Release(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
