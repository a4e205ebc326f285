package pd

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	maxOffers      = 16 // remembered Advertises
	solicitsInVain = 3  // unanswered Solicits after which that is reported
)

// offer is a usable Advertise, with what counts in comparing it.
type offer struct {
	server     DUID
	preference uint8
	bindings   []binding
	delegates  bool // it has a prefix
	served     int  // IAs that get something
	shortest   int  // prefix length
	familiar   int  // prefixes that we asked for
}

func (m *Machine) newOffer(msg Message, a answer) offer {
	o := offer{server: msg.ServerID, preference: msg.Preference, bindings: a.bindings(), delegates: a.count(false) > 0,
		served: a.count(false) + a.count(true), shortest: 128}
	wishes := m.wishes()
	for _, b := range o.bindings {
		if b.na {
			continue
		}
		o.shortest = min(o.shortest, b.Prefix.Bits())
		if slices.ContainsFunc(wishes, func(w binding) bool { return w.Prefix == b.Prefix }) {
			o.familiar++
		}
	}
	return o
}

// omission is a kind of IA that discovery leaves out for a while, because servers mind it beside the other kind.
type omission uint8

const (
	omitNothing omission = iota
	omitAddress
	omitPrefixes
)

// asking are the IAs to ask for now.
func (m *Machine) asking() []ia {
	return slices.DeleteFunc(m.cfg.wanted(), func(i ia) bool {
		return i.na && m.omit == omitAddress || !i.na && m.omit == omitPrefixes
	})
}

// startSolicit begins discovery with a first Solicit at at (§18.2.1).
func (m *Machine) startSolicit(at time.Time) {
	m.offers = nil
	m.start(soliciting, solicitTiming, at, "")
}

// solicitAgain begins discovery again after a round that gave no lease. The pause doubles each time up to SOL_MAX_RT, so
// that a server that advertises what it then refuses is not asked in a tight circle.
func (m *Machine) solicitAgain(now time.Time) {
	pause := min(solTimeout<<min(m.failures, 20), m.solMaxRT())
	m.failures++
	m.startSolicit(now.Add(pause + time.Duration(m.rnd.Float64()*0.1*float64(pause))))
}

// advertised takes in an Advertise that answers our Solicit (§18.2.9).
func (m *Machine) advertised(now time.Time, msg Message) {
	m.advertisedMaxRT(msg)
	collecting := m.x.sent == 1 && now.Before(m.x.first.Add(m.x.rt))
	a := m.judge(msg)
	if !a.usable(m.cfg) {
		m.minds(msg, a)
		m.refused(&m.x, msg.ServerID, a.reason(), !collecting)
		return
	}
	o := m.newOffer(msg, a)
	m.collect(o)
	if !collecting || o.preference == 255 && m.decisive(o) {
		m.requestNext(now)
	}
}

// minds keeps in mind that a server refuses one kind of IA and says nothing about the other. Some do so whenever the two
// come in one message (https://github.com/openwrt/odhcp6c/issues/88).
func (m *Machine) minds(msg Message, a answer) {
	if m.cfg.NA == nil || m.cfg.NA.Required || len(m.cfg.PDs) == 0 || m.omit != omitNothing {
		return
	}
	switch {
	case len(msg.IAPDs) == 0 && a.has(NoAddrsAvail):
		m.x.apart = omitAddress
	case len(msg.IANAs) == 0 && a.has(NoPrefixAvail):
		m.x.apart = omitPrefixes
	}
}

// collect keeps o, in the place of an earlier offer of the same server.
func (m *Machine) collect(o offer) {
	m.offers = slices.DeleteFunc(m.offers, func(old offer) bool { return old.server == o.server })
	m.offers = append(m.offers, o)
	slices.SortStableFunc(m.offers, m.compareOffers)
	m.offers = m.offers[:min(len(m.offers), maxOffers)]
}

// decisive reports whether o with the highest preference ends the wait for others.
func (m *Machine) decisive(o offer) bool {
	switch m.cfg.Prefer {
	case PreferShortest:
		return false
	case PreferHint:
		return o.familiar > 0 || len(m.wishes()) == 0
	}
	return true
}

// compareOffers orders the best offer first (see Preference); what is equal in all keeps the order of arrival.
func (m *Machine) compareOffers(a, b offer) int {
	delegates := 0
	if a.delegates != b.delegates {
		delegates = 1
		if a.delegates {
			delegates = -1
		}
	}
	preference := cmp.Compare(b.preference, a.preference)
	served := cmp.Compare(b.served, a.served)
	shortest := cmp.Compare(a.shortest, b.shortest)
	most := cmp.Compare(len(b.bindings), len(a.bindings))
	familiar := cmp.Compare(b.familiar, a.familiar)
	switch m.cfg.Prefer {
	case PreferShortest:
		return cmp.Or(delegates, shortest, preference, served, most, familiar)
	case PreferHint:
		return cmp.Or(delegates, familiar, preference, served, shortest, most)
	}
	return cmp.Or(delegates, preference, served, shortest, most, familiar)
}

// requestNext asks the server of the best offer left for it. When there is none, the lease in hand may be good without
// it; else discovery begins again (§18.2.2 leaves it to the client).
func (m *Machine) requestNext(now time.Time) {
	switch {
	case len(m.offers) > 0:
		o := m.offers[0]
		m.offers = m.offers[1:]
		m.startRequest(now, o.server, target{bindings: o.bindings})
	case m.state == requesting && m.target.partial && m.lease.Held():
		m.rest(now)
	default:
		m.solicitAgain(now)
	}
}

func (m *Machine) startRequest(now time.Time, server DUID, t target) {
	m.target = t
	m.start(requesting, requestTiming, now, server)
}

// granted takes in a Reply to a Request, or to a Solicit with Rapid Commit (§18.2.10.1). The binding is a new one: what
// was held before is replaced (§18.2.13), except after NoBinding, by IA.
func (m *Machine) granted(now time.Time, msg Message) {
	m.learnMaxRT(&m.x, msg)
	a := m.judge(msg)
	if a.has(NotOnLink) { // §18.2.10.1: without the addresses
		m.forgetAddresses()
	}
	if a.usable(m.cfg) {
		var kept []binding
		if m.state == requesting && m.target.again {
			kept = slices.DeleteFunc(a.unlisted(m.lease.bindings()), func(b binding) bool {
				v, _ := a.about(b.ia())
				return len(v.granted) > 0 && slices.Contains(m.target.unknown, b.ia())
			})
		}
		m.bind(now, msg, a, kept, CauseBound)
		return
	}
	m.minds(msg, a)
	m.refused(&m.x, msg.ServerID, a.reason(), true)
	// A refusal ends a Request. UnspecFail and an answer that says nothing do not: the Request is repeated with
	// its back-off and count, which are the limits that §18.2.10 demands.
	refused := slices.ContainsFunc(a, func(v verdict) bool { return v.code != Success && v.code != UnspecFail })
	if m.state == requesting && refused {
		m.omit = max(m.omit, m.x.apart)
		m.requestNext(now)
	}
}

// refused keeps and, if tell is set, reports that a server gave nothing; once per server and reason in an exchange.
func (m *Machine) refused(x *exchange, server DUID, reason string, tell bool) {
	if text, news := x.refusal(server, reason); news && tell {
		m.failed(x, text)
	}
}

// refusal keeps that server gave a reason, and reports whether it is new in x.
func (x *exchange) refusal(server DUID, reason string) (text string, news bool) {
	text = fmt.Sprintf("server %v %s", server, reason)
	if slices.Contains(x.refusals, text) || len(x.refusals) >= maxOffers {
		return text, false
	}
	x.refusals = append(x.refusals, text)
	return text, true
}

// solicitInVain reports, before a Solicit is repeated, the refusals collected so far or that nobody answers. It reports
// whether to begin again with another set of IAs.
func (m *Machine) solicitInVain() bool {
	m.inVain(&m.x)
	switch {
	case m.x.apart != omitNothing && m.omit == omitNothing:
		m.omit = m.x.apart
		return true
	case m.omit != omitNothing && m.x.sent >= solicitsInVain:
		m.omit = omitNothing
		return true
	}
	return false
}

// inVain reports refusals once. Silence is reported again whenever twice as many messages have been sent: people should see
// that it lasts, and logs should not fill up.
func (m *Machine) inVain(x *exchange) {
	switch {
	case x.reported && x.silence == 0:
	case len(x.refusals) > 0:
		m.failed(x, strings.Join(x.refusals, "; "))
	case x.sent >= max(solicitsInVain, 2*x.silence):
		x.silence = x.sent
		m.failed(x, fmt.Sprintf("no server has answered %d messages, trying on", x.sent))
	}
}

// failed gives an OutputFailed about x.
func (m *Machine) failed(x *exchange, text string) {
	x.reported = true
	m.out = append(m.out, Output{Kind: OutputFailed, Text: x.typ.String() + ": " + text, About: x.typ})
}

// noteOnce gives an OutputNote about x, once per server and reason.
func (m *Machine) noteOnce(x *exchange, server DUID, reason string) {
	if text, news := x.refusal(server, reason); news {
		m.note(x.typ.String() + ": " + text)
	}
}

func (m *Machine) note(text string) { m.out = append(m.out, Output{Kind: OutputNote, Text: text}) }
