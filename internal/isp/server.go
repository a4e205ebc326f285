package isp

import (
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// server is what the provider answers, without sockets, clock and locks: RFC 9915 §18.3 for prefixes.
type server struct {
	cfg      Config
	bindings *bindings
}

// handle answers req, which came from a link-local address at now. The reply's Type is 0 when there is nothing to say.
func (s *server) handle(now time.Time, from netip.Addr, req pd.Message) (reply pd.Message, routes []route) {
	routes = s.bindings.expire(now)
	reply = pd.Message{XID: req.XID, ClientID: req.ClientID, ServerID: s.cfg.ServerID}
	if !s.addressed(req) {
		return reply, routes
	}
	reply.Type = pd.Reply
	switch req.Type {
	case pd.Solicit:
		if s.cfg.RapidCommit && req.RapidCommit {
			reply.RapidCommit = true
			break
		}
		reply.Type = pd.Advertise
		reply.Preference = s.cfg.Preference
	}
	for _, ia := range req.IAPDs {
		c := client{req.ClientID, ia.IAID}
		var answer pd.IAPD
		var changed []route
		switch req.Type {
		case pd.Solicit, pd.Request:
			answer, changed = s.assign(now, from, c, ia, reply.Type == pd.Reply)
		case pd.Renew, pd.Rebind:
			answer, changed = s.extend(now, from, c, ia)
		case pd.Release, pd.Decline:
			answer, changed = s.release(c)
		}
		reply.IAPDs = append(reply.IAPDs, answer)
		routes = append(routes, changed...)
	}
	s.configure(req, &reply)
	return reply, routes
}

// addressed reports whether req is a valid message for this server (RFC 9915 §16). Confirm is for addresses only (§18.3.3)
// and a Solicit without IA_PD wants something else from us; they get no answer.
func (s *server) addressed(req pd.Message) bool {
	switch req.Type {
	case pd.Solicit:
		return req.ClientID != "" && req.ServerID == "" && len(req.IAPDs) > 0
	case pd.Rebind:
		return req.ClientID != "" && req.ServerID == ""
	case pd.Request, pd.Renew, pd.Release, pd.Decline:
		return req.ClientID != "" && req.ServerID == s.cfg.ServerID
	case pd.InformationRequest:
		return len(req.IAPDs) == 0 && (req.ServerID == "" || req.ServerID == s.cfg.ServerID)
	}
	return false
}

// assign offers a prefix, or binds it if commit.
func (s *server) assign(now time.Time, from netip.Addr, c client, ia pd.IAPD, commit bool) (pd.IAPD, []route) {
	if commit {
		if have, routes := s.bindings.grant(c, from, lifetime.After(now, s.cfg.Valid)); have != nil {
			return s.lease(now, have, ia), routes
		}
	} else if p := s.bindings.candidate(c); p.IsValid() {
		return s.iapd(ia.IAID, s.current(p)), nil
	}
	return pd.IAPD{IAID: ia.IAID, Status: pd.Status{Code: pd.NoPrefixAvail, Text: "pool is used up"}}, nil
}

func (s *server) extend(now time.Time, from netip.Addr, c client, ia pd.IAPD) (pd.IAPD, []route) {
	if s.bindings.byIA[c] == nil {
		return noBinding(ia.IAID), nil
	}
	return s.assign(now, from, c, ia, true)
}

func (s *server) release(c client) (pd.IAPD, []route) {
	if s.bindings.byIA[c] == nil {
		return noBinding(c.iaid), nil
	}
	return pd.IAPD{IAID: c.iaid, Status: pd.Status{Code: pd.Success, Text: "released"}}, s.bindings.drop(c)
}

func noBinding(iaid uint32) pd.IAPD {
	return pd.IAPD{IAID: iaid, Status: pd.Status{Code: pd.NoBinding, Text: "no binding for this IA_PD"}}
}

// lease is the current prefix, those from before a renumbering with what is left of them, and with lifetimes 0 what else
// the client believes to have (§18.3.4): Kea does the same.
func (s *server) lease(now time.Time, have *binding, asked pd.IAPD) pd.IAPD {
	answer := s.iapd(asked.IAID, s.current(have.Prefix))
	for _, o := range have.old {
		answer.Prefixes = append(answer.Prefixes, pd.IAPrefix{Prefix: o.prefix, Valid: o.until.Seconds(now)})
	}
	for _, p := range asked.Prefixes {
		known := func(q pd.IAPrefix) bool { return q.Prefix == p.Prefix }
		if p.Prefix.IsValid() && p.Prefix.Bits() > 0 && !slices.ContainsFunc(answer.Prefixes, known) {
			answer.Prefixes = append(answer.Prefixes, pd.IAPrefix{Prefix: p.Prefix})
		}
	}
	s.bindings.told(have, now)
	return answer
}

func (s *server) current(p netip.Prefix) pd.IAPrefix {
	return pd.IAPrefix{Prefix: p, Preferred: s.cfg.Preferred, Valid: s.cfg.Valid}
}

func (s *server) iapd(iaid uint32, p pd.IAPrefix) pd.IAPD {
	return pd.IAPD{IAID: iaid, T1: s.cfg.T1, T2: s.cfg.T2, Prefixes: []pd.IAPrefix{p}}
}

// configure adds the options that the client has asked for.
func (s *server) configure(req pd.Message, reply *pd.Message) {
	asked := func(option uint16) bool { return slices.Contains(req.ORO, option) }
	if asked(pd.OptDNSServers) {
		reply.DNS = s.cfg.DNS
	}
	if asked(pd.OptDomainList) {
		reply.DomainSearch = s.cfg.DomainSearch
	}
	if asked(pd.OptSolMaxRT) {
		reply.SolMaxRT = s.cfg.SolMaxRT
	}
}
