package kernel

import "net/netip"

// Hold decides which withdrawals of a plan have to wait because additions of it failed: those whose replacement has not
// come, and what these still need. An address waits when its device got no new address or on-link route; a route when
// one to the same destination in its table failed; a rule when one of the same sources failed; and rules, routes and
// aggregates wait as long as an address under them does. A table that failed holds up nothing: a router without the
// program nft still loses the prefixes that it has to lose. Everything else goes on: one downstream or uplink in trouble
// does not hold up the others.
func (p Plan) Hold(failed []OpError) func(Op) bool {
	h := holder{devices: map[string]bool{}, routes: map[tableDst]bool{}, tables: map[uint32]bool{}}
	for _, f := range failed {
		h.fail(f.Op)
	}
	if len(failed) > 0 {
		for _, op := range p.Ops {
			if a, ok := op.Row.(Address); ok && op.Verb == Delete && h.devices[a.Dev] {
				h.addresses = append(h.addresses, a.Prefix.Addr())
			}
		}
		for _, op := range p.Ops {
			if r, ok := op.Row.(Rule); ok && op.Verb == Delete && h.holds(op) {
				h.tables[r.Table] = true
			}
		}
	}
	return h.holds
}

type tableDst struct {
	table uint32
	dst   netip.Prefix
}

type holder struct {
	devices   map[string]bool // on which an address or an on-link route failed
	routes    map[tableDst]bool
	sources   []netip.Prefix // of failed rules
	addresses []netip.Addr   // that stay
	tables    map[uint32]bool
}

func (h *holder) fail(op Op) {
	if op.Verb == Delete {
		return
	}
	switch r := op.Row.(type) {
	case Address:
		h.devices[r.Dev] = true
	case Route:
		h.routes[tableDst{r.Table, r.Dst}] = true
		if r.Dev != "" && !r.Gateway.IsValid() {
			h.devices[r.Dev] = true
		}
	case Rule:
		h.sources = append(h.sources, r.From)
	}
}

func (h *holder) holds(op Op) bool {
	if op.Verb != Delete {
		return false
	}
	switch r := op.Row.(type) {
	case Address:
		return h.devices[r.Dev]
	case Route:
		return h.routes[tableDst{r.Table, r.Dst}] || h.tables[r.Table] || r.Dst.Bits() > 0 && h.under(r.Dst)
	case Rule:
		for _, s := range h.sources {
			if s == r.From || s.IsValid() && r.From.IsValid() && s.Overlaps(r.From) {
				return true
			}
		}
		return r.From.IsValid() && h.under(r.From)
	}
	return false
}

// under reports whether an address that stays lies in p.
func (h *holder) under(p netip.Prefix) bool {
	for _, a := range h.addresses {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
