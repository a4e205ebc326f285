package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"uplinkd/internal/netlab"
)

// besideGuest is a second downstream, with a host of its own.
var besideGuest = prompt + "\n[downstream.guest]\ninterface = \"lan1\"\n"

// newTwoLANs is a healthy site with two downstreams and a host on each.
func newTwoLANs(t *testing.T) (s *site, second *netlab.NS) {
	t.Helper()
	s = newSite(t, false)
	second = s.lab.NS("second")
	second.Sysctl("net.ipv6.conf.all.accept_dad", "0")
	second.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	s.lab.Veth(s.router, "lan1", second, "eth0", "02:00:00:00:03:01", "02:00:00:00:03:02")
	s.simulate(forever)
	s.configure(besideGuest)
	s.start()
	s.awaitHealthy()
	s.usable(s.host, s.subnetOf("lan", pool))
	s.usable(second, s.subnetOf("guest", pool))
	return s, second
}

// usable waits until a host prefers addresses of one prefix and no other, and reaches far with it.
func (s *site) usable(host *netlab.NS, prefix netip.Prefix) {
	s.t.Helper()
	s.eventually("a host to prefer nothing but "+prefix.String()+" and to reach far", func() (bool, string) {
		list := addresses(host, "eth0")
		here := slices.ContainsFunc(list, func(a address) bool { return preferred(a) && prefix.Contains(a.Local) })
		other := slices.ContainsFunc(list, func(a address) bool { return preferred(a) && !prefix.Contains(a.Local) })
		out := output(host, "ping", "-6", "-n", "-c", "1", "-W", "1", farAddress)
		return here && !other && strings.Contains(out, " 1 received"), fmt.Sprint(list, "\n", out)
	})
}

// renameUp gives an interface of the router another name while it is up, which the kernel allows since Linux 6.2: it keeps its
// addresses and routes, and is never down.
func (s *site) renameUp(from, to string) {
	s.t.Helper()
	out, err := s.router.Command(context.Background(), "ip", "link", "set", from, "name", to).CombinedOutput()
	if strings.Contains(string(out), "Device or resource busy") {
		s.t.Skip("skipped: this kernel is older than Linux 6.2 and renames no interface that is up")
	}
	if err != nil {
		s.t.Fatalf("ip link set %s name %s: %v: %s", from, to, err, out)
	}
}

// swap exchanges the names of two interfaces of the router.
func (s *site) swap(a, b string, down bool) {
	s.t.Helper()
	steps := [][2]string{{a, "swap0"}, {b, a}, {"swap0", b}}
	for _, step := range steps {
		if down {
			s.rename(step[0], step[1])
		} else {
			s.renameUp(step[0], step[1])
		}
	}
}

// TestSwappedNames has two downstream interfaces exchange their names, as udev does when it finds NICs in another order. The
// config goes by name: each network follows its name to the other cable, and hosts hear of the network that has come and of
// the one that has gone.
func TestSwappedNames(t *testing.T) {
	for _, c := range []struct {
		name          string
		stopped, down bool
	}{{"running, up", false, false}, {"running, down", false, true}, {"stopped, up", true, false}, {"stopped, down", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, second := newTwoLANs(t)
			before, lan, guest := s.kernelText(), s.subnetOf("lan", pool), s.subnetOf("guest", pool)
			for _, hosts := range [][2]*netlab.NS{{second, s.host}, {s.host, second}} { // there and back
				if c.stopped {
					s.end(syscall.SIGTERM)
				}
				s.swap("lan0", "lan1", c.down)
				if c.stopped {
					s.start()
				}
				s.awaitHealthy()
				s.eventually("the kernel to be as before", func() (bool, string) {
					text := s.kernelText()
					return text == before, "want\n" + before + "have\n" + text
				})
				s.usable(hosts[0], lan)
				s.usable(hosts[1], guest)
			}
			s.quiet()
		})
	}
}

// quiet fails the test if the daemon has said the same error more than a few times, or tells of prefixes that are lost.
func (s *site) quiet() {
	s.t.Helper()
	for _, p := range append(slices.Clone(s.retired), s.daemon) {
		if p == nil {
			continue
		}
		lines := 0
		for line := range strings.Lines(p.Output()) {
			if strings.Contains(line, "level=ERROR") {
				lines++
			}
		}
		if lines > 5 || strings.Contains(p.Output(), "prefix.lost") {
			s.t.Errorf("%d errors in the log, want few, and no prefix lost:\n%s", lines, p.Output())
		}
	}
}

// acceptRA is a variable that uplinkd sets on uplinks only.
func (s *site) acceptRA(dev string) string {
	s.t.Helper()
	return strings.TrimSpace(s.router.Run("sysctl", "-n", "net.ipv6.conf."+dev+".accept_ra"))
}

// TestRenamedWhileStopped renames interfaces while the daemon is down. What is on an interface whose name no config has any
// more goes with the next start.
func TestRenamedWhileStopped(t *testing.T) {
	t.Parallel()
	s, _ := bound(t, forever, prompt)
	before, unused := s.kernelText(), s.acceptRA("lan0") // which uplinkd leaves alone there
	if s.acceptRA("wan0") == unused {
		t.Fatalf("accept_ra of wan0 is as that of lan0, %s", unused)
	}
	for _, dev := range []string{"lan0", "wan0"} {
		s.end(syscall.SIGTERM)
		s.renameUp(dev, "old0") // it keeps what it has
		s.start()
		s.missing(dev)
		s.nothingOn("old0")
		if now := s.acceptRA("old0"); now != unused {
			t.Errorf("%s: after it lost its name it has accept_ra=%s, want %s", dev, now, unused)
		}
		s.end(syscall.SIGTERM)
		s.router.IP("link set old0 name %s", dev)
		s.start()
		s.asBefore(before, dev+" renamed and back while the daemon was down")
	}
	s.quiet()
}

// TestUplinkNameTaken has another interface, with nobody behind it, take the name of the uplink's for a while. The one that had it
// is not touched any more; the lease outlives that, and with the name the uplink is back.
func TestUplinkNameTaken(t *testing.T) {
	for name, stopped := range map[string]bool{"running": false, "stopped": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, false)
			s.lab.Veth(s.router, "other0", s.lab.NS("nobody"), "eth0", "02:00:00:00:07:01", "02:00:00:00:07:02")
			v := s.simulate(forever)
			s.configure(prompt)
			s.start()
			s.awaitHealthy()
			s.hostAddress(pool, "preferred", preferred)
			before, unused := s.kernelText(), s.acceptRA("lan0")
			exchange := func() {
				if stopped {
					s.end(syscall.SIGTERM)
				}
				s.swap("wan0", "other0", false)
				if stopped {
					s.start()
				}
			}
			exchange()
			s.eventually("the uplink to be down", func() (bool, string) {
				st, err := s.status()
				return err == nil && len(st.Uplinks) == 1 && !st.Uplinks[0].Up, fmt.Sprint(st.Summary, err)
			})
			s.nothingOn("other0")
			s.eventually("other0 to be no uplink", func() (bool, string) { return s.acceptRA("other0") == unused, s.acceptRA("other0") })
			s.eventually("the new wan0 to be one", func() (bool, string) { return s.acceptRA("wan0") != unused, s.acceptRA("wan0") })
			exchange()
			s.asBefore(before, "the uplink has its name again")
			if n := len(v.Bindings()); n != 1 {
				t.Errorf("the provider has %d bindings", n)
			}
			s.quiet()
		})
	}
}
