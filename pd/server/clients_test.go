package server

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/pd/wire"
)

func noJitter() float64 { return 0 }

// lending is a Reply that lends first.
func lending(m pd.Message) pd.Message {
	reply := responder{id: routerID, service: told}.answer(begin, m, []Loan{loan(1, first, 1000, 2000)})
	return reply
}

// accepting is a message of a client that accepts Reconfigure messages.
func accepting(t pd.MessageType, id pd.DUID) pd.Message {
	m := message(t, iapd(1, first))
	m.ClientID, m.ReconfAccept = id, true
	return m
}

func TestKeyInTheFirstReply(t *testing.T) {
	cs := newClients(nil, begin, noJitter)
	agreed := func(m pd.Message) pd.Message {
		reply := lending(m)
		cs.agree(begin, m, inner, &reply)
		return reply
	}
	if r := agreed(accepting(pd.Solicit, innerID)); !r.ReconfAccept || r.Auth != nil || len(cs.byPeer) != 0 {
		t.Errorf("Advertise: %s", wire.Text(r))
	}
	if r := agreed(accepting(pd.Renew, innerID)); r.ReconfAccept || r.Auth != nil {
		t.Errorf("Renew of a client without key: %s", wire.Text(r))
	}
	refusing := accepting(pd.Request, innerID)
	refusing.ReconfAccept = false
	if r := agreed(refusing); r.ReconfAccept || r.Auth != nil || len(cs.byPeer) != 0 {
		t.Errorf("client that does not accept: %s", wire.Text(r))
	}
	got := agreed(accepting(pd.Request, innerID))
	if !got.ReconfAccept || got.Auth == nil || len(got.Auth.Info) != 17 || got.Auth.Info[0] != 1 {
		t.Fatalf("Request: %s", wire.Text(got))
	}
	again := agreed(accepting(pd.Request, innerID))
	if string(again.Auth.Info) != string(got.Auth.Info) || again.Auth.Replay <= got.Auth.Replay {
		t.Error("a second Request: another key, or a replay value that has been used")
	}
	if r := agreed(accepting(pd.Renew, innerID)); !r.ReconfAccept || r.Auth != nil {
		t.Errorf("Renew: %s", wire.Text(r))
	}
	kept, changed := cs.keep()
	if !changed || len(kept) != 1 || kept[0].ID != innerID || kept[0].Via != inner || string(kept[0].Key) != string(got.Auth.Info[1:]) {
		t.Errorf("kept %+v", kept)
	}
	agreed(accepting(pd.Release, innerID))
	if kept, changed := cs.keep(); !changed || len(kept) != 0 {
		t.Errorf("after the Release: kept %+v", kept)
	}
}

// TestKeyIsNotStolen has somebody else on the link name a client's DUID: he gets no key of the client, takes none away from
// it, ends neither its key nor the Reconfigure messages to it, and uses up no more than a few places.
func TestKeyIsNotStolen(t *testing.T) {
	cs := newClients(nil, begin, noJitter)
	agreed := func(m pd.Message, via netip.Addr) pd.Message {
		reply := lending(m)
		cs.agree(begin, m, via, &reply)
		return reply
	}
	own := agreed(accepting(pd.Request, innerID), inner).Auth
	cs.changed(begin)
	thief := inner
	seen := map[string]bool{string(own.Info): true}
	for i := range 10 {
		thief = thief.Next()
		reply := agreed(accepting(pd.Request, innerID), thief)
		if want := i < maxVias-1; (reply.Auth != nil) != want || reply.ReconfAccept != want {
			t.Fatalf("number %d: %s", i, wire.Text(reply))
		}
		if reply.Auth != nil && seen[string(reply.Auth.Info)] {
			t.Errorf("number %d has a key that another one has", i)
		}
		if reply.Auth != nil {
			seen[string(reply.Auth.Info)] = true
		}
	}
	if r := agreed(accepting(pd.Renew, innerID), thief); r.ReconfAccept {
		t.Errorf("Renew from elsewhere: %s", wire.Text(r))
	}
	agreed(accepting(pd.Release, innerID), thief)
	nothing := accepting(pd.Release, innerID)
	reply := responder{id: routerID, service: told}.answer(begin, nothing, nil)
	cs.agree(begin, nothing, inner.Next(), &reply)
	if n := len(cs.byPeer); n != maxVias {
		t.Errorf("%d keys, want %d", n, maxVias)
	}
	if c := cs.due(begin); c == nil || c.Via != inner || string(c.Key) != string(own.Info[1:]) {
		t.Errorf("due is %+v, want the client itself", c)
	}
}

// TestKeysAreFewAndFrugal wants no state for those who have nothing, and not more than the bound.
func TestKeysAreFewAndFrugal(t *testing.T) {
	cs := newClients(nil, begin, noJitter)
	nothing := accepting(pd.Request, innerID)
	reply := responder{id: routerID, service: told}.answer(begin, nothing, nil)
	cs.agree(begin, nothing, inner, &reply)
	info := pd.Message{Type: pd.InformationRequest, ClientID: innerID, ReconfAccept: true}
	reply = responder{id: routerID, service: told}.answer(begin, info, nil)
	cs.agree(begin, info, inner, &reply)
	if len(cs.byPeer) != 0 {
		t.Fatalf("%d clients without a loan", len(cs.byPeer))
	}
	for i := range maxClients + 10 {
		m := accepting(pd.Request, pd.DUID(binary.BigEndian.AppendUint32([]byte("\x00\x04"), uint32(i))))
		reply := lending(m)
		cs.agree(begin, m, inner, &reply)
		if want := i < maxClients; reply.ReconfAccept != want || (reply.Auth != nil) != want {
			t.Fatalf("client %d: %s", i, wire.Text(reply))
		}
	}
	if len(cs.byPeer) != maxClients {
		t.Errorf("%d clients, want %d", len(cs.byPeer), maxClients)
	}
	if at, ok := cs.wake(false); !ok || !at.Equal(begin.Add(2000*time.Second)) {
		t.Errorf("wakes at %s, want when the loans are over", at)
	}
	cs.expire(begin.Add(1999 * time.Second))
	if len(cs.byPeer) != maxClients {
		t.Error("forgotten too early")
	}
	cs.expire(begin.Add(2000 * time.Second))
	if len(cs.byPeer) != 0 {
		t.Errorf("%d clients whose loans are over", len(cs.byPeer))
	}
}

// TestReconfigureSchedule follows RFC 9915 §15 with REC_TIMEOUT 2 s and REC_MAX_RC 8.
func TestReconfigureSchedule(t *testing.T) {
	cs := newClients([]Client{{ID: innerID, Via: inner, Key: make([]byte, keyLen), Replay: 5}}, begin, noJitter)
	cs.changed(begin)
	var at []time.Duration
	var kept []Client
	last := uint64(5)
	for now := begin; now.Before(begin.Add(20 * time.Minute)); now = now.Add(time.Second) {
		c := cs.due(now)
		if c == nil {
			continue
		}
		b, err := cs.reconfigure(c, routerID, now)
		if err != nil {
			t.Fatal(err)
		}
		m, err := wire.Decode(b)
		if err != nil || m.Type != pd.Reconfigure || m.XID != 0 || m.ClientID != innerID || m.ServerID != routerID || m.ReconfMsg != pd.Renew {
			t.Fatalf("%s, %v", wire.Text(m), err)
		}
		if m.Auth.Replay <= last {
			t.Fatalf("replay value %d after %d", m.Auth.Replay, last)
		}
		last = m.Auth.Replay
		at = append(at, now.Sub(begin)/time.Second)
		if k, changed := cs.keep(); changed {
			kept = k
		}
		if len(kept) != 1 || kept[0].Replay < last {
			t.Fatalf("kept %+v, sent replay value %d", kept, last)
		}
	}
	want := []time.Duration{0, 2, 6, 14, 30, 62, 126, 254}
	if len(at) != len(want) {
		t.Fatalf("sent after %d s, want %d s", at, want)
	}
	for i := range want {
		if at[i] != want[i] {
			t.Fatalf("sent after %d s, want %d s", at, want)
		}
	}
}

func TestReconfigureJitter(t *testing.T) {
	for _, j := range []float64{-0.1, 0.1} {
		cs := newClients([]Client{{ID: innerID, Via: inner, Key: make([]byte, keyLen)}}, begin, func() float64 { return j })
		cs.changed(begin)
		if _, err := cs.reconfigure(cs.due(begin), routerID, begin); err != nil {
			t.Fatal(err)
		}
		want := begin.Add(time.Duration(float64(recTimeout) * (1 + j)))
		if at, ok := cs.wake(true); !ok || !at.Equal(want) {
			t.Errorf("RAND %g: next at %s, want %s", j, at, want)
		}
	}
}

// TestReconfigureEnds wants no more of them once the client has come.
func TestReconfigureEnds(t *testing.T) {
	cs := newClients([]Client{{ID: innerID, Via: inner, Key: make([]byte, keyLen)}}, begin, noJitter)
	cs.changed(begin)
	if cs.due(begin) == nil {
		t.Fatal("nothing is due")
	}
	info := accepting(pd.InformationRequest, innerID)
	told := responder{id: routerID, service: told}.answer(begin, info, nil)
	cs.agree(begin, info, inner, &told)
	if cs.due(begin) == nil {
		t.Error("one who asks for DNS has heard nothing of his prefixes")
	}
	renew := accepting(pd.Renew, innerID)
	reply := lending(renew)
	cs.agree(begin, renew, inner, &reply)
	if c := cs.due(begin.Add(time.Hour)); c != nil {
		t.Errorf("%+v", c)
	}
	cs.changed(begin)
	lost := lending(renew)
	lost.IAPDs = nil
	cs.agree(begin, renew, inner, &lost)
	if c := cs.due(begin.Add(time.Hour)); c != nil {
		t.Errorf("has heard that it has lost everything: %+v", c)
	}
}

func TestSavedClients(t *testing.T) {
	good := Client{ID: innerID, Via: inner, Key: make([]byte, keyLen), Replay: 1 << 62}
	bad := []Client{good, good, good, good, good}
	bad[0].ID = "x"
	bad[1].Via = netip.MustParseAddr("2001:db8::1")
	bad[2].Via = netip.Addr{}
	bad[3].Key = bad[3].Key[1:]
	bad[4].Via = inner.WithZone("eth0")
	cs := newClients(append(bad, good), begin, noJitter)
	if len(cs.byPeer) != 1 || cs.byPeer[peer{innerID, inner}] == nil {
		t.Fatalf("took up %v", cs.byPeer)
	}
	c := cs.byPeer[peer{innerID, inner}]
	if got := cs.replay(c); got != 1<<62+1 {
		t.Errorf("replay %d, want one more than was kept", got)
	}
	if want := lifetime.After(begin, validLimit); c.until != want {
		t.Errorf("held until %s, want %s", c.until, want)
	}
}
