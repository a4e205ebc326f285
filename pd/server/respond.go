package server

import (
	"net/netip"
	"slices"
	"time"

	"uplinkd/pd"
)

// responder is what a Server says: RFC 9915 §16 and §18.3 without socket, clock and memory. First refused, then ask and the
// Lender, then answer.
type responder struct {
	downstream string
	id         pd.DUID
	service    Service
}

// maxIAs is how many IA_PDs of a message are put to the Lender; the others are answered as if nothing were left. A router
// that wants several prefixes sends two or three.
const maxIAs = 16

// refused is why m gets no answer (§16.2 to §16.12); "" if it may.
func (r responder) refused(m pd.Message) string {
	if m.ClientID == r.id { // it would delegate to itself what it has
		return "it is this router's own"
	}
	switch m.Type {
	case pd.Solicit:
		switch {
		case r.service.Mode != Delegating:
			return "there are no prefixes here"
		case len(m.IAPDs)+len(m.IANAs) == 0:
			return "it asks for nothing"
		}
		return r.addressed(m, false)
	case pd.Rebind:
		return r.addressed(m, false)
	case pd.Request, pd.Renew, pd.Release, pd.Decline:
		return r.addressed(m, true)
	case pd.InformationRequest:
		switch {
		case m.ServerID != "" && m.ServerID != r.id:
			return "it is for another server"
		case len(m.IAPDs)+len(m.IANAs) > 0:
			return "it has IAs"
		}
		return ""
	case pd.Confirm:
		return "a Confirm is about addresses, of which there are none here"
	}
	return "it is not a client's message"
}

// addressed checks the identifiers of a message that is either for the server it names or for every server.
func (r responder) addressed(m pd.Message, one bool) string {
	switch {
	case m.ClientID == "":
		return "it lacks a client identifier"
	case one && m.ServerID != r.id:
		return "it is for another server"
	case !one && m.ServerID != "":
		return "it names a server"
	}
	return ""
}

// ask is what the Lender has to be asked for m, which was not refused; ok is false if nothing.
func (r responder) ask(m pd.Message, via netip.Addr) (a Ask, ok bool) {
	switch {
	case m.Type == pd.Solicit && m.RapidCommit, m.Type == pd.Request && r.service.Mode == Delegating:
		a.Verb = Bind
	case m.Type == pd.Solicit:
		a.Verb = Offer
	case m.Type == pd.Renew:
		a.Verb = Extend
	case m.Type == pd.Rebind:
		a.Verb = Rebind
	case m.Type == pd.Release:
		a.Verb = Release
	default:
		return Ask{}, false
	}
	a.Downstream, a.Client, a.Via = r.downstream, m.ClientID, via
	for _, ia := range distinct(m.IAPDs) {
		if len(a.IAs) == maxIAs {
			break
		}
		a.IAs = append(a.IAs, asked(ia))
	}
	return a, len(a.IAs) > 0
}

// distinct are ias without those whose IAID has come up before.
func distinct(ias []pd.IAPD) []pd.IAPD {
	seen := make(map[uint32]bool, len(ias))
	var d []pd.IAPD
	for _, ia := range ias {
		if !seen[ia.IAID] {
			seen[ia.IAID] = true
			d = append(d, ia)
		}
	}
	return d
}

func asked(ia pd.IAPD) AskedIA {
	a := AskedIA{IAID: ia.IAID, Prefixes: named(ia)}
	for _, p := range ia.Prefixes {
		if !p.Prefix.IsValid() && a.Length == 0 {
			a.Length = p.HintLen
		}
	}
	if a.Length == 0 && len(a.Prefixes) > 0 {
		a.Length = uint8(a.Prefixes[0].Bits())
	}
	return a
}

// named are the prefixes that a client names in an IA.
func named(ia pd.IAPD) (prefixes []netip.Prefix) {
	for _, p := range ia.Prefixes {
		if p.Prefix.IsValid() {
			prefixes = append(prefixes, p.Prefix)
		}
	}
	return prefixes
}

// maxSolicitPause is what inner routers are told as SOL_MAX_RT, in seconds: the least that is allowed (§21.24). While this
// site has lost its prefix they find nothing to borrow, and their pauses would grow to an hour.
const maxSolicitPause = 60

// answer is the answer to m, which was not refused, with what the Lender has said. Its Type is 0 for silence. What has to
// do with Reconfigure is not in it.
func (r responder) answer(now time.Time, m pd.Message, loans []Loan) pd.Message {
	reply := pd.Message{Type: pd.Reply, XID: m.XID, ClientID: m.ClientID, ServerID: r.id}
	switch m.Type {
	case pd.Solicit:
		reply.RapidCommit = m.RapidCommit
		if r.lend(now, m, loans, &reply); !reply.RapidCommit || !lent(reply) {
			// Nothing to commit: other servers are to have their chance.
			reply.Type, reply.RapidCommit = pd.Advertise, false
		}
	case pd.Request, pd.Renew:
		r.lend(now, m, loans, &reply)
	case pd.Rebind:
		if r.lend(now, m, loans, &reply); !mentions(reply) {
			return pd.Message{} // another server's client
		}
	case pd.Release:
		release(m, loans, &reply)
	case pd.Decline:
		decline(m, &reply)
	case pd.InformationRequest:
		reply.InfoRefresh = asksRefresh(m, r.service)
	}
	if m.Type != pd.Release && m.Type != pd.Decline {
		reply.Info = r.service.told(m.ORO)
	}
	if len(m.IAPDs) > 0 && slices.Contains(m.ORO, pd.OptSolMaxRT) {
		reply.SolMaxRT = maxSolicitPause
	}
	return reply
}
