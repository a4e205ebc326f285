package pd

import "time"

// Anybody on the link can answer a Rebind or a Confirm: a partner of the lease's server, the server that has taken its
// place, one that knows nothing of us, or an attacker, who sees the transaction id. Hence the server of the lease has the
// first word, and another one counts only when that has been silent for a while.

const (
	settleTime    = 1 * time.Second  // how long the lease's own server may take to say better than another one
	refusalTime   = settleTime / 4   // and another one, when the lease's own has no binding: what follows takes nothing away
	handoverCheck = 10 * time.Minute // after a lease has gone to another server: when it is verified once more
)

// weight is how much a Reply to a Rebind or Confirm counts, against others that have come within settleTime.
type weight uint8

const (
	changesNothing weight = iota // no server has to be asked whether that is true
	otherRefusal                 // by a server that is not the lease's: nothing is held there
	replacement                  // it grants something, and takes away or leaves out what is held
	ownRefusal                   // by the lease's own server
	extension                    // by another one, of all that is held
	ownWord                      // the lease's own server grants: nothing counts more
)

// extended takes in a Reply to a Renew, Rebind or Confirm.
func (m *Machine) extended(now time.Time, msg Message) {
	if m.owns(msg.ServerID) {
		m.learnMaxRT(&m.x, msg)
	}
	m.hears(msg.ServerID)
	switch w := m.weigh(msg); {
	case m.x.server != "" || w == ownWord || w == changesNothing:
		m.take(now, msg)
	default:
		m.wait(now, msg, w)
	}
}

// owns reports whether the lease is server's. One of unknown origin, as other clients leave behind, is anybody's.
func (m *Machine) owns(server DUID) bool {
	return !m.lease.ServerID.Valid() || server == m.lease.ServerID
}

func (m *Machine) weigh(msg Message) weight {
	gives, refuses, extends := m.sayings(msg)
	switch own := m.owns(msg.ServerID); {
	case gives && own:
		return ownWord
	case extends:
		return extension
	case gives:
		return replacement
	case refuses && own:
		return ownRefusal
	case refuses:
		return otherRefusal
	}
	return changesNothing
}

// sayings is what msg means for what is held: it gives something, it takes something away without that, it has all go on.
func (m *Machine) sayings(msg Message) (gives, refuses, extends bool) {
	if m.x.typ == Confirm {
		code := confirmation(msg).Code
		return code == Success, code == NotOnLink, code == Success
	}
	a := m.judge(msg)
	return a.grants(), a.has(NoBinding) || a.withdraws(), a.extends(m.lease.bindings())
}

// wait lets a Reply count only if none that counts more arrives soon. When there are several equals, the first one counts.
// Once the lease's own server has spoken there is no need to ask again.
func (m *Machine) wait(now time.Time, msg Message, w weight) {
	settle := now.Add(settleTime)
	if w == ownRefusal && !m.takes(msg) {
		settle = now.Add(refusalTime)
	}
	if m.x.waiting == nil || settle.Before(m.x.settle) {
		m.x.settle = settle
	}
	if w > m.x.weight {
		m.x.waiting, m.x.weight, m.x.heard = &msg, w, now
	}
	if w == ownRefusal && m.x.next.Before(m.x.settle) {
		m.x.settle = m.x.next
	}
}

// takes reports whether msg ends something that is held. NoBinding for a Rebind does not: that stays in use until the Request
// that follows is answered (§18.2.10.1), also when it was forged.
func (m *Machine) takes(msg Message) bool {
	return m.x.typ == Confirm || m.judge(msg).withdraws()
}

// settled is called when no server has said better. Lifetimes count from when the Reply came.
func (m *Machine) settled(now time.Time) {
	msg, heard := *m.x.waiting, m.x.heard
	m.x.waiting, m.x.weight = nil, changesNothing
	m.learnMaxRT(&m.x, msg)
	m.take(heard, msg)
	m.expire(now)
}

// take acts on a Reply to a Renew, Rebind or Confirm that counts.
func (m *Machine) take(now time.Time, msg Message) {
	if m.x.typ == Confirm {
		m.confirmed(now, msg)
		return
	}
	m.conclude(now, msg, m.judge(msg))
}

// handover begins when server, of a new lease, takes the place of another one: what is held will be verified once more. If it
// was not true that the other server is gone, that one has its say then.
func (m *Machine) handover(now time.Time, from, to DUID) {
	m.handed = from.Valid() && from != to
	if m.handed {
		m.checkHandover(now)
	}
}

// checkHandover has a lease that another server has taken over verified in time.
func (m *Machine) checkHandover(now time.Time) {
	if at := now.Add(handoverCheck); m.suspectAt.IsZero() || at.Before(m.suspectAt) {
		m.suspectAt = at
	}
}
