package pd

import (
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
	relMaxRC    = 4                  // REL_MAX_RC

	sendLimit  = 20               // messages …
	sendWindow = 20 * time.Second // … in any such time (§14.1)
)

// Bounds of SOL_MAX_RT in seconds; other values are ignored (§21.24).
const (
	minSolMaxRT = 60
	maxSolMaxRT = 86400
)

// timing is how a message is retransmitted (§15). A zero mrt, mrc or mrd sets no bound.
type timing struct {
	typ      MessageType
	irt, mrt time.Duration
	mrc      int
	mrd      time.Duration
}

var (
	solicitTiming = timing{typ: Solicit, irt: solTimeout, mrt: solMaxRT}
	requestTiming = timing{typ: Request, irt: reqTimeout, mrt: reqMaxRT, mrc: reqMaxRC}
	renewTiming   = timing{typ: Renew, irt: renTimeout, mrt: renMaxRT}                 // ends at T2
	rebindTiming  = timing{typ: Rebind, irt: rebTimeout, mrt: rebMaxRT}                // ends with the lease
	confirmTiming = timing{typ: Rebind, irt: cnfTimeout, mrt: cnfMaxRT, mrd: cnfMaxRD} // §18.2.12
	releaseTiming = timing{typ: Release, irt: relTimeout, mrc: relMaxRC}
)

// exchange is one message and its retransmissions.
type exchange struct {
	timing
	xid      uint32
	first    time.Time // of the first transmission
	sent     int
	rt       time.Duration
	next     time.Time // of the next transmission or, after the last one, of failure
	end      time.Time // with mrd: of failure
	refusals []string  // by servers, for people; each is kept and reported once
	reported bool      // an OutputFailed was given

	solMaxRT         uint32 // seconds, of the latest Advertise that carried it
	solMaxRTDisputed bool   // Advertises carried different ones
}

// start begins an exchange whose first transmission is due at at.
func (m *Machine) start(s state, t timing, at time.Time) {
	xid := uint32(m.rnd.Uint64() >> 40) // 24 bits
	if xid == m.x.xid {
		xid = (xid + 1) & 0xffffff // a late answer to the exchange before must not fit
	}
	m.state, m.x = s, exchange{timing: t, xid: xid, next: at}
	if t.typ == Solicit {
		m.x.mrt = m.solMaxRT()
	}
}

// timeout is called when the next transmission is due.
func (m *Machine) timeout(now time.Time) {
	x := &m.x
	switch {
	case m.state == soliciting && len(m.offers) > 0:
		m.requestNext(now)
	case x.mrc > 0 && x.sent >= x.mrc, !x.end.IsZero() && !now.Before(x.end):
		m.unanswered(now)
	default:
		if m.state == soliciting {
			m.solicitInVain()
		}
		m.transmit(now)
	}
}

// transmit sends the message of the exchange, or postpones it when too many have been sent lately.
func (m *Machine) transmit(now time.Time) {
	x := &m.x
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
	m.out = append(m.out, Output{Kind: OutputSend, Message: m.message(now)})
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

// window remembers the latest sends, so that no stretch of sendWindow holds more than sendLimit. A token bucket, which
// §14.1 recommends, would let twice as many through in the worst case.
type window struct {
	at   [sendLimit]time.Time
	next int
}

// free is when the next message may be sent: now or later.
func (w *window) free(now time.Time) time.Time {
	oldest := w.at[w.next]
	if free := oldest.Add(sendWindow); !oldest.IsZero() && free.After(now) {
		return free
	}
	return now
}

func (w *window) add(now time.Time) {
	w.at[w.next] = now
	w.next = (w.next + 1) % sendLimit
}
