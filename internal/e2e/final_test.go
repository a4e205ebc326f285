package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"uplinkd/internal/netlab"
)

// guestNS is a host on lan1.
func (s *site) guestNS() *netlab.NS {
	g := s.lab.NS("guest")
	g.Sysctl("net.ipv6.conf.all.accept_dad", "0")
	g.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	s.lab.Veth(s.router, "lan1", g, "eth0")
	s.router.LinkLocal("lan1")
	return g
}

// awaitAddresses waits until the host on lan1 has an address, and of all that it has preferred is what is wanted.
func (s *site) awaitAddresses(g *netlab.NS, preferred bool) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("addresses on the guest host with preferred = %v", preferred), func() (bool, string) {
		list, some := addresses(g, "eth0"), false
		for _, a := range list {
			some = some || !a.Deprecated
		}
		return len(list) > 0 && some == preferred, output(g, "ip", "-6", "addr", "show", "dev", "eth0") + s.daemon.Output()
	})
}

// TestNetworkEndsByReload makes something else of a network: its hosts are told each time that it is over.
func TestNetworkEndsByReload(t *testing.T) {
	t.Parallel()
	s, _ := bound(t, forever, prompt)
	g := s.guestNS()
	for _, kind := range []string{"kind = \"service\"\n", "kind = \"reserve\"\n", "kind = \"service\"\n", "kind = \"transit\"\ninterface = \"lan1\"\n"} {
		s.configure(prompt + "[downstream.x]\ninterface = \"lan1\"\n")
		s.hangup()
		s.awaitAddresses(g, true)
		s.configure(prompt + "[downstream.x]\n" + kind)
		s.hangup()
		s.awaitAddresses(g, false)
	}
}

// TestNetworksSwappedWhileStopped has two networks change interfaces while no daemon runs: hosts are told that what they have is
// over, and go on with what is theirs now.
func TestNetworksSwappedWhileStopped(t *testing.T) {
	t.Parallel()
	s, _ := bound(t, forever, prompt)
	g := s.guestNS()
	networks := strings.NewReplacer("lan0", "lan1", "downstream.lan", "downstream.guest").Replace(prompt[strings.Index(prompt, "[downstream."):])
	both := prompt + networks
	s.configure(both)
	s.hangup()
	s.awaitAddresses(g, true)
	mine, old := s.hostAddress(pool, "p", preferred), addresses(g, "eth0")[0]
	s.end(syscall.SIGTERM)
	s.configure(strings.NewReplacer("lan0", "lan1", "lan1", "lan0").Replace(both))
	s.start()
	for _, h := range []struct {
		ns  *netlab.NS
		old string
	}{{s.host, mine.Local.String()}, {g, old.Local.String()}} {
		s.eventually(h.old+" to be deprecated beside another address", func() (bool, string) {
			over, other := false, false
			for _, a := range addresses(h.ns, "eth0") {
				over = over || a.Deprecated && a.Local.String() == h.old
				other = other || !a.Deprecated && a.Local.String() != h.old
			}
			return over && other, output(h.ns, "ip", "-6", "addr", "show", "dev", "eth0") + s.daemon.Output()
		})
	}
	s.reach()
}
