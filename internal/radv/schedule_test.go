package radv

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestScheduleRate: whatever happens, no more than three advertisements at once and one per three seconds after that, one more
// in 30 s for changes of prefixes, and never a pause longer than the longest interval.
func TestScheduleRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const shortest, longest = 3 * time.Second, 20 * time.Second
		s, now := newSchedule(), start
		var sent []time.Time
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				s.changed(rapid.Bool().Draw(t, "prefixes"))
			case 1:
				s.solicited(now, netip.IPv6Unspecified())
			}
			end := now.Add(time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "pass")))
			for at := s.due(now); !at.After(end); at = s.due(now) {
				now = at
				if n := len(sent); n > 0 && now.Sub(sent[n-1]) > longest {
					t.Fatalf("a pause of %s", now.Sub(sent[n-1]))
				}
				s.sent(now, shortest, longest)
				sent = append(sent, now)
			}
			now = end
		}
		for i := range sent {
			for j := i + 1; j < len(sent); j++ {
				took := sent[j].Sub(sent[i])
				if most := 3 + int(took/minDelayBetweenRAs) + 1 + int(took/renumberingPeriod); j-i+1 > most {
					t.Fatalf("%d advertisements within %s, want at most %d", j-i+1, took, most)
				}
			}
		}
	})
}

func TestScheduleAnswersSolicitationsTogether(t *testing.T) {
	s := newSchedule()
	s.sent(start, 200*time.Second, 600*time.Second)
	now := start.Add(time.Second)
	s.solicited(now, netip.IPv6Unspecified())
	first := s.due(now)
	if d := first.Sub(start); d < minDelayBetweenRAs || d > minDelayBetweenRAs+maxRADelay {
		t.Errorf("answer %s after the last advertisement, want 3 s to 3.5 s", d)
	}
	for range 1000 {
		s.solicited(now, netip.IPv6Unspecified())
	}
	if s.due(now) != first {
		t.Error("more solicitations moved the answer")
	}
	s.sent(first, 200*time.Second, 600*time.Second)
	if d := s.due(first).Sub(first); d < 200*time.Second {
		t.Errorf("another advertisement %s after the answer", d)
	}
}

func TestScheduleAnswersSingleHostsBetweenMulticasts(t *testing.T) {
	s := newSchedule()
	s.sent(start, 200*time.Second, 600*time.Second)
	now := start.Add(time.Second)
	host := netip.MustParseAddr("fe80::5")
	s.solicited(now, host)
	s.solicited(now, host)
	if d := s.wake(now).Sub(now); d > maxRADelay {
		t.Errorf("answer after %s", d)
	}
	if got := s.dueUnicast(now.Add(maxRADelay)); len(got) != 1 || got[0] != host {
		t.Errorf("hosts to answer: %v", got)
	}
	for i := range 100 {
		s.solicited(now, netip.AddrFrom16([16]byte{0xfe, 0x80, 15: byte(i + 10)}))
	}
	if n := len(s.dueUnicast(now.Add(maxRADelay))); n > maxUnicast {
		t.Errorf("%d hosts to answer", n)
	}
	if d := s.wake(now).Sub(start); d > minDelayBetweenRAs+maxRADelay {
		t.Errorf("the others are answered after %s", d)
	}
}
