package engine

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

// fact is something that happened, as the change it makes to what the engine knows. It runs on the engine's goroutine and
// reports whether there is something to decide now.
type fact func(*Engine) (decide bool)

func (e *Engine) send(f fact) {
	select {
	case e.facts <- f:
		// The engine runs next on this thread, once the sender gives way. If the sender goes on, to its log for one, the
		// engine waits for another thread to wake up: 0.1 ms, a third of the way from a Reply to the address in the kernel.
		runtime.Gosched()
	case <-e.done:
	}
}

// ClientStatus is what is known of the DHCPv6 client of one uplink.
type ClientStatus struct {
	State    string // of the machine, in words
	Failure  string // why the last exchange failed
	Note     string // why the lease lacks something that was asked for
	Reported bool
	Lease    pd.Lease
	Cause    pd.Cause  // of the last change of the lease
	Since    time.Time // of State; while bound, since there is a lease: renewing, rebinding and requests for more belong to it
}

// keepsLease reports whether the client has a lease that is in use, also while it asks for more of the same server.
func (s ClientStatus) keepsLease() bool {
	return s.Lease.Held() && slices.Contains([]string{pd.StateBound, pd.StateRenewing, pd.StateRebinding, pd.StateRequesting}, s.State)
}

// Client takes in what the client of an uplink says. hasLease is false when only state or failure changed.
func (e *Engine) Client(uplink string, s ClientStatus, hasLease bool) {
	e.send(func(e *Engine) bool {
		if !e.has(uplink) {
			return false
		}
		was := e.clients[uplink]
		s.Since = was.Since
		if !hasLease {
			s.Lease, s.Cause = was.Lease, was.Cause
		} else {
			e.unsaved = append(e.unsaved, job{lease: &s.Lease, uplink: uplink})
		}
		if was.State != s.State && !(was.keepsLease() && s.keepsLease()) {
			s.Since = time.Now()
		}
		s.Reported = s.Reported || was.Reported
		e.clients[uplink] = s
		if !hasLease && s.Reported == was.Reported && s.Failure == was.Failure && s.Note == was.Note {
			// "soliciting" has become "requesting": the Reply is on its way, and a whole step now would hold it up.
			e.showClients()
			e.rehearse(uplink)
			return false
		}
		if was := e.world.Uplinks[uplink].Delegations; !samePrefixes(was, s.Lease) && !e.limits.take(changesOf(uplink), time.Now()) {
			e.postponed[uplink] = true
		}
		if e.postponed[uplink] {
			e.showClients()
			return false
		}
		e.grant(uplink, s.Lease, s.Reported)
		return true
	})
}

// changesOf is the key under which the limiter counts how often an uplink's prefixes become others: a provider that
// renumbers with every Reply must not drive the kernel, the disk, the log and the hooks at its own pace.
func changesOf(uplink string) string { return "prefixes of uplink " + uplink }

func samePrefixes(gs []policy.Granted, l pd.Lease) bool {
	return slices.EqualFunc(gs, l.Prefixes, func(g policy.Granted, p pd.LeasedPrefix) bool { return g.Prefix == p.Prefix })
}

// catchUp takes in the leases that had to wait for the limiter, as far as it lets them pass now.
func (e *Engine) catchUp(now time.Time) {
	for uplink := range e.postponed {
		if !e.has(uplink) {
			delete(e.postponed, uplink)
			continue
		}
		if e.limits.take(changesOf(uplink), now) {
			delete(e.postponed, uplink)
			e.grant(uplink, e.clients[uplink].Lease, e.clients[uplink].Reported)
		}
	}
}

// grant makes a lease a fact of planning.
func (e *Engine) grant(uplink string, l pd.Lease, reported bool) {
	f := e.world.Uplinks[uplink]
	f.Reported = reported
	f.Delegations, f.Addresses = nil, nil
	for _, p := range l.Prefixes {
		f.Delegations = append(f.Delegations, policy.Granted{Prefix: p.Prefix, Exclude: p.Exclude, PreferredUntil: p.PreferredUntil, ValidUntil: p.ValidUntil,
			Unlisted: p.Unlisted})
	}
	for _, a := range l.Addresses {
		f.Addresses = append(f.Addresses, policy.Leased{Address: a.Address, PreferredUntil: a.PreferredUntil, ValidUntil: a.ValidUntil})
	}
	f.Told = l.Info
	e.world.Uplinks[uplink] = f
}

// Hint says that something in the kernel may have changed. It never blocks.
func (e *Engine) Hint() {
	select {
	case e.hints <- struct{}{}:
	default:
	}
}

// Reload replaces the config, reads the links again, and returns when the first step with both is done. The config is
// replaced all the same when it returns earlier, with an error.
func (e *Engine) Reload(ctx context.Context, cfg *config.Config) error {
	return e.during(ctx, "reload", func(e *Engine) {
		e.configure(cfg)
		e.refreshLinks(e.ctx) // ctx is the caller's: it may have gone away
		for name := range e.world.Uplinks {
			if !e.has(name) {
				delete(e.world.Uplinks, name)
				delete(e.clients, name)
				delete(e.heard, name)
				delete(e.adopted, name)
			}
		}
		e.retireBorrowers()
		e.limits.forget()
		e.crowd = newCrowd()
	})
}

// Settle returns when the kernel has followed all facts that were told before, and consumers know of it.
func (e *Engine) Settle(ctx context.Context) error {
	told := make(chan struct{})
	if err := e.during(ctx, "last step", func(e *Engine) {
		e.afterStep = append(e.afterStep, func() { e.afterTell = append(e.afterTell, func() { close(told) }) })
	}); err != nil {
		return err
	}
	e.send(func(e *Engine) bool { e.published(0); return false })
	select {
	case <-told:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("last step: its outcome is not on disk yet: %w", ctx.Err())
	case <-e.done:
		return fmt.Errorf("last step: the engine has stopped")
	}
}

// during has f done by the engine and returns when the step that follows it is done.
func (e *Engine) during(ctx context.Context, what string, f func(*Engine)) error {
	done := make(chan struct{})
	e.send(func(e *Engine) bool {
		f(e)
		e.afterStep = append(e.afterStep, func() { close(done) })
		return true
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: the engine has not done it yet: %w", what, ctx.Err())
	case <-e.done:
		return fmt.Errorf("%s: the engine has stopped", what)
	}
}

func (e *Engine) has(uplink string) bool {
	return slices.ContainsFunc(e.cfg.Uplinks, func(u config.Uplink) bool { return u.Name == uplink })
}

// refreshLinks reads the links; those who need sockets on them hear of changes.
func (e *Engine) refreshLinks(ctx context.Context) {
	links, err := e.opt.Kernel.Links(ctx)
	if err != nil {
		e.opt.Log.Warn("read the interfaces from the kernel", "err", err)
		return
	}
	e.resyncAt = resync(time.Now())
	links = e.steady(links)
	if slices.EqualFunc(links, e.links, kernel.Link.Equal) {
		e.followNames() // the config may be another one
		return
	}
	e.links = links
	e.world.Links = make(map[string]kernel.Link, len(links))
	for _, l := range links {
		e.world.Links[l.Name] = l
	}
	e.followNames()
	if e.opt.Links != nil {
		e.opt.Links(links)
	}
}

// steady leaves what is on-link on a link as it was, where it becomes something else too often, and has links read again soon.
// A router there can have the kernel believe in others with every RA, and each costs three writes and their lines in the log.
func (e *Engine) steady(links []kernel.Link) []kernel.Link {
	links = slices.Clone(links)
	now := time.Now()
	for i, l := range links {
		was, known := e.world.Links[l.Name]
		if known && was.Index == l.Index && !slices.Equal(was.OnLink, l.OnLink) && !e.limits.take("on-link prefixes on "+l.Name, now) {
			links[i].OnLink, links[i].OnLinkMetric = was.OnLink, was.OnLinkMetric
			e.resyncAt = now.Add(e.limits.rate)
			if !now.Before(e.unsteady[l.Name]) {
				e.opt.Log.Warn("a router keeps announcing other on-link prefixes; uplinkd follows only every few seconds", "interface", l.Name)
			}
			e.unsteady[l.Name] = now.Add(time.Minute)
		}
		links[i].OnLinkMore = now.Before(e.unsteady[l.Name])
	}
	return links
}

// deadlines are the moments at which planning has another result.
func deadlines(s policy.Site, led policy.Ledger, borrowers []policy.Borrower) (ds []lifetime.Deadline) {
	for _, u := range s.Uplinks {
		ds = append(ds, u.GatewayUntil)
		for _, p := range u.Told.PREF64 {
			ds = append(ds, p.Until)
		}
		for _, g := range u.Delegations {
			ds = append(ds, g.PreferredUntil, g.ValidUntil)
		}
		for _, a := range u.Leased {
			ds = append(ds, a.PreferredUntil, a.ValidUntil)
		}
	}
	for _, records := range led.Announced {
		for _, r := range records {
			ds = append(ds, r.Until)
		}
	}
	for _, records := range led.Holds {
		for _, r := range records {
			ds = append(ds, r.Until)
		}
	}
	for _, records := range led.Loans {
		for _, r := range records {
			ds = append(ds, r.Until)
		}
	}
	for _, b := range borrowers {
		ds = append(ds, b.Until)
	}
	return ds
}

func untilFrom(now time.Time, d time.Duration) lifetime.Deadline { return lifetime.Until(now.Add(d)) }
