package radv

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/ndp"
	"pgregory.net/rapid"

	"uplinkd/internal/lifetime"
	"uplinkd/policy"
)

// The tests of this file are those that docs/conformance-lan.md names: one for each demand on the sender that is not a
// matter of bytes alone.

// withRoute is announce with the route to a delegation (RFC 7084 L-3).
func withRoute(now time.Time, prefixes ...netip.Prefix) policy.Announcement {
	a := announce(now, prefixes...)
	a.Routes = []policy.AnnouncedRoute{{Prefix: netip.MustParsePrefix("2001:db8:a::/56"), Until: lifetime.Until(now.Add(2 * time.Hour))}}
	return a
}

// TestNoWayOut: RFC 7084 G-4 and G-5. That the last way out is gone is said at once, also right after something else was
// said, and repeated; the hosts keep their addresses and the routes inside (L-3). So it is with a way out that comes back.
func TestNoWayOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s, stop := runSender(t, w)
		defer stop()
		s.SetLink(lan)
		a := withRoute(time.Now(), prefixA)
		a.Preference = "high"
		s.Set(a)
		for _, router := range []bool{false, true} {
			synctest.Wait()
			w.take()
			a.Router = router
			s.Set(a)
			at := time.Now()
			synctest.Wait()
			sent := w.take()
			if len(sent) != 1 || !sent[0].at.Equal(at) {
				t.Fatalf("router %t: sent at once: %v", router, sent)
			}
			pass(16 * time.Second)
			sent = append(sent, w.take()...)
			if len(sent) != maxInitialAdvertisements {
				t.Errorf("router %t: said %d times", router, len(sent))
			}
			first := "router 0s hoplimit 64 managed false other false\n"
			if router {
				first = "router 30m0s hoplimit 64 managed false other false preference high\n"
			}
			want := first + "lladdr 02:00:00:00:01:01\nprefix 2001:db8:a::/64 onlink true auto true valid 1h30m0s preferred 45m0s\n" +
				"route 2001:db8:a::/56 preference medium lifetime 30m0s\n"
			for _, m := range sent {
				if got := text(decode(t, m)); got != want {
					t.Errorf("said:\n%swant:\n%s", got, want)
				}
			}
		}
	})
}

// TestLifetimesRunDown: RFC 9096 §3.3 and RFC 4861 §6.2.1. Every message of the last hour of a lease, solicited or not, has
// what is left at its moment, and never more than the caps.
func TestLifetimesRunDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s, stop := runSender(t, w)
		defer stop()
		begin := time.Now()
		s.SetLink(lan)
		s.Set(withRoute(begin, prefixA)) // preferred for one hour, valid for two
		for range 110 {
			pass(59 * time.Second)
			w.current().in <- rs
			pass(time.Second)
		}
		remaining := func(total, limit time.Duration, at time.Time) time.Duration {
			return max(0, min(limit, total-at.Sub(begin))).Truncate(time.Second)
		}
		sent := w.take()
		for _, m := range sent {
			for _, o := range decode(t, m).Options {
				switch o := o.(type) {
				case *ndp.PrefixInformation:
					if o.ValidLifetime != remaining(2*time.Hour, 90*time.Minute, m.at) || o.PreferredLifetime != remaining(time.Hour, 45*time.Minute, m.at) {
						t.Errorf("%s after the start: valid %s, preferred %s", m.at.Sub(begin), o.ValidLifetime, o.PreferredLifetime)
					}
				case *ndp.RouteInformation:
					if o.RouteLifetime != remaining(2*time.Hour, 30*time.Minute, m.at) {
						t.Errorf("%s after the start: route for %s", m.at.Sub(begin), o.RouteLifetime)
					}
				}
			}
		}
		if len(sent) < 110 {
			t.Errorf("only %d messages", len(sent))
		}
	})
}

// TestRouteIsWithdrawn: RFC 4191 §2.3. A route that is not announced any more has lifetime 0 for as long as hosts may hold it.
func TestRouteIsWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s, stop := runSender(t, w)
		defer stop()
		s.SetLink(lan)
		a := withRoute(time.Now(), prefixA)
		s.Set(a)
		pass(time.Minute)
		w.take()
		a.Routes = nil
		s.Set(a)
		changed := time.Now()
		pass(2 * time.Hour)
		withdrawn, without := 0, 0
		for _, m := range w.take() {
			has := strings.Contains(text(decode(t, m)), "route 2001:db8:a::/56 preference medium lifetime 0s\n")
			if has != (m.at.Sub(changed) < 30*time.Minute) {
				t.Errorf("%s after the change: withdrawn %t", m.at.Sub(changed), has)
			}
			if has {
				withdrawn++
			} else {
				without++
			}
		}
		if withdrawn < maxInitialAdvertisements+2 || without == 0 {
			t.Errorf("withdrawn %d times, then silent %d times", withdrawn, without)
		}
	})
}

// TestChangeWaits: RFC 7084 L-13 and G-5 say "immediately", RFC 4861 §6.2.6 says no more than one multicast per 3 s.
// Whatever came before, no change waits for longer than those 3 s, and one after 6 s without advertisements does not wait.
func TestChangeWaits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const shortest, longest = minimumMinRA, 20 * time.Second
		s, now := newSchedule(), start
		var last, asked, renumbered time.Time // of the last message; of the oldest change that waits; of the last change of prefixes
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				prefixes := rapid.Bool().Draw(t, "prefixes")
				s.changed(prefixes)
				if asked.IsZero() {
					asked = now
				}
				due := s.due(now)
				if now.Sub(last) >= 2*minDelayBetweenRAs && due.After(now) {
					t.Fatalf("waits for %s after a pause of %s", due.Sub(now), now.Sub(last))
				}
				if prefixes && now.Sub(renumbered) >= renumberingPeriod && due.After(now) {
					t.Fatalf("a change of prefixes waits for %s, the first in %s", due.Sub(now), now.Sub(renumbered))
				}
				if prefixes {
					renumbered = now
				}
			case 1:
				s.solicited(now, netip.IPv6Unspecified())
			}
			end := now.Add(time.Duration(rapid.Int64Range(0, int64(4*time.Second)).Draw(t, "pass")))
			for at := s.due(now); !at.After(end); at = s.due(now) {
				if now = at; !asked.IsZero() && now.Sub(asked) > minDelayBetweenRAs {
					t.Fatalf("a change has waited for %s", now.Sub(asked))
				}
				s.sent(now, shortest, longest)
				last, asked = now, time.Time{}
			}
			now = end
		}
	})
}

// TestDeprecationAfterManyChanges: a prefix that is withdrawn in the middle of a storm of changes is withdrawn within 3 s, and
// said so three times within 16 s after the storm (RFC 4861 §6.2.4; multicasts get lost).
func TestDeprecationAfterManyChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s, stop := runSender(t, w)
		defer stop()
		s.SetLink(lan)
		longest := time.Duration(0)
		for i := range 200 {
			a := announce(time.Now(), prefixA)
			a.MTU = uint32(1280 + i)
			if i >= 100 {
				a.Prefixes[0].Stale = true
			}
			s.Set(a)
			at := time.Now()
			pass(100 * time.Millisecond)
			if i != 100 {
				w.take()
				continue
			}
			for len(w.sentSince(at)) == 0 {
				pass(100 * time.Millisecond)
			}
			m := w.take()
			longest = m[len(m)-1].at.Sub(at)
			if got := text(decode(t, m[len(m)-1])); !strings.Contains(got, "valid 0s preferred 0s") {
				t.Errorf("the next message is\n%s", got)
			}
		}
		if longest > minDelayBetweenRAs {
			t.Errorf("the deprecation has waited for %s", longest)
		}
		w.take()
		pass(16 * time.Second)
		if n := len(w.take()); n < 2 || n > maxInitialAdvertisements {
			t.Errorf("%d messages after the last change", n)
		}
	})
}

// TestPREF64Octets: RFC 8781 §4, which radvd 2.19 does not know. The scaled lifetime is in the first 13 bits, the length in the
// last three: 0 for /96, 3 for /48.
func TestPREF64Octets(t *testing.T) {
	a := announce(start)
	a.PREF64 = []policy.PREF64{{Prefix: netip.MustParsePrefix("64:ff9b::/96"), Until: lifetime.Forever()},
		{Prefix: netip.MustParsePrefix("2001:db8:64::/48"), Until: in(63 * time.Second)}}
	link := lan
	link.MAC = ""
	b, err := ndp.MarshalMessage(Build(a, link, start))
	if err != nil {
		t.Fatal(err)
	}
	want := "260207080064ff9b0000000000000000" + // 1800 s are 225 units of 8 s
		"2602003b20010db80064000000000000" // 56 s are 7
	if got := hex.EncodeToString(b[16:]); got != want {
		t.Errorf("options %s, want %s", got, want)
	}
}

// TestSolicitationFromNowhere: RFC 4861 §6.2.6. A host without an address can be answered by multicast only.
func TestSolicitationFromNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s, stop := runSender(t, w)
		defer stop()
		s.SetLink(lan)
		s.Set(announce(time.Now(), prefixA))
		synctest.Wait()
		first := w.take()[0].at
		nowhere := rs
		nowhere.from = netip.IPv6Unspecified()
		w.current().in <- nowhere
		pass(3600 * time.Millisecond)
		sent := w.take()
		if len(sent) != 1 || sent[0].to != allNodes {
			t.Fatalf("answers: %v", sent)
		}
		if d := sent[0].at.Sub(first); d < minDelayBetweenRAs || d > minDelayBetweenRAs+maxRADelay {
			t.Errorf("answered %s after the message before", d)
		}
	})
}

// TestSwitchedOff: with ra.enabled = false there is no socket, and with it no answer; switched on, there is.
func TestSwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s, stop := runSender(t, w)
		defer stop()
		s.SetLink(lan)
		a := withRoute(time.Now(), prefixA)
		a.Send = false
		s.Set(a)
		pass(time.Hour)
		if w.opened() != 0 || len(w.take()) != 0 {
			t.Fatalf("a socket was opened %d times", w.opened())
		}
		a.Send = true
		s.Set(a)
		pass(time.Minute)
		c := w.current()
		if w.opened() != 1 || len(w.take()) == 0 {
			t.Fatalf("switched on: a socket was opened %d times", w.opened())
		}
		a.Send = false
		s.Set(a)
		pass(time.Hour)
		select {
		case <-c.done:
		default:
			t.Error("the socket stays open")
		}
		if sent := w.take(); len(sent) != 1 || decode(t, sent[0]).RouterLifetime != 0 {
			t.Errorf("last words: %v", sent)
		}
	})
}

// TestFullAdvertisement: what finds no room is said in the log, once.
func TestFullAdvertisement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s, stop := runSender(t, w)
		defer stop()
		var log bytes.Buffer
		s.log = slog.New(slog.NewTextHandler(&log, nil)) // written by Run only; read while it waits
		s.SetLink(lan)
		a := announce(time.Now())
		a.MTU = 1280 // of the whole link, although the router's own interface could send more
		for i := range 40 {
			a.Prefixes = append(a.Prefixes, announce(time.Now(), netip.MustParsePrefix(fmt.Sprintf("2001:db8:0:%x::/64", i))).Prefixes...)
		}
		for i := range 20 {
			a.Routes = append(a.Routes, policy.AnnouncedRoute{Prefix: netip.MustParsePrefix(fmt.Sprintf("fd00:%x::/48", i)), Until: lifetime.Forever()})
		}
		s.Set(a)
		pass(time.Hour)
		// Of 1280 octets 56 are headers, 16 say address and MTU, 1024 are 32 prefixes; 184 are left for 11 routes of 16.
		if n := strings.Count(log.String(), "is full"); n != 1 || !strings.Contains(log.String(), `number=17 first="prefix 2001:db8:0:20::/64"`) {
			t.Errorf("the log:\n%s", log.String())
		}
		a.Prefixes, a.Routes = a.Prefixes[:30], nil
		s.Set(a)
		pass(time.Hour)
		if !strings.Contains(log.String(), "everything fits") {
			t.Errorf("the log:\n%s", log.String())
		}
	})
}
