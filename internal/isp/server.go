package isp

import (
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// server is what the provider answers, without sockets, clock and locks: RFC 9915 §18.3 for prefixes and addresses.
type server struct {
	cfg       Config
	prefixes  *bindings
	addresses *bindings // as /128
	keys      map[pd.DUID]*key
}

func newServer(cfg Config) server {
	s := server{cfg: cfg, prefixes: newBindings(cfg.Pool, cfg.Length), addresses: newBindings(cfg.Addresses, 128),
		keys: map[pd.DUID]*key{}}
	s.addresses.first = ownAddresses
	return s
}

// handle answers req, which came from a link-local address at now. The reply's Type is 0 when there is nothing to say.
func (s *server) handle(now time.Time, from netip.Addr, req pd.Message) (reply pd.Message, routes []route) {
	routes = s.expire(now)
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
	case pd.Confirm:
		reply.Status = s.onLink(req)
	case pd.Decline:
		s.decline(req, &reply)
	}
	if req.Type != pd.Confirm && req.Type != pd.Decline {
		routes = append(routes, s.associate(now, from, req, &reply)...)
	}
	s.agree(from, req, &reply)
	s.configure(req, &reply)
	return reply, routes
}

// addressed reports whether req is a valid message for this server (RFC 9915 §16). A Solicit without IA wants something
// else from us, and a Confirm can be answered only by a server that has addresses on the link (§18.3.3); they get no answer.
func (s *server) addressed(req pd.Message) bool {
	ias := len(req.IAPDs) + len(req.IANAs)
	switch req.Type {
	case pd.Solicit:
		return req.ClientID != "" && req.ServerID == "" && ias > 0
	case pd.Rebind:
		return req.ClientID != "" && req.ServerID == ""
	case pd.Confirm:
		hasAddress := func(ia pd.IANA) bool { return len(ia.Addresses) > 0 }
		return req.ClientID != "" && req.ServerID == "" && s.cfg.Addresses.IsValid() && slices.ContainsFunc(req.IANAs, hasAddress)
	case pd.Request, pd.Renew, pd.Release, pd.Decline:
		return req.ClientID != "" && req.ServerID == s.cfg.ServerID
	case pd.InformationRequest:
		return ias == 0 && (req.ServerID == "" || req.ServerID == s.cfg.ServerID)
	}
	return false
}

// associate answers the IAs of req.
func (s *server) associate(now time.Time, from netip.Addr, req pd.Message, reply *pd.Message) (routes []route) {
	one := func(b *bindings, ia pd.IAPD) (answer pd.IAPD, changed []route) {
		c := client{req.ClientID, ia.IAID}
		switch req.Type {
		case pd.Solicit, pd.Request:
			return s.assign(now, from, b, c, ia, reply.Type == pd.Reply)
		case pd.Renew, pd.Rebind:
			return s.extend(now, from, b, c, ia)
		}
		return release(b, c)
	}
	for _, ia := range req.IANAs {
		answer, _ := one(s.addresses, asIAPD(ia)) // nobody needs a route to an address on the link
		reply.IANAs = append(reply.IANAs, asIANA(answer))
	}
	for _, ia := range req.IAPDs {
		answer, changed := one(s.prefixes, ia)
		if slices.Contains(req.ORO, pd.OptPDExclude) {
			s.exclude(answer.Prefixes)
		}
		reply.IAPDs = append(reply.IAPDs, answer)
		routes = append(routes, changed...)
	}
	return routes
}

// assign offers a prefix, or binds it if commit.
func (s *server) assign(now time.Time, from netip.Addr, b *bindings, c client, ia pd.IAPD, commit bool) (pd.IAPD, []route) {
	if commit {
		if have, routes := b.grant(c, from, lifetime.After(now, s.cfg.Valid)); have != nil {
			return s.lease(now, b, have, ia), routes
		}
	} else if p := b.candidate(c); p.IsValid() {
		return s.iapd(ia.IAID, s.current(p)), nil
	}
	code := pd.NoPrefixAvail
	if b == s.addresses {
		code = pd.NoAddrsAvail
	}
	return pd.IAPD{IAID: ia.IAID, Status: pd.Status{Code: code, Text: "pool is used up"}}, nil
}

func (s *server) extend(now time.Time, from netip.Addr, b *bindings, c client, ia pd.IAPD) (pd.IAPD, []route) {
	if b.byIA[c] == nil {
		return noBinding(ia.IAID), nil
	}
	return s.assign(now, from, b, c, ia, true)
}

func release(b *bindings, c client) (pd.IAPD, []route) {
	if b.byIA[c] == nil {
		return noBinding(c.iaid), nil
	}
	return pd.IAPD{IAID: c.iaid, Status: pd.Status{Code: pd.Success, Text: "released"}}, b.drop(c)
}

func noBinding(iaid uint32) pd.IAPD {
	return pd.IAPD{IAID: iaid, Status: pd.Status{Code: pd.NoBinding, Text: "no binding for this IA"}}
}

// lease is the current prefix, those from before a renumbering with what is left of them, and with lifetimes 0 what else
// the client believes to have (§18.3.4): Kea does the same.
func (s *server) lease(now time.Time, b *bindings, have *binding, asked pd.IAPD) pd.IAPD {
	answer := s.iapd(asked.IAID, s.current(have.Prefix))
	for _, o := range have.old {
		answer.Prefixes = append(answer.Prefixes, pd.IAPrefix{Prefix: o.prefix, Valid: o.until.Seconds(now)})
	}
	for _, p := range asked.Prefixes {
		known := func(q pd.IAPrefix) bool { return q.Prefix == p.Prefix }
		if p.Prefix.IsValid() && p.Prefix.Bits() > 0 && !b.unsaid[p.Prefix] && !slices.ContainsFunc(answer.Prefixes, known) {
			answer.Prefixes = append(answer.Prefixes, pd.IAPrefix{Prefix: p.Prefix})
		}
	}
	b.told(have, now)
	return answer
}

func (s *server) current(p netip.Prefix) pd.IAPrefix {
	return pd.IAPrefix{Prefix: p, Preferred: s.cfg.Preferred, Valid: s.cfg.Valid}
}

func (s *server) iapd(iaid uint32, p pd.IAPrefix) pd.IAPD {
	return pd.IAPD{IAID: iaid, T1: s.cfg.T1, T2: s.cfg.T2, Prefixes: []pd.IAPrefix{p}}
}

// exclude excludes from prefixes in use their first sub-prefix (RFC 6603).
func (s *server) exclude(prefixes []pd.IAPrefix) {
	for i, p := range prefixes {
		if s.cfg.Exclude > p.Prefix.Bits() && p.Valid > 0 {
			prefixes[i].Exclude = netip.PrefixFrom(p.Prefix.Addr(), s.cfg.Exclude)
		}
	}
}

// onLink says whether all addresses of a Confirm are of this link (§18.3.3).
func (s *server) onLink(req pd.Message) pd.Status {
	for _, ia := range req.IANAs {
		for _, a := range ia.Addresses {
			if !s.cfg.Addresses.Contains(a.Address) {
				return pd.Status{Code: pd.NotOnLink, Text: a.Address.String() + " is not of this link"}
			}
		}
	}
	return pd.Status{Code: pd.Success, Text: "all addresses are of this link"}
}

// decline takes addresses out of service that a client has found to be in use (§18.3.8). Only IAs without a binding are in
// the Reply. A Decline of prefixes does not exist.
func (s *server) decline(req pd.Message, reply *pd.Message) {
	reply.Status = pd.Status{Code: pd.Success, Text: "declined"}
	for _, ia := range req.IANAs {
		c := client{req.ClientID, ia.IAID}
		if s.addresses.byIA[c] == nil {
			reply.IANAs = append(reply.IANAs, asIANA(noBinding(ia.IAID)))
			continue
		}
		var found []netip.Prefix
		for _, p := range asIAPD(ia).Prefixes {
			found = append(found, p.Prefix)
		}
		s.addresses.decline(c, found)
	}
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
	if asked(pd.OptInfoRefresh) && req.Type == pd.InformationRequest {
		reply.InfoRefresh = s.cfg.InfoRefresh
	}
	if asked(pd.OptSolMaxRT) {
		reply.SolMaxRT = s.cfg.SolMaxRT
	}
	if asked(pd.OptInfMaxRT) {
		reply.InfMaxRT = s.cfg.InfMaxRT
	}
}

// expire, next and forget are those of prefixes and addresses together.
func (s *server) expire(now time.Time) []route {
	s.addresses.expire(now)
	return s.prefixes.expire(now)
}

func (s *server) next() (at time.Time, ok bool) {
	at, ok = s.prefixes.next()
	if other, also := s.addresses.next(); also && (!ok || other.Before(at)) {
		return other, true
	}
	return at, ok
}

func (s *server) forget() []route {
	clear(s.keys)
	s.addresses.forget()
	return s.prefixes.forget()
}

// asIAPD is ia with every address as a prefix of length 128, so that both are bound in the same way.
func asIAPD(ia pd.IANA) pd.IAPD {
	p := pd.IAPD{IAID: ia.IAID, T1: ia.T1, T2: ia.T2, Status: ia.Status}
	for _, a := range ia.Addresses {
		p.Prefixes = append(p.Prefixes, pd.IAPrefix{Prefix: netip.PrefixFrom(a.Address, 128), Preferred: a.Preferred, Valid: a.Valid})
	}
	return p
}

func asIANA(ia pd.IAPD) pd.IANA {
	n := pd.IANA{IAID: ia.IAID, T1: ia.T1, T2: ia.T2, Status: ia.Status}
	for _, p := range ia.Prefixes {
		n.Addresses = append(n.Addresses, pd.IAAddress{Address: p.Prefix.Addr(), Preferred: p.Preferred, Valid: p.Valid})
	}
	return n
}
