package rtnl

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/netlab"
)

// nft runs nft(8) with one argument: a command, or "-f -" with a script.
func nft(t testing.TB, command string) string {
	t.Helper()
	out, err := exec.Command("nft", command).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %s: %v\n%s", command, err, out)
	}
	return string(out)
}

// nftLab is lab with an empty ruleset.
func nftLab(t testing.TB, o options) *Kernel {
	t.Helper()
	netlab.NeedProgram(t, "nft", "nftables")
	k := lab(t, o)
	t.Cleanup(func() { nft(t, "flush ruleset") })
	return k
}

// everyKind has each kind of object that a table may hold.
func everyKind() kernel.Table {
	rules := kernel.Ruleset{
		Sets: []kernel.Set{kernel.DeviceSet("lans", []string{"v0", "v1"}), kernel.PrefixSet("dead", []netip.Prefix{prefix("2001:db8:1::/48"), prefix("2001:db8:3::/48")})},
		Chains: []kernel.Chain{
			{Name: "answer", Rules: []string{"ip6 daddr { fe80::/10, ff00::/8 } return", "meta l4proto tcp counter reject with tcp reset", "counter reject with icmpv6 type policy-fail"}},
			{Name: "pre", Hook: kernel.Hook{Type: "filter", Point: "prerouting", Priority: "raw"}, Rules: []string{"iifname @lans ip6 saddr @dead jump answer"}},
			{Name: "post", Hook: kernel.Hook{Type: "nat", Point: "postrouting", Priority: "srcnat"},
				Rules: []string{"oifname \"v1\" ip6 saddr fd00:1::/48 snat ip6 prefix to 2001:db8:1::/48", "ct state established meta mark set ct mark and 0xff0000"}},
		},
	}
	return kernel.Table{Family: "ip6", Body: rules.Text()}
}

func tablesOf(rows ...kernel.Table) kernel.State { return kernel.State{Tables: rows}.Normalize() }

// settledTo reports an error unless the kernel, as k and as a program that has just started read it, is as wanted.
func settledTo(t *testing.T, k *Kernel, want kernel.State) {
	t.Helper()
	started, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer started.Close()
	for _, k := range []*Kernel{k, started} {
		if plan := kernel.Diff(read(t, k, kernel.Scope{}), want, time.Now()); len(plan.Ops) != 0 {
			t.Errorf("still to do:\n%s%s", plan.Text(), nft(t, "list ruleset"))
		}
	}
}

func TestTables(t *testing.T) {
	k := nftLab(t, options{})
	nft(t, "table ip6 theirs { chain uplinkd { type filter hook forward priority 0; ip6 saddr 2001:db8:9::/48 counter accept; }; }")
	theirs := nft(t, "list table ip6 theirs")
	one := everyKind()
	apply(t, k, read(t, k, kernel.Scope{}), tablesOf(one))
	settledTo(t, k, tablesOf(one))
	other := kernel.Table{Family: "inet", Body: kernel.Ruleset{Sets: []kernel.Set{kernel.DeviceSet("lans", []string{"v0"})}}.Text()}
	apply(t, k, read(t, k, kernel.Scope{}), tablesOf(one, other))
	settledTo(t, k, tablesOf(one, other))
	two := one
	two.Body = strings.Replace(two.Body, "2001:db8:3::/48", "2001:db8:4::/48", 1)
	rep := apply(t, k, read(t, k, kernel.Scope{}), tablesOf(two))
	if len(rep.Done) != 2 || rep.Done[0].Verb != kernel.Replace || rep.Done[1].Verb != kernel.Delete || rep.Writes != 3 {
		t.Errorf("%d writes: %v", rep.Writes, rep.Done)
	}
	settledTo(t, k, tablesOf(two))
	apply(t, k, read(t, k, kernel.Scope{}), kernel.State{})
	if left := nft(t, "list ruleset"); left != theirs {
		t.Errorf("left:\n%s", left)
	}
}

// The text of an operation is a command that does the same.
func TestTableCommands(t *testing.T) {
	k := nftLab(t, options{})
	want := tablesOf(everyKind())
	apply(t, k, kernel.State{}, want)
	ours, _, _ := strings.Cut(nft(t, "list table ip6 uplinkd"), "\tchain as_written_")
	for _, have := range []kernel.State{{}, {Tables: []kernel.Table{{Family: "ip6"}}}} {
		if out, err := exec.Command("sh", "-ec", kernel.Diff(have, want, time.Now()).Text()).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if typed := nft(t, "list table ip6 uplinkd"); strings.TrimRight(typed, "}\n") != strings.TrimRight(ours, "}\n") {
			t.Errorf("typed:\n%s\nours:\n%s", typed, ours)
		}
	}
}

// Whatever somebody changes inside a table is noticed, by a program that runs and by one that has just started; traffic
// and other tables are no change.
func TestTableDrift(t *testing.T) {
	k := nftLab(t, options{})
	want := tablesOf(everyKind())
	apply(t, k, kernel.State{}, want)
	same := []string{
		"table ip6 theirs { chain c { }; }",
		"flush table ip6 theirs",
		"reset counters table ip6 uplinkd",
	}
	for _, command := range same {
		nft(t, command)
		settledTo(t, k, want)
	}
	changes := []string{
		"flush chain ip6 uplinkd pre",
		"flush table ip6 uplinkd",
		"add rule ip6 uplinkd post counter accept",
		"insert rule ip6 uplinkd post counter accept",
		"add element ip6 uplinkd dead { 2001:db8:5::/48 }",
		"delete element ip6 uplinkd dead { 2001:db8:1::/48 }",
		"delete element ip6 uplinkd lans { v1 }",
		"add chain ip6 uplinkd theirs",
		"add chain ip6 uplinkd pre { policy drop; }",
		"add set ip6 uplinkd theirs { type ipv6_addr; }",
		"add counter ip6 uplinkd theirs",
		"delete table ip6 uplinkd",
		"flush ruleset",
		"table ip6 uplinkd { flags dormant; }",
	}
	for _, command := range changes {
		nft(t, command)
		have := read(t, k, kernel.Scope{})
		if plan := kernel.Diff(have, want, time.Now()); len(plan.Ops) != 1 {
			t.Fatalf("nft %s: %d operations\n%s", command, len(plan.Ops), nft(t, "list ruleset"))
		}
		apply(t, k, have, want)
		settledTo(t, k, want)
	}
}

// A table of uplinkd's name is uplinkd's: one that it does not know is what a killed daemon left.
func TestTableWithoutSeal(t *testing.T) {
	k := nftLab(t, options{})
	nft(t, "table ip6 uplinkd { chain half { }; }")
	nft(t, "table inet uplinkd { }")
	have := read(t, k, kernel.Scope{})
	want := tablesOf(everyKind())
	rep := apply(t, k, have, want)
	if len(rep.Done) != 2 || rep.Done[0].Verb != kernel.Replace || rep.Done[1].Verb != kernel.Delete {
		t.Errorf("%v", rep.Done)
	}
	settledTo(t, k, want)
	apply(t, k, want, kernel.State{})
	apply(t, k, want, kernel.State{}) // gone already
	settledTo(t, k, kernel.State{})
}

// program writes a shell script that stands for nft and returns its path.
func program(t *testing.T, script string) string {
	path := filepath.Join(t.TempDir(), "nft")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// Without a table nft is not run. A program that is missing, old or stuck fails its operation and no other, and what was in
// the kernel stays.
func TestNFTTrouble(t *testing.T) {
	k := nftLab(t, options{nft: program(t, "touch \"$0.ran\"")})
	state := tablesOf(everyKind())
	state.Rules = []kernel.Rule{{Family: kernel.IPv6, Priority: 1001, From: prefix("2001:db8:1::/48"), Action: kernel.Unicast, Table: 1001}}
	rules := kernel.State{Rules: state.Rules}
	apply(t, k, kernel.State{}, rules)
	apply(t, k, read(t, k, kernel.Scope{}), kernel.State{})
	nft(t, "table ip6 uplinkd { }")
	apply(t, k, read(t, k, kernel.Scope{}), kernel.State{})
	if _, err := os.Stat(k.options.nft + ".ran"); err == nil {
		t.Error("nft was run without need")
	}
	for _, c := range []struct{ program, want string }{
		{filepath.Join(t.TempDir(), "nft"), "there is no program nft: install the package nftables (1.0.1 or newer); everything else works without it"},
		{program(t, "cat >&2; exit 1"), "nft refused the rules: exit status 1; uplinkd needs nft 1.0.1 or newer, and a kernel with nf_tables"},
		{program(t, "printf '/dev/stdin:3:1-4: Error: syntax error,\\033 unexpected string\\nset dead\\n^^^\\n' >&2; exit 1"),
			"nft refused the rules: syntax error, unexpected string; uplinkd needs nft 1.0.1 or newer, and a kernel with nf_tables"},
		{program(t, "yes >&2; exit 1"), "did not end within 2s and was killed"},
		{program(t, "cat >/dev/null"), "it was written, but not sealed (so it will be written again): no such file or directory"},
	} {
		k.options.nft = c.program
		apply(t, k, read(t, k, kernel.Scope{}), rules)
		rep := k.Apply(context.Background(), kernel.Diff(rules, tablesOf(everyKind()), time.Now()))
		if len(rep.Failed) != 1 || len(rep.Done) != 1 || len(rep.Skipped) != 0 {
			t.Fatalf("%s: %d failed, %d done, %d skipped", c.want, len(rep.Failed), len(rep.Done), len(rep.Skipped))
		}
		if got := kernelSays.ReplaceAllString(rep.Failed[0].Error(), ""); !strings.HasPrefix(got, "nft add table ip6 uplinkd: ") || !strings.HasSuffix(got, c.want) {
			t.Errorf("got  %s\nwant ...%s", got, c.want)
		}
		if s := read(t, k, kernel.Scope{}); s.Len() != 0 {
			t.Errorf("left:\n%s", s.Text(time.Now()))
		}
	}
	k.options.nft = ""
	rep := do(k, kernel.Add, kernel.Table{Family: "ip6", Body: "\tnonsense\n"})
	if got := refusal(t, rep); !strings.Contains(got, "nft refused the rules: syntax error") {
		t.Error(got)
	}
	if rep := do(k, kernel.Add, kernel.Table{Family: "ip6"}); !errors.Is(rep.Failed[0], errUnsupported) {
		t.Error(rep.Failed)
	}
	if rep := do(k, kernel.Add, kernel.Table{Family: "ip9", Body: "\n"}); !errors.Is(rep.Failed[0], errUnsupported) {
		t.Error(rep.Failed)
	}
}

// As long as nobody changes anything in nft, reading takes one question and its answer.
func TestTablesReadOnce(t *testing.T) {
	k := nftLab(t, options{})
	want := tablesOf(everyKind())
	apply(t, k, kernel.State{}, want)
	read(t, k, kernel.Scope{})
	seq := k.tables.conn.seq
	read(t, k, kernel.Scope{})
	if n := k.tables.conn.seq - seq; n != 1 {
		t.Errorf("%d requests", n)
	}
	k.tables.rows[0].Sum = "remembered"
	if s := read(t, k, kernel.Scope{}); s.Tables[0].Sum != "remembered" {
		t.Error("read again although nothing changed")
	}
	nft(t, "add table ip6 theirs")
	settledTo(t, k, want)
	k.tables.conn.broken = true
	settledTo(t, k, want)
}

// A kernel that was found to have no nf_tables is asked again once a table has been written.
func TestTablesKernelWithout(t *testing.T) {
	k := nftLab(t, options{})
	k.tables.none = true
	nft(t, "table ip6 uplinkd { }")
	if s := read(t, k, kernel.Scope{}); len(s.Tables) != 0 {
		t.Errorf("asked a kernel that has no nf_tables:\n%s", s.Text(time.Now()))
	}
	apply(t, k, kernel.State{}, tablesOf(everyKind()))
	settledTo(t, k, tablesOf(everyKind()))
}
