package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/internal/netlab"
)

// planted are objects of somebody else, among uplinkd's tables and priorities.
var planted = []string{
	"ip -6 address add 2001:db8:9::1/64 dev other0 nodad",
	"ip -6 route add 2001:db8:9:1::/64 via fe80::99 dev other0 metric 77",
	"ip -6 route add 2001:db8:9:2::/64 via fe80::99 dev other0 table 1001 proto 201",
	"ip -6 route add unreachable 2001:db8:9:3::/64 proto static",
	"ip -6 route add unreachable 2001:db8:9:4::/64 table 1001 proto static",
	"ip -6 rule add pref 10001 from 2001:db8:9::/48 lookup 1001",
	"ip -6 rule add pref 555 to 2001:db8:9::/48 lookup main protocol 201",
	"ip -4 address add 192.0.2.1/24 dev other0",
	"ip -4 route add 198.51.100.0/24 via 192.0.2.2 dev other0",
	"ip -4 rule add pref 10001 from 192.0.2.0/24 lookup 1001",
	"nft add table inet theirs",
	"nft add chain inet theirs input { type filter hook input priority 0 ; }",
	"nft add rule inet theirs input ip6 saddr 2001:db8:9::/48 counter accept",
}

// plant makes the objects of somebody else on the router.
func (s *site) plant() {
	s.t.Helper()
	netlab.NeedProgram(s.t, "nft", "nftables")
	s.router.IP("link add other0 type veth peer name other1")
	s.router.IP("link set other0 up")
	s.router.IP("link set other1 up")
	for _, p := range planted {
		words := strings.Fields(p)
		s.router.Run(words[0], words[1:]...)
	}
}

// foreign is what the planted objects look like now.
func (s *site) foreign() string {
	s.t.Helper()
	var b strings.Builder
	for _, cmd := range []string{"ip address show dev other0", "ip -6 route show table all", "ip -4 route show table all", "ip -6 rule show", "ip -4 rule show"} {
		words := strings.Fields(cmd)
		for line := range strings.Lines(s.router.Run(words[0], words[1:]...)) {
			if strings.HasPrefix(line, "anycast ") {
				continue // the kernel's own; it comes and goes with forwarding
			}
			if strings.Contains(line, "2001:db8:9:") || strings.Contains(line, "192.0.2.") || strings.Contains(line, "198.51.100.") {
				b.WriteString(line)
			}
		}
	}
	return b.String() + s.router.Run("nft", "list", "ruleset")
}

// TestDrift undoes parts of uplinkd's work. Each is repaired, and the objects of somebody else stay as they are, at last
// also after `uplinkd clean`.
func TestDrift(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	s.plant()
	theirs, before := s.foreign(), s.kernelText()
	if n := strings.Count(theirs, "\n"); n < len(planted) {
		t.Fatalf("%d objects planted, found only:\n%s", len(planted), theirs)
	}
	v := s.simulate(forever)
	s.configure(prompt)
	s.start()
	s.awaitHealthy()
	s.hostAddress(pool, "preferred", preferred)
	healthy := s.kernelText()
	for _, d := range s.drifts(v) {
		d.do()
		began := time.Now()
		s.eventually("repair: "+d.what, func() (bool, string) {
			text := s.kernelText()
			return text == healthy, "want\n" + healthy + "have\n" + text
		})
		t.Logf("%7.1f ms until the kernel was as before: %s", time.Since(began).Seconds()*1000, d.what)
		s.awaitHealthy()
		s.hostAddress(pool, "preferred", preferred)
		s.reach()
		if now := s.foreign(); now != theirs {
			t.Fatalf("%s: objects of somebody else were\n%s\nand are\n%s", d.what, theirs, now)
		}
	}
	// Once for each time that wan0 was away: a next hop of the old interface must not make the new one flap.
	if n := strings.Count(s.daemon.Output(), "uplink.down "); n != 2 {
		t.Errorf("%d times uplink.down, want 2", n)
	}

	if _, stderr, status := s.run("clean"); status != 1 || !strings.Contains(stderr, "stop it first") {
		t.Errorf("clean beside a running daemon: status %d, %s", status, stderr)
	}
	s.end(syscall.SIGTERM)
	if out, stderr, status := s.run("clean"); status != 0 {
		t.Fatalf("clean: status %d\n%s%s", status, out, stderr)
	}
	if now := s.foreign(); now != theirs {
		t.Errorf("clean: objects of somebody else were\n%s\nand are\n%s", theirs, now)
	}
	if after := s.kernelText(); after != before {
		t.Errorf("before the first start:\n%safter clean:\n%s", before, after)
	}
}

type drift struct {
	what string
	do   func()
}

// drifts are what other programs and people do to a router, in this order.
func (s *site) drifts(v *simulated) []drift {
	s.t.Helper()
	lan := addresses(s.router, "lan0")[0].Local
	subnet, err := lan.Prefix(64)
	if err != nil {
		s.t.Fatal(err)
	}
	ip := func(format string, args ...any) drift {
		line := fmt.Sprintf(format, args...)
		return drift{"ip " + line, func() { s.router.IP("%s", line) }}
	}
	sysctl := func(name, value string) drift {
		return drift{name + "=" + value, func() { s.router.Sysctl(name, value) }}
	}
	return []drift{
		ip("-6 address del %s/64 dev lan0", lan),
		ip("-6 address change %s/64 dev lan0", lan), // adds an on-link route of the kernel's
		ip("-6 address change %s/64 dev lan0 valid_lft 1000 preferred_lft 0 noprefixroute", lan),
		ip("-6 rule del pref 10001 protocol 200"),
		ip("-6 rule del pref 1000"),
		ip("-6 route del %s dev lan0", subnet),
		ip("-6 route del unreachable default table 1001 metric 4294967295"),
		ip("-6 route flush table 1001 proto 200"),
		ip("-6 route replace default via fe80::dead dev wan0 table 1001 metric 1000 proto 200"),
		ip("-6 route flush proto 200"),
		sysctl("net.ipv6.conf.all.forwarding", "0"),
		sysctl("net.ipv6.conf.wan0.accept_ra_defrtr", "1"),
		{"lan0 down and up", func() { s.router.IP("link set lan0 down"); s.router.IP("link set lan0 up") }},
		{"lan0 down for a while, and up", func() { s.away("lan0"); s.router.IP("link set lan0 up") }},
		{"wan0 down for a while, and up", func() { s.away("wan0"); s.router.IP("link set wan0 up") }},
		{"lan0 deleted and made anew", func() { s.router.IP("link del lan0"); s.missing("lan0"); s.connectHost() }},
		{"wan0 deleted and made anew", func() {
			v.stop()
			s.router.IP("link del wan0")
			s.missing("wan0")
			s.connectUplink()
			s.route(pool)
			v.open()
		}},
	}
}

// away sets a link down and waits until the daemon has followed.
func (s *site) away(dev string) {
	s.t.Helper()
	s.router.IP("link set %s down", dev)
	s.problem("interface " + dev + " is down")
}

// missing waits until the daemon knows that an interface does not exist.
func (s *site) missing(dev string) {
	s.t.Helper()
	s.problem("interface " + dev + " does not exist")
}

// problem waits until status shows a problem with the text.
func (s *site) problem(text string) {
	s.t.Helper()
	s.eventually("status to say: "+text, func() (bool, string) {
		st, err := s.status()
		if err != nil {
			return false, err.Error()
		}
		for _, p := range st.Problems {
			if strings.Contains(p.Message, text) {
				return true, ""
			}
		}
		return false, fmt.Sprint(st.Problems)
	})
}

// TestLeaseEndsWhileUplinkIsGone takes an uplink away for so long that its lease runs out, and gives it back.
func TestLeaseEndsWhileUplinkIsGone(t *testing.T) {
	t.Parallel()
	s, v := bound(t, isp.Config{Preferred: 3, Valid: 5, T1: 1, T2: 2}, prompt)
	g := s.delegation(pool)
	v.stop()
	s.router.IP("link del wan0")
	s.eventually("the lease to end", func() (bool, string) { left := s.rowsOf(g.Prefix); return left == "", left })
	s.connectUplink()
	s.route(pool)
	v.open()
	s.awaitHealthy()
	s.hostAddress(pool, "preferred", preferred)
	s.reach()
	if err := s.client().Renew(context.Background(), "fiber"); err != nil {
		t.Errorf("renew on the new interface: %v", err)
	}
}

// TestDriftWhileStopped changes an address of uplinkd's while the daemon is down: it is put right at the next start. Changed once
// more it is still uplinkd's, and goes with `uplinkd clean`; one that somebody else has made stays, although it is the same.
func TestDriftWhileStopped(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	before := s.kernelText()
	s.simulate(forever)
	s.configure(prompt)
	s.start()
	s.awaitHealthy()
	s.hostAddress(pool, "preferred", preferred)
	healthy, own := s.kernelText(), addresses(s.router, "lan0")[0].Local
	s.end(syscall.SIGTERM)
	s.router.IP("-6 address change %s/64 dev lan0", own)
	s.start()
	s.asBefore(healthy, "changed while the daemon was down")
	s.quiet()

	clean := func() {
		t.Helper()
		if out, stderr, status := s.run("clean"); status != 0 {
			t.Fatalf("clean: status %d\n%s%s", status, out, stderr)
		}
		if after := s.kernelText(); after != before {
			t.Errorf("before the first start:\n%safter clean:\n%s", before, after)
		}
	}
	s.end(syscall.SIGTERM)
	s.router.IP("-6 address change %s/64 dev lan0", own)
	clean()
	if left := addresses(s.router, "lan0"); len(left) > 0 {
		t.Errorf("after clean: %v", left)
	}

	s.start()
	s.asBefore(healthy, "a start after clean")
	s.end(syscall.SIGTERM)
	s.router.IP("-6 address del %s/64 dev lan0", own)
	s.router.IP("-6 address add %s/64 dev lan0 nodad", own)
	clean()
	if left := addresses(s.router, "lan0"); len(left) != 1 || left[0].Local != own {
		t.Errorf("clean took an address that somebody else had made: %v", left)
	}
}

// TestRouteTakenOver has somebody replace the on-link route by one of his, and add a rule like one of uplinkd's. Both are his from
// then on: that is said, once, and ours comes back when he takes his away.
func TestRouteTakenOver(t *testing.T) {
	t.Parallel()
	s, _ := bound(t, forever, prompt)
	healthy, subnet := s.kernelText(), s.subnetOf("lan", pool)
	m := regexp.MustCompile(`route (` + regexp.QuoteMeta(subnet.String()) + ` dev lan0 metric [0-9]+) proto 200`).FindStringSubmatch(healthy)
	if m == nil {
		t.Fatalf("no on-link route in\n%s", healthy)
	}
	s.router.IP("-6 route replace %s", m[1])
	s.router.IP("-6 rule add pref 10001 from %s lookup 1001", s.delegation(pool).Prefix)
	s.problem(m[1] + " proto 200: exists already and belongs to somebody else (proto boot)")
	for range 3 { // retries, and steps for other reasons
		s.reconciles(1)
	}
	s.reach()
	if out := s.daemon.Output(); strings.Contains(out, "prefix.lost") || strings.Count(out, "belongs to somebody else") > 5 {
		t.Errorf("the log has too much of it:\n%s", out)
	}
	s.router.IP("-6 route del %s proto boot", m[1])
	s.asBefore(healthy, "the route of somebody else is gone")
	s.end(syscall.SIGTERM)
	if out, stderr, status := s.run("clean"); status != 0 {
		t.Fatalf("clean: status %d\n%s%s", status, out, stderr)
	}
	if left := s.router.IP("-6 rule show pref 10001"); strings.Count(left, "\n") != 1 {
		t.Errorf("of two rules with pref 10001, somebody else's is to stay; left:\n%s", left)
	}
}
