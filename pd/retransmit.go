package pd

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Transmission and retransmission parameters (RFC 9915 §7.6).
const (
	solMaxDelay = 1 * time.Second    // SOL_MAX_DELAY
	solTimeout  = 1 * time.Second    // SOL_TIMEOUT
	solMaxRT    = 3600 * time.Second // SOL_MAX_RT, unless a server set another one (§21.24)
	reqTimeout  = 1 * time.Second    // REQ_TIMEOUT
	reqMaxRT    = 30 * time.Second   // REQ_MAX_RT
	reqMaxRC    = 10                 // REQ_MAX_RC
	cnfMaxDelay = 1 * time.Second    // CNF_MAX_DELAY
	cnfTimeout  = 1 * time.Second    // CNF_TIMEOUT
	cnfMaxRT    = 4 * time.Second    // CNF_MAX_RT
	cnfMaxRD    = 10 * time.Second   // CNF_MAX_RD
	renTimeout  = 10 * time.Second   // REN_TIMEOUT
	renMaxRT    = 600 * time.Second  // REN_MAX_RT
	rebTimeout  = 10 * time.Second   // REB_TIMEOUT
	rebMaxRT    = 600 * time.Second  // REB_MAX_RT
	relTimeout  = 1 * time.Second    // REL_TIMEOUT
	infMaxDelay = 1 * time.Second    // INF_MAX_DELAY
	infTimeout  = 1 * time.Second    // INF_TIMEOUT
	infMaxRT    = 3600 * time.Second // INF_MAX_RT, unless a server set another one (§21.25)
	relMaxRC    = 4                  // REL_MAX_RC
	decTimeout  = 1 * time.Second    // DEC_TIMEOUT
	decMaxRC    = 4                  // DEC_MAX_RC

	sendLimit  = 20               // messages …
	sendWindow = 20 * time.Second // … in any such time (§14.1)
)

// Bounds of SOL_MAX_RT and INF_MAX_RT in seconds; other values are ignored (§21.24, §21.25).
const (
	minMaxRT = 60
	maxMaxRT = 86400
)

// timing is how a message is retransmitted (§15). A zero mrt, mrc or mrd sets no bound.
type timing struct {
	typ      MessageType
	irt, mrt time.Duration
	mrc      int
	mrd      time.Duration
}

var (
	solicitTiming     = timing{typ: Solicit, irt: solTimeout, mrt: solMaxRT}
	requestTiming     = timing{typ: Request, irt: reqTimeout, mrt: reqMaxRT, mrc: reqMaxRC}
	renewTiming       = timing{typ: Renew, irt: renTimeout, mrt: renMaxRT}                  // ends at T2
	rebindTiming      = timing{typ: Rebind, irt: rebTimeout, mrt: rebMaxRT}                 // ends with the lease
	verifyTiming      = timing{typ: Rebind, irt: cnfTimeout, mrt: cnfMaxRT, mrd: cnfMaxRD}  // §18.2.12
	confirmTiming     = timing{typ: Confirm, irt: cnfTimeout, mrt: cnfMaxRT, mrd: cnfMaxRD} // §18.2.3
	releaseTiming     = timing{typ: Release, irt: relTimeout, mrc: relMaxRC}
	declineTiming     = timing{typ: Decline, irt: decTimeout, mrc: decMaxRC}
	informationTiming = timing{typ: InformationRequest, irt: infTimeout, mrt: infMaxRT}
)

// exchange is one message and its retransmissions.
type exchange struct {
	timing
	xid      uint32
	server   DUID      // whom it addresses; "": any
	first    time.Time // of the first transmission
	sent     int
	rt       time.Duration
	next     time.Time // of the next transmission or, after the last one, of failure
	end      time.Time // with mrd: of failure
	refusals []string  // by servers, for people; each is kept and reported once
	reported bool      // an OutputFailed was given
	silence  int       // messages sent when it was last reported that nobody answers

	waiting *Message  // a Reply that counts unless another server says better until settle
	weight  weight    // of that
	heard   time.Time // when it came
	settle  time.Time // likewise
	apart   omission  // what servers seem to mind beside the rest

	solMaxRT, infMaxRT dispute // of Advertises
	learned            int     // changes of the same by Replies
}

// begin returns an exchange whose first transmission is due at at.
func (m *Machine) begin(t timing, at time.Time, server DUID) exchange {
	xid := uint32(m.rnd.Uint64() >> 40) // 24 bits
	for xid == m.x.xid || xid == m.inf.xid {
		xid = (xid + 1) & 0xffffff // a late answer to the exchange before must not fit
	}
	switch t.typ {
	case Solicit:
		t.mrt = m.solMaxRT()
	case InformationRequest:
		t.mrt = m.infMaxRT()
	}
	return exchange{timing: t, xid: xid, next: at, server: server}
}

// start begins the exchange about bindings that belongs to s.
func (m *Machine) start(s state, t timing, at time.Time, server DUID) {
	m.state, m.x = s, m.begin(t, at, server)
}

// timeout is called when the next transmission is due.
func (m *Machine) timeout(now time.Time) {
	x := &m.x
	switch {
	case m.state == soliciting && len(m.offers) > 0:
		m.requestNext(now)
	case x.mrc > 0 && x.sent >= x.mrc, !x.end.IsZero() && !now.Before(x.end):
		m.unanswered(now)
	case m.state == soliciting && m.solicitInVain():
		m.solicitAgain(now)
	default:
		m.transmit(now, x)
	}
}

// unanswered ends an exchange that has used up its transmissions or its time.
func (m *Machine) unanswered(now time.Time) {
	x := &m.x
	switch m.state {
	case requesting:
		if !x.reported {
			m.failed(x, fmt.Sprintf("server %v has not answered %d messages", x.server, x.sent))
		}
		m.requestNext(now)
	case confirming:
		if x.waiting != nil {
			m.settled(now)
			return
		}
		m.unconfirmed(now)
	case releasing:
		m.released()
	case declining:
		m.declined(now)
	}
}

// transmit sends the message of x, or postpones it when too many have been sent lately.
func (m *Machine) transmit(now time.Time, x *exchange) {
	if free := m.sends.free(now); free.After(now) {
		x.next = free
		return
	}
	m.sends.add(now)
	if x.sent == 0 {
		x.first = now
		if x.mrd > 0 {
			x.end = now.Add(x.mrd)
		}
	}
	x.rt = x.nextRT(m.rnd)
	x.next = now.Add(x.rt)
	if !x.end.IsZero() && x.next.After(x.end) {
		x.next = x.end
	}
	x.sent++
	m.out = append(m.out, Output{Kind: OutputSend, Message: m.message(now, x)})
}

// nextRT is the time from this transmission to the next one (§15).
func (x *exchange) nextRT(rnd *rand.Rand) time.Duration {
	jitter := func(d time.Duration) time.Duration { return d + time.Duration((rnd.Float64()*2-1)*0.1*float64(d)) }
	if x.sent == 0 {
		if x.typ == Solicit {
			// §18.2.1: RAND of the first Solicit is strictly greater than 0.
			return x.irt + max(time.Millisecond, time.Duration((1-rnd.Float64())*0.1*float64(x.irt)))
		}
		return jitter(x.irt)
	}
	rt := x.rt + jitter(x.rt)
	if x.mrt > 0 && rt > x.mrt {
		rt = jitter(x.mrt)
	}
	return rt
}

// Window remembers the latest sends, so that no stretch of sendWindow holds more than sendLimit. A token bucket, which
// §14.1 recommends, would let twice as many through in the worst case. It is a value; the zero Window has sent nothing.
type Window struct {
	at   [sendLimit]time.Time
	next int
}

// free is when the next message may be sent: now or later.
func (w *Window) free(now time.Time) time.Time {
	oldest := w.at[w.next]
	if free := oldest.Add(sendWindow); !oldest.IsZero() && free.After(now) {
		return free
	}
	return now
}

func (w *Window) add(now time.Time) {
	w.at[w.next] = now
	w.next = (w.next + 1) % sendLimit
}
