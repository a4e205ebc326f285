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

	// maxVias bounds the keys of one client: one that has come from that many addresses gets no other key until one of
	// these is forgotten.
	maxVias = 4

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

func (c Client) compare(o Client) int { return cmp.Or(cmp.Compare(c.ID, o.ID), c.Via.Compare(o.Via)) }

// client is a Client while the server runs.
type client struct {
	Client
	reserved uint64            // Client.Replay as it was kept
	until    lifetime.Deadline // the end of what it holds
	next     time.Time         // of its next Reconfigure; zero: none is wanted
	pause    time.Duration     // before that
	tries    int
}

// peer is whom a key was given to. DHCPv6 has no authentication: anybody on the link can send a client's DUID, which its
// messages to all servers show. So a key belongs to the address too, where it was sent to: the same DUID elsewhere gets
// another one, and neither takes the other's away. What remains: who forges the source address as well can end what
// the other has.
type peer struct {
	id  pd.DUID
	via netip.Addr
}

// clients are those that can be told to renew. They are pure but for the random keys.
type clients struct {
	byPeer map[peer]*client
	dirty  bool           // what is to be kept has changed
	jitter func() float64 // uniform in ±0.1 (§15)
}

// newClients takes up what was saved. How long these clients hold something is forgotten; no longer than the limit.
func newClients(saved []Client, now time.Time, jitter func() float64) *clients {
	cs := &clients{byPeer: map[peer]*client{}, jitter: jitter}
	for _, s := range saved {
		if s.usable() && len(cs.byPeer) < maxClients {
			s.Key = slices.Clone(s.Key)
			cs.byPeer[peer{s.ID, s.Via}] = &client{Client: s, reserved: s.Replay, until: lifetime.After(now, validLimit)}
		}
	}
	return cs
}

// agree completes reply, the answer to m from via: a client that accepts Reconfigure messages and is lent something gets
// its key in the Reply with which that begins (§20.4.1). That it has asked about prefixes ends the Reconfigure messages to it.
func (cs *clients) agree(now time.Time, m pd.Message, via netip.Addr, reply *pd.Message) {
	p := peer{m.ClientID, via}
	c := cs.byPeer[p]
	if c != nil && m.Type != pd.InformationRequest {
		c.next = time.Time{}
	}
	if reply.Type == pd.Advertise {
		reply.ReconfAccept = m.ReconfAccept
		return
	}
	if m.Type == pd.Release && len(reply.IAPDs) < len(distinct(m.IAPDs)) { // something has ended
		cs.drop(p)
		return
	}
	if !lent(*reply) || !m.ReconfAccept {
		return
	}
	begins := m.Type == pd.Solicit || m.Type == pd.Request
	if c == nil && (!begins || len(cs.byPeer) >= maxClients || cs.vias(m.ClientID) >= maxVias) {
		return
	}
	if c == nil {
		c = &client{Client: Client{ID: m.ClientID, Via: via, Key: make([]byte, keyLen)}}
		rand.Read(c.Key) // never fails
		cs.byPeer[p] = c
		cs.dirty = true
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

// vias is from how many addresses a client has come.
func (cs *clients) vias(id pd.DUID) (n int) {
	for p := range cs.byPeer {
		if p.id == id {
			n++
		}
	}
	return n
}

func (cs *clients) drop(p peer) {
	if cs.byPeer[p] != nil {
		delete(cs.byPeer, p)
		cs.dirty = true
	}
}

// expire forgets those that hold nothing any more.
func (cs *clients) expire(now time.Time) {
	for p, c := range cs.byPeer {
		if c.until.Over(now) {
			cs.drop(p)
		}
	}
}

// changed makes all of them due for a Reconfigure.
func (cs *clients) changed(now time.Time) {
	for _, c := range cs.byPeer {
		c.next, c.pause, c.tries = now, 0, 0
	}
}

// wake is when there is a client to be forgotten or, if some can be sent, a Reconfigure due.
func (cs *clients) wake(sending bool) (at time.Time, ok bool) {
	d := lifetime.Forever()
	for _, c := range cs.byPeer {
		d = lifetime.Min(d, c.until)
		if sending && !c.next.IsZero() {
			d = lifetime.Min(d, lifetime.Until(c.next))
		}
	}
	return d.Time()
}

// due is the client that has been due longest for a Reconfigure at now; nil if there is none.
func (cs *clients) due(now time.Time) (first *client) {
	for _, c := range cs.byPeer {
		if c.next.IsZero() || c.next.After(now) {
			continue
		}
		if first == nil || cmp.Or(c.next.Compare(first.next), c.Client.compare(first.Client)) < 0 {
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
	for _, c := range cs.byPeer {
		if c.Replay+recMaxRC > c.reserved {
			c.reserved = c.Replay + replayReserve
		}
		k := c.Client
		k.Replay = c.reserved
		k.Key = slices.Clone(k.Key)
		kept = append(kept, k)
	}
	slices.SortFunc(kept, Client.compare)
	return kept, true
}
