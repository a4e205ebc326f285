package isp

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"

	"uplinkd/pd"
	"uplinkd/pd/wire"
)

// keyLen is the length of a key in octets (RFC 9915 §20.4).
const keyLen = 16

// key is what a client has been given for telling our Reconfigure messages from forged ones.
type key struct {
	secret []byte
	replay uint64 // sent last by us
	via    netip.Addr
}

// agree gives a client that accepts Reconfigure messages its key in the Reply with which everything begins (§20.4.1).
func (s *server) agree(from netip.Addr, req pd.Message, reply *pd.Message) {
	if req.Type == pd.Release {
		delete(s.keys, req.ClientID)
	}
	if !req.ReconfAccept || req.ClientID == "" {
		return
	}
	reply.ReconfAccept = true
	begins := req.Type == pd.Solicit || req.Type == pd.Request || req.Type == pd.InformationRequest
	k := s.keys[req.ClientID]
	if reply.Type != pd.Reply || !begins || k == nil && len(s.keys) >= maxBindings {
		return
	}
	if k == nil {
		k = &key{secret: make([]byte, keyLen)}
		_, _ = rand.Read(k.secret) // never fails
		s.keys[req.ClientID] = k
	}
	k.via = from
	k.replay++
	reply.Auth = wire.ReconfigureKey(k.replay, k.secret)
}

// Forgery is what is wrong with a Reconfigure.
type Forgery uint8

// The forgeries.
const (
	Genuine         Forgery = iota
	WrongDigest             // the digest is that of another key
	Replayed                // nothing but that its replay value has been used before
	Unauthenticated         // there is no Authentication option
)

// reconfigure is a Reconfigure for one client.
func (s *server) reconfigure(id pd.DUID, t pd.MessageType, f Forgery) ([]byte, error) {
	k := s.keys[id]
	secret, replay := k.secret, k.replay+1
	switch f {
	case Genuine:
		k.replay = replay
	case WrongDigest:
		secret = []byte("not the client's")
	case Replayed:
		replay = k.replay
	}
	m := pd.Message{Type: pd.Reconfigure, ClientID: id, ServerID: s.cfg.ServerID, ReconfMsg: t}
	if f == Unauthenticated {
		return wire.Encode(m)
	}
	return wire.EncodeReconfigure(m, replay, secret)
}

// Reconfigure asks every client that accepts it to send a Renew, a Rebind or an Information-request, and returns how many
// there were. It is sent once: the repetitions of §18.3.11 are for the caller.
func (p *Provider) Reconfigure(t pd.MessageType) (sent int, err error) { return p.Forge(t, Genuine) }

// Forge is Reconfigure by somebody who is not the provider, if f is not Genuine.
func (p *Provider) Forge(t pd.MessageType, f Forgery) (sent int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sockets == nil {
		return 0, errors.New("provider: Reconfigure before Open")
	}
	for id, k := range p.server.keys {
		b, err := p.server.reconfigure(id, t, f)
		if err == nil {
			err = p.sockets.send(k.via, b)
		}
		if err != nil {
			return sent, fmt.Errorf("provider: send Reconfigure to %s: %w", k.via, err)
		}
		sent++
		p.counts.Sent[pd.Reconfigure]++
		p.log("Reconfigure for %s to %s, forgery %d", t, k.via, f)
	}
	return sent, nil
}
