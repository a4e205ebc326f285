package kernel_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/fake"
	"uplinkd/internal/lifetime"
)

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// anyState draws from few identities, so that two states share many of them.
func anyState(t *rapid.T, name string) (s kernel.State) {
	pick := func(label string, list ...string) string { return rapid.SampledFrom(list).Draw(t, name+" "+label) }
	prefixes := []string{"::/0", "2001:db8::/56", "2001:db8:0:1::/64", "0.0.0.0/0", "192.0.2.0/24"}
	for range rapid.IntRange(0, 6).Draw(t, name+" routes") {
		r := kernel.Route{Table: rapid.SampledFrom([]uint32{254, 1001}).Draw(t, "table"), Dst: netip.MustParsePrefix(pick("dst", prefixes...)),
			Metric: uint32(rapid.IntRange(1, 2).Draw(t, "metric")), Type: kernel.Unreachable}
		if rapid.Bool().Draw(t, "unicast") {
			r.Type, r.Dev = kernel.Unicast, pick("dev", "lan0", "wan0")
			if r.Dst.Addr().Is6() && rapid.Bool().Draw(t, "gateway") {
				r.Gateway = netip.MustParseAddr(pick("via", "fe80::1", "fe80::2"))
			}
		}
		s.Routes = append(s.Routes, r)
	}
	for range rapid.IntRange(0, 5).Draw(t, name+" rules") {
		s.Rules = append(s.Rules, kernel.Rule{Family: kernel.IPv6, Priority: uint32(rapid.IntRange(1000, 1001).Draw(t, "pref")), Action: kernel.Unicast,
			Table: 1001, IIF: pick("iif", "", "lan0"), From: netip.MustParsePrefix(pick("from", prefixes[:3]...))})
	}
	for range rapid.IntRange(0, 5).Draw(t, name+" addresses") {
		valid := rapid.SampledFrom([]lifetime.Deadline{lifetime.Forever(), lifetime.After(now, 100), lifetime.After(now, 4000)}).Draw(t, "valid")
		preferred := rapid.SampledFrom([]lifetime.Deadline{{}, valid}).Draw(t, "preferred")
		s.Addresses = append(s.Addresses, kernel.Address{Dev: pick("dev", "lan0", "lan1"), PreferredUntil: preferred, ValidUntil: valid,
			Prefix: netip.MustParsePrefix(pick("address", "2001:db8::1/64", "2001:db8::1/60", "2001:db8:0:1::1/64", "192.0.2.1/24"))})
	}
	for range rapid.IntRange(0, 3).Draw(t, name+" sysctls") {
		s.Sysctls = append(s.Sysctls, kernel.Sysctl{Name: "net.ipv6.conf." + pick("sysctl", "all.forwarding", "wan0.accept_ra"), Value: pick("value", "0", "1", "2")})
	}
	for range rapid.IntRange(0, 2).Draw(t, name+" tables") {
		s.Tables = append(s.Tables, kernel.Table{Family: pick("family", "inet", "ip6"), Body: pick("body", "\tchain a {\n\t}\n", "\tchain b {\n\t}\n")})
	}
	return s.Normalize()
}

// seen is s as a reader finds it.
func seen(s kernel.State) kernel.State {
	s = copyOf(s)
	for i, t := range s.Tables {
		s.Tables[i] = t.Found()
	}
	return s
}

// Diff(a, a) is empty; applying Diff(a, b) to a gives b, in one go and when interrupted after any operation and planned
// again from there.
func TestDiffProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyState(t, "a"), anyState(t, "b")
		for _, s := range a.Sysctls { // a sysctl is never withdrawn by Diff: b has all of a's
			if !slices.ContainsFunc(b.Sysctls, func(x kernel.Sysctl) bool { return x.Name == s.Name }) {
				b.Sysctls = append(b.Sysctls, s)
			}
		}
		b = b.Normalize()
		if p := kernel.Diff(a, a, now); len(p.Ops) != 0 {
			t.Fatalf("Diff(a, a) is not empty:\n%s", p.Text())
		}
		if p := kernel.Diff(seen(a), a, now); len(p.Ops) != 0 {
			t.Fatalf("Diff of what is read and a is not empty:\n%s", p.Text())
		}
		plan := kernel.Diff(seen(a), b, now)
		for n := range len(plan.Ops) + 1 {
			k := fake.Kernel{State: copyOf(a)}
			k.Apply(context.Background(), kernel.Plan{Now: now, Ops: plan.Ops[:n]})
			if r := k.Apply(context.Background(), kernel.Diff(seen(k.State), b, now)); len(r.Failed) > 0 {
				t.Fatalf("after %d operations: %v", n, r.Failed)
			}
			if d := cmp.Diff(b.Text(now), k.State.Text(now)); d != "" {
				t.Fatalf("interrupted after %d operations (-want +got):\n%s", n, d)
			}
		}
	})
}

func copyOf(s kernel.State) kernel.State {
	return kernel.State{Sysctls: slices.Clone(s.Sysctls), Routes: slices.Clone(s.Routes), Rules: slices.Clone(s.Rules), Addresses: slices.Clone(s.Addresses),
		Tables: slices.Clone(s.Tables)}
}

// Adding goes up through the phases, withdrawing goes down, and nothing is withdrawn before all is added.
func TestOrderOfPhases(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plan := kernel.Diff(anyState(t, "a"), anyState(t, "b"), now)
		withdrawing, phase := false, kernel.Phase(0)
		for _, op := range plan.Ops {
			if op.Verb == kernel.Delete && !withdrawing {
				withdrawing, phase = true, 255
			}
			p := op.Row.Phase()
			if (op.Verb == kernel.Delete) != withdrawing || !withdrawing && p < phase || withdrawing && p > phase {
				t.Fatalf("%s is out of order in\n%s", op.Text(now), plan.Text())
			}
			phase = p
		}
	})
}

func TestText(t *testing.T) {
	via := netip.MustParseAddr("fe80::1%wan0")
	have := kernel.State{
		Routes:    []kernel.Route{{Table: 254, Dst: netip.MustParsePrefix("2001:db8::/56"), Metric: 7, Type: kernel.Blackhole}},
		Addresses: []kernel.Address{{Dev: "lan0", Prefix: netip.MustParsePrefix("2001:db8::1/64"), ValidUntil: lifetime.After(now, 60)}},
		Tables:    []kernel.Table{{Family: "inet"}, {Family: "ip6", Sum: "2f"}},
	}
	want := kernel.State{
		Sysctls: []kernel.Sysctl{{Name: "net.ipv6.conf.all.forwarding", Value: "1"}, {Name: "net.ipv6.conf.eth0/7.accept_ra", Value: "2"}},
		Routes: []kernel.Route{
			{Table: 254, Dst: netip.MustParsePrefix("2001:db8::/56"), Metric: 7, Type: kernel.Unreachable},
			{Table: 1001, Dst: netip.MustParsePrefix("::/0"), Metric: 1024, Type: kernel.Unicast, Gateway: via, Dev: "wan0"},
			{Table: 255, Dst: netip.MustParsePrefix("2001:db8:0:a::/64"), Metric: 1024, Type: kernel.Local, Dev: "lo"},
			{Table: 254, Dst: netip.MustParsePrefix("0.0.0.0/0"), Metric: 5, Type: kernel.Throw}},
		Rules: []kernel.Rule{
			{Family: kernel.IPv6, Priority: 1000, Action: kernel.Unicast, Table: 254, SuppressPrefix: true},
			{Family: kernel.IPv4, Priority: 9101, Mark: 0x10000, Mask: 0xff0000, To: netip.MustParsePrefix("192.0.2.0/24"), Action: kernel.Prohibit}},
		Addresses: []kernel.Address{
			{Dev: "lan0", Prefix: netip.MustParsePrefix("2001:db8::1/64"), PreferredUntil: lifetime.After(now, 60), ValidUntil: lifetime.After(now, 90)},
			{Dev: "lan1", Prefix: netip.MustParsePrefix("192.0.2.1/24"), PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()}},
		Tables: []kernel.Table{{Family: "ip6", Body: "\tset dead {\n\t\ttype ipv6_addr\n\t\tflags interval\n\t}\n"}},
	}.Normalize()
	const forth = `sysctl -w net.ipv6.conf.all.forwarding=1
sysctl -w net.ipv6.conf.eth0/7.accept_ra=2
ip -4 route add throw default metric 5 proto 200
ip -6 route replace unreachable 2001:db8::/56 metric 7 proto 200
ip -6 route add local 2001:db8:0:a::/64 dev lo table local metric 1024 proto 200
ip -6 route add default via fe80::1 dev wan0 table 1001 metric 1024 proto 200
ip -4 rule add pref 9101 from all to 192.0.2.0/24 fwmark 0x10000/0xff0000 prohibit protocol 200
ip -6 rule add pref 1000 from all lookup main suppress_prefixlength 0 protocol 200
ip address replace 2001:db8::1/64 dev lan0 valid_lft 90 preferred_lft 60 noprefixroute proto 200
ip address add 192.0.2.1/24 dev lan1 valid_lft forever preferred_lft forever noprefixroute proto 200
nft 'add table ip6 uplinkd; delete table ip6 uplinkd; table ip6 uplinkd { set dead { type ipv6_addr; flags interval; }; }'
nft delete table inet uplinkd
`
	if d := cmp.Diff(forth, kernel.Diff(have, want, now).Text()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	const away = `nft delete table inet uplinkd
nft delete table ip6 uplinkd
ip address del 2001:db8::1/64 dev lan0
ip -6 route del blackhole 2001:db8::/56 metric 7 proto 200
`
	if d := cmp.Diff(away, kernel.Diff(have, kernel.State{}, now).Text()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// A lifetime read back from the kernel differs by a second or two from the one written: no reason to write again.
func TestToleranceOfLifetimes(t *testing.T) {
	address := func(preferred, valid lifetime.Deadline) kernel.State {
		return kernel.State{Addresses: []kernel.Address{{Dev: "lan0", Prefix: netip.MustParsePrefix("2001:db8::1/64"), PreferredUntil: preferred, ValidUntil: valid}}}
	}
	at := func(s uint32) lifetime.Deadline { return lifetime.After(now, s) }
	tests := []struct {
		have, want kernel.State
		ops        int
	}{
		{address(at(100), at(200)), address(at(102), at(198)), 0},
		{address(at(100), at(200)), address(at(100), at(203)), 1},
		{address(lifetime.Deadline{}, at(200)), address(lifetime.Until(now.Add(-time.Minute)), at(200)), 0},
		{address(at(1), at(200)), address(lifetime.Deadline{}, at(200)), 1},
		{address(lifetime.Forever(), lifetime.Forever()), address(at(100), lifetime.Forever()), 1},
	}
	for i, tt := range tests {
		if p := kernel.Diff(tt.have, tt.want, now); len(p.Ops) != tt.ops {
			t.Errorf("%d: %d operations, want %d\n%s", i, len(p.Ops), tt.ops, p.Text())
		}
	}
}

func BenchmarkDiff10k(b *testing.B) {
	var s kernel.State
	for i := range 10000 {
		p := netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 8), byte(i)}), 64)
		s.Routes = append(s.Routes, kernel.Route{Table: 254, Dst: p, Metric: 1024, Type: kernel.Unicast, Dev: "lan0"})
	}
	s = s.Normalize()
	other := copyOf(s)
	for b.Loop() {
		if len(kernel.Diff(s, other, now).Ops) != 0 {
			b.Fatal("not empty")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1e4, "ns/row")
}

// One downstream in trouble keeps what it has, with all that its hosts need; the others lose what they should.
func TestHold(t *testing.T) {
	address := func(dev, p string) kernel.Address {
		return kernel.Address{Dev: dev, Prefix: netip.MustParsePrefix(p), PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()}
	}
	onLink := func(dev, p string) kernel.Route {
		return kernel.Route{Table: kernel.TableMain, Dst: netip.MustParsePrefix(p), Metric: 256, Type: kernel.Unicast, Dev: dev}
	}
	aggregate := func(p string) kernel.Route {
		return kernel.Route{Table: kernel.TableMain, Dst: netip.MustParsePrefix(p), Metric: 9, Type: kernel.Unreachable}
	}
	rule := func(p string, table uint32) kernel.Rule {
		return kernel.Rule{Family: kernel.IPv6, Priority: 10000, From: netip.MustParsePrefix(p), Action: kernel.Unicast, Table: table}
	}
	via := func(table uint32) kernel.Route {
		return kernel.Route{Table: table, Dst: netip.MustParsePrefix("::/0"), Metric: 1, Type: kernel.Unicast, Dev: "wan0", Gateway: netip.MustParseAddr("fe80::1")}
	}
	have := kernel.State{
		Addresses: []kernel.Address{address("lan0", "2001:db8:1::1/64"), address("lan1", "2001:db8:1:1::1/64"), address("lan0", "2001:db8:3::1/64")},
		Routes: []kernel.Route{onLink("lan0", "2001:db8:1::/64"), onLink("lan1", "2001:db8:1:1::/64"), onLink("lan0", "2001:db8:3::/64"),
			aggregate("2001:db8:1::/56"), aggregate("2001:db8:3::/56"), via(1001), via(1003)},
		Rules: []kernel.Rule{rule("2001:db8:1::/56", 1001), rule("2001:db8:3::/56", 1003)},
	}.Normalize()
	want := kernel.State{Addresses: []kernel.Address{address("lan0", "2001:db8:2::1/64"), address("lan1", "2001:db8:2:1::1/64")}}.Normalize()
	plan := kernel.Diff(have, want, now)
	holds := plan.Hold([]kernel.OpError{{Op: kernel.Op{Verb: kernel.Add, Row: want.Addresses[1]}}}) // the one on lan1
	var kept []string
	for _, op := range plan.Ops {
		if holds(op) {
			kept = append(kept, op.Object())
		}
	}
	wanted := []string{"ip address del 2001:db8:1:1::1/64 dev lan1", "ip -6 rule del pref 10000 from 2001:db8:1::/56 lookup 1001 protocol 200",
		"ip -6 route del 2001:db8:1:1::/64 dev lan1 metric 256 proto 200", "ip -6 route del default via fe80::1 dev wan0 table 1001 metric 1 proto 200",
		"ip -6 route del unreachable 2001:db8:1::/56 metric 9 proto 200"}
	if d := cmp.Diff(wanted, kept); d != "" {
		t.Errorf("held back (-want +got):\n%s", d)
	}
}
