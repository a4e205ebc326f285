package client

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/pd"
	"uplinkd/pd/trace"
	"uplinkd/pd/wire"
)

func TestAwaited(t *testing.T) {
	const rest = "\x00\x01\x00\x03abc\x00\x02\x00\x03abc"
	received := func(octets string) packet { return packet{data: []byte(octets), to: wan.LinkLocal} }
	for _, c := range []struct {
		name        string
		octets      string
		want        bool
		reconfigure bool // counts if Reconfigures are listened to, whatever runs
	}{
		{"a Reply", "\x07\x01\x02\x03" + rest, true, false},
		{"an Advertise", "\x02\x01\x02\x03" + rest, true, false},
		{"a Reply to the other exchange", "\x07\x04\x05\x06" + rest, true, false},
		{"another transaction id", "\x07\x01\x02\x04" + rest, false, false},
		{"from a client", "\x01\x01\x02\x03" + rest, false, false},
		{"Reconfigure", "\x0a\x01\x02\x03" + rest, false, true},
		{"Reconfigure of transaction id 0", "\x0a\x00\x00\x00" + rest, false, true},
		{"Reconfigure too short", "\x0a\x00\x00\x00" + rest[1:], false, false},
		{"from a relay", "\x0d\x01\x02\x03" + rest, false, false},
		{"too short for two identifiers", "\x07\x01\x02\x03" + rest[1:], false, false},
		{"empty", "", false, false},
	} {
		var w awaited
		p := received(c.octets)
		if w.by(p) {
			t.Errorf("%s: awaited before any exchange", c.name)
		}
		w.set([]uint32{0x010203, 0x040506}, false)
		if got := w.by(p); got != c.want {
			t.Errorf("%s: awaited is %v", c.name, got)
		}
		w.set(nil, true)
		if got := w.by(p); got != c.reconfigure {
			t.Errorf("%s: awaited is %v when only Reconfigures are", c.name, got)
		}
		p.to = netip.MustParseAddr("ff02::1")
		if w.by(p) {
			t.Errorf("%s: awaited, though sent to a group", c.name)
		}
		if w.set(nil, false); w.by(received(c.octets)) {
			t.Errorf("%s: awaited after the exchange", c.name)
		}
	}
	var w awaited
	zero := received("\x07\x00\x00\x00" + rest)
	if w.by(zero) {
		t.Error("transaction id 0 is awaited before any exchange")
	}
	if w.set([]uint32{0}, false); !w.by(zero) {
		t.Error("transaction id 0 is not awaited when it runs")
	}
}

// TestFloodThatAnswersNothing floods the client while it is bound: nothing changes, and the log has one line a minute.
func TestFloodThatAnswersNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting)
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		before := l.latest()
		flood := func(n int) {
			for i := range n {
				b := fmt.Appendf(nil, "\x07abc\x00\x19\x00\x01%d\x1b[2J, and so on", i)
				if i%2 == 0 {
					b = []byte("\xff")
				}
				l.conn().in <- b
			}
			synctest.Wait()
		}
		flood(10000)
		if got := l.latest(); got.State != before.State || got.Failure != before.Failure || !got.hasPrefixes() {
			t.Errorf("%+v", got)
		}
		time.Sleep(time.Minute)
		flood(50)
		time.Sleep(time.Minute)
		flood(49) // these may be late answers
		const line = `level=WARN msg="DHCPv6 packets dropped that answer nothing" uplink=fiber `
		if log := l.log.String(); strings.Count(log, "WARN") != 2 || !strings.Contains(log, line+"dropped=50\n") ||
			!strings.Contains(log, line+"dropped=10000\n") {
			t.Errorf("log:\n%s", log)
		}
	})
}

// TestFloodOfAnswers floods the client with what might be answers: they are decoded slowly, and the log stays short.
func TestFloodOfAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, silent)
		l.SetLink(wan)
		time.Sleep(500 * time.Millisecond)
		c := l.conn()
		c.mu.Lock()
		solicit := c.sent[0]
		c.mu.Unlock()
		b, err := wire.Encode(pd.Message{Type: pd.Advertise, XID: solicit.XID, ClientID: clientID, ServerID: serverID,
			Status: pd.Status{Code: pd.NoPrefixAvail, Text: "\x1b[2J"}})
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, "\x00\x19\x00\x01\x1b"...)
		fill := func() {
			for range cap(c.in) {
				c.in <- b
			}
			synctest.Wait()
		}
		fill()
		if taken := cap(c.in) - len(c.in); taken != decodeBurst+1 {
			t.Errorf("%d packets taken at once, want %d and one that waits", taken, decodeBurst)
		}
		time.Sleep(10 * decodeSpacing)
		synctest.Wait()
		if taken := cap(c.in) - len(c.in); taken != decodeBurst+11 {
			t.Errorf("%d packets taken, want %d", taken, decodeBurst+11)
		}
		time.Sleep(logInterval)
		c.in <- b
		synctest.Wait()
		if log, left := l.log.String(), fmt.Sprint("not_shown=", cap(c.in)-logBurst); !strings.Contains(log, left) {
			t.Errorf("the log does not count what it left out: want %s in\n%s", left, log)
		}
		fill()
		l.SetLink(kernel.Link{}) // ends the wait
		synctest.Wait()
		if got := l.latest().State; got != pd.StateNoLink {
			t.Errorf("%q: the link that is gone waits for the flood", got)
		}
		if log := l.log.String(); strings.Count(log, "parts of a DHCPv6 message dropped") != logBurst+1 || strings.Contains(log, "\x1b") {
			t.Errorf("log:\n%s", log)
		}
	})
}

// TestFloodOfReconfigures floods a client that listens to Reconfigures: few are looked at, and answers get through at once.
func TestFloodOfReconfigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ring trace.Ring
		l := start(t, silent, func(c *Config) { c.Machine.Reconfigure, c.Trace = true, ring.Record })
		l.SetLink(wan)
		time.Sleep(500 * time.Millisecond)
		c := l.conn()
		c.mu.Lock()
		answer := granting(c.sent[0])[0]
		c.mu.Unlock()
		answer.Preference = 255
		advertise, err := wire.Encode(answer)
		if err != nil {
			t.Fatal(err)
		}
		reconfigure, err := wire.Encode(pd.Message{Type: pd.Reconfigure, ClientID: clientID, ServerID: serverID, ReconfMsg: pd.Renew})
		if err != nil {
			t.Fatal(err)
		}
		for range 10 * decodeBurst {
			c.in <- reconfigure
		}
		c.in <- advertise
		synctest.Wait()
		wantMessages(t, c, "Solicit", "Request")
		if n := len(ring.Packets()); n != 1+decodeBurst+2 {
			t.Errorf("%d packets recorded, want the first %d Reconfigures and three others", n, decodeBurst)
		}
		if log := l.log.String(); strings.Count(log, "that server has given no key") != 1 || strings.Count(log, "dropped=50") != 1 {
			t.Errorf("log:\n%s", log)
		}
	})
}
