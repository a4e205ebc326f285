package rtnl

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/internal/netlab"
)

func TestMain(m *testing.M) { netlab.TestMain(m) }

// ip runs ip(8) in the namespace of the tests.
func ip(t testing.TB, args string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
	return string(out)
}

// batch runs lines through ip -6 -batch.
func batch(t testing.TB, lines string) {
	t.Helper()
	cmd := exec.Command("ip", "-6", "-batch", "-")
	cmd.Stdin = strings.NewReader(lines)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("ip -batch: %v\n%s", err, errs.Bytes())
	}
}

// lab gives a test two devices, v0 and v1, at the ends of a cable, and takes everything away when it ends.
func lab(t testing.TB, o options) *Kernel {
	t.Helper()
	netlab.Need(t)
	if o.requestBuffer == 0 {
		o.requestBuffer = receiveBuffer
	}
	if o.watchBuffer == 0 {
		o.watchBuffer = receiveBuffer
	}
	if o.sysctls == "" {
		o.sysctls = "/proc/sys"
	}
	ip(t, "link set lo up")
	dad(t, "default", "0")
	ip(t, "link add v0 type veth peer name v1")
	ip(t, "link set v0 up")
	ip(t, "link set v1 up")
	ip(t, "address add 203.0.113.1/24 dev v1") // IPv4 refuses next hops that it has no route to
	k, err := open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		k.Close()
		restore(t)
	})
	return k
}

// dad switches duplicate address detection of a device: it takes a second or two, so only tests that look at it wait.
func dad(t testing.TB, dev, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+dev+"/accept_dad", []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// restore takes away what tests leave. For our own rows it does not use ip -6 route flush: that leaves unreachable
// defaults with metric 4294967295 alone, since it takes them for the kernel's.
func restore(t testing.TB) {
	_ = exec.Command("ip", "link", "del", "v0").Run() // a test may have deleted it
	k, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	apply(t, k, read(t, k, kernel.Scope{}), kernel.State{})
	for _, f := range []string{"-4", "-6"} {
		ip(t, f+" route flush table all proto static")
		ip(t, f+" rule flush")
		ip(t, f+" rule add pref 32766 lookup main")
	}
}

func read(t testing.TB, k *Kernel, scope kernel.Scope) kernel.State {
	t.Helper()
	s, err := k.Read(context.Background(), scope)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// apply carries out what turns have into want and fails the test if an operation fails.
func apply(t testing.TB, k *Kernel, have, want kernel.State) kernel.Report {
	t.Helper()
	plan := kernel.Diff(have, want.Normalize(), time.Now())
	rep := k.Apply(context.Background(), plan)
	for _, f := range rep.Failed {
		t.Error(f)
	}
	if len(rep.Done) != len(plan.Ops) || len(rep.Skipped) != 0 {
		t.Errorf("%d of %d operations done, %d skipped", len(rep.Done), len(plan.Ops), len(rep.Skipped))
	}
	if t.Failed() {
		t.FailNow()
	}
	return rep
}

// do carries out one operation.
func do(k *Kernel, v kernel.Verb, row kernel.Row) kernel.Report {
	return k.Apply(context.Background(), kernel.Plan{Now: time.Now(), Ops: []kernel.Op{{Verb: v, Row: row}}})
}

// refusal is the text of the only operation of a report, which must have failed.
func refusal(t *testing.T, rep kernel.Report) string {
	t.Helper()
	if len(rep.Failed) != 1 || len(rep.Done) != 0 {
		t.Fatalf("%d operations failed and %d were done; want one failure", len(rep.Failed), len(rep.Done))
	}
	return rep.Failed[0].Error()
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func in(d time.Duration) lifetime.Deadline { return lifetime.Until(time.Now().Add(d)) }

// everyRow has each kind of row in each form that uplinkd writes.
func everyRow() kernel.State {
	on := func(s string, preferred, valid lifetime.Deadline) kernel.Address {
		return kernel.Address{Dev: "v0", Prefix: prefix(s), PreferredUntil: preferred, ValidUntil: valid}
	}
	return kernel.State{
		Sysctls: []kernel.Sysctl{
			{Name: "net.ipv6.conf.v0.accept_ra", Value: "2"},
			{Name: "net.ipv6.conf.all.forwarding", Value: "1"},
		},
		Addresses: []kernel.Address{
			on("2001:db8:1::1/64", in(1800*time.Second), in(3600*time.Second)),
			on("2001:db8:2::1/60", lifetime.Forever(), lifetime.Forever()),
			on("2001:db8:3::1/64", lifetime.Deadline{}, in(600*time.Second)),
			on("2001:db8:4::1/128", lifetime.Deadline{}, lifetime.Forever()),
			on("2001:db8:5::1/64", in(90*time.Second), lifetime.Forever()),
			on("192.0.2.1/24", lifetime.Forever(), lifetime.Forever()),
		},
		Routes: []kernel.Route{
			{Table: 254, Dst: prefix("2001:db8:1::/64"), Metric: 1024, Type: kernel.Unicast, Dev: "v0"},
			{Table: 1001, Dst: prefix("::/0"), Metric: 1024, Type: kernel.Unicast, Gateway: addr("fe80::1"), Dev: "v1"},
			{Table: 1001, Dst: prefix("::/0"), Metric: kernel.MetricLast, Type: kernel.Unreachable},
			{Table: 200, Dst: prefix("2001:db8:8::/48"), Metric: 1, Type: kernel.Blackhole},
			{Table: 200, Dst: prefix("2001:db8:9::/48"), Metric: 1, Type: kernel.Prohibit},
			{Table: 200, Dst: prefix("2001:db8:a::/48"), Metric: 1, Type: kernel.Throw},
			{Table: 255, Dst: prefix("2001:db8:b::/64"), Metric: 1024, Type: kernel.Local, Dev: "lo"},
			{Table: 70000, Dst: prefix("0.0.0.0/0"), Metric: 7, Type: kernel.Unicast, Dev: "v1"},
			{Table: 70000, Dst: prefix("198.51.100.0/24"), Metric: 7, Type: kernel.Unicast, Gateway: addr("203.0.113.9"), Dev: "v1"},
			{Table: 70000, Dst: prefix("203.0.113.0/24"), Metric: 7, Type: kernel.Unicast, Gateway: addr("fe80::7"), Dev: "v0"},
			{Table: 70000, Dst: prefix("0.0.0.0/0"), Metric: kernel.MetricLast, Type: kernel.Unreachable},
			{Table: 70000, Dst: prefix("203.0.113.9/32"), Metric: 1, Type: kernel.Local, Dev: "lo"},
		},
		Rules: []kernel.Rule{
			{Family: kernel.IPv6, Priority: 1000, Action: kernel.Unicast, Table: 254, SuppressPrefix: true},
			{Family: kernel.IPv6, Priority: 1001, From: prefix("2001:db8:1::/48"), Action: kernel.Unicast, Table: 1001},
			{Family: kernel.IPv6, Priority: 1001, From: prefix("2001:db8:1::/48"), To: prefix("2001:db8:f::/48"), Action: kernel.Unicast, Table: 70000},
			{Family: kernel.IPv6, Priority: 1002, From: prefix("2001:db8::/32"), Action: kernel.Unreachable},
			{Family: kernel.IPv6, Priority: 1003, IIF: "v0", Action: kernel.Blackhole},
			{Family: kernel.IPv6, Priority: 1003, OIF: "not-there", Action: kernel.Prohibit},
			{Family: kernel.IPv6, Priority: 1004, Mark: 0x100, Mask: 0xff00, Action: kernel.Unicast, Table: 1001},
			{Family: kernel.IPv4, Priority: 1001, From: prefix("192.0.2.0/24"), Action: kernel.Unicast, Table: 70000},
		},
	}.Normalize()
}

// scopeOf names what a read has to look at to see s.
func scopeOf(s kernel.State) kernel.Scope {
	scope := kernel.Scope{Addresses: s.Addresses}
	for _, v := range s.Sysctls {
		scope.Sysctls = append(scope.Sysctls, v.Name)
	}
	return scope
}
