package client

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// held is a lease from before the start.
func held(now time.Time) pd.Lease {
	return pd.Lease{
		ServerID: serverID, Received: now,
		T1: lifetime.After(now, 1800), T2: lifetime.After(now, 2880),
		Prefixes: []pd.LeasedPrefix{{IAID: 7, Prefix: delegated, PreferredUntil: lifetime.After(now, 3600), ValidUntil: lifetime.After(now, 7200)}},
	}
}

func wantMessages(t *testing.T, c *fakeConn, want ...string) {
	t.Helper()
	if got := c.messages(); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

func TestBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting)
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		wantMessages(t, l.conn(), "Solicit", "Request")
		got := l.latest()
		if got.Cause != pd.CauseBound || !got.hasPrefixes() || !got.Reported || got.State != "bound" ||
			got.Failure != "" || len(got.Lease.Prefixes) != 1 || got.Lease.Prefixes[0].Prefix != delegated {
			t.Errorf("%+v", got)
		}
		before := len(l.all())
		time.Sleep(20 * time.Second) // past ReportAfter, with nothing new to tell
		if n := len(l.all()) - before; n != 0 {
			t.Errorf("%d updates about nothing: %+v", n, l.all()[before:])
		}
		time.Sleep(time.Hour / 2)
		wantMessages(t, l.conn(), "Solicit", "Request", "Renew")
		if got := l.latest(); got.Cause != pd.CauseRenewed {
			t.Errorf("after T1: %+v", got)
		}
	})
}

func TestReportAfter(t *testing.T) {
	for name, set := range map[string]func(*lab){
		"no link":      func(*lab) {},
		"no carrier":   func(l *lab) { k := wan; k.Carrier = false; l.SetLink(k) },
		"socket fails": func(l *lab) { l.openErr = errors.New("no"); l.SetLink(wan) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := start(t, silent)
				set(l)
				time.Sleep(15*time.Second - 1)
				if got := l.latest(); got.Reported {
					t.Errorf("too early: %+v", got)
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if got := l.latest(); !got.Reported || got.hasPrefixes() {
					t.Errorf("after ReportAfter: %+v", got)
				}
			})
		})
	}
}

func TestSilenceIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, silent)
		l.SetLink(wan)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		got := l.latest()
		if !got.Reported || got.hasPrefixes() || !strings.Contains(got.Failure, "no server has answered") {
			t.Errorf("%+v", got)
		}
	})
}

func TestRefusedIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, refusing)
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		got := l.latest()
		if !got.Reported || got.hasPrefixes() || !strings.Contains(got.Failure, "NoPrefixAvail") || !strings.Contains(got.Failure, "none left") {
			t.Errorf("%+v", got)
		}
		l.conn().change(func(c *fakeConn) { c.server = granting })
		l.Renew()
		time.Sleep(5 * time.Minute)
		if got := l.latest(); !got.hasPrefixes() || got.Failure != "" {
			t.Errorf("when the server has prefixes again: %+v", got)
		}
	})
}

func TestSavedLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting, func(c *Config) { c.Saved = held(time.Now()) })
		synctest.Wait()
		first := l.all()[0]
		if !first.hasPrefixes() || first.Cause != "" || first.Reported || first.State != "waiting for link" {
			t.Errorf("first update: %+v", first)
		}
		l.SetLink(wan)
		time.Sleep(time.Second)
		wantMessages(t, l.conn(), "Rebind")
		if got := l.latest(); got.Cause != pd.CauseRebound || !got.Reported {
			t.Errorf("%+v", got)
		}
	})
}

func TestSavedLeaseExpiresUnconfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, silent, func(c *Config) {
			c.Saved = held(time.Now().Add(-2*time.Hour + 10*time.Second))
		})
		time.Sleep(11 * time.Second)
		if got := l.latest(); got.hasPrefixes() || got.Cause != pd.CauseExpired || got.Reported {
			t.Errorf("%+v", got)
		}
	})
}

func TestLinkFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting)
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		first := l.conn()
		same := wan
		same.MTU = 1492
		l.SetLink(same)
		synctest.Wait()
		if first.isClosed() || len(l.conns) != 1 {
			t.Error("a change that does not matter reopened the socket")
		}
		down := wan
		down.Carrier = false
		l.SetLink(down)
		synctest.Wait()
		if got := l.latest(); !first.isClosed() || !got.hasPrefixes() || got.State != "waiting for link" {
			t.Errorf("link down: socket closed %v, %+v", first.isClosed(), got)
		}
		l.SetLink(wan)
		time.Sleep(time.Second)
		wantMessages(t, l.conn(), "Rebind")
		again := wan // taken out and put in again: same name, another device
		again.Index = 9
		second := l.conn()
		l.SetLink(again)
		time.Sleep(time.Second)
		if !second.isClosed() || l.conn().link.Index != 9 {
			t.Errorf("new ifindex: old socket closed %v, new one on %+v", second.isClosed(), l.conn().link)
		}
		wantMessages(t, l.conn(), "Rebind")
	})
}

func TestSetLinkLatestWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{})
		for i := range 1000 { // nobody takes them: must not block
			k := wan
			k.Index = i
			c.SetLink(k)
		}
		if k := <-c.links; k.Index != 999 {
			t.Errorf("index %d, want the latest", k.Index)
		}
		c.Renew()
		c.Renew()
	})
}

func TestOpenIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting, func(c *Config) { c.ReportAfter = time.Hour })
		l.openErr = errors.New("listen on udp [::]:546 dev wan0: no luck")
		l.SetLink(wan)
		time.Sleep(100 * time.Second)
		want := []time.Duration{0, 1, 3, 7, 15, 31, 61, 91}
		for i := range want {
			want[i] *= time.Second
		}
		synctest.Wait()
		if !slices.Equal(l.opened, want) {
			t.Errorf("opened after %v, want %v", l.opened, want)
		}
		if got := l.latest(); got.Failure != "listen on udp [::]:546 dev wan0: no luck" {
			t.Errorf("%+v", got)
		}
		if n := strings.Count(l.log.String(), "socket failed"); n != 1 {
			t.Errorf("%d log lines about it, want 1:\n%s", n, &l.log)
		}
		l.mu.Lock()
		l.openErr = nil
		l.mu.Unlock()
		time.Sleep(30 * time.Second)
		if got := l.latest(); !got.hasPrefixes() || got.Failure != "" {
			t.Errorf("after it worked: %+v", got)
		}
	})
}

func TestOpenIsNotRetriedWithoutLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting)
		l.openErr = errors.New("no luck")
		l.SetLink(wan)
		synctest.Wait()
		l.SetLink(kernel.Link{})
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := l.latest(); len(l.opened) != 1 || got.Failure != "" {
			t.Errorf("opened after %v, %+v", l.opened, got)
		}
	})
}

func TestReadError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting)
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		first := l.conn()
		first.fail <- errFakeRead
		synctest.Wait()
		if got := l.latest(); !first.isClosed() || !got.hasPrefixes() || got.Failure != "receive on dev wan0: fake read error" {
			t.Errorf("socket closed %v, %+v", first.isClosed(), got)
		}
		time.Sleep(2 * time.Second)
		wantMessages(t, l.conn(), "Rebind")
		if got := l.latest(); got.Failure != "" {
			t.Errorf("after it worked: %+v", got)
		}
	})
}

func TestSendErrorIsLikeLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting, func(c *Config) { c.Machine.Delay = true })
		l.SetLink(wan)
		synctest.Wait()
		l.conn().change(func(c *fakeConn) { c.sendErr = errors.New("network is unreachable") })
		time.Sleep(time.Minute)
		if got, want := l.latest().Failure, "send Solicit to ff02::1:2 dev wan0: network is unreachable"; got != want {
			t.Errorf("failure %q, want %q", got, want)
		}
		l.conn().change(func(c *fakeConn) { c.sendErr = nil })
		time.Sleep(5 * time.Minute)
		if got := l.latest(); !got.hasPrefixes() || got.Failure != "" || len(l.opened) != 1 {
			t.Errorf("opened %d times, %+v", len(l.opened), got)
		}
	})
}

func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting)
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		l.Renew()
		synctest.Wait()
		wantMessages(t, l.conn(), "Solicit", "Request", "Renew")
	})
}

func TestRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, granting)
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		if err := l.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wantMessages(t, l.conn(), "Solicit", "Request", "Release")
		i := slices.IndexFunc(l.all(), func(u Update) bool { return u.Cause == pd.CauseReleased })
		if i < 0 || l.updates[i].hasPrefixes() || l.sentAt[i] != 2 { // RFC 9915 §18.2.7: stop using the lease first
			t.Errorf("update %d of %+v, messages sent before each %v", i, l.updates, l.sentAt)
		}
		if err := l.Release(t.Context()); err != nil {
			t.Errorf("second time: %v", err)
		}
		l.SetLink(kernel.Link{})
		synctest.Wait()
		l.SetLink(wan)
		time.Sleep(time.Hour)
		wantMessages(t, l.conn()) // the new socket: silent
		if got := l.latest(); got.State != "released" || got.hasPrefixes() {
			t.Errorf("%+v", got)
		}
		l.Renew()
		time.Sleep(5 * time.Second)
		wantMessages(t, l.conn(), "Solicit", "Request")
		if got := l.latest(); got.State != "bound" || !got.hasPrefixes() {
			t.Errorf("%+v", got)
		}
	})
}

func TestReleaseUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, func(m pd.Message) []pd.Message {
			if m.Type == pd.Release {
				return nil
			}
			return granting(m)
		})
		l.SetLink(wan)
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		err := l.Release(ctx)
		if want := "release the lease of uplink fiber: context deadline exceeded"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if err := l.Release(t.Context()); err != nil { // joins the one that is running
			t.Error(err)
		}
		if n := len(l.conn().messages()); n != 2+4 { // REL_MAX_RC
			t.Errorf("sent %q", l.conn().messages())
		}
		l.stop()
		if err := l.Release(t.Context()); !errors.Is(err, ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
}
