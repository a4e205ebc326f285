package client

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/pd"
)

// TestLast: who follows on the same uplink, as at a reload, goes on with the lease as it was held, and with what was sent.
func TestLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting, func(c *Config) { c.Saved = held(time.Now().Add(-time.Hour)) })
		if lease, _ := l.Last(); len(lease.Prefixes) != 1 || !lease.Received.Equal(time.Now().Add(-time.Hour)) {
			t.Errorf("before the end: %+v", lease)
		}
		l.SetLink(wan)
		time.Sleep(time.Second)
		l.stop()
		lease, _ := l.Last()
		if len(lease.Prefixes) != 1 || time.Since(lease.Received) > time.Second {
			t.Errorf("after the end: %+v", lease)
		}
	})
}

// TestWindowSurvives: the limit of 20 messages in 20 s (RFC 9915 §14.1) is the uplink's, however often the client is
// replaced by another one; what is due after that is not lost.
func TestWindowSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		messages, begin, window := 0, time.Now(), pd.Window{}
		for range 100 {
			l := start(t, silent, func(c *Config) { c.Window = window })
			l.SetLink(wan)
			synctest.Wait()
			time.Sleep(10 * time.Millisecond)
			l.stop()
			_, window = l.Last()
			messages += len(l.conn().messages())
		}
		if messages != 20 {
			t.Errorf("%d messages in %v, want 20", messages, time.Since(begin))
		}
		l := start(t, silent, func(c *Config) { c.Window = window })
		l.SetLink(wan)
		time.Sleep(21 * time.Second)
		if got := l.conn().messages(); len(got) == 0 {
			t.Error("nothing was sent after the limit")
		}
	})
}

// TestWindowSurvivesSuspend: likewise when the system sleeps and wakes in a quick row.
func TestWindowSurvivesSuspend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, silent, func(c *Config) { c.Saved = held(time.Now()) })
		l.SetLink(wan)
		for range 50 {
			l.jump(11*time.Second, 11*time.Second)
			l.Suspect("test") // has it look at its clocks
			time.Sleep(20 * time.Millisecond)
		}
		if got := len(l.conn().messages()); got != 20 {
			t.Errorf("%d messages in a second, want 20", got)
		}
	})
}

// TestConflictLog: what concerns us is told, and nothing else.
func TestConflictLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting, func(c *Config) { c.Machine.NA = &pd.NAConfig{IAID: 8} })
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		const line = "address is in use by another node"
		l.Conflict(wan.LinkLocal)
		synctest.Wait()
		if strings.Contains(l.log.String(), line) {
			t.Errorf("told of another's address:\n%s", &l.log)
		}
		l.Conflict(assigned)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := strings.Count(l.log.String(), line); n != 1 {
			t.Errorf("told %d times of an address of ours:\n%s", n, &l.log)
		}
	})
}
