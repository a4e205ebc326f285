package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

const pool = fiberOnly + "[downstream.inner]\nkind = \"transit\"\ninterface = \"lan0\"\nlength = 60\n"

// loans are what is lent on the first downstream, by IAID.
func loans(s Site) map[uint32][]netip.Prefix {
	all := map[uint32][]netip.Prefix{}
	for _, l := range s.Downstreams[0].Loans {
		all[l.IAID] = append(all[l.IAID], l.Prefix)
	}
	return all
}

// An inner router has the same place in every delegation; others that come and go do not move it, and what is offered to one
// is lent to nobody else.
func TestLoansStay(t *testing.T) {
	cfg, w := configOf(t, pool), fiberHas("2001:db8:1100::/56")
	w.Borrowers = []Borrower{inner("inner", "fe80::2", 5, 62), inner("inner", "fe80::3", 9, 0)}
	w.Borrowers[1].Offered = true
	site, _, led := Plan(cfg, w, Ledger{})
	five, nine := loans(site)[5][0], loans(site)[9][0]
	if len(led.Loans["inner"]) != 1 || led.Loans["inner"][0].Prefix != five {
		t.Errorf("recorded as lent: %v", led.Loans)
	}
	w.Borrowers = append([]Borrower{inner("inner", "fe80::4", 1, 64), inner("inner", "fe80::4", 2, 64)}, w.Borrowers[1], w.Borrowers[0])
	w.Borrowers[2].Offered = false
	w.Uplinks["fiber"] = UplinkFacts{Delegations: append(w.Uplinks["fiber"].Delegations, granted(epoch, "2001:db8:1200::/48", 3000, 4000))}
	site, problems, led := Plan(cfg, w, led)
	want := func(p netip.Prefix) []netip.Prefix {
		return []netip.Prefix{p, subnetOf(pfx("2001:db8:1200::/60"), p.Bits(), idOf(pfx("2001:db8:1100::/60"), p))}
	}
	for iaid, p := range map[uint32]netip.Prefix{5: five, 9: nine} {
		if got := loans(site)[iaid]; !slices.Equal(got, want(p)) {
			t.Errorf("IAID %d has %v, want %v", iaid, got, want(p))
		}
	}
	if len(loans(site)[1]) != 2 || len(loans(site)[2]) != 2 || len(problems) > 0 {
		t.Errorf("the new ones have %v; %v", loans(site), problems)
	}
	w.Borrowers = w.Borrowers[3:]
	w.Borrowers[0].Length = 63 // another wish
	site, _, _ = Plan(cfg, w, led)
	if got := loans(site); len(got) != 1 || got[5][0].Bits() != 63 {
		t.Errorf("IAID 5 alone, with another wish: %v", got)
	}
	if stale := site.Downstreams[0].StaleLoans; len(stale) != 2 || stale[0].Prefix != five || stale[0].Until.Over(epoch.Add(3999*time.Second)) || stale[0].IAID != 5 {
		t.Errorf("it is told that it has no longer: %v", stale)
	}
}

// Networks of the config come before loans: the loan moves, and its inner router is told that the old one is over.
func TestNetworksComeBeforeLoans(t *testing.T) {
	w := fiberHas("2001:db8:1100::/62")
	w.Borrowers = []Borrower{inner("lan", "fe80::2", 1, 0)}
	site, _, led := Plan(configOf(t, smallest), w, Ledger{})
	if got := site.Downstreams[0].Loans; len(got) != 1 || got[0].Prefix != pfx("2001:db8:1100:3::/64") {
		t.Fatalf("lent: %v", got)
	}
	guest := smallest + "[downstream.guest]\ninterface = \"lan1\"\nsubnet = 3\n"
	site, problems, led := Plan(configOf(t, guest), w, led) // the last but one is that of the router's own address, should it need one
	if got := site.Downstreams[0]; got.Loans[0].Prefix != pfx("2001:db8:1100:1::/64") || len(got.StaleLoans) != 1 || got.StaleLoans[0].Prefix != pfx("2001:db8:1100:3::/64") ||
		len(got.Stale) > 0 || len(problems) > 0 {
		t.Errorf("lan: %+v; %v", got, problems)
	}
	// No place is left: the message names the inner router; a stale loan does not keep others from its place.
	full := guest + "[downstream.iot]\ninterface = \"lan2\"\nlength = 63\nsubnet = 0\n"
	full = full[:len(fiberOnly)] + "[downstream.lan]\ninterface = \"lan0\"\nsubnet = 2\n" + full[len(smallest):]
	site, problems, _ = Plan(configOf(t, full), w, led)
	if len(site.Downstreams[0].Loans) != 0 || len(problems) != 1 || problems[0].Code != "loan-full" || problems[0].Path != "downstream.lan" {
		t.Errorf("lent: %v; %v", site.Downstreams[0].Loans, problems)
	}
}

// Who sits on a network may ask under any number of names.
func TestManyBorrowers(t *testing.T) {
	w := fiberHas("2001:db8:1100::/48")
	known := inner("lan", "fe80::2", 0xffff, 0)
	w.Borrowers = []Borrower{known}
	_, _, led := Plan(configOf(t, smallest), w, Ledger{})
	for i := range uint32(1000) {
		w.Borrowers = append(w.Borrowers, Borrower{Downstream: "lan", Client: pd.DUID(fmt.Sprintf("\x00\x01%d", i)), IAID: i, Via: netip.MustParseAddr("fe80::66"), Length: 64,
			Named: []netip.Prefix{pfx("2001:db8:1100::/48"), pfx("::/0"), pfx("2001:db8:1100::/64"), pfx("2001:db8:1100:ffff:8000::/65")}, Until: lifetime.After(epoch, 60)})
	}
	site, problems, led := Plan(configOf(t, smallest), w, led)
	if got := site.Downstreams[0].Loans; len(got) != maxBorrowers || !slices.ContainsFunc(got, func(l Loan) bool { return l.IAID == 0xffff }) {
		t.Errorf("%d loans", len(got))
	}
	if len(problems) != 1 || problems[0].Code != "too-many-borrowers" {
		t.Errorf("%v", problems)
	}
	w.Now = epoch.Add(time.Minute)
	site, _, led = Plan(configOf(t, smallest), w, led)
	if len(site.Downstreams[0].Loans) != 1 || len(led.Places["lan"]) != 1 || len(led.Loans["lan"]) != 1 {
		t.Errorf("left: %v %v", site.Downstreams[0].Loans, led)
	}
}

// What a client names counts where nothing is remembered of it, and of a deprecated delegation nothing new is lent.
func TestNamedAndDeprecated(t *testing.T) {
	w := fiberHas("2001:db8:1100::/56")
	w.Uplinks["fiber"] = UplinkFacts{Delegations: append(w.Uplinks["fiber"].Delegations, granted(epoch, "2001:db8:1200::/56", 0, 4000))}
	w.Borrowers = []Borrower{inner("lan", "fe80::2", 1, 0)}
	w.Borrowers[0].Named = []netip.Prefix{pfx("2001:db8:1100::/64"), pfx("2001:db8:1100:20::/64"), pfx("2001:db8:1200:20::/64")}
	site, _, led := Plan(configOf(t, smallest), w, Ledger{})
	if got := loans(site)[1]; !slices.Equal(got, []netip.Prefix{pfx("2001:db8:1100:20::/64")}) {
		t.Errorf("lent: %v", got)
	}
	w.Borrowers[0].Named = nil
	site, _, _ = Plan(configOf(t, smallest), w, led)
	if got := loans(site)[1]; !slices.Equal(got, []netip.Prefix{pfx("2001:db8:1100:20::/64")}) {
		t.Errorf("lent later: %v", got)
	}
}
