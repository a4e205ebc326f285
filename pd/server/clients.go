package server

import (
	"cmp"
	"crypto/rand"
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/pd/wire"
)

const (
	// maxClients bounds the keys. Those who come too late are not told to renew; they have short lifetimes.
	maxClients = 1024

	keyLen = 16 // octets (RFC 9915 §20.4)

	replayReserve = 64

	recTimeout = 2 * time.Second // REC_TIMEOUT and REC_MAX_RC (§7.6)
	recMaxRC   = 8
)

// Client is a client that takes Reconfigure messages of this server, as it is kept over restarts: without its key it could
// not be told of a renumbering until it renews by itself. Key is secret.
type Client struct {
	ID     pd.DUID    `json:"duid"`
	Via    netip.Addr `json:"via"`    // its link-local address
	Key    []byte     `json:"key"`    // 16 octets
	Replay uint64     `json:"replay"` // no greater value has been sent to it
}

func (c Client) usable() bool {
	return c.ID.Valid() && c.Via.IsLinkLocalUnicast() && c.Via.Is6() && c.Via.Zone() == "" && len(c.Key) == keyLen
}

// client is a Client while the server runs.
type client struct {
	Client
	reserved uint64            // Client.Replay as it was kept
	until    lifetime.Deadline // the end of what it holds
	next     time.Time         // of its next Reconfigure; zero: none is wanted
	pause    time.Duration     // before that
	tries    int
}

// clients are those that can be told to renew. They are pure but for the random keys.
type clients struct {
	byID   map[pd.DUID]*client
	dirty  bool           // what is to be kept has changed
	jitter func() float64 // uniform in ±0.1 (§15)
}

// newClients takes up what was saved. How long these clients hold something is forgotten; no longer than the limit.
func newClients(saved []Client, now time.Time, jitter func() float64) *clients {
	cs := &clients{byID: map[pd.DUID]*client{}, jitter: jitter}
	for _, s := range saved {
		if s.usable() && len(cs.byID) < maxClients {
			s.Key = slices.Clone(s.Key)
			cs.byID[s.ID] = &client{Client: s, reserved: s.Replay, until: lifetime.After(now, validLimit)}
		}
	}
	return cs
}

// agree completes reply, the answer to m from via: a client that accepts Reconfigure messages and is lent something gets
// its key in the Reply with which that begins (§20.4.1). That it has come ends the Reconfigure messages to it.
func (cs *clients) agree(now time.Time, m pd.Message, via netip.Addr, reply *pd.Message) {
	c := cs.byID[m.ClientID]
	if c != nil {
		c.next = time.Time{}
	}
	if reply.Type == pd.Advertise {
		reply.ReconfAccept = m.ReconfAccept
		return
	}
	if m.Type == pd.Release || extends(m.Type) && !lent(*reply) {
		cs.drop(m.ClientID)
		return
	}
	if !lent(*reply) || !m.ReconfAccept {
		return
	}
	begins := m.Type == pd.Solicit || m.Type == pd.Request
	if c == nil && (!begins || len(cs.byID) >= maxClients) {
		return
	}
	if c == nil {
		c = &client{Client: Client{ID: m.ClientID, Key: make([]byte, keyLen)}}
		rand.Read(c.Key) // never fails
		cs.byID[m.ClientID] = c
		cs.dirty = true
	}
	if c.Via != via {
		c.Via, cs.dirty = via, true
	}
	c.until = lifetime.After(now, longest(*reply))
	reply.ReconfAccept = true
	if begins {
		reply.Auth = wire.ReconfigureKey(cs.replay(c), c.Key)
	}
}

// longest is the longest valid lifetime in reply.
func longest(reply pd.Message) (valid uint32) {
	for _, ia := range reply.IAPDs {
		for _, p := range ia.Prefixes {
			valid = max(valid, p.Valid)
		}
	}
	return valid
}

// replay is the next replay value for c. What is kept is some way ahead, so that it need not be kept for every message and
// a crash does not bring values back: the client would drop them (§20.3).
func (cs *clients) replay(c *client) uint64 {
	c.Replay++
	if c.Replay+recMaxRC > c.reserved {
		cs.dirty = true
	}
	return c.Replay
}

func (cs *clients) drop(id pd.DUID) {
	if cs.byID[id] != nil {
		delete(cs.byID, id)
		cs.dirty = true
	}
}

// expire forgets those that hold nothing any more.
func (cs *clients) expire(now time.Time) {
	for id, c := range cs.byID {
		if c.until.Over(now) {
			cs.drop(id)
		}
	}
}

// changed makes all of them due for a Reconfigure.
func (cs *clients) changed(now time.Time) {
	for _, c := range cs.byID {
		c.next, c.pause, c.tries = now, 0, 0
	}
}

// wake is when there is a client to be forgotten or, if some can be sent, a Reconfigure due.
func (cs *clients) wake(sending bool) (at time.Time, ok bool) {
	d := lifetime.Forever()
	for _, c := range cs.byID {
		d = lifetime.Min(d, c.until)
		if sending && !c.next.IsZero() {
			d = lifetime.Min(d, lifetime.Until(c.next))
		}
	}
	return d.Time()
}

// due is the client that has been due longest for a Reconfigure at now; nil if there is none.
func (cs *clients) due(now time.Time) (first *client) {
	for _, c := range cs.byID {
		if c.next.IsZero() || c.next.After(now) {
			continue
		}
		if first == nil || cmp.Or(c.next.Compare(first.next), cmp.Compare(c.ID, first.ID)) < 0 {
			first = c
		}
	}
	return first
}

// reconfigure is the message that asks c to renew, and plans the next one: RFC 9915 §15 with REC_TIMEOUT and REC_MAX_RC
// (§18.3.11). Renew rather than Rebind: dhcpcd knows no other, and it is this server whose loans have changed.
func (cs *clients) reconfigure(c *client, server pd.DUID, now time.Time) ([]byte, error) {
	if c.tries++; c.tries == recMaxRC {
		c.next = time.Time{}
	} else {
		if c.pause = 2 * c.pause; c.pause == 0 {
			c.pause = recTimeout
		}
		c.pause += time.Duration(cs.jitter() * float64(c.pause))
		c.next = now.Add(c.pause)
	}
	m := pd.Message{Type: pd.Reconfigure, ClientID: c.ID, ServerID: server, ReconfMsg: pd.Renew}
	return wire.EncodeReconfigure(m, cs.replay(c), c.Key)
}

// keep is what is to be kept, sorted, if that has changed since.
func (cs *clients) keep() (kept []Client, changed bool) {
	if !cs.dirty {
		return nil, false
	}
	cs.dirty = false
	for _, c := range cs.byID {
		if c.Replay+recMaxRC > c.reserved {
			c.reserved = c.Replay + replayReserve
		}
		k := c.Client
		k.Replay = c.reserved
		k.Key = slices.Clone(k.Key)
		kept = append(kept, k)
	}
	slices.SortFunc(kept, func(a, b Client) int { return cmp.Compare(a.ID, b.ID) })
	return kept, true
}
