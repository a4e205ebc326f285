package engine

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

// durable is what the engine itself keeps, beside policy's ledger, in ledger.json.
type durable struct {
	Plan      policy.Ledger     `json:"plan"`
	Sysctls   map[string]string `json:"sysctls"`   // name → value from before uplinkd
	Addresses []addressRecord   `json:"addresses"` // owned, sorted, for kernels that cannot mark them
	Borrowers []policy.Borrower `json:"borrowers,omitempty"`
}

type addressRecord struct {
	Dev    string       `json:"dev"`
	Prefix netip.Prefix `json:"prefix"`
}

func (a addressRecord) compare(b addressRecord) int {
	return cmp.Or(strings.Compare(a.Dev, b.Dev), a.Prefix.Compare(b.Prefix))
}

// reported is what consumers of events have been told, in site.json. In another boot nothing of it is true any more.
type reported struct {
	BootID string         `json:"boot_id"`
	Site   policy.Site    `json:"site"`
	Lost   []netip.Prefix `json:"lost,omitempty"` // the last ones, so that a return reads as prefix.restored
}

// Names and versions of the engine's files.
const (
	ledgerFile    = "ledger.json"
	reportedFile  = "site.json"
	formatVersion = 1
	maxLost       = 16
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

// write is the writer's goroutine: the engine never waits for the disk. What cannot be written, on a full disk for one,
// is tried again after 1 s, doubled up to a minute, and is a problem until it is written. Consumers are told all the
// same: a LAN without addresses because a disk is full would be the greater harm.
func (e *Engine) write() {
	left, pause := unsaved{}, time.Duration(0)
	var again <-chan time.Time
	for {
		var j job
		select {
		case next, more := <-e.jobs:
			if !more {
				return
			}
			j = next
			e.unsave(left, j)
		case <-again:
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

// load reads ledger and last report. Damaged files are set aside by the store; the engine starts without them.
func (e *Engine) load() error {
	if err := read(e, ledgerFile, &e.saved); err != nil {
		return err
	}
	if err := e.saved.sound(); err != nil {
		if e.opt.Repaired != nil {
			err = e.opt.Repaired(ledgerFile, err)
		}
		e.opt.Log.Error("going on without parts of a damaged state file", "err", err)
		e.repaired = true
	}
	if e.saved.Sysctls == nil {
		e.saved.Sysctls = map[string]string{}
	}
	slices.SortFunc(e.saved.Addresses, addressRecord.compare) // a person may have edited the file
	e.ledger = e.saved.Plan
	e.extend()
	e.loadBorrowers()
	var r reported
	if err := read(e, reportedFile, &r); err != nil {
		return err
	}
	sameBoot := r.BootID == e.opt.BootID
	if sameBoot {
		e.shown, e.lost = r.Site, r.Lost
	}
	for _, u := range e.cfg.Uplinks {
		if l, ok := e.opt.Leases[u.Name]; ok && sameBoot {
			// In the same boot traffic flows with this lease: go on with it. After a reboot the prefix may be another
			// one, so it waits for the server's word (RFC 9915 §18.2.12) or for the end of the Confirm timers.
			e.clients[u.Name] = ClientStatus{State: "starting", Lease: l}
			e.grant(u.Name, l, false)
		}
	}
	return nil
}

// salvage goes on with the delegations of uplinks whose stored lease is damaged, as they were last reported in this boot
// and with the lifetimes that their addresses have in the kernel. Hosts and hooks must not hear that a prefix is lost
// before the client has asked for it.
func (e *Engine) salvage(state kernel.State) {
	for _, name := range e.opt.Lost {
		i := slices.IndexFunc(e.shown.Uplinks, func(u policy.Uplink) bool { return u.Name == name })
		if i < 0 || !e.has(name) {
			continue
		}
		u := e.shown.Uplinks[i]
		l := pd.Lease{Info: u.Told.Info}
		for _, g := range u.Delegations {
			p := pd.LeasedPrefix{Prefix: g.Prefix, PreferredUntil: g.PreferredUntil, ValidUntil: g.ValidUntil}
			for _, a := range state.Addresses {
				if g.Prefix.Contains(a.Prefix.Addr()) {
					p.PreferredUntil = lifetime.Max(p.PreferredUntil, a.PreferredUntil)
					p.ValidUntil = lifetime.Max(p.ValidUntil, a.ValidUntil)
				}
			}
			l.Prefixes = append(l.Prefixes, p)
		}
		l = l.At(e.world.Now)
		e.clients[name] = ClientStatus{State: "starting", Lease: l}
		e.grant(name, l, false)
		// Without an IAID it is no lease for the client, only a hint what to ask for; but the next start shall not know less.
		e.unsaved = append(e.unsaved, job{lease: &l, uplink: name})
	}
}

// read fills v from a file; it stays zero when there is none or it was damaged.
func read[T any](e *Engine, name string, v *T) error {
	err := e.opt.Store.ReadJSON(name, formatVersion, v)
	if err == nil {
		return nil
	}
	*v = *new(T) // half-read data is worse than none
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case e.opt.Damaged != nil && errors.Is(err, e.opt.Damaged):
		e.opt.Log.Error("going on without a damaged state file", "err", err)
		return nil
	}
	return err
}

// saveLeases queues leases for the disk, before anything that follows from them is told to anybody.
func (e *Engine) saveLeases() {
	for _, j := range e.unsaved {
		e.jobs <- j
	}
	e.unsaved = nil
}

// save queues the ledger for the disk.
func (e *Engine) save() { e.jobs <- job{ledger: e.copyLedger()} }

// saveNow returns when the disk has the ledger, or has refused it. It goes the way of all jobs, so that an older ledger
// that is still queued cannot overwrite this one.
func (e *Engine) saveNow() {
	tried := make(chan struct{})
	e.jobs <- job{ledger: e.copyLedger(), tried: tried}
	<-tried
}

func (e *Engine) copyLedger() *durable {
	d := durable{Plan: e.ledger, Sysctls: map[string]string{}, Addresses: slices.Clone(e.saved.Addresses),
		Borrowers: slices.Clone(e.saved.Borrowers)}
	for k, v := range e.saved.Sysctls {
		d.Sysctls[k] = v
	}
	return &d
}

// sameLedger reports whether the disk may stay as it is. Until when hosts and inner routers were told that something is valid
// moves with each Renew; the lease is written then, and that will do (see extend).
func sameLedger(a, b policy.Ledger) bool {
	announced := func(x, y policy.AnnouncedRecord) bool {
		x.Valid, y.Valid = lifetime.Deadline{}, lifetime.Deadline{}
		return x == y
	}
	lent := func(x, y policy.LoanRecord) bool {
		x.Valid, y.Valid = lifetime.Deadline{}, lifetime.Deadline{}
		return x == y
	}
	if !sameLists(a.Announced, b.Announced, announced) || !sameLists(a.Loans, b.Loans, lent) {
		return false
	}
	a.Announced, b.Announced, a.Loans, b.Loans = nil, nil, nil, nil
	return reflect.DeepEqual(a, b)
}

func sameLists[T any](a, b map[string][]T, same func(x, y T) bool) bool {
	return maps.EqualFunc(a, b, func(x, y []T) bool { return slices.EqualFunc(x, y, same) })
}

// extend brings the ledger up to what hosts and inner routers have been told since it was written, as far as a stored lease
// knows it. Where there is none any more, the record knows no end.
func (e *Engine) extend() {
	valid := func(part netip.Prefix, was lifetime.Deadline) lifetime.Deadline {
		for _, l := range e.opt.Leases {
			for _, p := range l.Prefixes {
				if !was.IsZero() && p.Prefix.Contains(part.Addr()) {
					was = lifetime.Max(was, p.ValidUntil)
				}
			}
		}
		return was
	}
	if len(e.opt.Lost) > 0 {
		valid = func(netip.Prefix, lifetime.Deadline) lifetime.Deadline { return lifetime.Deadline{} }
	}
	for _, list := range e.ledger.Announced {
		for i := range list {
			list[i].Valid = valid(list[i].Prefix, list[i].Valid)
		}
	}
	for _, list := range e.ledger.Loans {
		for i := range list {
			list[i].Valid = valid(list[i].Prefix, list[i].Valid)
		}
	}
}
