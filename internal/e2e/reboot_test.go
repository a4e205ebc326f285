package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"uplinkd/internal/kernel/rtnl"
	"uplinkd/internal/netlab"
	"uplinkd/pd"
)

// reboot is a power failure: the router's namespace is made anew, with links that look like the old ones. What is on disk
// stays, and the hosts, which are behind a switch, notice nothing.
func (s *switched) reboot(v *simulated) {
	s.t.Helper()
	if s.daemon != nil {
		s.end(syscall.SIGKILL)
	}
	v.stop()
	s.router.IP("link del lan0")
	s.router.IP("link del wan0")
	s.router = s.lab.NS("router")
	s.router.Sysctl("net.ipv6.conf.all.accept_dad", "0")
	s.router.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	s.connectUplink()
	s.connectSwitch()
	s.router.LinkLocal("wan0")
	s.router.LinkLocal("lan0")
	s.isp.LinkLocal("up0")
	s.route(pool)
	s.route(newPool)
	var opened *rtnl.Kernel
	if err := s.router.Do(func() (err error) { opened, err = rtnl.Open(); return err }); err != nil {
		s.t.Fatal(err)
	}
	s.kernel = opened
	s.t.Cleanup(opened.Close)
	v.open()
}

// connectSwitch puts lan0 on the switch at which the host is.
func (s *switched) connectSwitch() {
	s.t.Helper()
	s.lab.Veth(s.router, "lan0", s.lan, "p0", "02:00:00:00:02:01", "02:00:00:00:05:01")
	s.lan.IP("link set p0 master br0")
}

// switched is a site with a switch between lan0 and the host.
type switched struct {
	*site
	lan *netlab.NS
}

func newSwitched(t *testing.T) *switched {
	t.Helper()
	s := &switched{site: newSite(t, false)}
	s.router.IP("link del lan0")
	s.lan = s.lab.NS("switch")
	s.lan.Sysctl("net.ipv6.conf.default.disable_ipv6", "1")
	s.lan.IP("link add br0 type bridge")
	s.lan.IP("link set br0 up")
	s.lab.Veth(s.host, "eth0", s.lan, "p1", "02:00:00:00:02:02", "02:00:00:00:05:02")
	s.lan.IP("link set p1 master br0")
	s.connectSwitch()
	s.router.LinkLocal("lan0")
	return s
}

// TestReboot has the provider delegate another prefix after a power failure. The hosts still have the old one, and nobody
// but the disk knows of it: the very first advertisement that they hear withdraws it, and so does every other, beside the
// new one.
func TestReboot(t *testing.T) {
	t.Parallel()
	for _, failures := range []int{1, 3} {
		t.Run(fmt.Sprint(failures), func(t *testing.T) {
			t.Parallel()
			s, v, h, was := powered(t)
			v.Forget()
			if err := v.Renumber(netip.MustParsePrefix(newPool), 0); err != nil {
				t.Fatal(err)
			}
			s.powerFails(v, failures)
			s.delegation(newPool)
			_, is := s.held()
			h.next(0, "the new prefix", option(is[0], 5400, 2700))
			for i, m := range h.all() {
				if !containsAll(m, []string{option(was[0], 0, 0), option(is[0], 5400, 2700)}) {
					t.Errorf("advertisement %d after the power failure does not replace the old prefix by the new one:\n%s", i, m)
				}
			}
			s.hostAddress(newPool, "preferred", preferred)
			s.hostAddress(was[0].String(), "deprecated", deprecated)
			s.reach()
		})
	}
}

// TestRebootSamePrefix has the provider delegate the same prefix again. Hosts never hear that it is over.
func TestRebootSamePrefix(t *testing.T) {
	t.Parallel()
	s, v, h, was := powered(t)
	s.powerFails(v, 2)
	s.delegation(pool)
	h.next(0, "the prefix", option(was[0], 5400, 2700))
	for _, m := range h.all() {
		if strings.Contains(m, option(was[0], 0, 0)) {
			t.Errorf("a prefix that was never lost is withdrawn:\n%s", m)
		}
	}
	s.hostAddress(was[0].String(), "preferred", preferred)
	s.reach()
	s.holds(onLAN(nil, was...))
}

// powered is a site behind a switch on which all has been well, until the daemon was killed. From then on it is heard
// what the host hears.
func powered(t *testing.T) (s *switched, v *simulated, h *heard, held []netip.Prefix) {
	t.Helper()
	s = newSwitched(t)
	v = s.simulate(forever)
	s.configure(prompt)
	s.start()
	s.awaitHealthy()
	s.hostAddress(pool, "preferred", preferred)
	s.reach()
	_, held = s.held()
	s.end(syscall.SIGKILL)
	return s, v, s.hears(), held
}

// powerFails so many times. Only after the last one the provider answers.
func (s *switched) powerFails(v *simulated, times int) {
	s.t.Helper()
	v.Silence(true)
	for range times - 1 {
		s.reboot(v)
		s.start()
		before := v.Counts().Seen[pd.Rebind]
		s.awaitSeen(v, pd.Rebind, before+1)
	}
	v.Silence(false)
	s.reboot(v)
	if list := addresses(s.host, "eth0"); len(list) != 1 || !inside(pool, list[0].Local) {
		s.t.Fatalf("the host has %v before the router is there again", list)
	}
	s.start()
}

// option is how tcpdump shows a Prefix Information option for the first network of a delegation.
func option(p netip.Prefix, valid, preferred int) string {
	return fmt.Sprintf("%s/64, Flags [onlink, auto], valid time %ds, pref. time %ds", p.Addr(), valid, preferred)
}
