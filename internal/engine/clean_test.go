package engine

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/fake"
	"uplinkd/internal/lifetime"
	"uplinkd/policy"
)

// used returns a kernel and a store as a daemon leaves them.
func used(t *testing.T) (*fake.Kernel, *memory, policy.Ledger) {
	t.Helper()
	address := kernel.Address{Dev: "lan0", Prefix: netip.MustParsePrefix("2001:db8::1/64"), PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()}
	k := &fake.Kernel{State: kernel.State{
		Sysctls: []kernel.Sysctl{{Name: "net.ipv6.conf.all.forwarding", Value: "1"}, {Name: "net.ipv6.conf.wan0.accept_ra", Value: "2"},
			{Name: "net.ipv6.conf.wan0.accept_ra_defrtr", Value: "0"}},
		Routes: []kernel.Route{{Table: 1001, Dst: netip.MustParsePrefix("::/0"), Metric: 1024, Type: kernel.Unicast, Gateway: netip.MustParseAddr("fe80::1"), Dev: "wan0"},
			{Table: 1001, Dst: netip.MustParsePrefix("::/0"), Metric: kernel.MetricLast, Type: kernel.Unreachable}},
		Rules:     []kernel.Rule{{Family: kernel.IPv6, Priority: 10001, From: netip.MustParsePrefix("2001:db8::/56"), Action: kernel.Unicast, Table: 1001}},
		Addresses: []kernel.Address{address},
		Tables:    []kernel.Table{{Family: "ip6", Body: "\tchain a {\n\t}\n"}},
	}.Normalize()}
	s, plan := newMemory(), policy.Ledger{Uplinks: map[string]uint32{"fiber": 1}, Subnets: map[string]uint64{"lan": 5}}
	err := s.WriteJSON(ledgerFile, formatVersion, durable{Plan: plan, Addresses: []addressRecord{{Dev: "lan0", Prefix: address.Prefix}},
		Sysctls: map[string]string{"net.ipv6.conf.all.forwarding": "0", "net.ipv6.conf.wan0.accept_ra": "1", "net.ipv6.conf.wan0.accept_ra_defrtr": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	return k, s, plan
}

func texts(ops []kernel.Op) string { return kernel.Plan{Ops: ops}.Text() }

func TestCleanWithdrawsInReverseOrder(t *testing.T) {
	k, s, ledger := used(t)
	want := `nft delete table ip6 uplinkd
ip address del 2001:db8::1/64 dev lan0
ip -6 rule del pref 10001 from 2001:db8::/56 lookup 1001 protocol 200
ip -6 route del default via fe80::1 dev wan0 table 1001 metric 1024 proto 200
ip -6 route del unreachable default table 1001 metric 4294967295 proto 200
sysctl -w net.ipv6.conf.wan0.accept_ra=1
sysctl -w net.ipv6.conf.all.forwarding=0
sysctl -w net.ipv6.conf.wan0.accept_ra_defrtr=1
`
	plan, err := CleanPlan(context.Background(), k, s)
	if err != nil || texts(plan.Ops) != want {
		t.Errorf("plan: %v\n%s", err, texts(plan.Ops))
	}
	r, err := Clean(context.Background(), k, s)
	if err != nil || texts(r.Done) != want || len(r.Failed)+len(r.Skipped) > 0 {
		t.Errorf("report: %v\n%+v", err, r)
	}
	var left durable
	if err := s.ReadJSON(ledgerFile, formatVersion, &left); err != nil || len(left.Sysctls)+len(left.Addresses) > 0 || !sameLedger(left.Plan, ledger) {
		t.Errorf("the ledger is now %+v, %v", left, err)
	}
	writes := k.Writes
	if r, err := Clean(context.Background(), k, s); err != nil || r.Writes != 0 || k.Writes != writes {
		t.Errorf("clean again: %+v, %v", r, err)
	}
}

// noRules is a kernel in which rules cannot be deleted; like the applier it withdraws nothing after that.
type noRules struct{ *fake.Kernel }

func (k noRules) Apply(ctx context.Context, p kernel.Plan) kernel.Report {
	i := slices.IndexFunc(p.Ops, func(o kernel.Op) bool { return o.Row.Phase() == kernel.PhaseRule })
	r := k.Kernel.Apply(ctx, kernel.Plan{Now: p.Now, Ops: p.Ops[:i]})
	r.Failed = []kernel.OpError{{Op: p.Ops[i], Err: errors.New("operation not permitted")}}
	r.Skipped = p.Ops[i+1:]
	return r
}

func TestCleanThatFailsCanBeRepeated(t *testing.T) {
	k, s, _ := used(t)
	before := string(s.files[ledgerFile])
	r, err := Clean(context.Background(), noRules{k}, s)
	if err != nil || len(r.Failed) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if string(s.files[ledgerFile]) != before {
		t.Error("the ledger forgot what is not clean yet")
	}
	if r, err = Clean(context.Background(), k, s); err != nil || len(r.Failed) != 0 || len(k.State.Rules) != 0 {
		t.Errorf("second try: %+v, %v; rules %v", r, err, k.State.Rules)
	}
	for _, v := range k.State.Sysctls {
		if v.Name == "net.ipv6.conf.all.forwarding" && v.Value != "0" {
			t.Errorf("forwarding is %s after the second try", v.Value)
		}
	}
}

func TestCleanWithoutLedger(t *testing.T) {
	k, _, _ := used(t)
	r, err := Clean(context.Background(), k, newMemory())
	if err != nil || len(r.Done) != 5 {
		t.Errorf("what carries the mark goes without a ledger too: %+v, %v", r, err)
	}
	broken := newMemory()
	broken.files[ledgerFile] = []byte("{")
	k, _, _ = used(t)
	state := k.State
	if _, err := Clean(context.Background(), k, broken); err == nil || !reflect.DeepEqual(k.State, state) {
		t.Errorf("with a broken ledger nothing must be touched: %v", err)
	}
}

// An uplink's interface was renamed while nobody looked: it gets back what it had, under its new name.
func TestCleanAfterRename(t *testing.T) {
	k, s, _ := used(t)
	var saved durable
	if err := s.ReadJSON(ledgerFile, formatVersion, &saved); err != nil {
		t.Fatal(err)
	}
	saved.Devices = map[string]device{"wan0": {Index: 7, Boot: "boot-1", MAC: "02:00:00:00:00:07"}}
	if err := s.WriteJSON(ledgerFile, formatVersion, saved); err != nil {
		t.Fatal(err)
	}
	k.Link = []kernel.Link{{Name: "old0", Index: 7, MAC: "02:00:00:00:00:07"}}
	k.State.Sysctls = kernel.State{Sysctls: []kernel.Sysctl{{Name: "net.ipv6.conf.old0.accept_ra", Value: "2"}}}.Normalize().Sysctls
	plan, err := CleanPlan(context.Background(), k, s)
	if text := texts(plan.Ops); err != nil || !strings.Contains(text, "sysctl -w net.ipv6.conf.old0.accept_ra=1\n") || strings.Contains(text, "conf.wan0") {
		t.Errorf("plan: %v\n%s", err, text)
	}
}
