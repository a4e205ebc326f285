package engine

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/policy"
)

func TestBorrowerExpires(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		l.ask(LendOffer, 1)
		pass(offerTime + time.Second)
		if n := len(l.Snapshot().Site.Downstreams[0].Loans); n != 0 {
			t.Errorf("%d loans after the offer's time", n)
		}
		l.ask(LendBind, 1)
		pass(MaxLoan - time.Minute)
		if !l.routed(lent) {
			t.Error("the route has gone before its time")
		}
		l.ask(LendExtend, 1, lent)
		pass(MaxLoan - time.Minute)
		if !l.routed(lent) {
			t.Error("extended, but the route has gone")
		}
		pass(2 * time.Minute)
		if l.routed(lent) {
			t.Error("the route stays although nobody has extended")
		}
		var saved durable
		if err := l.store.ReadJSON(ledgerFile, formatVersion, &saved); err != nil || len(saved.Borrowers) != 0 {
			t.Errorf("on disk: %+v, %v", saved.Borrowers, err)
		}
	})
}

func TestStrangersAreBounded(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		l.ask(LendBind, 1)
		before := l.Snapshot().Counters.Steps
		for n := range 1000 {
			if got, err := l.try(LendOffer, 100+n); err != nil && !errors.Is(err, errCrowd) || err == nil && got == "" {
				t.Fatal(got, err)
			}
		}
		if n := l.Snapshot().Counters.Steps - before; n > borrowerBurst+1 {
			t.Errorf("1000 Solicits at once cost %d steps", n)
		}
		if n := len(l.Snapshot().Site.Downstreams[0].Loans); n > maxOffered+1 {
			t.Errorf("%d loans", n)
		}
		pass(time.Hour / 2)
		for n := range 3 * maxBorrowers {
			pass(borrowerRate)
			if _, err := l.try(LendBind, 5000+n); (err != nil) != (n >= maxBorrowers-1) {
				t.Fatalf("number %d: %v", n, err)
			}
		}
		if n := len(l.Snapshot().Site.Downstreams[0].Loans); n != maxBorrowers {
			t.Errorf("%d loans, want %d", n, maxBorrowers)
		}
		if got := l.ask(LendExtend, 1, lent); got != lent {
			t.Errorf("who was first has %q", got)
		}
	})
}

// One client does not get everything.
func TestOneClientIsBounded(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		a := Ask{Downstream: "lan", Client: inner(1), Via: viaOf(1), Verb: LendBind}
		for i := range uint32(16) {
			a.IAs = append(a.IAs, AskedIA{IAID: i})
		}
		if got, err := l.Lend(t.Context(), a); err != nil || len(got) != maxOfOne {
			t.Errorf("%d loans for 16 IAs, %v", len(got), err)
		}
	})
}

func TestRebindOfStrangers(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		if got := l.ask(LendRebind, 1, "2001:db8:7700::/64"); got != "" {
			t.Errorf("another server's client gets %q", got)
		}
		if got := l.ask(LendRebind, 2, "2001:db8:1100:42::/64"); got != "2001:db8:1100:42::/64" {
			t.Errorf("a client that we have forgotten gets %q", got)
		}
		if got := l.ask(LendExtend, 3, "2001:db8:1100:42::/64"); got != "2001:db8:1100:fe::/64 stale 2001:db8:1100:42::/64" {
			t.Errorf("who names what another has gets %q", got)
		}
	})
}

// Somebody has edited the file.
func TestStrangeBorrowersOnDisk(t *testing.T) {
	inLendLab(t, func(t *testing.T, l *lendLab) {
		l.ask(LendBind, 1)
		l.stop()
		var saved durable
		if err := l.store.ReadJSON(ledgerFile, formatVersion, &saved); err != nil {
			t.Fatal(err)
		}
		good := saved.Borrowers[0]
		for _, change := range []func(*policy.Borrower){
			func(b *policy.Borrower) { b.Via = netip.MustParseAddr("2001:db8::1") },
			func(b *policy.Borrower) { b.Via = netip.Addr{} },
			func(b *policy.Borrower) { b.Length = 200 },
			func(b *policy.Borrower) { b.Until = lifetime.Forever() },
			func(b *policy.Borrower) { b.Named = []netip.Prefix{{}} },
			func(b *policy.Borrower) { b.Downstream = "gone" },
			func(*policy.Borrower) {}, // twice the same
		} {
			b := good
			b.IAID = uint32(len(saved.Borrowers))
			change(&b)
			saved.Borrowers = append(saved.Borrowers, b)
		}
		saved.Borrowers[len(saved.Borrowers)-1] = good
		if err := l.store.WriteJSON(ledgerFile, formatVersion, saved); err != nil {
			t.Fatal(err)
		}
		l.start("boot-1")
		if loans := l.Snapshot().Site.Downstreams[0].Loans; len(loans) != 1 {
			t.Errorf("loans %+v", loans)
		}
	})
}
