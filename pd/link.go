package pd

import (
	"fmt"
	"slices"
	"time"
)

// suspectInterval is the least time between two verifications because of a suspicion (the example of §18.2.12).
const suspectInterval = 30 * time.Second

// linkUp starts, or verifies a lease after the link may have been moved (§18.2.12).
func (m *Machine) linkUp(now time.Time) {
	switch m.state {
	case soliciting:
		m.ask(now.Add(m.asked.Wait(now)), &m.asked)
		return
	case requesting, confirming, releasing, declining:
		return
	}
	m.omit = omitNothing
	switch {
	case m.lease.Held():
		m.confirm(now)
	case len(m.cfg.wanted()) > 0:
		m.startSolicit(now.Add(m.firstDelay(solMaxDelay)))
	case m.cfg.Stateless && m.inf.typ == 0:
		m.state = stateless
		m.refreshInformation(now)
	}
}

func (m *Machine) linkDown() {
	if m.state == releasing {
		m.released()
	}
	m.state, m.offers, m.suspectAt = idle, nil, time.Time{}
	m.inf = exchange{xid: m.inf.xid}
}

// suspect is told of a sign that the network has changed. What comes too early after a verification is put off, not
// forgotten.
func (m *Machine) suspect(now time.Time) {
	switch m.state {
	case idle, releasing:
		return
	case soliciting:
		m.invite(now)
		return
	}
	m.suspectAt = now
	if earliest := m.verified.Add(suspectInterval); !m.verified.IsZero() && earliest.After(now) {
		m.suspectAt = earliest
	}
}

// verify follows a suspicion, if nothing that runs answers it anyway.
func (m *Machine) verify(now time.Time) {
	m.suspectAt = time.Time{}
	switch m.state {
	case bound, renewing, rebinding:
		m.confirm(now)
	case soliciting:
		m.invite(now)
	case stateless:
		m.verified = now
		if m.inf.typ == 0 {
			m.refreshInformation(now)
		}
	}
}

// invite has a client that holds nothing ask anew, since a server may have something by now: the prefix that this router
// lost because the one before it did. By then the pause between two Solicits may be an hour. All clients on the link see the
// same sign, hence the delay.
func (m *Machine) invite(now time.Time) {
	if m.x.sent == 1 && len(m.x.refusals) == 0 { // an answer may be on its way, and the second Solicit comes soon
		return
	}
	m.ask(now.Add(m.invited.Wait(now)+m.firstDelay(solMaxDelay)), &m.invited)
}

// confirm asks whether what is held is good on this link: with prefixes by a Rebind of everything (§18.2.12), with only
// addresses by a Confirm (§18.2.3), which has to be delayed.
func (m *Machine) confirm(now time.Time) {
	m.verified, m.suspectAt = now, time.Time{}
	t, delay := confirmTiming, m.randomDelay(cnfMaxDelay)
	if len(m.lease.Prefixes) > 0 {
		t, delay = verifyTiming, m.firstDelay(cnfMaxDelay)
	}
	if m.lease.IgnoresRebind != "" && m.lease.IgnoresRebind == m.lease.ServerID {
		t.mrc = vainRebinds
	}
	m.start(confirming, t, now.Add(delay), "")
}

// vainRebinds are the messages to a server that is known not to answer them. There may be another one by now.
const vainRebinds = 2

// unconfirmed goes on with the lease when no server has answered (§18.2.3): with the last known lifetimes; T1 and T2 go on.
func (m *Machine) unconfirmed(now time.Time) {
	x := &m.x
	if !x.reported {
		waited := fmt.Sprint("in ", cnfMaxRD)
		if x.mrc > 0 {
			waited = fmt.Sprintf("%d messages, and server %v did not before", x.sent, m.lease.IgnoresRebind)
		}
		m.failed(x, fmt.Sprintf("no server has answered %s, keeping the lease as it is", waited))
	}
	if len(x.refusals) == 0 {
		m.silent = m.lease.ServerID
	}
	m.rest(now)
	if m.handed && m.lease.T2.IsForever() { // nothing else would ask again
		m.checkHandover(now)
	}
}

// hears keeps what a Reply to a Renew, Rebind or Confirm says about whom server answers: silence alone may have been that
// of the link.
func (m *Machine) hears(server DUID) {
	switch {
	case m.x.typ != Renew && server == m.lease.IgnoresRebind:
		m.lease.IgnoresRebind = "" // reported at the end of the step
	case m.x.typ == Renew && server == m.silent:
		m.lease.IgnoresRebind = server
	}
	m.silent = ""
}

// firstDelay is the random delay before the first message on a link; it keeps hosts from speaking up all at once after a
// power failure.
func (m *Machine) firstDelay(most time.Duration) time.Duration {
	if !m.cfg.Delay {
		return 0
	}
	return m.randomDelay(most)
}

func (m *Machine) randomDelay(most time.Duration) time.Duration {
	return time.Duration(m.rnd.Float64() * float64(most))
}

// confirmed acts on a Reply to a Confirm (§18.2.10.3).
func (m *Machine) confirmed(now time.Time, msg Message) {
	switch code := confirmation(msg); code.Code {
	case Success:
		m.report(CauseRebound)
		m.rest(now)
		if m.missing() {
			m.wantAt = now
		}
	case NotOnLink:
		m.notOnLink(now, msg)
	default:
		m.refused(&m.x, msg.ServerID, refusal(code), true)
	}
}

// confirmation is the status of a Reply to a Confirm. It belongs to the message; where a server puts it into an IA, it
// means the same.
func confirmation(msg Message) Status {
	n := slices.IndexFunc(msg.IANAs, func(o IANA) bool { return o.Status.Code == NotOnLink })
	if msg.Status.Code == Success && n >= 0 {
		return msg.IANAs[n].Status
	}
	return msg.Status
}

// notOnLink gives up addresses that do not belong on this link, and begins discovery.
func (m *Machine) notOnLink(now time.Time, msg Message) {
	m.refused(&m.x, msg.ServerID, fmt.Sprintf("%s: the addresses are given up", refusal(confirmation(msg))), true)
	m.setLease(m.lease.with(nil), CauseRebound)
	m.forgetAddresses()
	m.startSolicit(now)
}
