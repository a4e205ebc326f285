package engine

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"uplinkd/internal/kernel"
)

// addressRecord is an address that uplinkd has made. Where the kernel marks addresses (IFA_PROTO), the mark says whose it is,
// and the record finds it again when somebody has changed it, which takes the mark off. On older kernels the record is all
// that there is.
type addressRecord struct {
	Dev    string       `json:"dev"`
	Prefix netip.Prefix `json:"prefix"`
	Born   uint32       `json:"born,omitempty"` // kernel.Address.Born; 0: about to be made
}

func (a addressRecord) compare(b addressRecord) int {
	return cmp.Or(strings.Compare(a.Dev, b.Dev), a.Prefix.Compare(b.Prefix))
}

// ownAddresses are the addresses of the records, for kernel.Scope.
func (e *Engine) ownAddresses() []kernel.Address {
	list := make([]kernel.Address, 0, len(e.saved.Addresses))
	for _, r := range e.saved.Addresses {
		list = append(list, kernel.Address{Dev: r.Dev, Prefix: r.Prefix, Born: r.Born})
	}
	return list
}

// rememberAddresses notes which addresses are ours: those found, and, where the kernel has no marks, those that plan is about to
// make. It reports whether there are new ones of either sort. The latter have to be on disk before they are in the kernel.
func (e *Engine) rememberAddresses(have kernel.State, plan kernel.Plan) (found, planned bool) {
	next := make([]addressRecord, 0, len(have.Addresses))
	for _, a := range have.Addresses {
		next = append(next, addressRecord{Dev: a.Dev, Prefix: a.Prefix, Born: a.Born})
	}
	for _, op := range plan.Ops {
		if a, ok := op.Row.(kernel.Address); ok && e.opt.NoOwnerMark && op.Verb != kernel.Delete {
			r := addressRecord{Dev: a.Dev, Prefix: a.Prefix}
			if op.Verb == kernel.Replace && slices.ContainsFunc(next, func(n addressRecord) bool { return n.compare(r) == 0 }) {
				continue // another length is another address to the kernel: it is made anew
			}
			next = append(slices.DeleteFunc(next, r.isSame), r)
			planned = true
		}
	}
	slices.SortFunc(next, addressRecord.compare)
	found = slices.ContainsFunc(next, func(n addressRecord) bool { return n.Born != 0 && !slices.Contains(e.saved.Addresses, n) })
	e.saved.Addresses = next
	return found, planned
}

// isSame reports whether r and n are one address, of whatever length.
func (r addressRecord) isSame(n addressRecord) bool {
	return r.Dev == n.Dev && r.Prefix.Addr() == n.Prefix.Addr()
}

// forgetRefused drops the records of addresses that the kernel did not take: one of somebody else may be in the way, and
// would be taken for ours when the kernel is read again. It reports whether there were any.
func (e *Engine) forgetRefused(r kernel.Report) (dropped bool) {
	for _, f := range r.Failed {
		a, ok := f.Op.Row.(kernel.Address)
		if !ok || f.Op.Verb != kernel.Add || !e.opt.NoOwnerMark {
			continue
		}
		refused := addressRecord{Dev: a.Dev, Prefix: a.Prefix}
		before := len(e.saved.Addresses)
		e.saved.Addresses = slices.DeleteFunc(e.saved.Addresses, func(n addressRecord) bool { return n == refused })
		dropped = dropped || len(e.saved.Addresses) < before
	}
	return dropped
}
