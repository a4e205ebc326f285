package pd

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"time"
)

// The Reconfigure Key Authentication Protocol (RFC 9915 §20.4).
const (
	rkapProtocol  = 3
	rkapAlgorithm = 1 // HMAC-MD5
	rkapRDM       = 0
	rkapKey       = 1 // type of the information in a Reply
	rkapDigest    = 2 // and in a Reconfigure
	rkapLen       = 16

	optAuth     = 11
	authHeader  = 11 // octets of an Authentication option before its information
	dropNoteGap = time.Minute
)

// reconfigure takes in a Reconfigure (§18.2.11). One that is genuine has the effect of T1; all others have none.
func (m *Machine) reconfigure(now time.Time, in Input) {
	if !m.listens() {
		return
	}
	msg := in.Message
	if reason := m.forged(in); reason != "" {
		if m.dropNote.IsZero() || now.Sub(m.dropNote) >= dropNoteGap {
			m.dropNote = now
			m.note(fmt.Sprintf("Reconfigure: dropped one from server %v: %s", msg.ServerID, reason))
		}
		return
	}
	key := *m.lease.Reconf
	key.Replay = msg.Auth.Replay
	m.lease.Reconf = &key // reported at the end of the step
	busy := m.state != bound && m.state != stateless || m.inf.typ != 0
	at := now.Add(m.asked.Wait(now))
	switch {
	case busy: // §18.2.11: until the exchange is complete
		m.note(fmt.Sprintf("Reconfigure: server %v asks for %v, ignored while an exchange is running", msg.ServerID, msg.ReconfMsg))
		return
	case msg.ReconfMsg == InformationRequest:
		m.startInformation(at, msg.ServerID)
	case m.state == stateless:
		m.note(fmt.Sprintf("Reconfigure: server %v asks for %v, but nothing is leased from it", msg.ServerID, msg.ReconfMsg))
		return
	case msg.ReconfMsg == Rebind:
		m.start(rebinding, rebindTiming, at, "")
	default:
		m.startRenew(at)
	}
	m.asked.Take(at)
	m.note(fmt.Sprintf("Reconfigure: server %v asks for %v", msg.ServerID, msg.ReconfMsg))
}

// listens reports whether a Reconfigure is looked at. That of a server which has given no key is, too: it is noted.
func (m *Machine) listens() bool { return m.cfg.Reconfigure && m.state != idle }

// forged is why a Reconfigure must not be acted on (§16.11, §20.3, §20.4); "" if it may.
func (m *Machine) forged(in Input) string {
	msg, key := in.Message, m.lease.Reconf
	switch {
	case !in.Unicast:
		return "it was not sent to an address of ours"
	case !msg.ServerID.Valid() || msg.ClientID != m.cfg.ClientID:
		return "it lacks a server identifier or our client identifier"
	case msg.ReconfMsg != Renew && msg.ReconfMsg != Rebind && msg.ReconfMsg != InformationRequest:
		return "it does not ask for Renew, Rebind or Information-request"
	case key == nil || key.ServerID != msg.ServerID:
		return "that server has given no key"
	case msg.Auth == nil || msg.Auth.Protocol != rkapProtocol || msg.Auth.Algorithm != rkapAlgorithm || msg.Auth.RDM != rkapRDM ||
		len(msg.Auth.Info) != 1+rkapLen || msg.Auth.Info[0] != rkapDigest:
		return "it lacks authentication by the reconfigure key protocol"
	case !genuine(msg, key.Key):
		return "its authentication is wrong"
	case msg.Auth.Replay <= key.Replay:
		return "it is a replay"
	}
	return ""
}

// genuine reports whether the digest of msg is the HMAC-MD5 of the message as it arrived, the digest being zero.
func genuine(msg Message, key []byte) bool {
	at, ok := authOption(msg.Raw)
	if !ok {
		return false
	}
	option := msg.Raw[at : at+authHeader+1+rkapLen]
	// What is authenticated has to be what the decoder has read.
	if option[0] != msg.Auth.Protocol || option[1] != msg.Auth.Algorithm || option[2] != msg.Auth.RDM ||
		binary.BigEndian.Uint64(option[3:]) != msg.Auth.Replay || !bytes.Equal(option[authHeader:], msg.Auth.Info) {
		return false
	}
	digest := at + authHeader + 1
	mac := hmac.New(md5.New, key)
	mac.Write(msg.Raw[:digest])
	mac.Write(make([]byte, rkapLen))
	mac.Write(msg.Raw[digest+rkapLen:])
	return hmac.Equal(mac.Sum(nil), msg.Raw[digest:digest+rkapLen])
}

// authOption is where in raw the data of the only Authentication option with a digest of RKAP begins.
func authOption(raw []byte) (at int, ok bool) {
	for i := 4; i < len(raw); { // after type and transaction id
		if len(raw)-i < 4 {
			return 0, false
		}
		code, n := binary.BigEndian.Uint16(raw[i:]), int(binary.BigEndian.Uint16(raw[i+2:]))
		if i += 4; n > len(raw)-i {
			return 0, false
		}
		if code == optAuth {
			if ok || n != authHeader+1+rkapLen {
				return 0, false
			}
			at, ok = i, true
		}
		i += n
	}
	return at, ok
}

// learnKey takes over the key in a Reply of the server of l (§20.4). Another server's key is of no use any more. The
// replay value of the Reply is recorded as it is, but it does not go back under the same key.
func (l *Lease) learnKey(msg Message, c Config) {
	if l.Reconf != nil && l.Reconf.ServerID != l.ServerID {
		l.Reconf = nil
	}
	a := msg.Auth
	if !c.Reconfigure || msg.ServerID != l.ServerID || a == nil || a.Protocol != rkapProtocol || a.Algorithm != rkapAlgorithm ||
		a.RDM != rkapRDM || len(a.Info) != 1+rkapLen || a.Info[0] != rkapKey {
		return
	}
	replay := a.Replay
	if l.Reconf != nil && bytes.Equal(l.Reconf.Key, a.Info[1:]) {
		replay = max(replay, l.Reconf.Replay)
	}
	l.Reconf = &ReconfKey{ServerID: msg.ServerID, Key: bytes.Clone(a.Info[1:]), Replay: replay}
}
