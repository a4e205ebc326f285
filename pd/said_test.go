package pd

import (
	"fmt"
	"strings"

	"uplinkd/internal/lifetime"
)

// This file holds how transcripts show messages that are sent, and leases.

func (c *conversation) sent(msg Message) string {
	if msg.ClientID != ourID {
		c.t.Errorf("%v with client id %v", msg.Type, msg.ClientID)
	}
	if c.names[msg.XID] == 0 {
		c.names[msg.XID] = len(c.names) + 1
		c.xids[c.names[msg.XID]] = msg.XID
	}
	s := fmt.Sprintf("%v #%d", msg.Type, c.names[msg.XID])
	if msg.ServerID != "" {
		s += " to=" + string(msg.ServerID[4:])
	}
	s += fmt.Sprintf(" elapsed=%v", msg.Elapsed)
	if msg.RapidCommit {
		s += " rapid"
	}
	if msg.ReconfAccept {
		s += " reconf-accept"
	}
	if msg.ORO != nil {
		s += " oro=" + strings.ReplaceAll(strings.Trim(fmt.Sprint(msg.ORO), "[]"), " ", ",")
	}
	for _, u := range msg.UserClass {
		s += " user-class=" + string(u)
	}
	for _, v := range msg.VendorClass {
		s += " vendor-class=" + string(v.Data[0])
	}
	for _, o := range msg.Extra {
		s += fmt.Sprintf(" extra=%d", o.Code)
	}
	for _, o := range msg.IAPDs {
		s += fmt.Sprintf(" iapd=%d/%d/%d", o.IAID, o.T1, o.T2)
		for _, p := range o.Prefixes {
			if p.Preferred != 0 || p.Valid != 0 {
				c.t.Errorf("%v names %v with lifetimes", msg.Type, p.Prefix)
			}
			if p.Prefix.IsValid() {
				s += " " + p.Prefix.String()
			} else {
				s += fmt.Sprintf(" ::/%d", p.HintLen)
			}
		}
	}
	for _, o := range msg.IANAs {
		s += fmt.Sprintf(" iana=%d/%d/%d", o.IAID, o.T1, o.T2)
		for _, a := range o.Addresses {
			if a.Preferred != 0 || a.Valid != 0 {
				c.t.Errorf("%v names %v with lifetimes", msg.Type, a.Address)
			}
			s += " " + a.Address.String()
		}
	}
	return s
}

func leaseText(l Lease) string {
	at := func(d lifetime.Deadline) string {
		if t, ok := d.Time(); ok && !d.IsZero() {
			return t.Sub(start).String()
		}
		return d.String()
	}
	s := ""
	if l.ServerID != "" {
		s += " from=" + string(l.ServerID[4:])
	}
	if l.Held() {
		s += fmt.Sprintf(" t1=%s t2=%s", at(l.T1), at(l.T2))
	}
	for _, p := range l.Prefixes {
		if s += " "; p.IAID != 1 {
			s += fmt.Sprintf("%d:", p.IAID)
		}
		s += fmt.Sprintf("%v %s/%s", p.Prefix, at(p.PreferredUntil), at(p.ValidUntil))
		if p.Exclude.IsValid() {
			s += fmt.Sprintf("^%v", p.Exclude)
		}
		if p.Unlisted {
			s += " unlisted"
		}
	}
	for _, a := range l.Addresses {
		s += fmt.Sprintf(" %v %s/%s", a.Address, at(a.PreferredUntil), at(a.ValidUntil))
	}
	for _, a := range l.DNS {
		s += " dns=" + a.String()
	}
	for _, d := range l.DomainSearch {
		s += " search=" + d
	}
	if !l.InfoUntil.IsZero() {
		s += " info-until=" + at(l.InfoUntil)
	}
	if l.SolMaxRT != 0 {
		s += fmt.Sprintf(" solmax=%d", l.SolMaxRT)
	}
	if l.InfMaxRT != 0 {
		s += fmt.Sprintf(" infmax=%d", l.InfMaxRT)
	}
	if l.IgnoresRebind != "" {
		s += " ignores-rebind=" + string(l.IgnoresRebind[4:])
	}
	for _, p := range l.Previous {
		s += fmt.Sprintf(" previous=%v", p)
	}
	if l.Reconf != nil {
		s += fmt.Sprintf(" key=%s/%d", string(l.Reconf.ServerID[4:]), l.Reconf.Replay)
	}
	return s
}
