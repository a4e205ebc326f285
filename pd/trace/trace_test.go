package trace

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	ours   = netip.MustParseAddrPort("[fe80::1]:546")
	group  = netip.MustParseAddrPort("[ff02::1:2]:547")
	theirs = netip.MustParseAddrPort("[fe80::2]:547")
	at     = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
)

const (
	solicit = "\x01\x00\x00\x01\x00\x08\x00\x02\x00\x00"
	reply   = "\x07\x00\x00\x01\x00\x02\x00\x03abc"
)

func sent(data string) Packet {
	return Packet{At: at, Sent: true, Local: ours, Remote: group, Data: []byte(data)}
}

func received(data string) Packet {
	return Packet{At: at, Local: ours, Remote: theirs, Data: []byte(data)}
}

func TestRingIsBounded(t *testing.T) {
	var r Ring
	for i := range 1000 {
		r.Record(received(strings.Repeat("x", i%7)))
	}
	p := r.Packets()
	if len(p) != 256 || p[0].Seq != 1000-255 || p[255].Seq != 1000 {
		t.Fatalf("%d packets, %d to %d, want the last 256 of 1000", len(p), p[0].Seq, p[len(p)-1].Seq)
	}
	for range 10 {
		r.Record(received(strings.Repeat("x", 65527)))
	}
	if p := r.Packets(); len(p) != 4 || r.octets != 4*65527 {
		t.Errorf("%d packets with %d octets, want the 4 that stay below 256 kB", len(p), r.octets)
	}
	r.Record(received(solicit)) // 262118 octets are still below
	if p := r.Packets(); len(p) != 5 || string(p[4].Data) != solicit {
		t.Errorf("%d packets, want 5", len(p))
	}
	r.Record(received(strings.Repeat("x", maxOctets+1))) // no UDP datagram is so long, but nothing here depends on that
	if p := r.Packets(); len(p) != 1 {
		t.Errorf("%d packets, want only the last one", len(p))
	}
}

func TestRecordKeepsACopy(t *testing.T) {
	var r Ring
	p := received(reply)
	r.Record(p)
	clear(p.Data)
	if got := r.Packets()[0]; string(got.Data) != reply {
		t.Errorf("%q", got.Data)
	}
}

func TestFollow(t *testing.T) {
	var r Ring
	r.Record(sent(solicit))
	past, live, stop := r.Follow()
	if len(past) != 1 || past[0].Seq != 1 {
		t.Fatalf("past: %+v", past)
	}
	for range queue + 10 { // nobody reads: must not block
		r.Record(received(reply))
	}
	stop()
	stop()
	r.Record(received(reply))
	want := uint64(2)
	for p := range live {
		if p.Seq != want {
			t.Errorf("packet %d, want %d", p.Seq, want)
		}
		want++
	}
	if want != 2+queue {
		t.Errorf("the reader got %d packets, want %d", want-2, queue)
	}
	_, live, stop = r.Follow()
	defer stop()
	r.Record(received(reply))
	if p := <-live; p.Seq != queue+13 {
		t.Errorf("packet %d, want %d", p.Seq, queue+13)
	}
}

// TestConcurrent is for the race detector; every follower must see a sequence without repetition.
func TestConcurrent(t *testing.T) {
	var r Ring
	var writers, readers sync.WaitGroup
	var stops []func()
	for range 4 {
		past, live, stop := r.Follow()
		stops = append(stops, stop)
		readers.Go(func() {
			last := uint64(0)
			if len(past) > 0 {
				last = past[len(past)-1].Seq
			}
			for p := range live {
				if p.Seq <= last {
					t.Errorf("packet %d after %d", p.Seq, last)
				}
				last = p.Seq
			}
		})
		writers.Go(func() {
			for range 200 {
				r.Record(received(reply))
				r.Packets()
			}
		})
	}
	writers.Wait()
	for _, stop := range stops {
		stop()
	}
	readers.Wait()
	if p := r.Packets(); p[len(p)-1].Seq != 800 {
		t.Errorf("last packet %d, want 800", p[len(p)-1].Seq)
	}
}

func TestText(t *testing.T) {
	multicast := received(reply)
	multicast.Local = netip.MustParseAddrPort("[ff02::1]:546")
	for _, c := range []struct {
		p    Packet
		want string
	}{
		{sent(solicit), "sent to [ff02::1:2]:547 Solicit xid 0x000001 elapsed 0s"},
		{received(reply), "received from [fe80::2]:547 Reply xid 0x000001 server 61:62:63"},
		{multicast, "received from [fe80::2]:547 to ff02::1 Reply xid 0x000001 server 61:62:63"},
		{received("\x07"), "received from [fe80::2]:547 decode DHCPv6 message: truncated header: 1 of 4 octets"},
		{received("\x07\x00\x00\x01\x00\x02\x00\x02\x1b["),
			`received from [fe80::2]:547 Reply xid 0x000001 fault "Server Identifier dropped: 2 octets, want 3 to 130"`},
	} {
		if got := c.p.Text(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
	if got, want := sent(solicit).String(), "2026-03-01T12:00:00.123Z sent to [ff02::1:2]:547 Solicit xid 0x000001 elapsed 0s"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
