package pd

import (
	"slices"
	"time"
)

// message is the message of x as it has to be sent at now. It is built anew for each transmission, since a lease may have
// expired meanwhile (§15).
func (m *Machine) message(now time.Time, x *exchange) Message {
	msg := Message{
		Type:        x.typ,
		XID:         x.xid,
		ClientID:    m.cfg.ClientID,
		ServerID:    x.server,
		Elapsed:     now.Sub(x.first),
		UserClass:   m.cfg.UserClass,
		VendorClass: m.cfg.VendorClass,
		Extra:       m.cfg.Extra,
	}
	switch x.typ {
	case Solicit:
		msg.RapidCommit = m.cfg.RapidCommit
		m.addIAs(&msg, m.wishes(), true)
	case Request:
		m.addIAs(&msg, m.target.bindings, true)
	case Renew, Rebind:
		m.addIAs(&msg, m.lease.bindings(), true) // §18.2.4: those that we lack, too
	case Confirm:
		m.addIAs(&msg, m.lease.bindings(), false)
	case Release, Decline:
		m.addIAs(&msg, m.target.bindings, false)
	}
	switch x.typ {
	case Solicit, Request, Renew, Rebind, InformationRequest: // §21.7, §21.20
		msg.ORO = m.oro(x.typ)
		msg.ReconfAccept = m.cfg.Reconfigure
	}
	return msg
}

// oro is the Option Request option: what the config asks for, DNS, and what the RFCs demand. Codes that may not stand in
// it (§21.7) are left out, and so is Information Refresh Time except in an Information-request (§21.23).
func (m *Machine) oro(typ MessageType) []uint16 {
	codes := append([]uint16{OptDNSServers, OptDomainList}, m.cfg.ORO...)
	codes = slices.DeleteFunc(codes, func(c uint16) bool {
		return c <= 9 || c >= 11 && c <= 16 || c >= 18 && c <= 20 || c == 25 || c == 26 || c == OptInfoRefresh
	})
	switch {
	case typ == InformationRequest:
		codes = append(codes, OptInfoRefresh, OptInfMaxRT)
	case len(m.cfg.PDs) > 0:
		codes = append(codes, OptSolMaxRT, OptPDExclude)
	default:
		codes = append(codes, OptSolMaxRT)
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}

// addIAs adds the IAs that are asked for to msg, with the leases among named that belong to them; those without any only
// if empty is set. T1, T2 and lifetimes are 0 (§21.4, §21.21).
func (m *Machine) addIAs(msg *Message, named []binding, empty bool) {
	asking := m.asking()
	for _, c := range m.cfg.PDs {
		o := IAPD{IAID: c.IAID}
		for _, b := range named {
			if !b.na && b.IAID == c.IAID {
				o.Prefixes = append(o.Prefixes, IAPrefix{Prefix: b.Prefix})
			}
		}
		if empty && slices.Contains(asking, ia{id: c.IAID}) {
			if msg.Type == Solicit || len(o.Prefixes) == 0 {
				o.Prefixes = append(o.Prefixes, lengthHint(c, o.Prefixes)...)
			}
		} else if len(o.Prefixes) == 0 {
			continue
		}
		msg.IAPDs = append(msg.IAPDs, o)
	}
	if m.cfg.NA == nil {
		return
	}
	o := IANA{IAID: m.cfg.NA.IAID}
	for _, b := range named {
		if b.na {
			o.Addresses = append(o.Addresses, IAAddress{Address: b.Prefix.Addr()})
		}
	}
	if len(o.Addresses) > 0 || empty && slices.Contains(asking, ia{na: true, id: o.IAID}) {
		msg.IANAs = append(msg.IANAs, o)
	}
}

// lengthHint is the wanted length (RFC 8168) unless a prefix that is named has it. Never `::/0`, which crashes equipment in
// the field (§21.22).
func lengthHint(c PDConfig, named []IAPrefix) []IAPrefix {
	has := slices.ContainsFunc(named, func(p IAPrefix) bool { return p.Prefix.Bits() == int(c.Length) })
	if c.Length == 0 || c.Length > 128 || has {
		return nil
	}
	return []IAPrefix{{HintLen: c.Length}}
}

// maxHints bounds the previous prefixes that a Solicit names for an IA.
const maxHints = 4

// wishes are what a Solicit names: the prefix of the config or those held before, since many providers give them back to
// whoever asks; and the addresses held before.
func (m *Machine) wishes() (wishes []binding) {
	count, asking := map[ia]int{}, m.asking()
	for _, c := range m.cfg.PDs {
		if i := (ia{id: c.IAID}); delegable(c.Prefix) && slices.Contains(asking, i) {
			count[i] = maxHints
			wishes = append(wishes, binding{LeasedPrefix: LeasedPrefix{IAID: c.IAID, Prefix: c.Prefix}})
		}
	}
	for _, b := range m.previous {
		if i := b.ia(); slices.Contains(asking, i) && count[i] < maxHints {
			count[i]++
			wishes = append(wishes, b)
		}
	}
	return wishes
}
