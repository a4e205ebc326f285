package radv

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/ndp"
)

// reports collects what a Listener reports.
type reports struct {
	mu   sync.Mutex
	list []Facts
}

func (r *reports) observe(f Facts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, f)
}

func (r *reports) all() []Facts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}

func (r *reports) count() int { return len(r.all()) }

// last returns the latest report; there must be one.
func (r *reports) last() Facts {
	all := r.all()
	return all[len(all)-1]
}

// runListener starts a Listener on a wire, inside a bubble, and collects what it reports.
func runListener(t *testing.T, w *wire) (l *Listener, facts *reports, stop func()) {
	t.Helper()
	facts = &reports{}
	l = NewListener("fiber", facts.observe, quiet)
	l.port.open = w.open
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	return l, facts, stop
}

func TestListenerSolicits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		l, _, stop := runListener(t, w)
		defer stop()
		begin := time.Now()
		l.SetLink(lan)
		pass(9 * time.Second)
		sent := w.take()
		if len(sent) != 3 || sent[0].at.Sub(begin) > firstSolicitation || sent[2].at.Sub(sent[1].at) != solicitationInterval {
			t.Fatalf("solicitations in 9 s: %v", sent)
		}
		m, err := ndp.ParseMessage(sent[0].data)
		if err != nil {
			t.Fatal(err)
		}
		if m, ok := m.(*ndp.RouterSolicitation); !ok || len(m.Options) != 1 || sent[0].to != allRouters {
			t.Errorf("sent %+v to %s", m, sent[0].to)
		}
		pass(24 * time.Hour)
		if n := len(w.take()); n < 25 || n > 40 {
			t.Errorf("%d solicitations in a day without an answer", n)
		}
		w.current().in <- rawRA(0, 0) // not a default router: no answer
		pass(time.Hour)
		if n := len(w.take()); n == 0 {
			t.Error("gave up after an advertisement without router lifetime")
		}
		w.current().in <- rawRA(0, 9000)
		pass(2 * time.Hour)
		if n := len(w.take()); n != 0 {
			t.Errorf("%d solicitations with a router", n)
		}
		time.Sleep(time.Hour) // the router's lifetime is over
		if n := len(w.take()); n < 3 {
			t.Errorf("%d solicitations after the router had gone", n)
		}
	})
}

func TestListenerReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		l, facts, stop := runListener(t, w)
		defer stop()
		l.SetLink(lan)
		synctest.Wait()
		hear := func(p packet) {
			w.current().in <- p
			synctest.Wait()
		}
		begin := time.Now()
		hear(rawRA(0x80, 1800, rawServers(600, "2001:db8::53"), rawPrefix(prefixA, 0xc0, 7200, 3600)))
		if facts.count() != 1 {
			t.Fatalf("%d reports", facts.count())
		}
		f := facts.last()
		until, _ := f.Routers[0].Until.Time()
		if f.Routers[0].Address != router1 || !until.Equal(begin.Add(30*time.Minute)) || !f.Managed ||
			len(f.DNS) != 1 || f.Prefixes[0].Prefix != prefixA {
			t.Errorf("facts %+v", f)
		}

		// The same again and again is passed on now and then, so that the deadlines known elsewhere never run out.
		for range 100 {
			pass(100 * time.Millisecond)
			hear(rawRA(0x80, 1800, rawServers(600, "2001:db8::53"), rawPrefix(prefixA, 0xc0, 7200, 3600)))
		}
		pass(refreshPeriod)
		if n := facts.count(); n < 3 || n > 4 {
			t.Errorf("%d reports after 10 s of the same, want one per 5 s", n)
		}
		last := facts.last().Routers[0].Until
		if until, _ := last.Time(); until.Sub(begin) != 30*time.Minute+10*time.Second {
			t.Errorf("the last deadline is not known: %s", last)
		}

		hear(rawRA(0x80, 0))
		if f := facts.last(); len(f.Routers) != 0 || len(f.DNS) != 1 {
			t.Errorf("after router lifetime 0: %+v", f)
		}
		n := facts.count()
		pass(11 * time.Minute)
		if f := facts.last(); facts.count() != n+1 || len(f.DNS) != 0 || len(f.Prefixes) != 1 {
			t.Errorf("after the lifetime of the servers: %+v", f)
		}
	})
}

// TestListenerIgnoresItself: the kernel takes no default route via an own address, and refuses it for 18 hours.
func TestListenerIgnoresItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		l, facts, stop := runListener(t, w)
		defer stop()
		link := lan
		link.LinkLocal, link.OtherLinkLocal = netip.MustParseAddr("fe80::a"), []netip.Addr{netip.MustParseAddr("fe80::b")}
		l.SetLink(link)
		synctest.Wait()
		for _, from := range []string{"fe80::a", "fe80::b", "fe80::c"} {
			p := rawRA(0, 65535)
			p.from = netip.MustParseAddr(from)
			w.current().in <- p
			synctest.Wait()
		}
		if got := routerList(facts.last()); got != "fe80::c " {
			t.Errorf("routers %s", got)
		}
	})
}

func TestListenerKeepsRoutersWithoutCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		l, facts, stop := runListener(t, w)
		defer stop()
		l.SetLink(lan)
		synctest.Wait()
		w.current().in <- rawRA(0, 1800)
		synctest.Wait()
		gone := lan
		gone.Carrier = false
		l.SetLink(gone)
		pass(time.Minute)
		if n := facts.count(); n != 1 {
			t.Errorf("%d reports: loss of carrier changed what the router said", n)
		}
		w.take()
		l.SetLink(lan)
		pass(time.Second)
		if n := len(w.take()); n != 1 {
			t.Errorf("%d solicitations after the carrier came back", n)
		}
		gone.Index = 0
		l.SetLink(gone)
		pass(time.Second)
		if f := facts.last(); len(f.Routers) != 0 {
			t.Errorf("an interface that does not exist has routers: %+v", f)
		}
		replaced := lan
		replaced.Index = 9
		l.SetLink(replaced)
		synctest.Wait()
		if f := facts.last(); len(f.Routers) != 0 {
			t.Errorf("another interface of the same name has routers: %+v", f)
		}
	})
}

// TestListenerFlood: forged routers that come and go must neither spin the listener nor flood its reader.
func TestListenerFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		l, facts, stop := runListener(t, w)
		defer stop()
		l.SetLink(lan)
		synctest.Wait()
		end := time.After(30 * time.Second)
		for i := 0; ; i++ {
			p := rawRA(0, uint16(i%2)*1800)
			p.from = netip.AddrFrom16([16]byte{0xfe, 0x80, 15: byte(i / 2)})
			select {
			case w.current().in <- p:
				continue
			case <-end:
			}
			break
		}
		synctest.Wait()
		if n := facts.count(); n < 2 || n > changesBurst+31 {
			t.Errorf("%d reports in 30 s", n)
		}
		w.current().fail <- errors.New("network is down")
		before := w.opened()
		pass(time.Minute)
		if n := w.opened() - before; n != 1 {
			t.Errorf("opened %d times after one receive error", n)
		}
	})
}
