package rtnl

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
)

// nth is the number i in the third group of an address: 2001:db8:i::host.
func nth(i, host int) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i >> 8), byte(i), 15: byte(host)})
}

func routes(n int) (s kernel.State) {
	for i := range n {
		s.Routes = append(s.Routes, kernel.Route{Table: 1001, Dst: netip.PrefixFrom(nth(i, 0), 64), Metric: 1024,
			Type: kernel.Unicast, Gateway: addr("fe80::1"), Dev: "v0"})
	}
	return s.Normalize()
}

func rules(n int) (s kernel.State) {
	for i := range n {
		s.Rules = append(s.Rules, kernel.Rule{Family: kernel.IPv6, Priority: 1000 + uint32(i), From: netip.PrefixFrom(nth(i, 0), 48),
			Action: kernel.Unicast, Table: 1001})
	}
	return s.Normalize()
}

func addresses(n int) (s kernel.State) {
	for i := range n {
		s.Addresses = append(s.Addresses, kernel.Address{Dev: "v0", Prefix: netip.PrefixFrom(nth(i, 1), 64),
			PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()})
	}
	return s.Normalize()
}

// mixed has n rows, a third of each kind.
func mixed(n int) kernel.State {
	return kernel.State{Routes: routes(n - 2*(n/3)).Routes, Rules: rules(n / 3).Rules, Addresses: addresses(n / 3).Addresses}
}

// script is a plan in the syntax of ip -batch. iproute2 before 6.3 has no "proto" for addresses.
func script(p kernel.Plan) string {
	return strings.NewReplacer("ip -6 ", "", "ip ", "", "noprefixroute proto 200", "noprefixroute").Replace(p.Text())
}

func BenchmarkRead(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := lab(b, options{})
			want := mixed(n)
			quietly(b, k, func() { apply(b, k, kernel.State{}, want) })
			for b.Loop() {
				if s := read(b, k, kernel.Scope{}); s.Len() != n {
					b.Fatalf("%d rows", s.Len())
				}
			}
			b.StopTimer()
			ip(b, "link del v0") // many addresses go faster with their device
		})
	}
}

// BenchmarkReadAmongForeign reads ten rows where others have 10,000 routes.
func BenchmarkReadAmongForeign(b *testing.B) {
	for name, o := range map[string]options{"kernel filters": {}, "we filter": {noStrict: true}} {
		b.Run(name, func(b *testing.B) {
			k := lab(b, o)
			foreign := strings.ReplaceAll(script(kernel.Diff(kernel.State{}, routes(10000), time.Now())), "proto 200", "proto static")
			batch(b, foreign)
			apply(b, k, kernel.State{}, kernel.State{Rules: rules(10).Rules})
			for b.Loop() {
				if s := read(b, k, kernel.Scope{}); s.Len() != 10 {
					b.Fatalf("%d rows", s.Len())
				}
			}
			b.StopTimer()
			ip(b, "link del v0")
		})
	}
}

// BenchmarkApply adds and deletes rows, ours and ip -batch taking turns. A ratio of 1 is as fast as ip -batch.
func BenchmarkApply(b *testing.B) {
	for name, rows := range map[string]func(int) kernel.State{"routes": routes, "rules": rules, "addresses": addresses} {
		for _, n := range []int{10, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) { besideIP(b, rows(n)) })
		}
	}
}

func besideIP(b *testing.B, rows kernel.State) {
	k := lab(b, options{})
	now := time.Now()
	add, del := kernel.Diff(kernel.State{}, rows, now), kernel.Diff(rows, kernel.State{}, now)
	addScript, delScript := script(add), script(del)
	if len(rows.Addresses) > 1000 { // deleting addresses is quadratic in the kernel: let the device go instead
		delScript = "link del v0\nlink add v0 type veth peer name v1\nlink set v0 up\nlink set v1 up\n"
		del = kernel.Plan{}
	}
	var ours, theirs [2]time.Duration
	for b.Loop() {
		ours[0] += timed(func() { mustApply(b, k, add) })
		if len(del.Ops) > 0 {
			ours[1] += timed(func() { mustApply(b, k, del) })
		} else {
			batch(b, delScript)
		}
		theirs[0] += timed(func() { batch(b, addScript) })
		theirs[1] += timed(func() { batch(b, delScript) })
	}
	b.ReportMetric(ms(ours[0])/float64(b.N), "add-ms")
	b.ReportMetric(ms(ours[0])/ms(theirs[0]), "add-ratio")
	if len(del.Ops) > 0 {
		b.ReportMetric(ms(ours[1])/float64(b.N), "del-ms")
		b.ReportMetric(ms(ours[1])/ms(theirs[1]), "del-ratio")
	}
	b.ReportMetric(0, "ns/op") // the sum of all four says nothing
}

func mustApply(b *testing.B, k *Kernel, p kernel.Plan) {
	if rep := k.Apply(context.Background(), p); len(rep.Done) != len(p.Ops) {
		b.Fatalf("%d of %d operations done, first failure: %v", len(rep.Done), len(p.Ops), rep.Failed[0])
	}
}

func timed(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// BenchmarkTables reads and writes a table with 100 dead prefixes.
func BenchmarkTables(b *testing.B) {
	var dead []string
	for i := range 100 {
		dead = append(dead, fmt.Sprintf("2001:db8:%x::/48", i))
	}
	want := tablesOf(deadSources(dead...))
	reading := func(k *Kernel) {
		if _, err := k.tables.read(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("read/none", func(b *testing.B) {
		k := nftLab(b, options{})
		for b.Loop() {
			reading(k)
		}
	})
	b.Run("read/unchanged", func(b *testing.B) {
		k := nftLab(b, options{})
		apply(b, k, kernel.State{}, want)
		for b.Loop() {
			reading(k)
		}
	})
	b.Run("read/changed", func(b *testing.B) { // the ruleset, by somebody: everything is read again
		k := nftLab(b, options{})
		apply(b, k, kernel.State{}, want)
		for b.Loop() {
			k.tables.generation = 0
			reading(k)
		}
	})
	b.Run("write", func(b *testing.B) {
		k := nftLab(b, options{})
		for b.Loop() {
			apply(b, k, kernel.State{}, want)
		}
	})
}
