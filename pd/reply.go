package pd

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// verdict is what a server says about one IA.
type verdict struct {
	ia        ia
	listed    bool           // the message has the IA
	whole     bool           // the reason is that of the whole message
	code      StatusCode     // Success unless it refuses
	reason    string         // when nothing is granted: why, as a predicate
	t1, t2    uint32         // seconds, as on the wire
	granted   []IAPrefix     // usable ones, each prefix once
	withdrawn []netip.Prefix // valid lifetime 0
}

// answer is what a server says about each IA that we ask for.
type answer []verdict

// judge reads the answer out of an Advertise or Reply.
func (m *Machine) judge(msg Message) answer {
	a := answer{}
	for _, i := range m.asking() {
		v := m.cfg.judge(msg, i)
		// A prefix that two IAs list belongs to the first one.
		v.granted = slices.DeleteFunc(v.granted, func(p IAPrefix) bool {
			return slices.ContainsFunc(a, func(o verdict) bool { return o.ia.na == i.na && o.knows(p.Prefix) })
		})
		a = append(a, v)
	}
	return a
}

// judge reads the answer about i, looking for a status on all three levels (RFC 9915 §21.13). Some servers put
// NoAddrsAvail for the whole message beside a granted IA_PD, and NoPrefixAvail beside an IA_NA: each says nothing about
// the other kind.
func (c Config) judge(msg Message, i ia) verdict {
	v := verdict{ia: i}
	other := NoAddrsAvail
	if i.na {
		other = NoPrefixAvail
	}
	status, t1, t2, leases := find(msg, i, &v.listed)
	switch code := msg.Status.Code; {
	case code != Success && (code != other || !v.listed):
		v.code, v.reason, v.whole = code, refusal(msg.Status), true
		return v
	case !v.listed:
		v.reason = fmt.Sprintf("answered without %v", i)
		return v
	case t1 > t2 && t2 > 0: // §21.4, §21.21
		v.reason = fmt.Sprintf("sent %v with T1 %d > T2 %d, which has to be ignored", i, t1, t2)
		return v
	}
	v.code, v.t1, v.t2, v.reason = status.Code, t1, t2, "offered no usable prefix"
	if i.na {
		v.reason = "offered no usable address"
	}
	if v.code != Success {
		v.reason = refusal(status)
	}
	for _, p := range leases {
		v.add(p, c)
	}
	if status.Code != Success {
		v.granted = nil
	}
	return v
}

// find is what msg has of i, addresses as /128.
func find(msg Message, i ia, listed *bool) (status Status, t1, t2 uint32, leases []IAPrefix) {
	if !i.na {
		n := slices.IndexFunc(msg.IAPDs, func(o IAPD) bool { return o.IAID == i.id })
		if *listed = n >= 0; *listed {
			o := msg.IAPDs[n]
			return o.Status, o.T1, o.T2, o.Prefixes
		}
		return
	}
	n := slices.IndexFunc(msg.IANAs, func(o IANA) bool { return o.IAID == i.id })
	if *listed = n >= 0; *listed {
		o := msg.IANAs[n]
		status, t1, t2 = o.Status, o.T1, o.T2
		for _, a := range o.Addresses {
			leases = append(leases, IAPrefix{Prefix: host(a.Address), Preferred: a.Preferred, Valid: a.Valid, Status: a.Status})
		}
	}
	return
}

// add sorts one IA Prefix or IA Address option into v. A status beside it means that it was not granted or extended
// (servers in the field answer a Renew with NoPrefixAvail there, https://github.com/openwrt/odhcp6c/issues/61); a valid
// lifetime of 0 withdraws it whatever the status.
func (v *verdict) add(p IAPrefix, c Config) {
	most := maxPrefixes
	if v.ia.na {
		most = maxAddresses
	}
	switch {
	case !delegable(p.Prefix) || p.Preferred > p.Valid || v.knows(p.Prefix):
	case p.Valid == 0:
		if len(v.withdrawn) < most {
			v.withdrawn = append(v.withdrawn, p.Prefix)
		}
	case p.Status.Code != Success:
		if v.code == Success {
			v.code, v.reason = p.Status.Code, refusal(p.Status)
		}
	case !c.accepts(v.ia, p.Prefix.Bits()):
		if v.code == Success {
			v.code, v.reason = NoPrefixAvail, fmt.Sprintf("offered %v, whose length the config does not accept", p.Prefix)
		}
	case len(v.granted) < most:
		p.Exclude = excluded(p.Prefix, p.Exclude)
		v.granted = append(v.granted, p)
	}
}

func (v *verdict) knows(p netip.Prefix) bool {
	return slices.Contains(v.withdrawn, p) || slices.ContainsFunc(v.granted, func(g IAPrefix) bool { return g.Prefix == p })
}

// bindings are what v grants, without deadlines.
func (v verdict) bindings() []binding {
	bs := make([]binding, 0, len(v.granted))
	for _, p := range v.granted {
		bs = append(bs, binding{na: v.ia.na, LeasedPrefix: LeasedPrefix{IAID: v.ia.id, Prefix: p.Prefix, Exclude: p.Exclude}})
	}
	return bs
}

func (a answer) bindings() (bs []binding) {
	for _, v := range a {
		bs = append(bs, v.bindings()...)
	}
	return bs
}

// count is how many IAs of a kind are granted something.
func (a answer) count(na bool) (n int) {
	for _, v := range a {
		if v.ia.na == na && len(v.granted) > 0 {
			n++
		}
	}
	return n
}

// usable reports whether a is worth taking: partial grants are (§18.2.9, §18.2.10.1), unless the config cannot do without
// an address.
func (a answer) usable(c Config) bool {
	if c.NA != nil && c.NA.Required {
		return a.count(true) > 0
	}
	return a.count(true)+a.count(false) > 0
}

func (a answer) has(code StatusCode) bool {
	return slices.ContainsFunc(a, func(v verdict) bool { return v.code == code })
}

// unknown are the IAs of which the server has no binding.
func (a answer) unknown() (ias []ia) {
	for _, v := range a {
		if v.code == NoBinding {
			ias = append(ias, v.ia)
		}
	}
	return ias
}

func (a answer) withdraws() bool {
	return slices.ContainsFunc(a, func(v verdict) bool { return len(v.withdrawn) > 0 })
}

// about is the verdict on i; ok is false when it was not asked for.
func (a answer) about(i ia) (v verdict, ok bool) {
	n := slices.IndexFunc(a, func(v verdict) bool { return v.ia == i })
	if n < 0 {
		return verdict{}, false
	}
	return a[n], true
}

// unlisted are those of held about which a says nothing.
func (a answer) unlisted(held []binding) []binding {
	return slices.DeleteFunc(slices.Clone(held), func(b binding) bool {
		v, ok := a.about(b.ia())
		return ok && v.knows(b.Prefix)
	})
}

// reason is why IAs were not granted, as a predicate; "" if all were.
func (a answer) reason() string {
	var reasons []string
	for _, v := range a {
		if len(v.granted) > 0 || len(v.withdrawn) > 0 && v.code == Success {
			continue
		}
		text := v.reason
		if !v.whole && len(a) > 1 && !strings.Contains(text, v.ia.String()) {
			text += " for " + v.ia.String()
		}
		if !slices.Contains(reasons, text) {
			reasons = append(reasons, text)
		}
	}
	return strings.Join(reasons, ", ")
}

func refusal(s Status) string {
	name := s.Code.String()
	if int(s.Code) >= len(statusNames) {
		name = fmt.Sprintf("status %d", uint16(s.Code))
	}
	if s.Text == "" {
		return "refused: " + name
	}
	return fmt.Sprintf("refused: %s (%s)", name, s.Text)
}
