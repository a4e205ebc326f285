package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
)

// Bounds of what is kept of withdrawn delegations: a server may withdraw as fast as it delegates.
const (
	maxWithdrawn     = 16
	longestWithdrawn = 5400 * time.Second // as RFC 9096 §3.4 has it for what hosts are told
)

// recordHeld makes the next ledger entry of u, and notes which of the delegations that it had were over before their time,
// taken back or released. Until its lease would have ended, the provider may go on routing one here.
func (p *planner) recordHeld(u *Uplink, reported bool) {
	var withdrawn, records []HeldRecord
	for _, r := range p.before.Holds[u.Name] {
		switch {
		case u.holds(r.Prefix):
			continue
		case r.Until.IsForever() && !reported: // after a reboot: the lease still has to be confirmed
			records = append(records, r)
			continue
		case r.Until.IsForever():
			r.Until = heldUntil(r.Valid, p.w.Now, longestWithdrawn)
		}
		if !r.Until.Over(p.w.Now) {
			withdrawn = append(withdrawn, r)
		}
	}
	slices.SortFunc(withdrawn, func(a, b HeldRecord) int { return cmp.Or(b.Until.Compare(a.Until), a.compare(b)) })
	withdrawn = withdrawn[:min(len(withdrawn), maxWithdrawn)]
	u.Withdrawn = slices.SortedFunc(slices.Values(withdrawn), HeldRecord.compare)
	records = append(records, withdrawn...)
	for _, g := range u.Delegations {
		records = append(records, HeldRecord{Prefix: g.Prefix, Valid: g.ValidUntil, Until: lifetime.Forever()})
	}
	slices.SortFunc(records, HeldRecord.compare)
	keep(p.led.Holds, u.Name, records)
}

func (r HeldRecord) compare(o HeldRecord) int { return r.Prefix.Compare(o.Prefix) }

// withdrawn keeps what still comes for q, or still has a source in it, from looping between router and provider or leaving by
// another uplink. The rule comes after those of all delegations in use: whoever has a part of q now keeps it.
func (c *compiler) withdrawn(u Uplink, q netip.Prefix) {
	why := kernel.Reason{Config: u.Config, Uplink: u.Name, Delegation: q}
	why.Rule = "a delegation that was over before its time may still be routed here, and must not loop"
	c.route(kernel.Route{Table: u.Table, Dst: q, Metric: metricAggregate, Type: kernel.Unreachable, Reason: why})
	why.Rule = "a source from a delegation that was over before its time goes nowhere"
	c.rule(kernel.Rule{Priority: c.site.Rules.Withdrawn + u.Number, From: q, Action: kernel.Unreachable, Reason: why})
}
