package pd

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	maxOffers      = 16 // remembered Advertises
	solicitsInVain = 3  // unanswered Solicits after which that is reported
)

// offer is a usable Advertise.
type offer struct {
	server     DUID
	preference uint8
	prefixes   []netip.Prefix
}

// startSolicit begins discovery with a first Solicit at at (§18.2.1).
func (m *Machine) startSolicit(at time.Time) {
	m.offers = nil
	m.start(soliciting, solicitTiming, at)
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
	m.advertisedSolMaxRT(msg.SolMaxRT)
	collecting := m.x.sent == 1 && now.Before(m.x.first.Add(m.x.rt))
	v := judge(msg, m.cfg.IAID)
	if len(v.granted) == 0 {
		m.refused(msg.ServerID, v.reason, !collecting)
		return
	}
	m.collect(offer{server: msg.ServerID, preference: msg.Preference, prefixes: v.prefixes()})
	if !collecting || msg.Preference == 255 {
		m.requestNext(now)
	}
}

// collect keeps o, in the place of an earlier offer of the same server.
func (m *Machine) collect(o offer) {
	m.offers = slices.DeleteFunc(m.offers, func(old offer) bool { return old.server == o.server })
	m.offers = append(m.offers, o)
	slices.SortStableFunc(m.offers, m.compareOffers)
	m.offers = m.offers[:min(len(m.offers), maxOffers)]
}

// compareOffers orders the best offer first: the highest preference (§18.2.9), then the largest delegation, then the most
// delegations, then one that we held before; what is equal in all keeps the order of arrival.
func (m *Machine) compareOffers(a, b offer) int {
	return cmp.Or(
		cmp.Compare(b.preference, a.preference),
		cmp.Compare(a.shortest(), b.shortest()),
		cmp.Compare(len(b.prefixes), len(a.prefixes)),
		cmp.Compare(m.familiar(b), m.familiar(a)),
	)
}

// shortest is the shortest prefix length in o.
func (o offer) shortest() int {
	bits := 128
	for _, p := range o.prefixes {
		bits = min(bits, p.Bits())
	}
	return bits
}

// familiar counts the prefixes of o that we held before.
func (m *Machine) familiar(o offer) (n int) {
	for _, p := range o.prefixes {
		if slices.Contains(m.previous, p) {
			n++
		}
	}
	return n
}

// requestNext asks the server of the best offer left for it, and begins discovery again when there is none (§18.2.2
// leaves it to the client).
func (m *Machine) requestNext(now time.Time) {
	if len(m.offers) == 0 {
		m.solicitAgain(now)
		return
	}
	o := m.offers[0]
	m.offers = m.offers[1:]
	m.startRequest(now, o.server, o.prefixes)
}

func (m *Machine) startRequest(now time.Time, server DUID, prefixes []netip.Prefix) {
	m.target = target{server: server, prefixes: prefixes}
	m.start(requesting, requestTiming, now)
}

// granted takes in a Reply to a Request, or to a Solicit with Rapid Commit (§18.2.10.1). The binding is a new one: what
// was held before is replaced (§18.2.13).
func (m *Machine) granted(now time.Time, msg Message) {
	m.learnSolMaxRT(msg.SolMaxRT)
	v := judge(msg, m.cfg.IAID)
	if len(v.granted) > 0 {
		m.bind(now, msg, v, nil, CauseBound)
		return
	}
	m.refused(msg.ServerID, v.reason, true)
	// A refusal ends a Request. UnspecFail and an answer that says nothing do not: the Request is repeated with
	// its back-off and count, which are the limits that §18.2.10 demands.
	if m.state == requesting && v.code != Success && v.code != UnspecFail {
		m.requestNext(now)
	}
}

// refused keeps and, if tell is set, reports that a server gave no prefix; once per server and reason in an exchange.
func (m *Machine) refused(server DUID, reason string, tell bool) {
	text := fmt.Sprintf("server %v %s", server, reason)
	if slices.Contains(m.x.refusals, text) || len(m.x.refusals) >= maxOffers {
		return
	}
	m.x.refusals = append(m.x.refusals, text)
	if tell {
		m.failed(text)
	}
}

// solicitInVain reports, before a Solicit is repeated, the refusals collected so far or that nobody answers.
func (m *Machine) solicitInVain() {
	switch {
	case m.x.reported:
	case len(m.x.refusals) > 0:
		m.failed(strings.Join(m.x.refusals, "; "))
	case m.x.sent >= solicitsInVain:
		m.failed(fmt.Sprintf("no server has answered %d messages, trying on", m.x.sent))
	}
}

// failed gives an OutputFailed about the running exchange.
func (m *Machine) failed(text string) {
	m.x.reported = true
	m.out = append(m.out, Output{Kind: OutputFailed, Text: m.x.typ.String() + ": " + text})
}

// solMaxRT is SOL_MAX_RT as it is now.
func (m *Machine) solMaxRT() time.Duration {
	if m.lease.SolMaxRT == 0 {
		return solMaxRT
	}
	return time.Duration(m.lease.SolMaxRT) * time.Second
}

// learnSolMaxRT takes over the SOL_MAX_RT option of a Reply, whatever its status (§18.2.10).
func (m *Machine) learnSolMaxRT(seconds uint32) {
	if seconds < minSolMaxRT || seconds > maxSolMaxRT {
		return
	}
	m.lease.SolMaxRT = seconds
	if m.x.typ == Solicit {
		m.x.mrt = m.solMaxRT()
	}
}

// advertisedSolMaxRT takes over the SOL_MAX_RT option of an Advertise. Once two in an exchange disagree, the default
// holds (§18.2.9).
func (m *Machine) advertisedSolMaxRT(seconds uint32) {
	if seconds < minSolMaxRT || seconds > maxSolMaxRT {
		return
	}
	if m.x.solMaxRT != 0 && m.x.solMaxRT != seconds {
		m.x.solMaxRTDisputed = true
	}
	m.x.solMaxRT = seconds
	if m.x.solMaxRTDisputed {
		m.lease.SolMaxRT = 0
		m.x.mrt = m.solMaxRT()
		return
	}
	m.learnSolMaxRT(seconds)
}
