package engine

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/kernel/rtnl"
	"uplinkd/internal/lifetime"
	"uplinkd/internal/netlab"
	"uplinkd/pd"
	"uplinkd/policy"
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

// links makes interfaces with carrier, until the test ends, and lo usable.
func links(t *testing.T, names ...string) {
	t.Helper()
	run(t, "ip link set lo up")
	for _, l := range names {
		run(t, "ip link add "+l+" type veth peer name "+l+"p")
		run(t, "ip link set "+l+" up")
		run(t, "ip link set "+l+"p up")
		t.Cleanup(func() { run(t, "ip link del "+l) })
	}
}

// TestInternalAddressKernel has the router reach the Internet with an address on lo (RFC 7084 WAA-7), which gives way to a
// downstream that is given its subnet, and goes when the uplink has an address of its own.
func TestInternalAddressKernel(t *testing.T) {
	netlab.Need(t)
	links(t, "wan0", "lan0")
	k, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	store := newMemory()
	e, stop := startStoppable(t, k, store, parse(t, fiber))
	l := lease(bound.leases["fiber"])
	on := func(config string, change func()) {
		t.Helper()
		change()
		e.Heard("fiber", policy.Heard{Routers: []policy.Router{{Address: netip.MustParseAddr("fe80::1"), Until: lifetime.Forever()}}})
		e.Client("fiber", ClientStatus{State: "bound", Reported: true, Lease: l}, true)
		for range 2 { // the second one finds nothing to do
			writes := e.Snapshot().Counters.Writes
			if err := e.Reload(t.Context(), parse(t, config)); err != nil {
				t.Fatal(err)
			}
			if n := e.Snapshot().Counters.Writes - writes; n == 0 {
				break
			}
		}
	}
	has := func(when, dev, address string) {
		t.Helper()
		shown := run(t, "ip -6 -oneline address show scope global dev "+dev)
		if address == "" && shown != "" || !strings.Contains(shown, address) {
			t.Errorf("%s: on %s is\n%s, want %q", when, dev, shown, address)
		}
	}
	source := func(when, want string) {
		t.Helper()
		netlab.Eventually(t, 10*time.Second, when+": the source of what the router sends", func() (bool, string) { // until DAD on lan0 is over
			got := run(t, "ip -6 route get 2001:db8:ffff::1")
			return strings.Contains(got, "dev wan0") && strings.Contains(got, "src "+want+" "), got
		})
	}
	defer func() {
		stop()
		if report, err := Clean(t.Context(), k, store); err != nil || len(report.Failed) > 0 {
			t.Errorf("clean: %v %v", err, report.Failed)
		}
		has("after clean", "lo", "")
	}()
	on(fiber, func() {})
	has("no downstream", "lo", "2001:db8:1100:ff::1/128")
	source("no downstream", "2001:db8:1100:ff::1")
	on(fiber+lan+"length = 56\n", func() { run(t, "ip link set lan0 down") })
	has("all is a downstream's whose link is down", "lo", "")
	on(fiber+lan+"subnet = 0xff\n", func() {})
	has("its subnet is a downstream's whose link is down", "lo", "2001:db8:1100:fe::1/128")
	on(fiber+lan+"subnet = 0xfe\n", func() { run(t, "ip link set lan0 up") })
	has("a downstream", "lo", "")
	has("a downstream", "lan0", "2001:db8:1100:fe::1/64")
	source("a downstream", "2001:db8:1100:fe::1")
	on(fiber, func() {})
	has("no downstream again", "lo", "2001:db8:1100:ff::1/128")
	on(fiber+lan+"subnet = 0xff\n", func() {}) // the same address moves
	has("the same address on a downstream", "lo", "")
	source("the same address on a downstream", "2001:db8:1100:ff::1")
	on(fiber, func() {})
	has("and back, but where it had to move to", "lo", "2001:db8:1100:fe::1/128")
	source("and back, but where it had to move to", "2001:db8:1100:fe::1")
	on(fiber, func() {
		l.Addresses = []pd.LeasedAddress{{Address: netip.MustParseAddr("2001:db8:77::5"), PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()}}
	})
	has("an address by DHCPv6", "lo", "")
	source("an address by DHCPv6", "2001:db8:77::5")
}

// TestWalkKernel is the walk of TestWalkFake on the real kernel, with the same goldens, among foreign objects, which
// are as they were at the end; and what `uplinkd clean` does leaves exactly them.
func TestWalkKernel(t *testing.T) {
	netlab.Need(t)
	netlab.NeedProgram(t, "nft", "nftables")
	// The test's own namespace, not one of a lab: /proc/sys/net shows that of the process.
	links(t, "wan0", "wan1", "lan0", "lan1")
	run(t, "sysctl -qw net.ipv6.conf.lan0.keep_addr_on_down=1") // the planted address shall outlive a link that goes down
	for _, p := range planted {
		run(t, p)
	}
	t.Cleanup(func() { // for -count
		for _, line := range []string{"ip -6 rule flush protocol 201", "ip -6 rule del pref 10001", "ip -6 route flush proto static",
			"nft delete table inet theirs"} {
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
