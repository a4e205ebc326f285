package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/fake"
)

// refuseRoute has somebody else keep a route to prefix, so that ours fails.
func (l *lendLab) refuseRoute(prefix string) {
	l.kern.Change(func() { l.kern.Foreign.Routes = append(l.kern.Foreign.Routes, inTheWay(prefix, "lan0")...) })
}

// inTheWay are routes of somebody else that keep ours to prefix from being added.
func inTheWay(prefix, dev string) (rs []kernel.Route) {
	for metric := range uint32(3) {
		rs = append(rs, kernel.Route{Table: kernel.TableMain, Dst: netip.MustParsePrefix(prefix), Metric: 254 + metric, Type: kernel.Unicast, Dev: dev})
	}
	return rs
}

// subnets are those of lan that consumers know of.
func (l *lendLab) subnets() string {
	var parts []string
	for _, n := range l.Snapshot().Site.Downstream("lan").Subnets {
		parts = append(parts, n.Prefix.String())
	}
	return strings.Join(parts, " ")
}

// A route to an inner router that the kernel refuses keeps the hosts on the same downstream from nothing: neither after a
// renumbering nor after a reboot, when the subnet itself is new.
func TestRefusedLoanHurtsNobodyElse(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		l.ask(LendBind, 1)
		l.refuseRoute("2001:db8:1200:fe::/64")
		l.granted("2001:db8:1200::/56")
		if got := l.subnets(); got != "2001:db8:1200::/64" {
			t.Errorf("after a renumbering lan has %q", got)
		}
		if got := l.ask(LendExtend, 1); strings.Contains(got, "1200") {
			t.Errorf("lent %q without a route", got)
		}
		l.stop()
		l.kern = &fake.Kernel{Link: fakeLinks()}
		l.refuseRoute("2001:db8:1200:fe::/64")
		l.start("boot-2")
		l.granted("2001:db8:1200::/56")
		if got := l.subnets(); got != "2001:db8:1200::/64" {
			t.Errorf("after a reboot lan has %q", got)
		}
	})
}

// The router's own addresses on the link, which anybody can put into a message as its source.
func TestOwnAddressBorrowsNothing(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		l.ask(LendBind, 1)
		l.kern.Change(func() {
			for i := range l.kern.Link {
				l.kern.Link[i].LinkLocal, l.kern.Link[i].OtherLinkLocal = viaOf(7), []netip.Addr{viaOf(8)}
			}
		})
		l.Hint()
		pass(time.Second)
		for _, n := range []int{7, 8} {
			a := Ask{Downstream: "lan", Client: inner(1), Via: viaOf(n), Verb: LendBind, IAs: []AskedIA{{IAID: 1}}}
			if _, err := l.Lend(t.Context(), a); err == nil || !strings.Contains(err.Error(), "is an address of this router on dev lan0") {
				t.Errorf("via %s: %v", a.Via, err)
			}
		}
		if got := l.kern.Owned().Text(time.Now()); !strings.Contains(got, routeTo(lent)+"1 ") {
			t.Errorf("the route has gone elsewhere:\n%s", got)
		}
		l.stop()
		var saved durable
		if err := l.store.ReadJSON(ledgerFile, formatVersion, &saved); err != nil {
			t.Fatal(err)
		}
		saved.Borrowers[0].Via = viaOf(8)
		if err := l.store.WriteJSON(ledgerFile, formatVersion, saved); err != nil {
			t.Fatal(err)
		}
		l.start("boot-1")
		if got := l.Snapshot(); len(got.Site.Downstreams[0].Loans) != 0 || hasProblem(got, "apply-failed") {
			t.Errorf("believed from disk: %v, %v", got.Site.Downstreams[0].Loans, got.Problems)
		}
	})
}

func hasProblem(s *Snapshot, code string) bool {
	for _, p := range s.Problems {
		if p.Code == code {
			return true
		}
	}
	return false
}

// askVia asks for client n from the address of another one.
func (l *lendLab) askVia(verb LendVerb, n, via int, named ...netip.Prefix) ([]Lent, error) {
	return l.Lend(l.t.Context(), Ask{Downstream: "lan", Client: inner(n), Via: viaOf(via), Verb: verb, IAs: []AskedIA{{IAID: 1, Prefixes: named}}})
}

// Somebody else on the link names an inner router's DUID.
func TestReleaseFromElsewhere(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		l.ask(LendBind, 1)
		if got, err := l.askVia(LendRelease, 1, 2, netip.MustParsePrefix(lent)); err != nil || len(got) != 0 || !l.routed(lent) {
			t.Errorf("a release from elsewhere ends %v, %v, routed %v", got, err, l.routed(lent))
		}
		if got := l.ask(LendRelease, 1, lent); got != "stale "+lent {
			t.Errorf("its own release ends %q", got)
		}
	})
}

// A borrower that moves is followed, but one under ever new addresses does not drive kernel and disk.
func TestMovesAreBounded(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		l.ask(LendBind, 1)
		via := func(n int) bool {
			return strings.Contains(l.kern.Owned().Text(time.Now()), routeTo(lent)+strconv.Itoa(n)+" ")
		}
		if _, err := l.askVia(LendExtend, 1, 2, netip.MustParsePrefix(lent)); err != nil || !via(2) {
			t.Fatalf("has moved, %v:\n%s", err, l.kern.Owned().Text(time.Now()))
		}
		steps, writes := l.Snapshot().Counters.Steps, len(l.store.log)
		for n := range 1000 {
			verb := LendBind
			if n%2 == 0 {
				verb = LendOffer
			}
			if got, err := l.askVia(verb, 1, 100+n); err != nil || len(got) != 1 {
				t.Fatalf("from elsewhere: %v, %v", got, err)
			}
			pass(20 * time.Millisecond)
		}
		if s, w := l.Snapshot().Counters.Steps-steps, len(l.store.log)-writes; s > 6 || w > 6 {
			t.Errorf("1000 addresses in 20 s cost %d steps and %d writes", s, w)
		}
		pass(moveRate)
		if l.ask(LendExtend, 1, lent); !via(1) || hasProblem(l.Snapshot(), "fighting") {
			t.Errorf("the borrower does not get its route back: %v\n%s", l.Snapshot().Problems, l.kern.Owned().Text(time.Now()))
		}
	})
}

// One who solicits without end under new names has no room that others need.
func TestCrowdBehindOneAddress(t *testing.T) {
	for _, verb := range []LendVerb{LendOffer, LendBind} {
		inLendLab(t, func(t *testing.T, l *lendLab) {
			for n := range 10000 {
				_, err := l.askVia(verb, 100+n, 7)
				if err != nil && !errors.Is(err, errCrowd) {
					t.Fatal(err)
				}
				pass(50 * time.Millisecond)
				if n%1000 == 999 {
					got := l.ask(LendOffer, n)
					pass(time.Second)
					if bound := l.ask(LendBind, n); got == "" || bound != got {
						t.Fatalf("number %d is offered %q and gets %q", n, got, bound)
					}
				}
			}
		})
	}
}

// An offer that had to give way is none that was not made: the Request is served all the same.
func TestRequestAfterEviction(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		l.ask(LendOffer, 1)
		for n := range 100 {
			pass(borrowerRate)
			l.ask(LendOffer, 100+n)
		}
		if got := l.ask(LendBind, 1, lent); got == "" {
			t.Error("nothing is lent")
		}
	})
}

// Neither what there is too much of nor what there is nothing for reaches the disk.
func TestLittleIsRemembered(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		var many []netip.Prefix
		for n := range 130 {
			many = append(many, netip.MustParsePrefix(fmt.Sprintf("2001:db8:7700:%x::/64", n)))
		}
		l.granted("2001:db8:1100::/63")
		if got, err := l.askVia(LendBind, 1, 1, many...); err != nil || len(got) == 0 {
			t.Fatalf("%v, %v", got, err)
		}
		if got := l.ask(LendBind, 2); got != "" {
			t.Fatalf("of a /63 also %q is lent", got)
		}
		l.ask(LendExtend, 1)
		var saved durable
		if err := l.store.ReadJSON(ledgerFile, formatVersion, &saved); err != nil || len(saved.Borrowers) != 1 || len(saved.Borrowers[0].Named) != 0 {
			t.Errorf("on disk: %+v, %v", saved.Borrowers, err)
		}
	})
}

// The limiter is for objects that somebody else keeps undoing. A table whose text is another one each time is our own doing; a
// route with another gateway each time may be an inner router's.
func TestWhatCountsAsAFight(t *testing.T) {
	table := func(n int) kernel.Row { return kernel.Table{Family: "ip6", Body: fmt.Sprintf("# %d\n", n)} }
	route := func(n int) kernel.Row {
		return kernel.Route{Table: kernel.TableMain, Dst: netip.MustParsePrefix(lent), Metric: 255, Type: kernel.Unicast, Dev: "lan0", Gateway: viaOf(n)}
	}
	for _, c := range []struct {
		what     string
		row      func(int) kernel.Row
		fighting bool
	}{
		{"other texts", table, false},
		{"one text", func(int) kernel.Row { return table(1) }, true},
		{"other gateways", route, true},
	} {
		e := New(Options{Config: parse(t, fiber+lan)})
		var p kernel.Plan
		p.Now = time.Now()
		for n := range 30 {
			p.Ops = append(p.Ops, kernel.Op{Verb: kernel.Replace, Row: c.row(n)})
		}
		if _, h := e.admit(p); (len(h.fighting) > 0) != c.fighting {
			t.Errorf("%s: %d of 30 are fighting", c.what, len(h.fighting))
		}
	}
}

// Solicits from ever new addresses do not keep an inner router waiting that has been lent to before.
func TestOffersLeaveRoomForLoans(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		for n := range 1000 {
			if _, err := l.try(LendOffer, 100+n); err != nil && !errors.Is(err, errCrowd) {
				t.Fatal(err)
			}
		}
		if got := l.ask(LendExtend, 1, lent); got == "" {
			t.Error("nothing is lent")
		}
	})
}
