package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/internal/netlab"
	"uplinkd/pd"
)

// long is an offer of which nothing is over in the time of a test.
var long = offer{pool: pool, preferred: 300, valid: 400, t1: 100, t2: 200, addresses: true}

// TestAddressAndPrefix has servers of other people lease an address and delegate a prefix.
func TestAddressAndPrefix(t *testing.T) {
	t.Parallel()
	forServers(t, func(t *testing.T, v server) {
		s := newSite(t, true)
		v.start(s, long)
		w := s.witness()
		s.configure(prompt)
		s.start()
		addresses, delegations := s.awaitHeld(1, 1)
		if !inside(leased, addresses[0]) || !inside(pool, delegations[0].Addr()) {
			t.Errorf("leased %v, delegated %v", addresses, delegations)
		}
		s.holds(onLAN(addresses, delegations...))
		s.wanLifetimes(addresses[0], 300, 400)
		s.reach()
		s.pingsFrom(addresses[0])

		s.renew()
		s.awaitSeen(w, pd.Renew, 1)
		s.awaitHealthy()
		s.holds(onLAN(addresses, delegations...))

		// The client verifies what it has after a restart; the servers keep it.
		s.end(9)
		s.start()
		s.awaitHealthy()
		s.holds(onLAN(addresses, delegations...))
		w.noStorm(t, 6)
	})
}

// wanLifetimes checks an address of wan0 in the eyes of ip(8).
func (s *site) wanLifetimes(a netip.Addr, preferred, valid uint32) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%s to be usable on wan0", a), func() (bool, string) {
		list := addresses(s.router, "wan0")
		return slices.ContainsFunc(list, func(k address) bool {
			return k.Local == a && k.Bits == 128 && k.Preferred <= preferred && k.Preferred > preferred-30 && k.Valid <= valid && k.Valid > valid-30
		}), fmt.Sprint(list)
	})
}

// pingsFrom has the router speak to the server behind the provider from an address of its own.
func (s *site) pingsFrom(a netip.Addr) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("an answer from %s to %s", farAddress, a), func() (bool, string) {
		out := output(s.router, "ping", "-6", "-n", "-c", "1", "-W", "1", "-I", a.String(), farAddress)
		return strings.Contains(out, " 1 received"), out
	})
}

// TestPrefixWithoutAddress asks servers without addresses for both.
func TestPrefixWithoutAddress(t *testing.T) {
	t.Parallel()
	forServers(t, func(t *testing.T, v server) {
		s := newSite(t, false)
		o := long
		o.addresses = false
		v.start(s, o)
		w := s.witness()
		s.configure(prompt)
		s.start()
		_, delegations := s.awaitHeld(0, 1)
		s.awaitHealthy()
		s.holds(onLAN(nil, delegations...))
		s.reach()
		w.asks(t, pd.Solicit, 1, 1)
		w.noStorm(t, 4)
	})
}

// asks checks how many IAs of each kind the last message of a type had.
func (v *simulated) asks(t *testing.T, typ pd.MessageType, nas, pds int) {
	t.Helper()
	var last pd.Message
	netlab.Eventually(t, 10*time.Second, "a "+typ.String()+" in the provider's record, which it writes after it has counted", func() (bool, string) {
		for _, e := range slices.Backward(v.Exchanges()) {
			if e.Request.Type == typ {
				last = e.Request
				return true, ""
			}
		}
		return false, "none"
	})
	if len(last.IANAs) != nas || len(last.IAPDs) != pds {
		t.Errorf("the last %s has %d IA_NA and %d IA_PD, want %d and %d", typ, len(last.IANAs), len(last.IAPDs), nas, pds)
	}
}

// startDnsmasq starts a server that leases addresses and cannot do anything else.
func startDnsmasq(s *site) *netlab.Process {
	s.t.Helper()
	p := s.isp.Start(s.isp.Command(s.t.Context(), "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
		"--user=root", "--interface=up0", "--bind-interfaces", "--dhcp-authoritative", "--log-dhcp", "--log-facility=-",
		"--dhcp-range="+leasedFirst+","+leasedLast+",64,10m", "--dhcp-leasefile="+s.dir+"/dnsmasq.leases", "--pid-file="+s.dir+"/dnsmasq.pid"))
	s.listening(p, "[::]")
	return p
}

// TestAddressWithoutPrefix gets an address and no prefix. That is a problem to be seen, and the client goes on asking.
func TestAddressWithoutPrefix(t *testing.T) {
	t.Parallel()
	forAddressServers(t, func(t *testing.T, start func(s *site)) {
		s := newSite(t, false)
		start(s)
		w := s.witness()
		s.configure(prompt)
		s.start()
		addresses, _ := s.awaitHeld(1, 0)
		if !inside(leased, addresses[0]) {
			t.Errorf("leased %v", addresses)
		}
		s.holds(onLAN(addresses))
		s.pingsFrom(addresses[0])
		s.eventually("status to say that there is no prefix", func() (bool, string) {
			out, _, _ := s.run("status")
			return strings.HasPrefix(out, "NO PREFIX:") && strings.Contains(out, "fiber has no prefix"), out
		})
		s.renew()
		s.awaitSeen(w, pd.Renew, 1)
		w.asks(t, pd.Renew, 1, 1)
		s.eventually("the Renew to be answered", func() (bool, string) {
			c := s.uplink().Client
			return c.State == "bound", c.State
		})
		s.holds(onLAN(addresses))
		w.noStorm(t, 5)
	})
}

func forAddressServers(t *testing.T, test func(t *testing.T, start func(s *site))) {
	t.Run("Kea", func(t *testing.T) {
		netlab.NeedProgram(t, "kea-dhcp6", "kea-dhcp6-server")
		t.Parallel()
		o := long
		o.pool = ""
		test(t, func(s *site) { startKea(s, o) })
	})
	t.Run("dnsmasq", func(t *testing.T) {
		netlab.NeedProgram(t, "dnsmasq", "dnsmasq-base")
		t.Parallel()
		test(t, func(s *site) { startDnsmasq(s) })
	})
}

// withAddresses is cfg of a provider that leases addresses too.
func withAddresses(cfg isp.Config) isp.Config {
	cfg.Addresses = netip.MustParsePrefix("2001:db8:1:1::/64")
	return cfg
}

// TestAddressNever does not ask, even of a provider that has addresses.
func TestAddressNever(t *testing.T) {
	t.Parallel()
	s, v := bound(t, withAddresses(isp.Config{}), strings.Replace(prompt, "wan0\"\n", "wan0\"\ndhcpv6.address = \"never\"\n", 1))
	addresses, delegations := s.held()
	s.holds(onLAN(addresses, delegations...))
	if len(addresses) > 0 || len(v.Leases()) > 0 {
		t.Errorf("leased %v, %v", addresses, v.Leases())
	}
	v.asks(t, pd.Solicit, 0, 1)
}

// TestDuplicateAddress leases an address that somebody else on the link has. With lifetimes that end the kernel takes such
// an address away by itself, others it keeps.
func TestDuplicateAddress(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]isp.Config{"finite": {}, "forever": forever} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, true)
			v := s.simulate(withAddresses(cfg))
			var taken netip.Addr
			var fault error
			var once sync.Once
			v.Intercept(func(_ pd.Message, reply *pd.Message) bool {
				if len(reply.IANAs) > 0 && len(reply.IANAs[0].Addresses) > 0 {
					once.Do(func() {
						taken = reply.IANAs[0].Addresses[0].Address
						fault = s.isp.Command(t.Context(), "ip", "-6", "address", "add", taken.String()+"/128", "dev", "up0", "nodad").Run()
					})
				}
				return true
			})
			s.configure(prompt)
			s.start()
			s.awaitSeen(v, pd.Decline, 1)
			s.awaitSeen(v, pd.Renew, 1) // for another address
			addresses, delegations := s.awaitHeld(1, 1)
			v.Intercept(nil)
			if fault != nil || addresses[0] == taken {
				t.Errorf("has %v although %s was in use (%v)", addresses, taken, fault)
			}
			for _, e := range v.Exchanges() {
				if m := e.Request; m.Type == pd.Decline && (len(m.IAPDs) > 0 || len(m.IANAs) != 1 || m.IANAs[0].Addresses[0].Address != taken) {
					t.Errorf("declined: %+v, want %s alone", m, taken)
				}
			}
			s.pingsFrom(addresses[0])
			s.awaitHealthy()
			s.holds(onLAN(addresses, delegations...))
			v.noStorm(t, 8)
		})
	}
}
