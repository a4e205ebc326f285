package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"uplinkd/internal/netlab"
	"uplinkd/pd"
)

const dnsServer = "2001:db8:ffff::53" // that all servers here tell of

// with is prompt with more keys of the uplink.
func with(keys string) string { return strings.Replace(prompt, "wan0\"\n", "wan0\"\n"+keys+"\n", 1) }

// TestAddressAlways refuses offers without an address, and takes what it is offered when the server has one.
func TestAddressAlways(t *testing.T) {
	t.Parallel()
	forServers(t, func(t *testing.T, v server) {
		s := newSite(t, false)
		without := long
		without.addresses = false
		p := v.start(s, without)
		w := s.witness()
		s.configure(with(`dhcpv6.address = "always"`))
		s.start()
		s.awaitSeen(w, pd.Solicit, 3)
		s.holds(onLAN(nil))
		if seen := w.Counts().Seen; seen[pd.Request] > 0 {
			t.Errorf("the client has taken an offer without an address: %v", seen)
		}
		s.eventually("status to say that there is no prefix", func() (bool, string) {
			out, _, _ := s.run("status")
			return strings.HasPrefix(out, "NO PREFIX:"), out
		})
		_ = p.Stop() // some end with another status than 0
		v.start(s, long)
		addresses, delegations := s.awaitHeld(1, 1)
		s.holds(onLAN(addresses, delegations...))
		s.reach()
		w.asks(t, pd.Request, 1, 1)
		w.noStorm(t, 12)
	})
}

// forStatelessServers runs a test against servers that tell of a name server and have nothing to lease.
func forStatelessServers(t *testing.T, test func(t *testing.T, start func(s *site))) {
	t.Run("Kea", func(t *testing.T) {
		netlab.NeedProgram(t, "kea-dhcp6", "kea-dhcp6-server")
		t.Parallel()
		test(t, func(s *site) { startKea(s, offer{preferred: 300, valid: 400, t1: 100, t2: 200}) })
	})
	t.Run("dnsmasq", func(t *testing.T) {
		netlab.NeedProgram(t, "dnsmasq", "dnsmasq-base")
		t.Parallel()
		test(t, func(s *site) {
			p := s.isp.Start(s.isp.Command(t.Context(), "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root",
				"--interface=up0", "--bind-interfaces", "--log-dhcp", "--log-facility=-", "--dhcp-range=2001:db8:1:1::,static,64",
				"--dhcp-option=option6:dns-server,["+dnsServer+"]", "--dhcp-leasefile="+s.dir+"/dnsmasq.leases", "--pid-file="+s.dir+"/dnsmasq.pid"))
			s.listening(p, "[::]")
		})
	})
}

// awaitDNS waits until status has the name server.
func (s *site) awaitDNS() {
	s.t.Helper()
	s.eventually("the name server in status", func() (bool, string) {
		got := s.uplink().DNS
		return slices.Equal(got, []netip.Addr{netip.MustParseAddr(dnsServer)}), fmt.Sprint(got)
	})
}

// TestStateless asks for name servers alone, also after a restart, and leaves the kernel as it is.
func TestStateless(t *testing.T) {
	t.Parallel()
	forStatelessServers(t, func(t *testing.T, start func(s *site)) {
		s := newSite(t, false)
		start(s)
		w := s.witness()
		s.configure(with("dhcpv6.prefixes = []\ndhcpv6.address = \"never\""))
		for n := range 2 {
			s.start()
			s.awaitSeen(w, pd.InformationRequest, n+1)
			s.awaitDNS()
			s.holds(onLAN(nil))
			s.end(syscall.SIGKILL)
		}
		if seen := w.Counts().Seen; len(seen) != 1 || seen[pd.InformationRequest] != 2 {
			t.Errorf("the client has sent %v, want two Information-requests and nothing else", seen)
		}
	})
}

// TestStatelessMeanwhile has a server without prefixes tell of its name server, while the client goes on asking for one.
func TestStatelessMeanwhile(t *testing.T) {
	netlab.NeedProgram(t, "kea-dhcp6", "kea-dhcp6-server")
	t.Parallel()
	s := newSite(t, false)
	nothing := long
	nothing.pool, nothing.addresses = "", false
	p := startKea(s, nothing)
	w := s.witness()
	s.configure(prompt)
	s.start()
	s.awaitSeen(w, pd.InformationRequest, 1)
	s.awaitDNS()
	s.holds(onLAN(nil))
	if err := p.Stop(); err != nil {
		t.Logf("Kea ended with %v", err)
	}
	startKea(s, long)
	addresses, delegations := s.awaitHeld(1, 1)
	s.awaitDNS()
	s.holds(onLAN(addresses, delegations...))
	s.reach()
}

// TestConfirm restarts a client that holds addresses only: it asks whether they still fit the link (RFC 9915 §18.2.12).
func TestConfirm(t *testing.T) {
	t.Parallel()
	forAddressServers(t, func(t *testing.T, start func(s *site)) {
		s := newSite(t, false)
		start(s)
		w := s.witness()
		s.configure(with("dhcpv6.prefixes = []"))
		s.start()
		addresses, _ := s.awaitHeld(1, 0)
		s.holds(onLAN(addresses))
		log := subscribe(t, s.router)
		s.end(syscall.SIGKILL)
		s.start()
		s.awaitSeen(w, pd.Confirm, 1)
		s.eventually("the addresses to be confirmed", func() (bool, string) {
			c := s.uplink().Client
			return c.State == "bound" && c.Failure == "", c.State + " " + c.Failure
		})
		s.holds(onLAN(addresses))
		s.pingsFrom(addresses[0])
		for _, g := range gone(log.take()) {
			t.Errorf("by the restart: %s", g.Text)
		}
		seen := w.Counts().Seen
		if seen[pd.Solicit] != 1 || seen[pd.Confirm] != 1 || seen[pd.Rebind] != 0 {
			t.Errorf("the client has sent %v, want one Solicit, one Confirm and no Rebind", seen)
		}
	})
}

const dhcp6sConfig = `option domain-name-servers %s;
host router1 {
  duid 00:03:00:01:02:00:00:00:01:01;
  prefix 2001:db8:1100:aa00::/56 300 400;
};
interface up0 { allow rapid-commit; };
`

// startDhcp6s starts the server of wide-dhcpv6, which knows its clients by their DUIDs.
func startDhcp6s(s *site) *netlab.Process {
	s.t.Helper()
	path := s.write("dhcp6s.conf", fmt.Sprintf(dhcp6sConfig, dnsServer))
	// Its own DUID is a file in a directory that it does not let be chosen.
	p := s.isp.Start(s.isp.Command(s.t.Context(), "unshare", "-m", "sh", "-c",
		"mount -t tmpfs tmpfs /var/lib/dhcpv6 && exec dhcp6s -f -D -c "+path+" -P "+s.dir+"/dhcp6s.pid up0"))
	s.listening(p, "[::]")
	return p
}

// TestWide is the life of a lease with the server of wide-dhcpv6, in two and in four messages, to its Release.
func TestWide(t *testing.T) {
	t.Parallel()
	for name, rapid := range map[string]bool{"two messages": true, "four messages": false} {
		t.Run(name, func(t *testing.T) {
			netlab.NeedProgram(t, "dhcp6s", "wide-dhcpv6-server")
			netlab.NeedProgram(t, "unshare", "util-linux")
			t.Parallel()
			s := newSite(t, false)
			p := startDhcp6s(s)
			w := s.witness()
			s.configure(with(fmt.Sprintf("dhcpv6.duid = \"0x00030001020000000101\"\ndhcpv6.rapid_commit = %v\ndhcpv6.release = true", rapid)))
			s.start()
			_, delegations := s.awaitHeld(0, 1)
			if delegations[0] != netip.MustParsePrefix("2001:db8:1100:aa00::/56") {
				t.Errorf("delegated %v", delegations)
			}
			s.awaitDNS()
			s.holds(onLAN(nil, delegations...))
			s.hostAddress(pool, "preferred", preferred)
			s.reach()

			log := subscribe(t, s.router)
			s.renew()
			s.awaitSeen(w, pd.Renew, 1)
			s.eventually("the Renew to be answered", func() (bool, string) {
				c := s.uplink().Client
				return c.State == "bound" && c.Failure == "", c.State + " " + c.Failure
			})
			s.holds(onLAN(nil, delegations...))
			for _, g := range gone(log.take()) {
				t.Errorf("by the Renew: %s", g.Text)
			}

			s.end(syscall.SIGTERM)
			s.holds(onLAN(nil))
			// The server knows nothing of addresses: for the one that the Renew asks for too it has NoBinding, and that asks
			// for a Request (RFC 9915 §18.2.10.1).
			want := map[pd.MessageType]int{pd.Solicit: 1, pd.Renew: 1, pd.Request: 1, pd.Release: 1}
			if !rapid {
				want[pd.Request]++
			}
			seen := w.Counts().Seen
			delete(seen, pd.InformationRequest)
			if fmt.Sprint(seen) != fmt.Sprint(want) {
				t.Errorf("the client has sent %v, want %v", seen, want)
			}
			if out := p.Output(); !strings.Contains(strings.ToLower(out), "release") {
				t.Errorf("dhcp6s says nothing of a Release:\n%s", out)
			}
		})
	}
}
