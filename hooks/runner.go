package hooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"uplinkd/internal/config"
)

// shutdownGrace is how long a program may go on after the daemon was told to stop: one that is halfway through changing a
// firewall should finish.
const shutdownGrace = 5 * time.Second

var errStopping = errors.New("uplinkd is stopping")

// Runner calls hooks for the events it is given. Its methods may be called from any goroutine.
type Runner struct {
	log     *slog.Logger
	execute func(context.Context, Call) Outcome
	changed chan struct{} // size 1: workers has a new member

	mu      sync.Mutex
	workers []*worker // in the order of the config; removed ones stay, so that a hook that returns cannot overlap itself
}

// New returns a Runner for the hooks. Events may be submitted before Run.
func New(hooks []config.Hook, log *slog.Logger) *Runner {
	r := &Runner{log: log, execute: func(ctx context.Context, c Call) Outcome { return c.Run(ctx) }, changed: make(chan struct{}, 1)}
	r.Reload(hooks)
	return r
}

// Run calls programs until ctx ends; then it waits for those that are running, at most shutdownGrace and the time it takes
// to stop them, and returns nil.
func (r *Runner) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	started := map[*worker]bool{}
	for {
		r.mu.Lock()
		for _, w := range r.workers {
			if !started[w] {
				started[w] = true
				tasks.Go(func() { w.work(ctx) })
			}
		}
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-r.changed:
		}
	}
}

// Submit queues events, in their order, for every hook that wants them. It never blocks.
func (r *Runner) Submit(events []Item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.workers {
		w.add(events)
	}
}

// Reload replaces the hooks. A hook that keeps its name keeps its waiting events, as far as it still wants them, and an
// event that is being repeated is tried at once if the hook has changed. A program that is running is left to finish.
func (r *Runner) Reload(hooks []config.Hook) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := map[string]*worker{}
	for _, w := range r.workers {
		old[w.name] = w
	}
	var workers []*worker
	for _, h := range hooks {
		w := old[h.Name]
		if w == nil {
			w = newWorker(h.Name, r.log, r.execute)
		}
		delete(old, h.Name)
		w.configure(&h)
		workers = append(workers, w)
	}
	for _, w := range r.workers {
		if old[w.name] != nil {
			w.configure(nil)
			workers = append(workers, w)
		}
	}
	r.workers = workers
	poke(r.changed)
}

// Status returns the state of each hook in the order of the config.
func (r *Runner) Status() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Status
	for _, w := range r.workers {
		if s, ok := w.state(); ok {
			all = append(all, s)
		}
	}
	return all
}

// callContext returns a context that ends after timeout, or shutdownGrace after ctx.
func callContext(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	call, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	limit := time.AfterFunc(timeout, func() { cancel(fmt.Errorf("not finished after %v", timeout)) })
	detach := context.AfterFunc(ctx, func() {
		select {
		case <-call.Done():
		case <-time.After(shutdownGrace):
			cancel(errStopping)
		}
	})
	return call, func() {
		limit.Stop()
		detach()
		cancel(nil)
	}
}

// poke wakes whoever receives from c, a channel of size 1.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
