package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/pd"
)

// The tests of this file take interfaces away and give them back, in the ways that happen to real routers: a NIC is
// unplugged from the bridge behind which hosts sit, a USB stick or a VLAN comes late, a driver is reloaded, udev renames.
// After each of them the kernel has the same objects of uplinkd's as before, and none besides.

// onBridge is prompt with hosts behind a bridge.
var onBridge = strings.Replace(prompt, "lan0", "br0", 1)

// plug makes lan0, with the host at its other end, and makes it a port of br0.
func (s *site) plug() {
	s.t.Helper()
	s.connectHost()
	s.router.IP("link set lan0 master br0")
}

// asBefore waits until the kernel has what it had, the daemon has nothing left to do, and the host works.
func (s *site) asBefore(before, what string) {
	s.t.Helper()
	began := time.Now()
	s.eventually("the kernel to be as before: "+what, func() (bool, string) {
		text := s.kernelText()
		return text == before, "want\n" + before + "have\n" + text
	})
	s.t.Logf("%7.1f ms until the kernel was as before: %s", time.Since(began).Seconds()*1000, what)
	s.awaitHealthy()
	s.hostAddress(pool, "preferred", preferred)
	s.t.Logf("%7.1f ms until the host had a preferred address", time.Since(began).Seconds()*1000)
	s.reach()
	s.t.Logf("%7.1f ms until the host reached far", time.Since(began).Seconds()*1000)
	if text := s.kernelText(); text != before {
		s.t.Errorf("%s: the kernel was as before, and then was not: want\n%shave\n%s", what, before, text)
	}
}

// TestBridgePort unplugs the only port of a bridge. Addresses and routes stay on the bridge all the time, and the host
// that is plugged in again finds its router. A bridge without a MAC address of its own has that of its port, and
// 00:00:00:00:00:00 while there is none.
func TestBridgePort(t *testing.T) {
	for _, c := range []struct{ name, mac string }{{"pinned MAC", "address 02:00:00:00:02:0b"}, {"MAC of the port", ""}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, false)
			s.router.IP("link add br0 %s type bridge", c.mac)
			s.router.IP("link set lan0 master br0")
			s.router.IP("link set br0 up")
			v := s.simulate(forever)
			s.configure(onBridge)
			s.start()
			s.awaitHealthy()
			old := s.hostAddress(pool, "preferred", preferred)
			s.reach()
			before, seen := s.kernelText(), v.Counts().Seen
			log := subscribe(t, s.router)

			s.router.IP("link del lan0")
			s.eventually("the bridge to have no carrier", func() (bool, string) {
				text := s.router.IP("link show dev br0")
				return strings.Contains(text, "NO-CARRIER"), text
			})
			reconciles := s.statusNow().Counters.Reconciles
			s.router.IP("-6 route add 2001:db8:9::/64 via fe80::9 dev br0") // somebody else's, to provoke one
			s.eventually("a reconcile", func() (bool, string) { return s.statusNow().Counters.Reconciles > reconciles, "none" })
			s.awaitHealthy()
			if text := s.kernelText(); text != before {
				t.Errorf("with the port unplugged the kernel has\n%sand had\n%s", text, before)
			}
			s.plug()
			s.asBefore(before, "port unplugged and back")
			if now := s.hostAddress(pool, "preferred", preferred); now.Local != old.Local {
				t.Errorf("the host had %v and has %v", old.Local, now.Local)
			}
			for _, m := range log.take() {
				if m.Gone && m.Kind == "address" && inside(pool, m.Prefix.Addr()) {
					t.Errorf("while the port was unplugged: %s", m.Text)
				}
			}
			if now := v.Counts().Seen; now[pd.Solicit] != seen[pd.Solicit] || now[pd.Release] != 0 {
				t.Errorf("the provider has seen %v, before %v", now, seen)
			}
		})
	}
}

// TestBridgeGetsAnotherNIC exchanges the only port of a bridge, behind which hosts sit on a switch that stays up, by a NIC with
// another MAC address. A bridge without one of its own then has that of the new port, and keeps its link-local address: hosts have
// the old MAC address for it. A bridge that is set down and up besides gets another link-local address, so that hosts have a
// default router that is gone.
func TestBridgeGetsAnotherNIC(t *testing.T) {
	for _, c := range []struct {
		name   string
		downUp bool
	}{{"another MAC", false}, {"another link-local address", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, false)
			s.router.IP("link del lan0")
			hub := s.lab.NS("hub")
			hub.IP("link add br0 type bridge")
			hub.IP("link set br0 up")
			s.lab.Veth(hub, "p1", s.host, "eth0", "02:00:00:00:09:01", "02:00:00:00:02:02")
			hub.IP("link set p1 master br0")
			s.router.IP("link add br0 type bridge")
			plug := func(mac string) {
				s.lab.Veth(s.router, "lan0", hub, "p2", mac, "02:00:00:00:09:02")
				hub.IP("link set p2 master br0")
				s.router.IP("link set lan0 master br0")
			}
			plug("02:00:00:00:02:01")
			s.router.IP("link set br0 up")
			s.simulate(forever)
			s.configure(onBridge)
			s.start()
			s.awaitHealthy()
			old := s.hostAddress(pool, "preferred", preferred)
			s.reach()
			before, was := s.kernelText(), s.router.LinkLocal("br0")

			s.router.IP("link del lan0")
			if c.downUp {
				s.router.IP("link set br0 down")
			}
			plug("02:00:00:00:02:77")
			if c.downUp {
				s.router.IP("link set br0 up")
			}
			s.asBefore(before, "the NIC behind the bridge is another one")
			if now := s.hostAddress(pool, "preferred", preferred); now.Local != old.Local {
				t.Errorf("the host had %v and has %v", old.Local, now.Local)
			}
			if now := s.router.LinkLocal("br0"); (now != was) != c.downUp {
				t.Errorf("the link-local address was %s and is %s", was, now)
			}
			s.quiet()
		})
	}
}

// TestLateDownstream starts without the interface of a downstream.
func TestLateDownstream(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	s.router.IP("link del lan0")
	s.simulate(forever)
	s.configure(prompt)
	s.start()
	s.delegation(pool)
	s.problem("interface lan0 does not exist")

	began := time.Now()
	s.connectHost()
	s.eventually("an address on lan0", func() (bool, string) { return len(addresses(s.router, "lan0")) > 0, "none" })
	t.Logf("%7.1f ms from before lan0 was made until it was numbered", time.Since(began).Seconds()*1000)
	st := s.awaitHealthy()
	if len(st.Problems) > 0 {
		t.Errorf("problems: %v", st.Problems)
	}
	s.hostAddress(pool, "preferred", preferred)
	s.reach()

	late := s.kernelText()
	s.end(15)
	s.start()
	s.asBefore(late, "a restart with the interface there from the start")
}

// TestDownstreamLink makes the interface of a downstream anew and renames it.
func TestDownstreamLink(t *testing.T) {
	t.Parallel()
	s, v := bound(t, forever, prompt)
	before, seen := s.kernelText(), v.Counts().Seen

	s.router.IP("link del lan0")
	s.connectHost() // at once: the daemon need never have seen a moment without it
	s.asBefore(before, "lan0 deleted and made anew")

	// Within a few milliseconds, all by one process.
	s.ipBatch("link del lan0", "link add lan0 address 02:00:00:00:02:01 type veth peer name peer0 address 02:00:00:00:02:02", "link set lan0 up")
	s.router.IP("link set peer0 netns %s name eth0", s.host.Path())
	s.host.IP("link set eth0 up")
	s.asBefore(before, "lan0 deleted and made anew by one process")

	s.rename("lan0", "old0")
	s.problem("interface lan0 does not exist")
	s.nothingOn("old0")
	s.rename("old0", "lan0")
	s.asBefore(before, "lan0 renamed and back")

	// The kernel keeps permanent addresses while an interface is down for its new name.
	s.router.Sysctl("net.ipv6.conf.lan0.keep_addr_on_down", "1")
	s.rename("lan0", "old0")
	s.problem("interface lan0 does not exist")
	s.nothingOn("old0")
	s.rename("old0", "lan0")
	s.asBefore(before, "lan0 renamed and back, with keep_addr_on_down")

	// Another interface takes over the name, while the one that had it lives on.
	s.rename("lan0", "old0")
	s.router.IP("link set old0 nomaster")
	s.lab.Veth(s.router, "lan0", s.host, "eth1", "02:00:00:00:02:03", "02:00:00:00:02:04")
	s.eventually("an address on the new lan0", func() (bool, string) { return len(addresses(s.router, "lan0")) > 0, "none" })
	s.nothingOn("old0")
	s.awaitHealthy()
	s.eventually("an address on the host's new link", func() (bool, string) {
		list := addresses(s.host, "eth1")
		return slices.ContainsFunc(list, preferred), fmt.Sprint(list)
	})
	if text := s.kernelText(); text != before {
		t.Errorf("another interface took the name lan0; want\n%shave\n%s", before, text)
	}
	if now := v.Counts().Seen; now[pd.Solicit] != seen[pd.Solicit] || now[pd.Rebind] != seen[pd.Rebind] {
		t.Errorf("changes on the LAN were seen by the provider: %v, before %v", now, seen)
	}
}

// ipBatch has one ip(8) on the router do several things.
func (s *site) ipBatch(lines ...string) {
	s.t.Helper()
	s.router.Run("ip", "-batch", s.write("batch", strings.Join(lines, "\n")+"\n"))
}

// TestDownDuringRenumbering has the interface of a downstream go down and up while the provider renumbers: in between, shortly
// before, and until after. Hosts use the new prefix then and hear that the old one is over, and nothing of it is left.
func TestDownDuringRenumbering(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(s *site, renumber func())
	}{
		{"down and up at once", func(s *site, renumber func()) { renumber(); s.ipBatch("link set lan0 down", "link set lan0 up") }},
		{"down before, up after", func(s *site, renumber func()) { s.away("lan0"); renumber(); s.router.IP("link set lan0 up") }},
		{"down and up before", func(s *site, renumber func()) { s.ipBatch("link set lan0 down", "link set lan0 up"); renumber() }},
		{"made anew", func(s *site, renumber func()) { s.router.IP("link del lan0"); renumber(); s.connectHost() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, v := bound(t, forever, prompt)
			was := s.delegation(pool).Prefix
			c.do(s, func() {
				if err := v.Renumber(netip.MustParsePrefix(newPool), 0); err != nil {
					t.Fatal(err)
				}
				s.renew()
				s.delegation(newPool)
			})
			s.awaitHealthy()
			s.hostAddress(newPool, "preferred", preferred)
			s.eventually("nothing of "+was.String()+" to be preferred on the host", func() (bool, string) {
				list := addresses(s.host, "eth0")
				return !slices.ContainsFunc(list, func(a address) bool { return was.Contains(a.Local) && preferred(a) }), fmt.Sprint(list)
			})
			s.reach()
			for _, line := range strings.Split(s.rowsOf(was), "\n") { // hosts may have addresses of it yet, which are answered
				if strings.HasPrefix(line, was.Addr().String()) && strings.Contains(line, "valid_lft") {
					t.Errorf("the router still has %s", line)
				}
			}
		})
	}
}

// rename gives an interface of the router another name, for which it has to be down.
func (s *site) rename(from, to string) {
	s.t.Helper()
	s.router.IP("link set %s down", from)
	s.router.IP("link set %s name %s", from, to)
	s.router.IP("link set %s up", to)
}

// nothingOn waits until no object of uplinkd's is left on an interface that is none of its business any more.
func (s *site) nothingOn(dev string) {
	s.t.Helper()
	s.eventually("nothing of uplinkd's on "+dev, func() (bool, string) {
		text := s.kernelText()
		return !strings.Contains(text, "dev "+dev), text
	})
}

// TestUplinkLink makes the interface of an uplink anew and renames it. The lease outlives that: the provider is asked
// whether it still holds (Rebind, RFC 9915 §18.2.12), by the same client with the same IAID.
func TestUplinkLink(t *testing.T) {
	t.Parallel()
	s, v := bound(t, forever, prompt)
	before, bindings := s.kernelText(), v.Bindings()
	if len(bindings) != 1 {
		t.Fatalf("bindings: %v", bindings)
	}
	check := func(what string, rebinds int) {
		t.Helper()
		s.awaitSeen(v, pd.Rebind, rebinds)
		s.asBefore(before, what)
		if now := v.Bindings(); !slices.EqualFunc(now, bindings, func(a, b isp.Binding) bool {
			return a.ClientID.String() == b.ClientID.String() && a.IAID == b.IAID && a.Prefix == b.Prefix
		}) {
			t.Errorf("%s: bindings were %v and are %v", what, bindings, now)
		}
		if seen := v.Counts().Seen; seen[pd.Solicit] != 1 || seen[pd.Release] != 0 {
			t.Errorf("%s: the provider has seen %v, want no new Solicit", what, seen)
		}
	}

	remake := func(between func()) {
		v.stop()
		s.router.IP("link del wan0")
		between()
		s.connectUplink()
		s.route(pool)
		v.open()
	}
	remake(func() {
		s.missing("wan0")
		if st := s.statusNow(); st.Uplinks[0].Up || len(st.Uplinks[0].Delegations) != 1 {
			t.Errorf("without wan0: %+v", st.Uplinks[0])
		}
	})
	check("wan0 deleted and made anew", 1)

	s.rename("wan0", "old0")
	s.missing("wan0")
	s.nothingOn("old0")
	s.rename("old0", "wan0")
	check("wan0 renamed and back", 2)

	remake(func() {}) // the daemon need never have seen a moment without it
	check("wan0 deleted and made anew at once", 3)
}
