package server

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/pd/wire"
)

func until(now time.Time, seconds uint32) lifetime.Deadline { return lifetime.After(now, seconds) }

func TestServes(t *testing.T) {
	inLab(t, func(l *lab) {
		if r := l.answer(message(pd.Solicit, iapd(1))); r.Type != pd.Advertise || !lent(r) {
			t.Errorf("%s", wire.Text(r))
		}
		if r := l.answer(message(pd.Request, iapd(1, first))); r.Type != pd.Reply || r.IAPDs[0].Prefixes[0].Valid != 2000 {
			t.Errorf("%s", wire.Text(r))
		}
		time.Sleep(500 * time.Second)
		l.Set(serving(Stateless))
		l.lender = func(context.Context, Ask) ([]Loan, error) { return []Loan{stale(1, first)}, nil }
		if r := l.answer(message(pd.Renew, iapd(1, first))); len(r.IAPDs[0].Prefixes) != 1 || lent(r) {
			t.Errorf("not delegating any more: %s", wire.Text(r))
		}
		if r := l.answer(with(message(pd.InformationRequest), func(m *pd.Message) { m.ORO = []uint16{23} })); len(r.DNS) != 1 {
			t.Errorf("%s", wire.Text(r))
		}
		if len(l.kept) != 0 {
			t.Errorf("kept %+v for clients without Reconfigure Accept", l.kept)
		}
	})
}

// TestRenewOften wants those who accept no Reconfigure to ask often, whatever their lifetimes are.
func TestRenewOften(t *testing.T) {
	inLab(t, func(l *lab) {
		times := func(m pd.Message) [2]uint32 { ia := l.answer(m).IAPDs[0]; return [2]uint32{ia.T1, ia.T2} }
		request := message(pd.Request, iapd(1, first))
		if got, want := times(request), [2]uint32{120, 800}; got != want {
			t.Errorf("T1 and T2 %d, want %d", got, want)
		}
		if got, want := times(accepting(pd.Request, innerID)), [2]uint32{500, 800}; got != want {
			t.Errorf("accepting: T1 and T2 %d, want %d", got, want)
		}
		often := told
		often.Renew = 30
		l.Set(often)
		if got, want := times(request), [2]uint32{30, 800}; got != want {
			t.Errorf("configured: T1 and T2 %d, want %d", got, want)
		}
		often.MaxValid = 40
		l.Set(often)
		if got, want := times(request), [2]uint32{20, 32}; got != want {
			t.Errorf("short lifetime: T1 and T2 %d, want %d", got, want)
		}
	})
}

// TestSilence wants no answer to what is refused, to rubbish, and when the Lender fails or takes too long; and then an
// answer to the next one.
func TestSilence(t *testing.T) {
	inLab(t, func(l *lab) {
		l.receives(with(message(pd.Request, iapd(1)), func(m *pd.Message) { m.ServerID = otherID }))
		l.receives(with(message(pd.Solicit, iapd(1)), func(m *pd.Message) { m.ClientID = routerID }))
		link := lan
		link.OtherLinkLocal = []netip.Addr{inner.Next()}
		l.SetLink(link)
		synctest.Wait()
		for _, own := range []netip.Addr{link.LinkLocal, inner.Next()} {
			l.receivesFrom(own, message(pd.Solicit, iapd(1)))
		}
		for _, rubbish := range []string{"", "\x01", "\x0c\x00\x00\x00\x00", strings.Repeat("\xff", 4000)} {
			l.conn().in <- arrival{data: []byte(rubbish), from: inner}
		}
		if sent := l.sent(); len(sent) != 0 {
			t.Errorf("answered: %+v", sent)
		}
		l.lender = func(context.Context, Ask) ([]Loan, error) { return nil, errors.New("no plan yet") }
		l.receives(message(pd.Solicit, iapd(1)))
		synctest.Wait()
		l.lender = func(ctx context.Context, _ Ask) ([]Loan, error) { <-ctx.Done(); return nil, ctx.Err() }
		l.receives(message(pd.Solicit, iapd(1)))
		time.Sleep(lendTimeout + time.Second)
		if sent := l.sent(); len(sent) != 0 {
			t.Errorf("answered: %+v", sent)
		}
		l.lender = lendFirst
		l.answer(message(pd.Solicit, iapd(1)))
		for _, want := range []string{"no plan yet", "deadline exceeded", "a DHCPv6 client has this router's own DUID",
			"this router's own address as its source"} {
			if !strings.Contains(l.log.String(), want) {
				t.Errorf("the log lacks %q:\n%s", want, &l.log)
			}
		}
	})
}

// TestStops wants Run to end while the Lender has not answered.
func TestStops(t *testing.T) {
	inLab(t, func(l *lab) {
		l.lender = func(ctx context.Context, _ Ask) ([]Loan, error) { <-ctx.Done(); return nil, ctx.Err() }
		l.receives(message(pd.Solicit, iapd(1)))
		synctest.Wait()
		begin := time.Now()
		l.cancel()
		err := <-l.ended
		if l.ended <- err; time.Since(begin) > 0 {
			t.Errorf("ended after %s", time.Since(begin))
		}
	})
}

func TestLinkComesAndGoes(t *testing.T) {
	inLab(t, func(l *lab) {
		firstConn := l.conn()
		l.SetLink(lan)
		synctest.Wait()
		if firstConn.isClosed() || len(l.conns) != 1 {
			t.Error("a link that has not changed: the socket was closed")
		}
		for _, unusable := range []func(*kernel.Link){
			func(k *kernel.Link) { k.Up = false }, func(k *kernel.Link) { k.Carrier = false },
			func(k *kernel.Link) { k.LinkLocal = lan.LinkLocal.Unmap().Prev(); *k = kernel.Link{} },
		} {
			k := lan
			unusable(&k)
			before := l.conn()
			l.SetLink(k)
			synctest.Wait()
			if !before.isClosed() {
				t.Errorf("%+v: the socket is open", k)
			}
			l.SetLink(lan)
			synctest.Wait()
			l.answer(message(pd.Solicit, iapd(1)))
		}
		before := l.conn()
		other := lan
		other.Index++
		l.SetLink(other)
		synctest.Wait()
		if !before.isClosed() || l.conn().link.Index != other.Index {
			t.Error("another interface of the same name: the old socket is used")
		}
		l.Set(Service{})
		synctest.Wait()
		if !l.conn().isClosed() {
			t.Error("nothing to serve: the socket is open")
		}
	})
}

// TestSocketTrouble wants failures to be observed once, tried again with growing pauses, and to be over when they are.
func TestSocketTrouble(t *testing.T) {
	inLab(t, func(l *lab) {
		l.locked(func() { l.openErr = errors.New("port taken"); l.opened = nil })
		begin := time.Since(l.begin)
		l.conn().in <- arrival{failed: errors.New("fake read error")}
		time.Sleep(100 * time.Second)
		want := []time.Duration{1, 3, 7, 15, 31, 61, 91}
		l.locked(func() {
			var at []time.Duration
			for _, o := range l.opened {
				at = append(at, (o-begin)/time.Second)
			}
			if !slices.Equal(at, want) {
				t.Errorf("tried after %d s, want %d s", at, want)
			}
			if wantFailures := []string{"receive on udp [::]:547 dev lan0: fake read error", "port taken"}; !slices.Equal(l.failures, wantFailures) {
				t.Errorf("observed %q, want %q", l.failures, wantFailures)
			}
			if n := strings.Count(l.log.String(), "port taken"); n != 1 {
				t.Errorf("logged %d times:\n%s", n, &l.log)
			}
			l.openErr = nil
		})
		time.Sleep(maxRetry)
		l.answer(message(pd.Solicit, iapd(1)))
		l.locked(func() {
			if last := l.failures[len(l.failures)-1]; last != "" {
				t.Errorf("still %q", last)
			}
		})
	})
}

// TestFlood wants no more work than the bound, from however many clients, and no state of it.
func TestFlood(t *testing.T) {
	inLab(t, func(l *lab) {
		asked := 0
		l.lender = func(context.Context, Ask) ([]Loan, error) { asked++; return nil, nil }
		for i := range 5000 {
			m := accepting(pd.Solicit, pd.DUID([]byte{0, 4, byte(i >> 8), byte(i)}))
			m.RapidCommit = true
			l.receives(m)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if most := readBurst + 10*int(time.Second/readSpacing) + 1; asked > most || asked < most-5 {
			t.Errorf("asked %d times in 10 s, want %d", asked, most)
		}
		if n := strings.Count(l.log.String(), "\n"); n > logBurst+2 {
			t.Errorf("%d lines logged", n)
		}
		if l.keptLast() != nil {
			t.Errorf("kept %v", l.keptLast())
		}
	})
}

// TestChanged wants clients that accept it to be told until they renew, over a restart too.
func TestChanged(t *testing.T) {
	var saved []Client
	inLab(t, func(l *lab) {
		reply := l.answer(accepting(pd.Request, innerID))
		if reply.Auth == nil {
			t.Fatalf("no key in %s", wire.Text(reply))
		}
		synctest.Wait()
		if saved = l.keptLast(); len(saved) != 1 {
			t.Fatalf("kept %+v", saved)
		}
	})
	inLab(t, func(l *lab) {
		begin := time.Since(l.begin)
		l.Changed()
		time.Sleep(7 * time.Second)
		var at []time.Duration
		last := saved[0].Replay
		for _, m := range l.sent() {
			at = append(at, (m.at-begin)/time.Second)
			if m.Type != pd.Reconfigure || m.to != inner || m.ClientID != innerID || m.Auth.Replay <= last {
				t.Errorf("%s to %s", wire.Text(m.Message), m.to)
			}
			last = m.Auth.Replay
		}
		if want := []time.Duration{0, 2, 6}; !slices.Equal(at, want) {
			t.Errorf("sent after %d s, want %d s", at, want)
		}
		if kept := l.keptLast(); len(kept) != 1 || kept[0].Replay < last {
			t.Errorf("kept %+v, sent replay value %d", kept, last)
		}
		l.answer(accepting(pd.Renew, innerID))
		sent := len(l.sent())
		time.Sleep(20 * time.Minute)
		if now := len(l.sent()); now != sent {
			t.Errorf("%d more after the Renew", now-sent)
		}
	}, saved...)
}

// TestChangedWhileTheLinkIsDown wants the tries to be spent on a link that works.
func TestChangedWhileTheLinkIsDown(t *testing.T) {
	inLab(t, func(l *lab) {
		l.SetLink(kernel.Link{})
		l.Changed()
		time.Sleep(20 * time.Minute)
		l.SetLink(lan)
		if sent := l.sent(); len(sent) != 1 || sent[0].Type != pd.Reconfigure {
			t.Errorf("sent %+v", sent)
		}
	}, Client{ID: innerID, Via: inner, Key: make([]byte, keyLen)})
}

// TestManyReconfigures wants them spread in time.
func TestManyReconfigures(t *testing.T) {
	var saved []Client
	for i := range maxClients {
		saved = append(saved, Client{ID: pd.DUID([]byte{0, 4, byte(i >> 8), byte(i)}), Via: inner, Key: make([]byte, keyLen)})
	}
	inLab(t, func(l *lab) {
		l.Changed()
		if n := len(l.sent()); n != sendBurst {
			t.Errorf("%d at once, want %d", n, sendBurst)
		}
		time.Sleep(time.Hour)
		if n := len(l.sent()); n != recMaxRC*maxClients {
			t.Errorf("%d in all, want %d for each of %d", n, recMaxRC, maxClients)
		}
		if len(l.kept) > maxClients/sendBurst*2 {
			t.Errorf("kept %d times", len(l.kept))
		}
	}, saved...)
}
