package engine

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel"
	"uplinkd/pd"
	"uplinkd/policy"
)

// Kernel is what the engine needs of the kernel.
type Kernel interface {
	// Links returns all interfaces of the network namespace.
	Links(ctx context.Context) ([]kernel.Link, error)
	// Read returns the owned rows, canonical. An incomplete dump is an error, never a smaller State.
	Read(ctx context.Context, s kernel.Scope) (kernel.State, error)
	// Apply carries out a plan and says what came of it. It is the only writer.
	Apply(ctx context.Context, p kernel.Plan) kernel.Report
}

// Store keeps small values over restarts (pd/store.Dir). Both calls may take milliseconds: they wait for the disk.
type Store interface {
	ReadJSON(name string, version int, v any) error
	WriteJSON(name string, version int, v any) error
	SaveLease(uplink string, l pd.Lease) error
}

// Options are what an Engine is made of. Functions are called on the engine's goroutine and must not block; nil ones
// are not called.
type Options struct {
	Config  *config.Config
	Kernel  Kernel
	Store   Store
	Log     *slog.Logger
	BootID  string              // of the running kernel: another one than last time means that every event is new again
	Leases  map[string]pd.Lease // stored leases by uplink
	Lost    []string            // uplinks whose stored lease is damaged
	Version string
	ULA     netip.Prefix // of this router, for a config that wants one made (ula = "auto")
	Secret  []byte       // of this router, for opaque host parts (RFC 7217)
	Damaged error        // what errors.Is finds in a ReadJSON error when the file was set aside as damaged

	Repaired func(file string, cause error) error // keeps a copy of a file that parts of are not believed; returns what to log

	NoOwnerMark bool          // addresses carry no IFA_PROTO on this kernel (before 5.18): the ledger is their owner mark
	Tick        time.Duration // longest time between two calls of Alive; 0: only after steps

	Filtered func(context.Context) (bool, error) // whether somebody filters what comes in; asked only when the config needs to know

	Links    func([]kernel.Link)                            // links changed
	Announce func(downstream string, a policy.Announcement) // what router advertisements say now
	Serve    func(site policy.Site)                         // what DHCPv6 servers say now
	Events   func(items []Item, site policy.Site)           // after the kernel has followed and the ledger is on disk
	Ready    func()                                         // once: after the first successful reconcile
	Alive    func()                                         // after every iteration that did not fail in reading the kernel
	Status   func(line string)                              // one line for systemd, when it changed
}

// Engine is the loop. Make it with New, start Run once; all other methods are safe for concurrent use.
type Engine struct {
	opt      Options
	facts    chan fact
	hints    chan struct{}
	written  chan uint64 // generations that the writer has on disk
	jobs     queue
	done     chan struct{}
	snap     atomic.Pointer[Snapshot]
	failures atomic.Pointer[string] // why the last write to disk failed; nil: it did not
	watch    watchers

	// Owned by Run.
	ctx     context.Context // of Run
	cfg     *config.Config
	world   policy.World
	clients map[string]ClientStatus
	ledger  policy.Ledger
	saved   durable        // what sysctls were, owned addresses, and borrowers as the disk is to have them; its Plan is only read at the start
	lost    []netip.Prefix // delegations lost in this boot, the last ones
	shown   policy.Site
	limits  limiter

	confirmedSite policy.Site // of the last step
	unrouted      map[netip.Prefix]bool
	crowd         crowd
	reborrowed    bool // borrowers have changed since the last step

	backoff   time.Duration
	retryAt   time.Time
	warm      time.Time // end of the last step or rehearsal
	resyncAt  time.Time
	ready     bool
	began     time.Time                 // of Run
	readable  bool                      // the last step could read the kernel
	refused   map[string]kernel.OpError // what the kernel does not carry out, by Op.Object
	found     []policy.Problem          // by the last step
	status    string
	gen       uint64
	postponed map[string]bool      // uplinks whose prefixes change too often: their newest lease waits
	unsteady  map[string]time.Time // links on which what is on-link became something else too often, until they are taken for steady again
	untold    map[string]bool      // uplinks that go down and up, or tell something else, too often: events of it wait
	adopted   map[string]adopted
	heard     map[string]policy.Heard // by uplink, without what is adopted
	unsaved   []job                   // leases, handed to the writer when the kernel has followed: it would take a processor from that
	pending   []publication           // waiting for the writer
	counters  Counters
	links     []kernel.Link
	afterStep []func() // called once when the step that follows is done
	afterTell []func() // called once when nothing waits for the disk any more
}

// New returns an engine; it does nothing before Run.
func New(opt Options) *Engine {
	e := &Engine{opt: opt, facts: make(chan fact, 64), hints: make(chan struct{}, 1), written: make(chan uint64, 1),
		jobs: queue{wake: make(chan struct{}, 1)}, done: make(chan struct{}), clients: map[string]ClientStatus{}, postponed: map[string]bool{},
		untold: map[string]bool{}, unsteady: map[string]time.Time{}, adopted: map[string]adopted{}, heard: map[string]policy.Heard{}}
	e.unrouted = map[netip.Prefix]bool{}
	e.crowd = newCrowd()
	e.limits = newLimiter(5*time.Second, 10)
	e.world.Uplinks = map[string]policy.UplinkFacts{}
	e.world.Secret = opt.Secret
	e.configure(opt.Config)
	e.watch.subscribers = map[chan Item]bool{}
	e.snap.Store(&Snapshot{Version: opt.Version})
	return e
}

// configure makes cfg the config.
func (e *Engine) configure(cfg *config.Config) {
	e.cfg, e.world.ULA = cfg, cfg.ULA.Prefix
	if cfg.ULA.Auto {
		e.world.ULA = e.opt.ULA
	}
}

// settle is how long netlink noise is collected before the kernel is read again. Where reading takes long, it is collected for
// longer, so that noise which does not end, and which others on a link can make, takes a quarter of a processor at most.
const (
	settle     = 30 * time.Millisecond
	mostSettle = time.Second
)

// Run decides until ctx ends; then it returns nil and leaves the kernel as it is (traffic keeps flowing). It returns an
// error only when the stored ledger cannot be read for another reason than being absent or damaged.
func (e *Engine) Run(ctx context.Context) error {
	defer close(e.done)
	e.ctx = ctx
	e.began = time.Now()
	if err := e.load(); err != nil {
		return err
	}
	written := make(chan struct{})
	go func() { defer close(written); e.write() }()
	defer func() { e.jobs.close(); <-written }() // what was decided reaches the disk before Run returns
	e.refreshLinks(ctx)
	e.world.Now = time.Now()
	if state, err := e.opt.Kernel.Read(ctx, e.scope(kernel.State{})); err == nil {
		e.adopt(state)
	} else {
		e.opt.Log.Warn("read the kernel before the first plan", "err", err)
	}
	e.step(ctx)
	e.follow(ctx)
	return nil
}

// follow takes a step whenever there is something to decide, until ctx ends.
func (e *Engine) follow(ctx context.Context) {
	var noise <-chan time.Time
	var took time.Duration // to act on noise, last time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due := e.next()
		wake := due
		if tick := time.Now().Add(e.opt.Tick); e.opt.Tick > 0 && tick.Before(due) {
			wake = tick
		}
		timer.Reset(time.Until(wake))
		select {
		case <-ctx.Done():
			return
		case f := <-e.facts:
			if e.take(f) {
				e.step(ctx)
			}
		case <-e.hints:
			if noise == nil {
				noise = time.After(max(settle, min(3*took, mostSettle)))
			}
		case <-noise:
			noise = nil
			began := time.Now()
			e.refreshLinks(ctx)
			e.step(ctx)
			took = time.Since(began)
		case gen := <-e.written:
			e.published(gen)
		case <-timer.C:
			if time.Now().Before(due) {
				e.alive()
				continue
			}
			if !time.Now().Before(e.resyncAt) {
				e.refreshLinks(ctx)
			}
			e.step(ctx)
		}
	}
}

// take takes in a fact and those that wait behind it, so that a burst costs one step, and reports whether there is
// something to decide.
func (e *Engine) take(f fact) (decide bool) {
	decide = f(e)
	for range cap(e.facts) {
		select {
		case f := <-e.facts:
			decide = f(e) || decide
		default:
			return decide
		}
	}
	return decide
}

// next is when the engine must act although nothing happens: a deadline of the site, a retry, or the resync that finds
// changes of which the kernel tells nobody.
func (e *Engine) next() time.Time {
	at := e.resyncAt
	sooner := func(t time.Time) {
		if t.After(e.world.Now) && t.Before(at) {
			at = t
		}
	}
	if !e.retryAt.IsZero() {
		sooner(e.retryAt)
	}
	for _, a := range e.adopted {
		sooner(a.until)
	}
	if len(e.postponed)+len(e.untold) > 0 {
		sooner(e.world.Now.Add(e.limits.rate))
	}
	for _, d := range deadlines(e.snap.Load().Site, e.ledger, e.world.Borrowers) {
		if t, ok := d.Time(); ok {
			sooner(t)
		}
	}
	return at
}

// resync returns a moment 30 to 60 s away: jittered, so that several programs on one machine do not dump in step.
func resync(now time.Time) time.Time {
	return now.Add(30*time.Second + time.Duration(rand.Int64N(int64(30*time.Second))))
}

func (e *Engine) alive() {
	if e.opt.Alive != nil && e.readable {
		e.opt.Alive()
	}
}
