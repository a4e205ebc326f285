package engine

import (
	"os/exec"
	"strings"
	"testing"

	"uplinkd/internal/kernel/rtnl"
	"uplinkd/internal/netlab"
)

func TestMain(m *testing.M) { netlab.TestMain(m) }

// planted are objects of somebody else, among and beside uplinkd's: its numbers, tables and interfaces.
var planted = []string{
	"ip -6 address add 2001:db8:9::1/64 dev lan0 nodad",
	"ip -6 address add 2001:db8:9::2/64 dev lan1 nodad proto kernel_ra", // an owner mark that is not ours; fails on old iproute2
	"ip -6 route add 2001:db8:9:1::/64 via fe80::99 dev lan0 metric 77",
	"ip -6 route add 2001:db8:9:2::/64 via fe80::99 dev lan0 table 1001 proto 201",
	"ip -6 route add unreachable 2001:db8:9:3::/64 proto static",
	"ip -6 rule add pref 10001 from 2001:db8:9::/48 lookup 1001",
	"ip -6 rule add pref 555 to 2001:db8:9::/48 lookup main protocol 201",
	"ip -4 address add 192.0.2.1/24 dev lan0",
	"ip -4 route add 198.51.100.0/24 via 192.0.2.2 dev lan0",
	"nft add table inet theirs",
	"nft add chain inet theirs input { type filter hook input priority 0 ; }",
	"nft add rule inet theirs input ip6 saddr 2001:db8:9::/48 counter accept",
}

// foreign is what the planted objects look like: everything that is not the kernel's own and not uplinkd's.
func foreign(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, cmd := range []string{"ip -6 address show scope global", "ip -4 address show", "ip -6 route show table all", "ip -4 route show table main",
		"ip -6 rule show", "nft list ruleset"} {
		for _, line := range strings.Split(run(t, cmd), "\n") {
			line = strings.TrimSpace(line)
			if strings.Contains(line, "proto kernel") {
				continue // follows from the addresses, and from forwarding (the anycast address)
			}
			if strings.Contains(line, "2001:db8:9:") || strings.Contains(line, "192.0.2") || strings.Contains(line, "198.51") || strings.Contains(line, "theirs") {
				b.WriteString(line + "\n")
			}
		}
	}
	return b.String()
}

func run(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil && !strings.Contains(line, "kernel_ra") {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// TestWalkKernel is the walk of TestWalkFake on the real kernel, with the same goldens, among foreign objects, which
// are as they were at the end; and what `uplinkd clean` does leaves exactly them.
func TestWalkKernel(t *testing.T) {
	netlab.Need(t)
	netlab.NeedProgram(t, "nft", "nftables")
	// The test's own namespace, not one of a lab: /proc/sys/net shows that of the process.
	for _, l := range []string{"wan0", "wan1", "lan0", "lan1"} {
		run(t, "ip link add "+l+" type veth peer name "+l+"p")
		run(t, "ip link set "+l+" up")
		run(t, "ip link set "+l+"p up")
	}
	run(t, "sysctl -qw net.ipv6.conf.lan0.keep_addr_on_down=1") // the planted address shall outlive a link that goes down
	for _, p := range planted {
		run(t, p)
	}
	t.Cleanup(func() { // for -count
		for _, line := range []string{"ip -6 rule flush protocol 201", "ip -6 rule del pref 10001", "ip -6 route flush proto static",
			"nft delete table inet theirs", "ip link del wan0", "ip link del wan1", "ip link del lan0", "ip link del lan1"} {
			run(t, line)
		}
	})
	k, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	before := foreign(t)
	store := newMemory()
	e, stop := startStoppable(t, k, store, parse(t, fiber+lan))
	w := walker{t, e, k, func(name string, up bool) {
		state := map[bool]string{true: "up", false: "down"}[up]
		run(t, "ip link set "+name+" "+state)
		if up && name == "lan0" { // routes of others go with a link that goes down, and nobody else puts them back
			for _, p := range planted {
				if strings.Contains(p, "route add") {
					run(t, strings.Replace(p, "route add", "route replace", 1))
				}
			}
		}
	}}
	w.walk(40)
	w.visit(bound)
	if after := foreign(t); after != before {
		t.Errorf("foreign objects before:\n%safter:\n%s", before, after)
	}
	stop()
	report, err := Clean(t.Context(), k, store)
	if err != nil || len(report.Failed) > 0 {
		t.Fatalf("clean: %v %v", err, report.Failed)
	}
	if after := foreign(t); after != before {
		t.Errorf("foreign objects before clean:\n%safter:\n%s", before, after)
	}
	if left := w.text(); strings.Contains(left, "proto 200") || strings.Contains(left, "protocol 200") {
		t.Errorf("clean left:\n%s", left)
	}
	if got := strings.TrimSpace(run(t, "sysctl -n net.ipv6.conf.all.forwarding")); got != "0" {
		t.Errorf("clean left net.ipv6.conf.all.forwarding=%s, it was 0 before", got)
	}
}
