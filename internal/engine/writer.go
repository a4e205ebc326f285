package engine

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"uplinkd/pd"
)

// job is something for the disk. The last job of a generation carries done.
type job struct {
	uplink   string
	lease    *pd.Lease
	ledger   *durable
	reported *reported
	done     uint64        // 0, or the generation that is complete with this job
	tried    chan struct{} // nil, or closed when the job has been tried
}

// unsaved is what the disk does not have yet: by file, how to write the newest value.
type unsaved map[string]func() error

func (e *Engine) unsave(u unsaved, j job) {
	if j.lease != nil {
		u["lease-"+j.uplink] = func() error { return e.opt.Store.SaveLease(j.uplink, *j.lease) }
	}
	if j.ledger != nil {
		u[ledgerFile] = func() error { return e.opt.Store.WriteJSON(ledgerFile, formatVersion, j.ledger) }
	}
	if j.reported != nil {
		u[reportedFile] = func() error { return e.opt.Store.WriteJSON(reportedFile, formatVersion, j.reported) }
	}
}

// save tries to write everything and keeps what failed, for the next job or the next try.
func (u unsaved) save() error {
	var errs []error
	for _, file := range slices.Sorted(maps.Keys(u)) {
		if err := u[file](); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(u, file)
	}
	return errors.Join(errs...)
}

// queue is what is on its way to the disk, in the order in which it is to get there. To put something in never waits, however
// slow the disk is; a newer version of a file takes the place of one that still waits, so that there is one job per file.
type queue struct {
	wake chan struct{} // size 1

	mu     sync.Mutex
	jobs   []job
	closed bool
}

func (q *queue) put(j job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.jobs {
		w := &q.jobs[i]
		if j.lease != nil && w.lease != nil && w.uplink == j.uplink {
			w.lease, j.lease = j.lease, nil
		}
		if j.ledger != nil && w.ledger != nil {
			w.ledger, j.ledger = j.ledger, nil
		}
		if j.reported != nil && w.reported != nil {
			w.reported, j.reported = j.reported, nil
		}
	}
	last := len(q.jobs) - 1
	switch {
	case j.empty() && j.tried == nil && j.done == 0:
	case j.empty() && j.tried == nil && last >= 0 && q.jobs[last].tried == nil:
		q.jobs[last].done = j.done
	default:
		q.jobs = append(q.jobs, j)
	}
	q.awake()
}

func (j job) empty() bool { return j.lease == nil && j.ledger == nil && j.reported == nil }

func (q *queue) awake() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// close has the writer return when it has tried everything.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.awake()
}

// take takes out the first job; there is none when ok is false, and none will come when over is true, too.
func (q *queue) take() (j job, ok, over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.jobs) == 0 {
		return job{}, false, q.closed
	}
	j = q.jobs[0]
	q.jobs = slices.Delete(q.jobs, 0, 1)
	return j, true, false
}

// write is the writer's goroutine: the engine never waits for the disk. What cannot be written, on a full disk for one,
// is tried again after 1 s, doubled up to a minute, and is a problem until it is written. Consumers are told all the
// same: a LAN without addresses because a disk is full would be the greater harm.
func (e *Engine) write() {
	left, pause := unsaved{}, time.Duration(0)
	var again <-chan time.Time
	for {
		j, ok, over := e.jobs.take()
		switch {
		case over:
			return
		case ok:
			e.unsave(left, j)
		default:
			select {
			case <-e.jobs.wake:
				continue
			case <-again:
			}
		}
		again = nil
		if err := left.save(); err != nil {
			pause = min(max(time.Second, 2*pause), time.Minute)
			again = time.After(pause)
			e.opt.Log.Error("save state: a restart may not remember this", "err", err)
			e.failures.Store(new(err.Error()))
		} else {
			pause = 0
			e.failures.Store(nil)
		}
		if j.done != 0 {
			e.complete(j.done)
		}
		if j.tried != nil {
			close(j.tried)
		}
	}
}

// complete tells the loop the newest generation on disk, replacing an older one that it has not taken yet.
func (e *Engine) complete(gen uint64) {
	for {
		select {
		case e.written <- gen:
			return
		default:
		}
		select {
		case <-e.written:
		default:
		}
	}
}
