package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"uplinkd/contrib/anyip"
	"uplinkd/internal/ctl"
	"uplinkd/internal/netlab"
)

const servicePort, otherPort uint16 = 8080, 8081
const byInterface = "\n[downstream.trap]\nkind = \"service\"\ninterface = \"wan0\"\nanyip.mode = \"interface\"\n"

// serveTCP is a TCP server on [::] that says in which namespace it is and which address it was asked for.
func (s *site) serveTCP(ns *netlab.NS, port uint16) {
	s.t.Helper()
	var l net.Listener
	if err := ns.Do(func() (err error) { l, err = net.Listen("tcp6", fmt.Sprintf("[::]:%d", port)); return err }); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			_, _ = io.WriteString(c, ns.Name+" "+c.LocalAddr().(*net.TCPAddr).IP.String())
			_ = c.Close()
		}
	}()
}

// serveUDP is a UDP server on [::] that answers from the address it was asked for.
func (s *site) serveUDP(ns *netlab.NS, port uint16) {
	s.t.Helper()
	var u *anyip.UDPConn
	if err := ns.Do(func() (err error) { u, err = anyip.ListenUDP(s.t.Context(), fmt.Sprintf("[::]:%d", port)); return err }); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = u.Close() })
	go func() {
		var b [1]byte
		for _, client, asked, err := u.ReadFrom(b[:]); err == nil; _, client, asked, err = u.ReadFrom(b[:]) {
			_, _ = u.WriteTo(b[:], client, asked)
		}
	}()
}

// askTCP is what a server tells a client in ns.
func askTCP(ns *netlab.NS, to netip.Addr, port uint16) (string, error) {
	var b []byte
	err := ns.Do(func() error {
		c, err := (&net.Dialer{Timeout: limit}).Dial("tcp6", netip.AddrPortFrom(to, port).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(limit))
		b, err = io.ReadAll(c)
		return err
	})
	return string(b), err
}

// askUDP asks by a socket that takes an answer from any address, and returns where the answer is from.
func askUDP(ns *netlab.NS, to netip.Addr, port uint16) (from netip.Addr, err error) {
	err = ns.Do(func() error {
		c, err := net.ListenUDP("udp6", nil)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(limit))
		if _, err = c.WriteToUDPAddrPort([]byte("?"), netip.AddrPortFrom(to, port)); err != nil {
			return err
		}
		_, source, err := c.ReadFromUDPAddrPort(make([]byte, 1))
		from = source.Addr()
		return err
	})
	return from, err
}

// wantTCP waits until the server in the namespace by answers a client in ns on an address.
func (s *site) wantTCP(ns *netlab.NS, to netip.Addr, port uint16, by *netlab.NS) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%s to answer %s on [%s]:%d", by.Name, ns.Name, to, port), func() (bool, string) {
		got, err := askTCP(ns, to, port)
		return err == nil && got == by.Name+" "+to.String(), fmt.Sprint(got, err)
	})
}

// wantNobody fails the test unless a client in ns is told that an address is not reachable.
func (s *site) wantNobody(ns *netlab.NS, to netip.Addr, port uint16) {
	s.t.Helper()
	got, err := askTCP(ns, to, port)
	if !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.EACCES) {
		s.t.Errorf("%s asked [%s]:%d, answer %q, %v, want it to be unreachable", ns.Name, to, port, got, err)
	}
}

// wantWhole asks a hundred addresses of a service's prefix by TCP and UDP from both sides of the router.
func (s *site) wantWhole(p netip.Prefix) {
	s.t.Helper()
	for _, client := range []*netlab.NS{s.host, s.far} {
		s.wantTCP(client, anyip.Random(p), servicePort, s.router)
		for range 100 {
			a := anyip.Random(p)
			if got, err := askTCP(client, a, servicePort); got != s.router.Name+" "+a.String() || err != nil {
				s.t.Fatalf("%s asked %s by TCP, answer %q, %v", client.Name, a, got, err)
			}
			if from, err := askUDP(client, a, servicePort); from != a || err != nil {
				s.t.Fatalf("%s asked %s by UDP, answer from %s, %v", client.Name, a, from, err)
			}
		}
	}
}

// subnetOf waits for the subnet of a downstream inside within.
func (s *site) subnetOf(downstream, within string) (found netip.Prefix) {
	s.t.Helper()
	s.eventually("a subnet of "+downstream+" from "+within, func() (bool, string) {
		st, err := s.status()
		for _, d := range st.Downstreams {
			i := slices.IndexFunc(d.Subnets, func(n ctl.Subnet) bool { return n.State == "preferred" && inside(within, n.Prefix.Addr()) })
			if d.Name == downstream && i >= 0 {
				found = d.Subnets[i].Prefix
			}
		}
		return found.IsValid(), fmt.Sprint(st.Summary, err)
	})
	return found
}

// TestServiceSubnet has a service answer on all of its subnet, and after a renumbering on all of the new one and the old one.
func TestServiceSubnet(t *testing.T) {
	for _, length := range []int{64, 80} {
		t.Run(fmt.Sprintf("length %d", length), func(t *testing.T) {
			t.Parallel()
			s, v := bound(t, forever, fmt.Sprintf("%s\n[downstream.hosting]\nkind = \"service\"\nlength = %d\n", prompt, length))
			s.serveTCP(s.router, servicePort)
			s.serveUDP(s.router, servicePort)
			old := s.subnetOf("hosting", pool)
			if old.Bits() != length {
				t.Errorf("the service has %s, want a /%d", old, length)
			}
			s.wantWhole(old)
			if err := v.Renumber(netip.MustParsePrefix(newPool), 1000); err != nil {
				t.Fatal(err)
			}
			s.renew()
			s.wantWhole(s.subnetOf("hosting", newPool))
			s.wantWhole(old)
		})
	}
}

// shared is a site with two networks and a service without a subnet. The router and a host of each have the same servers.
type shared struct {
	*site
	guest                       *netlab.NS
	hostAddr, guestAddr, unused netip.Addr // the last one of the delegation, and nobody's
}

func newShared(t *testing.T, service string) *shared {
	t.Helper()
	s := &shared{site: newSite(t, false)}
	s.guest = s.lab.NS("guest")
	s.guest.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	s.lab.Veth(s.router, "lan1", s.guest, "eth0", "02:00:00:00:03:01", "02:00:00:00:03:02")
	s.router.LinkLocal("lan1")
	s.simulate(forever)
	s.configure(prompt + "\n[downstream.guest]\ninterface = \"lan1\"\n" + service)
	s.start()
	s.hostAddr = s.hostAddress(pool, "preferred", preferred).Local
	s.eventually("an address of the guest", func() (bool, string) {
		s.guestAddr = append(addresses(s.guest, "eth0"), address{})[0].Local
		return s.guestAddr.IsValid(), ""
	})
	for _, ns := range []*netlab.NS{s.router, s.host, s.guest} {
		s.serveTCP(ns, servicePort)
		s.serveTCP(ns, otherPort)
	}
	lan, guest := s.subnetOf("lan", pool), s.subnetOf("guest", pool)
	for !s.unused.IsValid() || lan.Contains(s.unused) || guest.Contains(s.unused) {
		s.unused = anyip.Random(s.delegation(pool).Prefix)
	}
	return s
}

// wantOwners asks what has an owner from afar: it is for the owner, and was so from the first packet.
func (s *shared) wantOwners() {
	s.t.Helper()
	for _, port := range []uint16{servicePort, otherPort} {
		for owner, a := range map[*netlab.NS]netip.Addr{s.host: s.hostAddr, s.guest: s.guestAddr} {
			if got, err := askTCP(s.far, a, port); got != owner.Name+" "+a.String() || err != nil {
				s.t.Errorf("[%s]:%d of %s asked from afar, answer %q, %v", a, port, owner.Name, got, err)
			}
		}
	}
}

// TestServiceByInterface has the router take what comes from the provider for addresses that nobody has, and nothing else.
func TestServiceByInterface(t *testing.T) {
	t.Parallel()
	s := newShared(t, byInterface+"anyip.unfiltered = true\n")
	s.awaitHealthy()
	s.wantTCP(s.far, s.unused, servicePort, s.router)
	s.wantTCP(s.far, s.unused, otherPort, s.router)
	s.wantOwners()
	s.wantNobody(s.host, s.unused, servicePort) // it comes in elsewhere
}

// TestServiceUnfiltered has no filter for what comes in: the service is not there until there is one.
func TestServiceUnfiltered(t *testing.T) {
	t.Parallel()
	s := newShared(t, byInterface)
	var st ctl.Status
	s.eventually("the problem unfiltered-uplink", func() (bool, string) {
		st = s.statusNow()
		return slices.ContainsFunc(st.Problems, func(p ctl.Problem) bool { return p.Code == "unfiltered-uplink" }), fmt.Sprint(st.Problems)
	})
	if !slices.ContainsFunc(st.Downstreams, func(d ctl.Downstream) bool { return d.AnyIP != nil && !d.AnyIP.Armed }) {
		t.Error("armed although nothing filters what comes in")
	}
	s.wantOwners()
	s.wantNobody(s.far, s.unused, servicePort)
	netlab.NeedProgram(t, "nft", "nftables")
	s.router.Run("nft", "add table inet theirs; add chain inet theirs input { type filter hook input priority 0; }; add rule inet theirs input meta l4proto sctp drop")
	s.hangup()
	s.awaitHealthy()
	s.wantTCP(s.far, s.unused, servicePort, s.router)
	s.wantOwners()
}

// TestServiceByMark has the router take one port of the addresses that nobody has.
func TestServiceByMark(t *testing.T) {
	t.Parallel()
	s := newShared(t, fmt.Sprintf("\n[downstream.web]\nkind = \"service\"\ninterface = \"wan0\"\nanyip = { mode = \"mark\", ports = [\"tcp/%d\"] }\n", servicePort))
	s.awaitHealthy()
	s.wantTCP(s.far, s.unused, servicePort, s.router)
	s.wantNobody(s.far, s.unused, otherPort)
	s.wantOwners()
}
