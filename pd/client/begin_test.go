package client

import (
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

const forRouters = "waiting for a router advertisement"

func waiting(c *Config) { c.WaitingFor = forRouters }

func TestBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting, waiting)
		synctest.Wait()
		if got := l.latest(); got.State != pd.StateNoLink || got.Reported {
			t.Errorf("without a link: %+v", got)
		}
		l.SetLink(wan)
		l.Suspect("a router")
		time.Sleep(14 * time.Second)
		if got := l.latest(); got.State != forRouters || got.Reported {
			t.Errorf("before ReportAfter: %+v", got)
		}
		time.Sleep(time.Hour)
		if got := l.latest(); got.State != forRouters || !got.Reported || got.Failure != "" {
			t.Errorf("after an hour: %+v", got)
		}
		wantMessages(t, l.conn())
		for range 10 { // must not block
			l.Begin()
		}
		time.Sleep(5 * time.Second)
		wantMessages(t, l.conn(), "Solicit", "Request")
		if got := l.latest(); got.State != "bound" || !got.hasPrefixes() {
			t.Errorf("after Begin: %+v", got)
		}
		// What has begun goes on, on any link.
		other := wan
		other.Index = 9
		l.SetLink(other)
		time.Sleep(5 * time.Second)
		wantMessages(t, l.conn(), "Rebind")
	})
}

func TestBeginBeforeLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting, waiting)
		l.Begin()
		time.Sleep(time.Minute)
		if got := l.latest(); got.State != pd.StateNoLink {
			t.Errorf("%+v", got)
		}
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		wantMessages(t, l.conn(), "Solicit", "Request")
	})
}

// TestBeginWithLease does not wait: a lease from before has to be verified.
func TestBeginWithLease(t *testing.T) {
	for name, left := range map[string]time.Duration{"valid": time.Hour, "over": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				until := lifetime.Until(time.Now().Add(left))
				l := start(t, granting, waiting, func(c *Config) {
					c.Saved = pd.Lease{ServerID: serverID, Received: time.Now().Add(-2 * time.Hour), T1: until, T2: until,
						Prefixes: []pd.LeasedPrefix{{IAID: 7, Prefix: delegated, PreferredUntil: until, ValidUntil: until}}}
				})
				l.SetLink(wan)
				time.Sleep(5 * time.Second)
				if left > 0 {
					wantMessages(t, l.conn(), "Rebind")
				} else {
					wantMessages(t, l.conn())
				}
			})
		})
	}
}

// TestWaitingEnds has everything happen to a client that waits.
func TestWaitingEnds(t *testing.T) {
	t.Run("renew", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := start(t, granting, waiting)
			l.SetLink(wan)
			time.Sleep(time.Minute)
			l.Renew()
			time.Sleep(5 * time.Second)
			wantMessages(t, l.conn(), "Solicit", "Request")
		})
	})
	t.Run("flap", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := start(t, granting, waiting)
			for range 3 {
				l.SetLink(wan)
				synctest.Wait()
				l.SetLink(kernel.Link{Name: "wan0"})
				synctest.Wait()
			}
			wantMessages(t, l.conn())
			if got := l.latest(); got.State != pd.StateNoLink {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("suspended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := start(t, granting, waiting)
			l.SetLink(wan)
			time.Sleep(time.Minute)
			l.jump(time.Hour, 0)
			time.Sleep(2 * time.Minute)
			wantMessages(t, l.conn())
		})
	})
	t.Run("release", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := start(t, granting, waiting)
			l.SetLink(wan)
			time.Sleep(time.Minute)
			if err := l.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.Begin()
			time.Sleep(time.Minute)
			wantMessages(t, l.conn())
			if got := l.latest(); got.State != pd.StateReleased {
				t.Errorf("%+v", got)
			}
			l.Renew()
			time.Sleep(5 * time.Second)
			wantMessages(t, l.conn(), "Solicit", "Request")
		})
	})
}
