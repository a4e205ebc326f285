package rtnl

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
)

// during returns the types of the notifications that the kernel sends while f runs.
func during(t *testing.T, f func()) (types []uint16) {
	t.Helper()
	w, err := subscribe(unix.NETLINK_ROUTE, groups, receiveBuffer)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	f()
	// Notifications of what is done are queued; the end of the queue is marked by one of our own.
	ip(t, "link set lo mtu 65000")
	ip(t, "link set lo mtu 65536")
	b := make([]byte, datagram)
	for {
		n, err := w.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		for rest := b[:n]; len(rest) > 0; {
			var m message
			if m, rest, err = nextMessage(rest); err != nil {
				t.Fatal(err)
			}
			if m.typ == unix.RTM_NEWLINK {
				return types
			}
			types = append(types, m.typ)
		}
	}
}

// settled waits until DAD has ended on v0 and v1, so that it sends no more notifications.
func settled(t *testing.T, k *Kernel, globals int) {
	t.Helper()
	for range 500 {
		links, err := k.Links(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		ready := 0
		for _, l := range links {
			if l.LinkLocal.IsValid() {
				ready++
			}
			globals -= len(l.Globals)
		}
		if ready == 2 && globals <= 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("DAD did not end")
}

// A changed next hop is one notification, never a deletion: no packet finds the table empty.
func TestReplaceRouteLeavesNoGap(t *testing.T) {
	k := lab(t, options{})
	settled(t, k, 0)
	six := kernel.Route{Table: 1001, Dst: prefix("::/0"), Metric: 5, Type: kernel.Unicast, Gateway: addr("fe80::1"), Dev: "v0"}
	four := kernel.Route{Table: 1001, Dst: prefix("0.0.0.0/0"), Metric: 5, Type: kernel.Unicast, Gateway: addr("fe80::1"), Dev: "v0"}
	have := kernel.State{Routes: []kernel.Route{six, four}}.Normalize()
	apply(t, k, kernel.State{}, have)
	changes := []func(*kernel.Route){
		func(r *kernel.Route) { r.Gateway = addr("fe80::2") },
		func(r *kernel.Route) { r.Dev = "v1" },
		func(r *kernel.Route) { r.Type, r.Gateway, r.Dev = kernel.Unreachable, kernel.Route{}.Gateway, "" },
		func(r *kernel.Route) { r.Type, r.Dev = kernel.Unicast, "v0" },
		func(r *kernel.Route) { r.Gateway = addr("fe80::3") },
	}
	for i, change := range changes {
		want := kernel.State{Routes: slices.Clone(have.Routes)}
		for j := range want.Routes {
			change(&want.Routes[j])
		}
		got := during(t, func() { apply(t, k, have, want) })
		if slices.Contains(got, unix.RTM_DELROUTE) || len(got) != 2 {
			t.Errorf("change %d: notifications %v", i, got)
		}
		have = read(t, k, kernel.Scope{})
		if plan := kernel.Diff(have, want, time.Now()); len(plan.Ops) != 0 {
			t.Errorf("change %d is not what was read:\n%s", i, plan.Text())
		}
	}
}

// New lifetimes are written in place: no deletion, no DAD, no on-link route.
func TestRefreshAddress(t *testing.T) {
	k := lab(t, options{})
	dad(t, "v0", "1")
	a := kernel.Address{Dev: "v0", Prefix: prefix("2001:db8:1::1/64"), PreferredUntil: in(50 * time.Second), ValidUntil: in(100 * time.Second)}
	apply(t, k, kernel.State{}, kernel.State{Addresses: []kernel.Address{a}})
	settled(t, k, 1)
	for _, until := range [][2]lifetime.Deadline{
		{in(1000 * time.Second), in(2000 * time.Second)},
		{{}, in(2000 * time.Second)},
		{{}, lifetime.Forever()},
		{lifetime.Forever(), lifetime.Forever()},
		{in(1000 * time.Second), lifetime.Forever()},
		{in(time.Second), in(100 * time.Second)},
		{lifetime.Forever(), in(100 * time.Second)}, // more than the kernel takes: preferred ends with valid
	} {
		want := a
		want.PreferredUntil, want.ValidUntil = until[0], until[1]
		got := during(t, func() {
			if rep := do(k, kernel.Replace, want); len(rep.Failed) != 0 || rep.Writes != 1 {
				t.Errorf("%v, %d writes", rep.Failed, rep.Writes)
			}
		})
		if len(got) != 1 || got[0] != unix.RTM_NEWADDR {
			t.Errorf("%s: notifications %v", want.Text(time.Now()), got)
		}
		want.PreferredUntil = lifetime.Min(want.PreferredUntil, want.ValidUntil)
		if s := read(t, k, kernel.Scope{}); len(s.Addresses) != 1 || !s.Addresses[0].Equal(want, time.Now()) {
			t.Errorf("want %s\nread %s", want.Text(time.Now()), s.Text(time.Now()))
		}
		if out := ip(t, "-6 address show dev v0 scope global tentative"); out != "" {
			t.Errorf("tentative again:\n%s", out)
		}
	}
	if out := ip(t, "-6 route show 2001:db8:1::/64"); out != "" {
		t.Errorf("the kernel added a route:\n%s", out)
	}
}

// Another length is another address with the same identity: deleted and added, and nothing else is.
func TestChangePrefixLength(t *testing.T) {
	for _, p := range [][2]string{{"2001:db8:1::1/64", "2001:db8:1::1/60"}, {"192.0.2.1/24", "192.0.2.1/25"}} {
		k := lab(t, options{})
		a := kernel.Address{Dev: "v0", Prefix: prefix(p[0]), PreferredUntil: in(50 * time.Second), ValidUntil: in(100 * time.Second)}
		apply(t, k, kernel.State{}, kernel.State{Addresses: []kernel.Address{a}})
		have := read(t, k, kernel.Scope{})
		a.Prefix = prefix(p[1])
		want := kernel.State{Addresses: []kernel.Address{a}}
		if rep := apply(t, k, have, want); rep.Writes != 2 {
			t.Errorf("%d writes", rep.Writes)
		}
		if plan := kernel.Diff(read(t, k, kernel.Scope{}), want, time.Now()); len(plan.Ops) != 0 {
			t.Errorf("not what was read:\n%s", plan.Text())
		}
		over := a
		over.Prefix, over.ValidUntil = prefix(p[0]), in(-time.Second)
		if rep := do(k, kernel.Replace, over); rep.Writes != 0 || len(rep.Failed) != 1 {
			t.Errorf("one that is over: %+v", rep)
		}
		ip(t, "link del v0")
	}
}

// An address that went away since the plan was made comes back.
func TestReplaceAddressThatIsGone(t *testing.T) {
	k := lab(t, options{})
	a := kernel.Address{Dev: "v0", Prefix: prefix("2001:db8:1::1/64"), PreferredUntil: in(50 * time.Second), ValidUntil: in(100 * time.Second)}
	if rep := do(k, kernel.Replace, a); len(rep.Failed) != 0 {
		t.Fatal(rep.Failed)
	}
	if s := read(t, k, kernel.Scope{}); len(s.Addresses) != 1 {
		t.Errorf("read:\n%s", s.Text(time.Now()))
	}
}

// When the receive buffer is too small for the answers, the tables say what became of each operation.
func TestLostAnswers(t *testing.T) {
	k := lab(t, options{requestBuffer: 1, batch: 1000}) // the kernel raises 1 to its minimum, 2304 bytes
	want := everyRow()
	for i := range 200 {
		want.Rules = append(want.Rules, kernel.Rule{Family: kernel.IPv6, Priority: 2000 + uint32(i), Action: kernel.Unicast, Table: 1001})
	}
	lost := kernel.Route{Table: 1001, Dst: prefix("2001:db8:c::/48"), Metric: 1, Type: kernel.Unicast, Gateway: addr("2001:db8:99::1"), Dev: "v0"}
	plan := kernel.Diff(kernel.State{}, want.Normalize(), time.Now())
	plan.Ops = append(plan.Ops, kernel.Op{Verb: kernel.Add, Row: lost})
	rep := k.Apply(context.Background(), plan)
	if len(rep.Done) != len(plan.Ops)-1 || len(rep.Failed) != 1 {
		t.Fatalf("%d done, failed: %v", len(rep.Done), rep.Failed)
	}
	if !errors.Is(rep.Failed[0], errLost) || !strings.Contains(rep.Failed[0].Error(), "2001:db8:c::/48") {
		t.Errorf("failed: %v", rep.Failed[0])
	}
	have := read(t, k, scopeOf(want))
	apply(t, k, have, want)
	apply(t, k, have, kernel.State{Sysctls: want.Sysctls})
	if s := read(t, k, kernel.Scope{}); s.Len() != 0 {
		t.Errorf("left after deletions with lost answers:\n%s", s.Text(time.Now()))
	}
}

func TestSysctls(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "net/ipv6/conf/eth0.7")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "accept_ra")
	if err := os.WriteFile(file, []byte("1\t2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	k := lab(t, options{sysctls: root})
	const name = "net.ipv6.conf.eth0/7.accept_ra"
	s := read(t, k, kernel.Scope{Sysctls: []string{name, "net.ipv6.conf.eth0/7.nope"}})
	if got := s.Text(time.Now()); got != "sysctl net.ipv6.conf.eth0/7.nope=absent\nsysctl "+name+"=1 2\n" {
		t.Errorf("read:\n%s", got)
	}
	rep := do(k, kernel.Replace, kernel.Sysctl{Name: name, Value: "2"})
	if len(rep.Done) != 1 || rep.Writes != 1 {
		t.Errorf("%+v", rep)
	}
	if b, _ := os.ReadFile(file); !strings.HasPrefix(string(b), "2\n") {
		t.Errorf("the file holds %q", b)
	}
	for _, bad := range []string{"", ".", "..", "net.//.x", "net./..x.y", "/", "net..x", ".net", "net.", "a\nb", "a\x00b"} {
		if p, err := k.sysctlPath(bad); err == nil && !strings.HasPrefix(p, root+"/") {
			t.Errorf("%q is %s", bad, p)
		}
		if _, err := k.Read(context.Background(), kernel.Scope{Sysctls: []string{bad}}); err == nil && bad != "net./..x.y" {
			t.Errorf("%q can be read", bad)
		}
	}
}

func TestLinks(t *testing.T) {
	k := lab(t, options{})
	ip(t, "link set v0 address 02:00:00:00:01:01 mtu 1400")
	ip(t, "address add 2001:db8:2::1/64 dev v0 nodad")
	ip(t, "address add 2001:db8:1::1/64 dev v0 nodad valid_lft 100 preferred_lft 0")
	ip(t, "address add fe80::5/64 dev v0 nodad")
	settled(t, k, 2)
	links, err := k.Links(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(links) != 3 || links[0].Name != "lo" || links[1].Name != "v0" || links[2].Name != "v1" {
		t.Fatalf("links: %+v", links)
	}
	v0 := links[1]
	want := kernel.Link{Name: "v0", Index: v0.Index, Up: true, Carrier: true, MTU: 1400, MAC: "02:00:00:00:01:01",
		LinkLocal: addr("fe80::5"), OtherLinkLocal: v0.OtherLinkLocal, Globals: append(v0.Globals[:0:0], prefix("2001:db8:1::1/64"), prefix("2001:db8:2::1/64")),
		OnLink: append(v0.OnLink[:0:0], prefix("2001:db8:1::/64"), prefix("2001:db8:2::/64")), OnLinkMetric: 256}
	if !v0.Equal(want) || v0.Index == 0 {
		t.Errorf("got  %+v\nwant %+v", v0, want)
	}
	if o := v0.OtherLinkLocal; len(o) != 1 || o[0].Compare(v0.LinkLocal) <= 0 { // the one that the kernel made of the first MAC address
		t.Errorf("other link-local addresses of v0: %v", o)
	}
	if lo := links[0]; lo.MAC != "" || lo.LinkLocal.IsValid() || len(lo.Globals) != 0 {
		t.Errorf("lo: %+v", lo)
	}
	ip(t, "link set v1 down")
	links, err = k.Links(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if l := links[1]; !l.Up || l.Carrier {
		t.Errorf("v0 without carrier: %+v", l)
	}
	if l := links[2]; l.Up || l.LinkLocal.IsValid() {
		t.Errorf("v1 down: %+v", l)
	}
	// A tentative address is none yet: the other end answers nothing, so DAD takes its second.
	ip(t, "link set v1 up")
	dad(t, "v0", "1")
	ip(t, "address add 2001:db8:3::1/64 dev v0")
	if links, err = k.Links(context.Background()); err != nil || len(links[1].Globals) != 2 {
		t.Errorf("%v, %+v", err, links[1])
	}
}
