package pd

import (
	"net/netip"
	"slices"
	"time"
)

// message is the message of the running exchange as it has to be sent at now. It is built anew for each transmission,
// since a prefix may have expired meanwhile (§15).
func (m *Machine) message(now time.Time) Message {
	msg := Message{
		Type:     m.x.typ,
		XID:      m.x.xid,
		ClientID: m.cfg.ClientID,
		ServerID: m.addressee(),
		Elapsed:  now.Sub(m.x.first),
	}
	if m.state != releasing {
		msg.ORO = []uint16{OptDNSServers, OptDomainList, OptSolMaxRT} // §21.7; SOL_MAX_RT is a MUST
	}
	ia := IAPD{IAID: m.cfg.IAID} // §21.21: T1, T2 and lifetimes 0
	switch m.state {
	case soliciting:
		msg.RapidCommit = m.cfg.RapidCommit
		ia.Prefixes = m.hints()
	case requesting, releasing:
		ia.Prefixes = named(m.target.prefixes)
	case renewing, rebinding, confirming:
		ia.Prefixes = named(prefixesOf(m.lease.Prefixes))
	}
	msg.IAPDs = []IAPD{ia}
	return msg
}

// maxHints bounds the previous prefixes that a Solicit names.
const maxHints = 4

// hints are the wishes of a Solicit: the prefixes held before, since many providers give them back to whoever asks, and
// the wanted length (RFC 8168) unless one of them has it. Never `::/0`, which crashes equipment in the field (§21.22).
func (m *Machine) hints() []IAPrefix {
	hints := named(m.previous[:min(len(m.previous), maxHints)])
	has := slices.ContainsFunc(m.previous, func(p netip.Prefix) bool { return p.Bits() == int(m.cfg.Length) })
	if n := m.cfg.Length; n > 0 && n <= 128 && !has {
		hints = append(hints, IAPrefix{HintLen: n})
	}
	return hints
}

// named are IA Prefix options that name prefixes.
func named(prefixes []netip.Prefix) []IAPrefix {
	options := make([]IAPrefix, 0, len(prefixes))
	for _, p := range prefixes {
		options = append(options, IAPrefix{Prefix: p})
	}
	return options
}

func prefixesOf(leased []LeasedPrefix) []netip.Prefix {
	prefixes := make([]netip.Prefix, 0, len(leased))
	for _, p := range leased {
		prefixes = append(prefixes, p.Prefix)
	}
	return prefixes
}
