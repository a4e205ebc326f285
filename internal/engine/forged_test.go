package engine

import (
	"net/netip"
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
	for _, n := range named(l.Snapshot().Site, "lan").Subnets {
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
