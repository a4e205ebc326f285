package rtnl

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
)

// The rows of services (whole prefixes that are local: AnyIP) and of inner routers are written, read, seen to work and
// withdrawn, beside what the kernel itself keeps in table local.
func TestServiceRows(t *testing.T) {
	k := lab(t, options{})
	forever := lifetime.Forever()
	want := kernel.State{
		Sysctls: []kernel.Sysctl{{Name: "net.ipv6.ip_nonlocal_bind", Value: "1"}},
		Addresses: []kernel.Address{
			{Dev: "lo", Prefix: prefix("2001:db8:0:1::1/128"), PreferredUntil: forever, ValidUntil: forever},
			{Dev: "lo", Prefix: prefix("2001:db8:0:2::1/64"), PreferredUntil: lifetime.Deadline{}, ValidUntil: in(time.Hour)},
		},
		Routes: []kernel.Route{
			{Table: kernel.TableLocal, Dst: prefix("2001:db8:0:1::/64"), Metric: 1024, Type: kernel.Local, Dev: "lo"},
			{Table: kernel.TableLocal, Dst: prefix("192.0.2.0/24"), Metric: 1024, Type: kernel.Local, Dev: "lo"},
			{Table: 300, Dst: prefix("::/0"), Metric: 1024, Type: kernel.Local, Dev: "lo"},
			{Table: 300, Dst: prefix("0.0.0.0/0"), Metric: 1024, Type: kernel.Local, Dev: "lo"},
			{Table: 300, Dst: prefix("2001:db8:0:3::/64"), Metric: 1024, Type: kernel.Throw},
			{Table: kernel.TableMain, Dst: prefix("2001:db8:0:10::/60"), Metric: 256, Type: kernel.Unicast, Gateway: addr("fe80::2"), Dev: "v0"},
		},
		Rules: []kernel.Rule{
			{Family: kernel.IPv6, Priority: 900, IIF: "v0", Mark: 0x10000, Mask: 0xff0000, Action: kernel.Unicast, Table: 300},
			{Family: kernel.IPv6, Priority: 900, IIF: "v0", Mark: 0, Mask: 0xff0000, To: prefix("2001:db8:0:3::/64"), Action: kernel.Unicast, Table: 300},
			{Family: kernel.IPv4, Priority: 900, IIF: "v0", Mark: 0x10000, Mask: 0xff0000, Action: kernel.Unicast, Table: 300},
		},
	}.Normalize()
	before := ip(t, "-6 route show table local") + ip(t, "-4 route show table local")
	old := read(t, k, scopeOf(want))
	if old.Len() != 1 {
		t.Fatalf("at first:\n%s", old.Text(time.Now()))
	}
	rep := apply(t, k, old, want)
	if rep.Writes != want.Len() {
		t.Errorf("%d writes for %d rows", rep.Writes, want.Len())
	}
	have := read(t, k, scopeOf(want))
	if plan := kernel.Diff(have, want, time.Now()); len(plan.Ops) != 0 || have.Len() != want.Len() {
		t.Errorf("a second plan:\n%s\nread:\n%s", plan.Text(), have.Text(plan.Now))
	}
	for args, route := range map[string]string{
		"-6 route get 2001:db8:0:1::77":                                     "local 2001:db8:0:1::77 ",
		"-6 route get 2001:db8:0:1::77 from 2001:db8:9::1 iif v0":           "local 2001:db8:0:1::77 ",
		"-6 route get 2001:db8:5::1 from 2001:db8:9::1 iif v0 mark 0x12345": "local 2001:db8:5::1 ",
		"-4 route get 192.0.2.77":                                           "local 192.0.2.77 ",
		"-6 route get 2001:db8:0:11::1":                                     "via fe80::2 dev v0",
	} {
		if got := ip(t, args); !strings.Contains(got, route) {
			t.Errorf("ip %s: %s", args, got)
		}
	}
	apply(t, k, have, kernel.State{Sysctls: old.Sysctls})
	if d := cmp.Diff(old.Text(time.Now()), read(t, k, scopeOf(want)).Text(time.Now())); d != "" {
		t.Errorf("left (-before +after):\n%s", d)
	}
	if after := ip(t, "-6 route show table local") + ip(t, "-4 route show table local"); after != before {
		t.Errorf("table local before:\n%safter:\n%s", before, after)
	}
}
