package rtnl

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
)

// An administrator who changes an address of ours takes our mark off it. With what the ledger has of it, it is found,
// written as wanted and marked again in one request, without ever being away; the on-link route that the change made goes.
func TestChangedAddressIsMarkedAgain(t *testing.T) {
	k := lab(t, options{})
	want := kernel.State{Addresses: []kernel.Address{
		{Dev: "v0", Prefix: prefix("192.0.2.1/24"), PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()},
		{Dev: "v0", Prefix: prefix("2001:db8:1::1/64"), PreferredUntil: in(1800 * time.Second), ValidUntil: in(3600 * time.Second)},
	}}.Normalize()
	apply(t, k, kernel.State{}, want)
	ours := read(t, k, kernel.Scope{})
	scope := kernel.Scope{Addresses: ours.Addresses}
	if len(ours.Addresses) != 2 || ours.Addresses[0].Born == 0 || ours.Addresses[1].Born == 0 {
		t.Fatalf("%+v", ours.Addresses)
	}
	settled(t, k, 1)
	ip(t, "address change 2001:db8:1::1/64 dev v0")
	ip(t, "address change 192.0.2.1/24 dev v0 valid_lft 100 preferred_lft 50")
	marked := read(t, k, kernel.Scope{}).Addresses // Linux 6.1 leaves the mark on an IPv4 address that is changed; 6.18 does not
	if slices.ContainsFunc(marked, func(a kernel.Address) bool { return a.Prefix.Addr().Is6() }) {
		t.Errorf("without a ledger it is ours all the same: %v", marked)
	}
	have := read(t, k, scope)
	if len(have.Addresses) != 2 || have.Addresses[0].Unmarked != (len(marked) == 0) || !have.Addresses[1].Unmarked {
		t.Fatalf("with a ledger:\n%s", have.Text(time.Now()))
	}
	types := during(t, func() { apply(t, k, have, want) })
	for _, typ := range types {
		if typ == unix.RTM_DELADDR {
			t.Errorf("it was away: notifications %v", types)
		}
	}
	now := read(t, k, kernel.Scope{})
	if plan := kernel.Diff(now, want, time.Now()); len(plan.Ops) != 0 || len(now.Addresses) != 2 {
		t.Errorf("left to do:\n%s", plan.Text())
	}
	if now.Addresses[0].Born != ours.Addresses[0].Born || now.Addresses[1].Born != ours.Addresses[1].Born {
		t.Errorf("made anew: %+v, were %+v", now.Addresses, ours.Addresses)
	}
	if r := ip(t, "-6 route show 2001:db8:1::/64 dev v0"); r != "" {
		t.Errorf("the on-link route of the changed address is left: %s", r)
	}
	// Changed and wanted no more: deleted.
	ip(t, "address change 2001:db8:1::1/64 dev v0")
	apply(t, k, read(t, k, scope), kernel.State{})
	if left := ip(t, "address show dev v0 scope global"); left != "" {
		t.Errorf("left:\n%s", left)
	}
}

// An address that somebody else has made is his: one that was there before, and one in the place of ours, whatever the ledger says.
func TestRecordOfAnotherAddress(t *testing.T) {
	k := lab(t, options{})
	row := kernel.Address{Dev: "v0", Prefix: prefix("2001:db8:1::1/64"), PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()}
	apply(t, k, kernel.State{}, kernel.State{Addresses: []kernel.Address{row}})
	scope := kernel.Scope{Addresses: read(t, k, kernel.Scope{}).Addresses}
	time.Sleep(20 * time.Millisecond) // the kernel notes the time in hundredths of a second
	ip(t, "address del 2001:db8:1::1/64 dev v0")
	ip(t, "address add 2001:db8:1::1/64 dev v0 nodad")
	theirs := ip(t, "address show dev v0 scope global")
	unknown := kernel.Scope{Addresses: []kernel.Address{row}}
	other := kernel.Scope{Addresses: []kernel.Address{{Dev: "v1", Prefix: row.Prefix, Born: read(t, open2(t, options{noIFAProto: true}), unknown).Addresses[0].Born}}}
	for what, s := range map[string]kernel.Scope{"a ledger of an earlier one": scope, "a ledger without times": unknown, "a ledger for another device": other} {
		if s := read(t, k, s); s.Len() != 0 {
			t.Errorf("%s: shown as ours:\n%s", what, s.Text(time.Now()))
		}
		if text := refusal(t, do(k, kernel.Replace, row)); !strings.Contains(text, "belongs to somebody else (proto unspec)") {
			t.Errorf("%s: %s", what, text)
		}
	}
	old := open2(t, options{noIFAProto: true})
	if s := read(t, old, scope); s.Len() != 0 {
		t.Errorf("without marks in the kernel: shown as ours:\n%s", s.Text(time.Now()))
	}
	if now := ip(t, "address show dev v0 scope global"); now != theirs {
		t.Errorf("was\n%s\nis\n%s", theirs, now)
	}
}

// open2 opens a second Kernel in the namespace of lab.
func open2(t *testing.T, o options) *Kernel {
	t.Helper()
	o.requestBuffer, o.watchBuffer, o.sysctls = receiveBuffer, receiveBuffer, "/proc/sys"
	k, err := open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// Somebody replaces a route of ours by one of his (the kernel keeps no mark of what was replaced), and adds a rule like one of
// ours: both are his, ours comes back when he is gone, and deleting ours spares his.
func TestReplacedRouteAndTwinRule(t *testing.T) {
	k := lab(t, options{})
	route := kernel.Route{Table: 254, Dst: prefix("2001:db8:1::/64"), Metric: 1024, Type: kernel.Unicast, Dev: "v0"}
	rule := kernel.Rule{Family: kernel.IPv6, Priority: 1001, From: prefix("2001:db8:1::/48"), Action: kernel.Unicast, Table: 1001}
	want := kernel.State{Routes: []kernel.Route{route}, Rules: []kernel.Rule{rule}}
	apply(t, k, kernel.State{}, want)
	ip(t, "-6 route replace 2001:db8:1::/64 dev v0 metric 1024")
	ip(t, "-6 rule add pref 1001 from 2001:db8:1::/48 lookup 1001")
	have := read(t, k, kernel.Scope{})
	if len(have.Routes) != 0 || len(have.Rules) != 1 {
		t.Fatalf("read:\n%s", have.Text(time.Now()))
	}
	rep := k.Apply(context.Background(), kernel.Diff(have, want, time.Now()))
	if text := refusal(t, rep); !strings.Contains(text, "belongs to somebody else (proto boot)") {
		t.Error(text)
	}
	ip(t, "-6 route del 2001:db8:1::/64 dev v0 metric 1024")
	apply(t, k, read(t, k, kernel.Scope{}), want)
	apply(t, k, want, kernel.State{})
	if left := ip(t, "-6 rule show pref 1001"); strings.Count(left, "\n") != 1 || strings.Contains(left, "proto 200") {
		t.Errorf("left of two rules:\n%s", left)
	}
	ip(t, "-6 rule del pref 1001")
}
