package client

import (
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// near reports whether d lies seconds after now, give or take a minute for when the jump was found.
func near(d lifetime.Deadline, now time.Time, seconds int) bool {
	return d.Within(lifetime.Until(now.Add(time.Duration(seconds)*time.Second)), time.Minute, now)
}

// TestSuspend: what was slept is gone from the lifetimes, the lease is verified, within a minute after waking.
func TestSuspend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting)
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		l.conn().change(func(c *fakeConn) { c.server = silent })
		l.jump(time.Hour/4, time.Hour/4)
		time.Sleep(time.Minute)
		now := time.Now()
		got := l.latest()
		if !got.hasPrefixes() || !near(got.Lease.Prefixes[0].ValidUntil, now, 6240) || !near(got.Lease.Prefixes[0].PreferredUntil, now, 2640) ||
			!near(got.Lease.T1, now, 840) {
			t.Errorf("at %s: %+v", now, got)
		}
		if m := l.conn().messages(); len(m) < 3 || m[2] != "Rebind" {
			t.Errorf("sent %q, want a Rebind after waking", m)
		}
		l.conn().change(func(c *fakeConn) { c.server = granting })
		time.Sleep(time.Minute)
		if got := l.latest(); got.State != "bound" || !near(got.Lease.Prefixes[0].ValidUntil, now, 7200) {
			t.Errorf("after the server has answered: %+v", got)
		}
	})
}

func TestSuspendBeyondTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting)
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		l.conn().change(func(c *fakeConn) { c.server = silent })
		before := len(l.all())
		l.jump(3*time.Hour, 3*time.Hour)
		time.Sleep(time.Minute)
		if got := l.all()[before]; got.hasPrefixes() || got.Cause != pd.CauseExpired {
			t.Errorf("first update after waking: %+v", got)
		}
		if m := l.conn().messages(); len(m) < 3 || m[2] != "Solicit" {
			t.Errorf("sent %q, want a Solicit after waking", m)
		}
	})
}

func TestSuspendWithoutLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting, func(c *Config) { c.Saved = held(time.Now()) })
		synctest.Wait()
		l.jump(time.Hour/4, time.Hour/4)
		time.Sleep(time.Minute)
		if got := l.latest(); !got.hasPrefixes() || got.State != "waiting for link" || !near(got.Lease.Prefixes[0].ValidUntil, time.Now(), 6240) {
			t.Errorf("%+v", got)
		}
	})
}

// TestClockJumps: a clock that is set casts doubt, and moves no deadline; small steps mean nothing.
func TestClockJumps(t *testing.T) {
	for name, c := range map[string]struct {
		boot, wall time.Duration
		want       []string
	}{
		"set forward":               {0, time.Hour, []string{"Solicit", "Request", "Rebind"}},
		"set back":                  {0, -time.Hour, []string{"Solicit", "Request", "Rebind"}},
		"small step":                {0, 9 * time.Second, []string{"Solicit", "Request"}},
		"short suspend":             {9 * time.Second, 9 * time.Second, []string{"Solicit", "Request"}},
		"short suspend, small step": {9 * time.Second, 15 * time.Second, []string{"Solicit", "Request"}},
		"suspend, and the clock is wrong after it": {time.Minute, -time.Hour, []string{"Solicit", "Request", "Rebind"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := start(t, granting)
				l.SetLink(wan)
				time.Sleep(5 * time.Second)
				l.jump(c.boot, c.wall)
				time.Sleep(90 * time.Second)
				wantMessages(t, l.conn(), c.want...)
				if got := l.latest(); got.State != "bound" || !near(got.Lease.Prefixes[0].ValidUntil, time.Now(), 7150) {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

func TestJumpAfterRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting)
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		if err := l.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.jump(time.Hour, 2*time.Hour)
		l.Suspect("router changed")
		l.Conflict(assigned)
		time.Sleep(time.Hour)
		wantMessages(t, l.conn(), "Solicit", "Request", "Release")
		if got := l.latest(); got.State != "released" || got.hasPrefixes() {
			t.Errorf("%+v", got)
		}
	})
}

// Who waits for a Release gets an answer all the same.
func TestSuspendDuringRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, func(m pd.Message) []pd.Message {
			if m.Type == pd.Release {
				return nil
			}
			return granting(m)
		})
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		time.AfterFunc(time.Second, func() { l.jump(time.Hour, time.Hour) })
		if err := l.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := l.latest(); got.State != "released" {
			t.Errorf("%+v", got)
		}
	})
}

func TestReadClocks(t *testing.T) {
	a, ok := readClocks()
	b, ok2 := readClocks()
	if !ok || !ok2 || a.boot < 0 || (b.boot-a.boot).Abs() > maxJump || (b.wall-a.wall).Abs() > maxJump {
		t.Errorf("%+v %v, %+v %v", a, ok, b, ok2)
	}
	if wall := time.Unix(0, int64(a.wall)); wall.Year() < 2000 { // boot time of this system
		t.Errorf("CLOCK_REALTIME - CLOCK_MONOTONIC is %s", wall)
	}
}

// spinning is a fake: a machine with a bug, whose deadline is always over.
type spinning struct{ steps int }

func (m *spinning) Step(time.Time, pd.Input) []pd.Output { m.steps++; return nil }
func (m *spinning) Deadline() (time.Time, bool)          { return time.Now().Add(-time.Second), true }
func (m *spinning) State() string                        { return "spinning" }
func (m *spinning) Lease() pd.Lease                      { return pd.Lease{} }
func (m *spinning) Sent() pd.Window                      { return pd.Window{} }
func (m *spinning) Awaits() ([]uint32, bool)             { return nil, false }

// An error in the machine must not turn into a busy loop, nor starve what else there is to do.
func TestDeadlineInThePast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &spinning{}
		l := startWith(t, silent, func(c *Client) {
			c.newMachine = func(pd.Lease, pd.Window, time.Time, *rand.Rand) machine { return m }
		})
		time.Sleep(time.Second)
		l.Suspect("test") // is heard
		synctest.Wait()
		if m.steps < 90 || m.steps > 110 {
			t.Errorf("%d steps in a second, want one every 10 ms", m.steps)
		}
		if !strings.Contains(l.log.String(), "reason=test") {
			t.Errorf("Suspect was not heard:\n%s", &l.log)
		}
	})
}
