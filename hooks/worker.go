package hooks

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"uplinkd/internal/config"
)

const (
	maxQueue = 64
	maxTries = 5
)

// retryDelay is the pause after a failed try, counted from 1: 1, 2, 4 and 8 seconds.
func retryDelay(try int) time.Duration { return time.Second << (try - 1) }

// Status is the state of one hook.
type Status struct {
	Name      string        `json:"name"`
	Run       []string      `json:"run"`
	Calls     uint64        `json:"calls"`               // that have ended
	Failures  uint64        `json:"failures"`            // of the calls
	Abandoned uint64        `json:"abandoned"`           // events given up after the last try
	Dropped   uint64        `json:"dropped"`             // events that found the queue full, oldest first
	Queued    int           `json:"queued"`              // events that wait
	Event     string        `json:"event,omitempty"`     // being worked on
	NextRetry time.Time     `json:"next_retry,omitzero"` // of that event
	LastStart time.Time     `json:"last_start,omitzero"` // of the last call that has ended, as all that follows
	LastTime  time.Duration `json:"last_duration"`       // in nanoseconds
	LastExit  int           `json:"last_exit"`           // -1: it did not start or was ended by a signal
	LastError string        `json:"last_error,omitempty"`
	LastLine  string        `json:"last_line,omitempty"` // of its output
}

// worker works off the events of one hook, one at a time.
type worker struct {
	name    string
	log     *slog.Logger
	execute func(context.Context, Call) Outcome
	queued  chan struct{} // size 1: the queue has grown
	changed chan struct{} // size 1: the hook is another

	mu     sync.Mutex
	hook   *config.Hook // nil while the config has no such hook
	queue  []Item
	unsaid uint64 // dropped events not yet in the log
	status Status
}

func newWorker(name string, log *slog.Logger, execute func(context.Context, Call) Outcome) *worker {
	return &worker{
		name: name, log: log.With("hook", name), execute: execute,
		queued: make(chan struct{}, 1), changed: make(chan struct{}, 1),
		status: Status{Name: name},
	}
}

// configure sets the hook, or nil to remove it.
func (w *worker) configure(h *config.Hook) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h != nil && w.hook != nil && sameHook(*h, *w.hook) {
		return
	}
	w.hook = h
	if h == nil {
		w.queue = nil
	}
	poke(w.changed)
}

func sameHook(a, b config.Hook) bool {
	return slices.Equal(a.Run, b.Run) && slices.Equal(a.On, b.On) && a.Dialect == b.Dialect && a.Timeout == b.Timeout
}

func (w *worker) add(events []Item) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range events {
		if w.hook == nil || !wants(*w.hook, i.Event.Kind) {
			continue
		}
		if len(w.queue) == maxQueue {
			w.queue = slices.Delete(w.queue, 0, 1)
			w.status.Dropped++
			w.unsaid++
		}
		w.queue = append(w.queue, i)
	}
	if len(w.queue) > 0 {
		poke(w.queued)
	}
}

func (w *worker) state() (s Status, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hook == nil {
		return Status{}, false
	}
	s = w.status
	s.Run, s.Queued = w.hook.Run, len(w.queue)
	return s, true
}

func (w *worker) work(ctx context.Context) {
	for ctx.Err() == nil {
		w.sayDropped()
		i, ok := w.take()
		if !ok {
			select {
			case <-ctx.Done():
			case <-w.queued:
			}
			continue
		}
		w.deliver(ctx, i)
		w.update(func(s *Status) { s.Event, s.NextRetry = "", time.Time{} })
	}
	if s, ok := w.state(); ok && s.Queued > 0 {
		w.log.Warn("events dropped: uplinkd is stopping", "count", s.Queued)
	}
}

// take removes the oldest event from the queue.
func (w *worker) take() (Item, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return Item{}, false
	}
	i := w.queue[0]
	w.queue = slices.Delete(w.queue, 0, 1)
	w.status.Event = i.Event.Kind
	return i, true
}

// sayDropped logs what add dropped: Submit must not wait for a log.
func (w *worker) sayDropped() {
	w.mu.Lock()
	count := w.unsaid
	w.unsaid = 0
	w.mu.Unlock()
	if count > 0 {
		w.log.Warn("events dropped: the program is slower than the events come", "count", count)
	}
}

// deliver calls the program until it succeeds, the tries are used up, the hook no longer wants the event, or ctx ends. A
// changed hook has all its tries again.
func (w *worker) deliver(ctx context.Context, i Item) {
	for try := 1; ; try++ {
		select {
		case <-w.changed: // what has changed before this try is part of it
		default:
		}
		h, ok := w.wanted(i)
		if !ok || ctx.Err() != nil {
			return
		}
		call, err := Native(h, i)
		if err != nil {
			w.abandon(i, err.Error())
			return
		}
		outcome := w.call(ctx, h, i, call)
		switch {
		case outcome.Err == nil:
			return
		case try == maxTries:
			w.abandon(i, outcome.Err.Error())
			return
		}
		w.update(func(s *Status) { s.NextRetry = time.Now().Add(retryDelay(try)) })
		select {
		case <-ctx.Done():
		case <-w.changed:
			try = 0
		case <-time.After(retryDelay(try)):
		}
		w.update(func(s *Status) { s.NextRetry = time.Time{} })
	}
}

func (w *worker) wanted(i Item) (config.Hook, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hook == nil || !wants(*w.hook, i.Event.Kind) {
		return config.Hook{}, false
	}
	return *w.hook, true
}

func (w *worker) call(ctx context.Context, h config.Hook, i Item, call Call) Outcome {
	limited, cancel := callContext(ctx, h.Timeout)
	defer cancel()
	start := time.Now()
	o := w.execute(limited, call)
	failure, line := "", ""
	if o.Err != nil {
		failure = printable(o.Err.Error())
	}
	if len(o.Output) > 0 {
		line = o.Output[len(o.Output)-1]
	}
	w.update(func(s *Status) {
		s.Calls++
		if o.Err != nil {
			s.Failures++
		}
		s.LastStart, s.LastTime, s.LastExit, s.LastError, s.LastLine = start, o.Duration, o.Exit, failure, line
	})
	log := w.log.With("event", i.Event.Kind, "seq", i.Seq)
	for _, line := range o.Output {
		log.Info("output", "line", line)
	}
	if o.Err != nil {
		log.Warn("call failed", "err", failure, "duration", o.Duration)
	} else {
		log.Debug("called", "duration", o.Duration)
	}
	return o
}

func (w *worker) abandon(i Item, reason string) {
	w.update(func(s *Status) {
		s.Abandoned++
		s.LastError = printable(reason)
	})
	w.log.Error("event given up", "event", printable(i.Event.Kind), "seq", i.Seq, "err", printable(reason))
}

func (w *worker) update(change func(*Status)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.status)
}
