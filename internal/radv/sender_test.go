package radv

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/policy"
)

// runSender starts a Sender on a wire, inside a bubble. The returned function ends Run and waits for it.
func runSender(t *testing.T, w *wire) (s *Sender, stop func()) {
	t.Helper()
	s = NewSender("lan", quiet)
	s.port.open, s.openFormer = w.open, (&wire{}).open
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	return s, stop
}

var rs = packet{from: netip.MustParseAddr("fe80::5"), hopLimit: 255, data: []byte{133, 0, 0, 0, 0, 0, 0, 0}}

func TestSenderInitialAndPeriodic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s, stop := runSender(t, w)
		defer stop()
		begin := time.Now()
		s.SetLink(lan)
		s.Set(announce(begin, prefixA))
		pass(10 * time.Second)
		sent := w.take()
		if len(sent) != 3 || !sent[0].at.Equal(begin) || sent[2].at.Sub(begin) > 16*time.Second {
			t.Fatalf("%d advertisements in the first 10 s: %v", len(sent), sent)
		}
		if sent[0].to != allNodes {
			t.Errorf("sent to %s", sent[0].to)
		}
		pass(2 * time.Hour)
		last := sent[2].at
		periodic := w.take()
		for _, m := range periodic {
			if d := m.at.Sub(last); d < 200*time.Second || d > 600*time.Second {
				t.Errorf("interval %s", d)
			}
			last = m.at
		}
		if len(periodic) < 12 || len(periodic) > 36 {
			t.Errorf("%d advertisements in two hours", len(periodic))
		}
		if got := text(decode(t, periodic[len(periodic)-1])); !strings.Contains(got, "prefix 2001:db8:a::/64 onlink true auto true valid ") ||
			!strings.Contains(got, "preferred 0s") {
			t.Errorf("lifetimes did not run down with the lease:\n%s", got)
		}
	})
}

func TestSenderAnnouncesChangesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s, stop := runSender(t, w)
		defer stop()
		begin := time.Now()
		s.SetLink(lan)
		a := announce(begin, prefixA)
		s.Set(a)
		pass(time.Second)
		w.take()

		renumbered := announce(begin, prefixB, prefixA)
		renumbered.Prefixes[1].Stale = true
		at := time.Now()
		s.Set(renumbered)
		synctest.Wait()
		sent := w.take()
		if len(sent) != 1 || !sent[0].at.Equal(at) {
			t.Fatalf("a change one second after the start: %v", sent)
		}
		got := text(decode(t, sent[0]))
		if !strings.Contains(got, "prefix 2001:db8:a::/64 onlink true auto true valid 0s preferred 0s") || !strings.Contains(got, "prefix 2001:db8:b::/64") {
			t.Errorf("sent:\n%s", got)
		}
		pass(15 * time.Second)
		if sent = w.take(); len(sent) != 2 {
			t.Errorf("%d repetitions, want 2", len(sent))
		}

		// The same said again, and what differs only in deadlines beyond the caps, is no change.
		renewed := announce(time.Now().Add(time.Hour), prefixB, prefixA)
		renewed.Prefixes[1].Stale = true
		s.Set(renumbered)
		synctest.Wait()
		s.Set(renewed)
		synctest.Wait()
		if sent = w.take(); len(sent) != 0 {
			t.Errorf("%d advertisements without news", len(sent))
		}
	})
}

func TestSenderLimitsChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s, stop := runSender(t, w)
		defer stop()
		s.SetLink(lan)
		for i := range 600 {
			a := announce(time.Now(), prefixA)
			a.MTU = uint32(1280 + i)
			s.Set(a)
			pass(100 * time.Millisecond)
		}
		sent := w.take()
		if n := len(sent); n < 20 || n > 23 {
			t.Errorf("%d advertisements for a change every 100 ms during a minute, want 3 and one per 3 s", n)
		}
		pass(4 * time.Second)
		sent = w.take()
		if len(sent) == 0 || !strings.Contains(text(decode(t, sent[0])), "mtu 1879") {
			t.Error("the last change was not announced")
		}
	})
}

func TestSenderWithdrawsDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s, stop := runSender(t, w)
		defer stop()
		s.SetLink(lan)
		a := announce(time.Now(), prefixA)
		a.DNS = []netip.Addr{netip.MustParseAddr("2001:db8:a::1")}
		a.PREF64 = []policy.PREF64{{Prefix: netip.MustParsePrefix("64:ff9b::/96"), Until: lifetime.Forever()}}
		s.Set(a)
		synctest.Wait()
		w.take()
		a.DNS, a.PREF64 = nil, nil
		s.Set(a)
		synctest.Wait()
		got := text(decode(t, w.take()[0]))
		if !strings.Contains(got, "rdnss [2001:db8:a::1] lifetime 0s") || !strings.Contains(got, "pref64 64:ff9b::/96 lifetime 0s") {
			t.Errorf("sent:\n%s", got)
		}
	})
}

func TestSenderAnswersSolicitations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s, stop := runSender(t, w)
		defer stop()
		s.SetLink(lan)
		s.Set(announce(time.Now(), prefixA))
		pass(30 * time.Second)
		w.take()
		asked := time.Now()
		w.current().in <- rs
		pass(maxRADelay)
		sent := w.take()
		if len(sent) != 1 || sent[0].at.Sub(asked) > maxRADelay {
			t.Fatalf("answers: %v", sent)
		}

		// A flood: the answers are limited, and so is the reading.
		read := 0
		flood, end := w.current(), time.After(30*time.Second)
	loop:
		for {
			select {
			case flood.in <- rs:
				read++
			case <-end:
				break loop
			}
		}
		multicast, unicast := 0, 0
		for _, m := range w.take() {
			if m.to == allNodes {
				multicast++
			} else {
				unicast++
			}
		}
		if multicast > 10 || unicast > maxUnicast+30*int(time.Second/unicastPeriod) || multicast+unicast < 10 {
			t.Errorf("%d multicast and %d unicast answers in 30 s of flood", multicast, unicast)
		}
		if limit := 30*int(time.Second/readSpacing) + readBurst + 1; read > limit {
			t.Errorf("read %d solicitations in 30 s, want at most %d", read, limit)
		}

		bad := rs
		bad.hopLimit = 64
		pass(10 * time.Second)
		w.take()
		w.current().in <- bad
		pass(2 * time.Second)
		if n := len(w.take()); n != 0 {
			t.Errorf("%d answers to a solicitation that has crossed a router", n)
		}
	})
}

func TestSenderFarewell(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(s *Sender, stop func())
		want string // of the last message; "" for none
	}{
		{"stop is silent", func(s *Sender, stop func()) { stop() }, ""},
		{"final stop", func(s *Sender, stop func()) { s.Final(); stop() },
			"router 0s hoplimit 64 managed false other false\nlladdr 02:00:00:00:01:01\n" +
				"prefix 2001:db8:a::/64 onlink true auto true valid 0s preferred 0s\n" +
				"route 2001:db8:a::/56 preference medium lifetime 0s\npref64 64:ff9b::/96 lifetime 0s\n"},
		{"no longer to be announced", func(s *Sender, stop func()) {
			a := announce(time.Now(), prefixA)
			a.Send = false
			s.Set(a)
			pass(time.Hour)
			stop()
		}, "router 0s hoplimit 64 managed false other false\nlladdr 02:00:00:00:01:01\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{}
				s, stop := runSender(t, w)
				s.SetLink(lan)
				a := withRoute(time.Now(), prefixA)
				a.Preference = "low"
				a.CaptivePortal, a.PREF64 = "https://portal.example/", []policy.PREF64{{Prefix: netip.MustParsePrefix("64:ff9b::/96"), Until: lifetime.Forever()}}
				s.Set(a)
				pass(20 * time.Second)
				w.take()
				c.end(s, stop)
				got := ""
				for _, m := range w.take() {
					got += text(decode(t, m))
				}
				if got != c.want {
					t.Errorf("last words %q, want %q", got, c.want)
				}
			})
		})
	}
}

func TestSenderFollowsItsLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s, stop := runSender(t, w)
		defer stop()
		s.Set(announce(time.Now(), prefixA))
		pass(time.Hour)
		if n := w.opened(); n != 0 {
			t.Fatalf("opened %d times without a link", n)
		}
		step := func(name string, l kernel.Link, opens, messages int) {
			t.Helper()
			s.SetLink(l)
			synctest.Wait()
			if o, m := w.opened(), len(w.take()); o != opens || m != messages {
				t.Errorf("%s: opened %d times, %d messages; want %d and %d", name, o, m, opens, messages)
			}
			pass(time.Minute)
			w.take()
		}
		gone, moved, replaced := lan, lan, lan
		gone.Carrier = false
		moved.LinkLocal = netip.MustParseAddr("fe80::2")
		replaced.Index = 9
		step("link", lan, 1, 1)
		step("same again", lan, 1, 0)
		step("no carrier", gone, 1, 0)
		step("carrier", lan, 2, 1)
		step("another link-local address", moved, 3, 1)
		step("another interface of the same name", replaced, 4, 1)
	})
}

func TestSenderSurvivesSocketErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{fail: errors.New("no")}
		s, stop := runSender(t, w)
		defer stop()
		s.SetLink(lan)
		s.Set(announce(time.Now(), prefixA))
		pass(10 * time.Minute)
		if n := w.opened(); n < 20 || n > 40 {
			t.Errorf("opened %d times in ten minutes of failures", n)
		}
		w.set(func() { w.fail = nil })
		pass(longPause + longPause/4)
		if len(w.take()) == 0 {
			t.Error("nothing sent after the socket could be opened")
		}

		pass(time.Minute)
		before := w.opened()
		w.current().fail <- errors.New("network is down")
		pass(time.Second)
		if n := w.opened() - before; n != 1 {
			t.Errorf("opened %d times after one receive error", n)
		}

		// An advertisement that could not be sent is sent when it can.
		w.take()
		w.set(func() { w.dead = errors.New("no buffer space") })
		a := announce(time.Now(), prefixB)
		s.Set(a)
		pass(5 * time.Second)
		w.set(func() { w.dead = nil })
		pass(10 * time.Second)
		if sent := w.take(); len(sent) == 0 || !strings.Contains(text(decode(t, sent[0])), "2001:db8:b::") {
			t.Errorf("after send errors: %v", sent)
		}
	})
}
