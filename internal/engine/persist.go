package engine

import (
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"reflect"
	"slices"
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
	Addresses []addressRecord   `json:"addresses"` // owned, sorted
	Borrowers []policy.Borrower `json:"borrowers,omitempty"`
	Devices   map[string]device `json:"devices,omitempty"` // by name: those of the config, and those on which something was announced
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

// load reads ledger and last report. Damaged files are set aside by the store; the engine starts without them.
func (e *Engine) load() error {
	if err := read(e, ledgerFile, &e.saved); err != nil {
		return err
	}
	repaired := e.complain(ledgerFile, e.saved.sound())
	e.saved.shorten(time.Now(), e.longestTold)
	if e.saved.Sysctls == nil {
		e.saved.Sysctls = map[string]string{}
	}
	slices.SortFunc(e.saved.Addresses, addressRecord.compare) // a person may have edited the file
	e.ledger = e.saved.Plan
	e.extend()
	e.loadBorrowers()
	if repaired {
		e.save()
	}
	var r reported
	if err := read(e, reportedFile, &r); err != nil {
		return err
	}
	if e.complain(reportedFile, r.sound()) {
		e.jobs.put(job{reported: &r})
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

// complain reports whether parts of a file are not believed, and has a copy of the file kept.
func (e *Engine) complain(file string, err error) bool {
	if err == nil {
		return false
	}
	if e.opt.Repaired != nil {
		err = e.opt.Repaired(file, err)
	}
	e.opt.Log.Error("going on without parts of a damaged state file", "err", err)
	return true
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
		e.jobs.put(j)
	}
	e.unsaved = nil
}

// save queues the ledger for the disk.
func (e *Engine) save() { e.jobs.put(job{ledger: e.copyLedger()}) }

// saveNow returns when the disk has the ledger, or has refused it. It goes the way of all jobs, so that an older ledger
// that is still queued cannot overwrite this one.
func (e *Engine) saveNow() {
	tried := make(chan struct{})
	e.jobs.put(job{ledger: e.copyLedger(), tried: tried})
	<-tried
}

func (e *Engine) copyLedger() *durable {
	return &durable{Plan: e.ledger, Sysctls: maps.Clone(e.saved.Sysctls), Addresses: slices.Clone(e.saved.Addresses),
		Borrowers: slices.Clone(e.saved.Borrowers), Devices: e.saved.Devices}
}

// sameLedger reports whether the disk may stay as it is. Until when the router, hosts and inner routers were told that
// something is valid moves with each Renew; the lease is written then, and that will do (see extend).
func sameLedger(a, b policy.Ledger) bool {
	announced := func(x, y policy.AnnouncedRecord) bool {
		x.Valid, y.Valid = lifetime.Deadline{}, lifetime.Deadline{}
		return x == y
	}
	lent := func(x, y policy.LoanRecord) bool {
		x.Valid, y.Valid = lifetime.Deadline{}, lifetime.Deadline{}
		return x == y
	}
	held := func(x, y policy.HeldRecord) bool {
		x.Valid, y.Valid = lifetime.Deadline{}, lifetime.Deadline{}
		return x == y
	}
	if !sameLists(a.Announced, b.Announced, announced) || !sameLists(a.Loans, b.Loans, lent) || !sameLists(a.Holds, b.Holds, held) {
		return false
	}
	a.Announced, b.Announced, a.Loans, b.Loans, a.Holds, b.Holds = nil, nil, nil, nil, nil, nil
	return reflect.DeepEqual(a, b)
}

func sameLists[T any](a, b map[string][]T, same func(x, y T) bool) bool {
	return maps.EqualFunc(a, b, func(x, y []T) bool { return slices.EqualFunc(x, y, same) })
}

// extend brings the ledger up to what the router, hosts and inner routers have been told since it was written, as far as a stored lease
// knows it. Where there is none any more, the record knows no end.
func (e *Engine) extend() {
	eachTold(e.ledger, func(_ string, part netip.Prefix, valid, _ *lifetime.Deadline) {
		if len(e.opt.Lost) > 0 {
			*valid = lifetime.Deadline{}
			return
		}
		for _, l := range e.opt.Leases {
			for _, p := range l.Prefixes {
				if !valid.IsZero() && p.Prefix.Contains(part.Addr()) {
					*valid = lifetime.Max(*valid, p.ValidUntil)
				}
			}
		}
	})
}
