package rtnl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

const (
	// maxBatch is the most requests in one datagram. Larger batches are no faster.
	maxBatch = 512
	// answerCost is what a queued acknowledgement takes from the receive buffer, rounded up: a struct sk_buff and a page
	// fragment, 768 to 1280 bytes on kernels in use.
	answerCost = 2048
)

// Apply carries out plan in order. Requests are sent in batches; the kernel works through a batch in order, and the first
// withdrawal waits until all additions before it have been answered.
func (k *Kernel) Apply(ctx context.Context, plan kernel.Plan) kernel.Report {
	a := applier{k: k, plan: plan}
	if err := k.lock(); err != nil {
		for _, op := range plan.Ops {
			a.settle(op, err)
		}
		return a.report
	}
	defer k.mu.Unlock()
	if slices.ContainsFunc(plan.Ops, replacesAddress) {
		a.present, a.unseen = k.marks(ctx)
	}
	for _, op := range plan.Ops {
		a.do(ctx, op)
	}
	a.flush(ctx)
	return a.report
}

// applier is the work on one plan.
type applier struct {
	k      *Kernel
	report kernel.Report
	plan   kernel.Plan
	holds  func(kernel.Op) bool // withdrawals that have to wait; known once all additions before them are answered

	indexes map[string]uint32     // devices by name
	present map[addressKey]marked // addresses in the kernel, if the plan changes one
	unseen  error                 // why present is not known

	e       encoder
	pending []request // in e, not sent
	first   uint32    // sequence number of the first pending request
	count   int       // messages in e
	adds    bool      // there is an addition among them
}

// request is an operation and the messages that carry it out.
type request struct {
	op       kernel.Op
	from, to int // messages of the batch
}

type addressKey struct {
	index uint32
	addr  netip.Addr
}

// marked is an address in the kernel: its length, which is not part of its identity, its owner, and when it was made.
type marked struct {
	bits  int
	proto uint8
	born  uint32
}

func (a *applier) do(ctx context.Context, op kernel.Op) {
	if op.Verb == kernel.Delete {
		if a.adds {
			a.flush(ctx)
		}
		if a.holds == nil {
			a.holds = a.plan.Hold(a.report.Failed)
		}
		if a.holds(op) {
			a.report.Skipped = append(a.report.Skipped, op)
			return
		}
	}
	if err := ctx.Err(); err != nil {
		a.settle(op, err)
		return
	}
	switch r := op.Row.(type) {
	case kernel.Sysctl:
		a.flush(ctx) // keep the order
		a.settle(op, a.sysctl(op.Verb, r))
		return
	case kernel.Table:
		a.flush(ctx)
		a.settle(op, a.table(ctx, op.Verb, r))
		return
	}
	mark, count := len(a.e.buf), a.count
	if a.count == 0 {
		a.first = a.k.conn.seq + 1
	}
	if err := a.encode(op); err != nil {
		a.e.buf, a.count = a.e.buf[:mark], count
		a.settle(op, err)
		return
	}
	a.pending = append(a.pending, request{op, count, a.count})
	a.adds = a.adds || op.Verb != kernel.Delete
	if a.count >= a.limit() {
		a.flush(ctx)
	}
}

// limit is the number of messages whose answers are sure to fit into the receive buffer.
func (a *applier) limit() int {
	if n := a.k.options.batch; n > 0 {
		return n
	}
	return max(1, min(maxBatch, a.k.conn.rcvbuf/answerCost))
}

func (a *applier) next() uint32 {
	a.count++
	return a.first + uint32(a.count) - 1
}

// encode appends the messages of op to the batch.
func (a *applier) encode(op kernel.Op) error {
	if err := check(op); err != nil {
		return err
	}
	switch r := op.Row.(type) {
	case kernel.Rule:
		a.e.rule(op.Verb, r, a.next())
		return nil
	case kernel.Route:
		index, err := a.index(r.Dev)
		if err == nil {
			a.e.route(op.Verb, r, index, a.next())
		}
		return err
	case kernel.Address:
		index, err := a.index(r.Dev)
		if err != nil {
			return err
		}
		return a.encodeAddress(op.Verb, r, index)
	}
	return fmt.Errorf("%w: %T", errUnsupported, op.Row)
}

// encodeAddress appends what it takes to write an address. The kernel keeps the length of an address that it knows and
// says nothing, so a change of the length is a deletion and an addition, sent in one batch.
func (a *applier) encodeAddress(v kernel.Verb, r kernel.Address, index uint32) error {
	now := time.Now()
	switch v {
	case kernel.Delete:
		a.e.delAddress(r.Prefix, index, a.next())
		return nil
	case kernel.Replace:
		key := addressKey{index, r.Prefix.Addr()}
		old, ok := a.present[key]
		born, adopted := a.k.adopted[key]
		switch {
		case a.unseen != nil:
			return fmt.Errorf("look at the address to replace: %w", a.unseen)
		case ok && a.k.caps.IFAProto && old.proto != kernel.Protocol && !(adopted && old.born == born):
			return foreign(unix.EEXIST, r, old.proto, true)
		case ok && old.bits != r.Prefix.Bits() && !r.ValidUntil.Over(now): // one that is over is refused below
			a.e.delAddress(netip.PrefixFrom(r.Prefix.Addr(), old.bits), index, a.next())
			v = kernel.Add
		}
	}
	return a.e.newAddress(v, r, index, a.next(), a.k.caps.IFAProto, now)
}

func replacesAddress(op kernel.Op) bool {
	_, ok := op.Row.(kernel.Address)
	return ok && op.Verb == kernel.Replace
}

// marks dumps the addresses of all owners.
func (k *Kernel) marks(ctx context.Context) (map[addressKey]marked, error) {
	dumped, err := k.dumpAddresses(ctx, unix.AF_UNSPEC)
	if err != nil {
		return nil, err
	}
	m := make(map[addressKey]marked, len(dumped))
	for _, d := range dumped {
		m[addressKey{d.index, d.row.Prefix.Addr()}] = marked{d.row.Prefix.Bits(), d.proto, d.row.Born}
	}
	return m, nil
}

// index returns the index of a device; 0 for the name "".
func (a *applier) index(name string) (uint32, error) {
	if name == "" {
		return 0, nil
	}
	if i, ok := a.indexes[name]; ok {
		return i, nil
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, &explained{fmt.Sprintf("%q is no name for a device", name), unix.ENODEV}
	}
	if err := unix.IoctlIfreq(a.k.conn.fd, unix.SIOCGIFINDEX, ifr); err != nil {
		if errors.Is(err, unix.ENODEV) {
			return 0, &explained{"there is no device " + name, err}
		}
		return 0, fmt.Errorf("find device %s: %w", name, err)
	}
	if a.indexes == nil {
		a.indexes = map[string]uint32{}
	}
	a.indexes[name] = ifr.Uint32()
	return ifr.Uint32(), nil
}

// flush sends the batch and settles its operations.
func (a *applier) flush(ctx context.Context) {
	if len(a.pending) == 0 {
		return
	}
	batch := a.pending
	b, count := a.e.buf, a.count
	a.pending, a.e.buf, a.count, a.adds = nil, a.e.buf[:0], 0, false
	if err := a.k.usable(); err != nil {
		for _, r := range batch {
			a.settle(r.op, err)
		}
		return
	}
	a.k.conn.seq = a.first + uint32(count) - 1
	a.report.Writes += count
	answers, err := a.k.conn.transact(b, a.first, count)
	v := verdicts{k: a.k, batch: batch, lost: err}
	for _, r := range batch {
		a.settle(r.op, v.of(ctx, r, answers))
	}
}

// settle files an operation as done or failed. An object to delete that is gone already is as wanted.
func (a *applier) settle(op kernel.Op, err error) {
	switch {
	case err == nil, op.Verb == kernel.Delete && gone(err):
		a.report.Done = append(a.report.Done, op)
	default:
		a.report.Failed = append(a.report.Failed, kernel.OpError{Op: op, Err: err})
	}
}
