package rtnl

import (
	"context"
	"errors"
	"io/fs"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
)

// What is written is read back, a second plan is empty, and withdrawing leaves nothing.
func TestWriteReadWithdraw(t *testing.T) {
	for name, o := range map[string]options{
		"as it is":           {},
		"no strict dumps":    {noStrict: true},
		"no IFA_PROTO":       {noIFAProto: true},
		"one op per request": {batch: 1},
	} {
		t.Run(name, func(t *testing.T) {
			k := lab(t, o)
			want := everyRow()
			rep := apply(t, k, kernel.State{}, want)
			if rep.Writes != want.Len() {
				t.Errorf("%d writes for %d rows", rep.Writes, want.Len())
			}
			have := read(t, k, scopeOf(want))
			if plan := kernel.Diff(have, want, time.Now()); len(plan.Ops) != 0 {
				t.Errorf("a second plan is not empty:\n%s\nread:\n%s", plan.Text(), have.Text(plan.Now))
			}
			if g, w := have.Len(), want.Len(); g != w {
				t.Errorf("%d rows read, %d written:\n%s", g, w, have.Text(time.Now()))
			}
			apply(t, k, have, kernel.State{Sysctls: want.Sysctls})
			have = read(t, k, scopeOf(want))
			have.Sysctls = nil
			if have.Len() != 0 {
				t.Errorf("left after withdrawing:\n%s", have.Text(time.Now()))
			}
		})
	}
}

// Objects of others are neither shown nor touched, however much they look like ours.
func TestForeignObjects(t *testing.T) {
	k := lab(t, options{})
	ip(t, "-6 route add 2001:db8:77::/48 dev v0 table 1001 metric 5 proto static")
	ip(t, "-6 route add unreachable default table 1002 metric 4294967295 proto static")
	t.Cleanup(func() { ip(t, "-6 route del unreachable default table 1002 metric 4294967295") }) // see restore
	ip(t, "-4 address add 198.51.100.254/24 dev v0")                                             // with the last IPv4 address of a device all its routes go
	ip(t, "-4 route add 198.51.100.0/24 dev v0 table 1001 proto static")
	ip(t, "-6 rule add pref 1001 from 2001:db8:1::/48 lookup 1001 protocol static")
	ip(t, "-6 address add 2001:db8:77::1/64 dev v0 noprefixroute nodad")
	// Ours by mark, but with selectors that no row has: not ours.
	ip(t, "-6 rule add pref 1005 not from 2001:db8:1::/48 lookup 1001 protocol 200")
	ip(t, "-6 rule add pref 1005 from 2001:db8:1::/48 ipproto tcp lookup 1001 protocol 200")
	ip(t, "-6 route add default from 2001:db8:1::/48 dev v0 table 1003 proto 200")
	foreign := func() string {
		return ip(t, "-6 route show table all proto static") + ip(t, "-4 route show table all proto static") + ip(t, "-6 rule show") +
			ip(t, "-6 address show dev v0 scope global")
	}
	before := foreign()
	if s := read(t, k, kernel.Scope{}); s.Len() != 0 {
		t.Errorf("objects of others are shown:\n%s", s.Text(time.Now()))
	}
	want := everyRow()
	want.Sysctls = nil
	apply(t, k, kernel.State{}, want)
	apply(t, k, read(t, k, kernel.Scope{}), kernel.State{})
	if after := foreign(); after != before {
		t.Errorf("objects of others changed:\n%s\nbefore:\n%s", after, before)
	}
}

// Deleting what only others have succeeds, and deletes nothing.
func TestDeleteSparesOthers(t *testing.T) {
	k := lab(t, options{})
	ip(t, "-6 route add 2001:db8:77::/48 dev v0 table 1001 metric 5 proto static")
	ip(t, "-4 route add 198.51.100.0/24 dev v0 table 1001 metric 5 proto static")
	ip(t, "-6 rule add pref 1001 from 2001:db8:1::/48 lookup 1001 protocol static")
	rows := []kernel.Row{
		kernel.Route{Table: 1001, Dst: prefix("2001:db8:77::/48"), Metric: 5, Type: kernel.Unicast, Dev: "v0"},
		kernel.Route{Table: 1001, Dst: prefix("198.51.100.0/24"), Metric: 5, Type: kernel.Unicast, Dev: "v0"},
		kernel.Rule{Family: kernel.IPv6, Priority: 1001, From: prefix("2001:db8:1::/48"), Action: kernel.Unicast, Table: 1001},
	}
	for _, row := range rows {
		if rep := do(k, kernel.Delete, row); len(rep.Failed) != 0 {
			t.Errorf("delete %s: %v", row.Text(time.Now()), rep.Failed)
		}
	}
	left := ip(t, "-6 route show table 1001") + ip(t, "-4 route show table 1001") + ip(t, "-6 rule show pref 1001")
	if n := strings.Count(left, "proto static"); n != 3 && strings.Count(left, "\n") != 3 {
		t.Errorf("left of the objects of others:\n%s", left)
	}
}

// Of a multipath route to which somebody appended a hop, only our hop is deleted.
func TestDeleteSparesAppendedHop(t *testing.T) {
	k := lab(t, options{})
	r := kernel.Route{Table: 1001, Dst: prefix("::/0"), Metric: 5, Type: kernel.Unicast, Gateway: addr("fe80::1"), Dev: "v0"}
	do(k, kernel.Add, r)
	ip(t, "-6 route append default via fe80::9 dev v1 table 1001 metric 5 proto static")
	if rep := do(k, kernel.Delete, r); len(rep.Failed) != 0 {
		t.Fatal(rep.Failed)
	}
	if left := ip(t, "-6 route show table 1001"); !strings.Contains(left, "via fe80::9") || strings.Contains(left, "via fe80::1 ") {
		t.Errorf("left:\n%s", left)
	}
}

// What is gone already counts as deleted; the writes are counted all the same.
func TestDeleteGone(t *testing.T) {
	k := lab(t, options{})
	want := everyRow()
	want.Sysctls = nil
	rep := apply(t, k, want, kernel.State{})
	if rep.Writes != want.Len() {
		t.Errorf("%d writes for %d deletions", rep.Writes, want.Len())
	}
	apply(t, k, kernel.State{}, want)
	have := read(t, k, kernel.Scope{})
	ip(t, "link del v0") // takes along everything on v0 and v1
	apply(t, k, have, kernel.State{})
	if s := read(t, k, kernel.Scope{}); s.Len() != 0 {
		t.Errorf("left:\n%s", s.Text(time.Now()))
	}
}

// An object of somebody else in the way is named, with its owner and the remedy.
func TestExists(t *testing.T) {
	k := lab(t, options{})
	ip(t, "-6 address add 2001:db8:1::1/64 dev v0 noprefixroute nodad")
	ip(t, "-6 route add default dev v0 table 1001 metric 5 proto static")
	ip(t, "-4 route add default dev v0 table 1001 metric 5 proto dhcp")
	ip(t, "-6 rule add pref 1001 from 2001:db8:1::/48 lookup 1001 protocol 200")
	for _, c := range []struct {
		row  kernel.Row
		want string
	}{
		{kernel.Address{Dev: "v0", Prefix: prefix("2001:db8:1::1/60"), PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()},
			"exists already and belongs to somebody else (proto unspec); remove it or choose another address"},
		{kernel.Route{Table: 1001, Dst: prefix("::/0"), Metric: 5, Type: kernel.Unreachable},
			"exists already and belongs to somebody else (proto static); remove it or choose another metric or table"},
		{kernel.Route{Table: 1001, Dst: prefix("0.0.0.0/0"), Metric: 5, Type: kernel.Unicast, Dev: "v0"},
			"exists already and belongs to somebody else (proto dhcp); remove it or choose another metric or table"},
		{kernel.Rule{Family: kernel.IPv6, Priority: 1001, From: prefix("2001:db8:1::/48"), Action: kernel.Unicast, Table: 1001},
			"exists already with uplinkd's own mark: it appeared since the kernel was read; the next reconcile settles it"},
	} {
		rep := do(k, kernel.Add, c.row)
		if got := refusal(t, rep); !strings.HasSuffix(got, ": "+c.want) || !strings.HasPrefix(got, "ip ") {
			t.Errorf("got  %s\nwant ip ...: %s", got, c.want)
		}
		if !errors.Is(rep.Failed[0], fs.ErrExist) {
			t.Errorf("%v is not fs.ErrExist", rep.Failed[0])
		}
	}
	// A plan made before somebody took the address must not take it back.
	a := kernel.Address{Dev: "v0", Prefix: prefix("2001:db8:1::1/64"), PreferredUntil: in(time.Hour), ValidUntil: in(time.Hour)}
	if rep := do(k, kernel.Replace, a); rep.Writes != 0 || !strings.Contains(refusal(t, rep), "belongs to somebody else (proto unspec)") {
		t.Errorf("%d writes, %v", rep.Writes, rep.Failed)
	}
}

// kernelSays is the part of an error that is worded by the kernel, differently from version to version.
var kernelSays = regexp.MustCompile(` \(the kernel says: [^)]+\)`)

// The other refusals say what is wrong with which object and, where there is one, the remedy.
func TestRefusals(t *testing.T) {
	k := lab(t, options{})
	ip(t, "link add dw0 type veth peer name dw1") // down
	t.Cleanup(func() { ip(t, "link del dw0") })
	if rep := do(k, kernel.Replace, kernel.Sysctl{Name: "net.ipv6.conf.dw1.disable_ipv6", Value: "1"}); len(rep.Failed) != 0 {
		t.Fatal(rep.Failed)
	}
	forever := lifetime.Forever()
	for _, c := range []struct {
		verb kernel.Verb
		row  kernel.Row
		want string // the end of the text
		is   error
	}{
		{kernel.Add, kernel.Address{Dev: "nope", Prefix: prefix("2001:db8::1/64"), PreferredUntil: forever, ValidUntil: forever},
			": there is no device nope", unix.ENODEV},
		{kernel.Add, kernel.Address{Dev: "a-name-that-is-too-long", Prefix: prefix("2001:db8::1/64"), PreferredUntil: forever, ValidUntil: forever},
			`: "a-name-that-is-too-long" is no name for a device`, unix.ENODEV},
		{kernel.Add, kernel.Address{Dev: "v0", Prefix: prefix("2001:db8::1/64"), ValidUntil: in(-time.Second)},
			": its valid lifetime is over", nil},
		{kernel.Replace, kernel.Address{Dev: "v0", Prefix: prefix("2001:db8::1/64")}, ": its valid lifetime is over", nil},
		{kernel.Add, kernel.Address{Dev: "dw1", Prefix: prefix("2001:db8::1/64"), PreferredUntil: forever, ValidUntil: forever},
			": permission denied: is IPv6 switched off on dw1 (sysctl net.ipv6.conf.dw1.disable_ipv6)?", fs.ErrPermission},
		{kernel.Add, kernel.Route{Table: 1001, Dst: prefix("::/0"), Metric: 1, Type: kernel.Unicast, Dev: "dw0"},
			": network is down: is dw0 down (ip link set dw0 up)?", unix.ENETDOWN},
		{kernel.Add, kernel.Route{Table: 1001, Dst: prefix("::/0"), Metric: 1, Type: kernel.Unicast, Gateway: addr("2001:db8:99::1"), Dev: "v0"},
			": no route to host", unix.EHOSTUNREACH},
		{kernel.Replace, kernel.Rule{Family: kernel.IPv6, Priority: 1, Action: kernel.Unicast, Table: 254},
			": not something that rtnetlink can do: a rule has no attribute that could be replaced", errUnsupported},
		{kernel.Add, kernel.Rule{Family: kernel.IPv4, Priority: 1, From: prefix("2001:db8::/32"), Action: kernel.Unicast, Table: 254},
			": not something that rtnetlink can do: selector 2001:db8::/32 in a rule of IPv4", errUnsupported},
		{kernel.Add, kernel.Route{Table: 1001, Metric: 1, Type: kernel.Unreachable},
			": not something that rtnetlink can do: destination invalid Prefix", errUnsupported},
		{kernel.Replace, kernel.Sysctl{Name: "net.ipv6.conf.nope.accept_ra", Value: "2"},
			": the kernel has no such variable: the interface is gone, or the feature is not built in", fs.ErrNotExist},
		{kernel.Replace, kernel.Sysctl{Name: "net.ipv6.conf.v0.accept_ra", Value: "two"}, ": the kernel refuses this value", unix.EINVAL},
		{kernel.Replace, kernel.Sysctl{Name: "net.//.conf", Value: "1"}, `: "net.//.conf" is no name for a sysctl`, fs.ErrInvalid},
		{kernel.Delete, kernel.Sysctl{Name: "net.ipv6.conf.v0.accept_ra", Value: "2"}, ": a sysctl cannot be deleted", errUnsupported},
	} {
		rep := do(k, c.verb, c.row)
		got := kernelSays.ReplaceAllString(refusal(t, rep), "")
		if !strings.HasSuffix(got, c.want) {
			t.Errorf("got  %s\nwant ...%s", got, c.want)
		}
		if c.is != nil && !errors.Is(rep.Failed[0], c.is) {
			t.Errorf("%v is not %v", rep.Failed[0], c.is)
		}
	}
}

// After a failed addition what it would have replaced is not withdrawn, and everything else is.
func TestFailedAddHoldsBackWithdrawals(t *testing.T) {
	k := lab(t, options{})
	rule := func(table uint32) kernel.Rule {
		return kernel.Rule{Family: kernel.IPv6, Priority: 1001, From: prefix("2001:db8:1::/48"), Action: kernel.Unicast, Table: table}
	}
	end := kernel.Route{Table: 1, Dst: prefix("::/0"), Metric: 1, Type: kernel.Unreachable}
	apply(t, k, kernel.State{}, kernel.State{Rules: []kernel.Rule{rule(1)}, Routes: []kernel.Route{end}})
	rep := k.Apply(context.Background(), kernel.Plan{Ops: []kernel.Op{
		{Verb: kernel.Add, Row: kernel.Route{Table: 1, Dst: prefix("::/0"), Metric: 2, Type: kernel.Unicast, Dev: "nope"}},
		{Verb: kernel.Add, Row: rule(2)},
		{Verb: kernel.Delete, Row: rule(1)},
		{Verb: kernel.Delete, Row: end},
	}})
	if len(rep.Failed) != 1 || len(rep.Done) != 2 || len(rep.Skipped) != 1 || rep.Writes != 2 {
		t.Fatalf("%+v", rep)
	}
	if s := read(t, k, kernel.Scope{}); len(s.Rules) != 1 || len(s.Routes) != 1 {
		t.Errorf("want the new rule and the old route:\n%s", s.Text(time.Now()))
	}
}

// A plan whose context is over writes nothing.
func TestApplyCancelled(t *testing.T) {
	k := lab(t, options{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	rep := k.Apply(ctx, kernel.Diff(kernel.State{}, everyRow(), time.Now()))
	if len(rep.Failed) != everyRow().Len() || rep.Writes != 0 || !errors.Is(rep.Failed[0], context.Canceled) {
		t.Errorf("%d failed, %d writes", len(rep.Failed), rep.Writes)
	}
	if _, err := k.Read(ctx, kernel.Scope{}); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
}

func TestClosed(t *testing.T) {
	k := lab(t, options{})
	k.Close()
	if _, err := k.Read(context.Background(), kernel.Scope{}); !errors.Is(err, errClosed) {
		t.Errorf("read: %v", err)
	}
	if rep := do(k, kernel.Add, everyRow().Rules[0]); !strings.Contains(refusal(t, rep), errClosed.Error()) {
		t.Errorf("apply: %v", rep.Failed)
	}
}

// What tests as root of a namespace cannot provoke.
func TestExplain(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{explain(&kernelError{errno: unix.EPERM}, kernel.Rule{}), "operation not permitted: needs CAP_NET_ADMIN; run as root or through the systemd unit"},
		{explain(&kernelError{errno: unix.ENODEV}, kernel.Route{Dev: "wan0"}), "there is no device wan0 (any more)"},
		{explain(&kernelError{errno: unix.EINVAL, text: "Invalid scope"}, kernel.Route{}), "invalid argument (the kernel says: Invalid scope)"},
		{explainSysctl(unix.EROFS, "net.ipv6.conf.all.forwarding", "/proc/sys"),
			"/proc/sys is read-only (in a container?); set net.ipv6.conf.all.forwarding on the host or mount it writable"},
		{explainSysctl(unix.EACCES, "net.ipv6.conf.all.forwarding", "/proc/sys"),
			"permission denied: needs root in the network namespace, and a systemd unit without ProtectKernelTunables="},
	} {
		if c.err.Error() != c.want {
			t.Errorf("got  %s\nwant %s", c.err, c.want)
		}
	}
}

func TestAtLeast(t *testing.T) {
	for release, want := range map[string]bool{"5.18": true, "5.17.9": false, "6.1.0-13-amd64": true, "5.18-rc1": true, "4.19.0": false, "10.0": true, "odd": false} {
		if got := atLeast(release, 5, 18); got != want {
			t.Errorf("%s: %v", release, got)
		}
	}
}
