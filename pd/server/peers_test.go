package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/netlab"
	"uplinkd/pd"
	pdclient "uplinkd/pd/client"
)

func TestMain(m *testing.M) { netlab.TestMain(m) }

const patience = 30 * time.Second

// site is a router with a server on tr0, and an inner router with wan0 there and a LAN of its own on lan0.
type site struct {
	t             *testing.T
	router, inner *netlab.NS
	pool          *pool
	server        *Server
	stop          func()
	dir           string // of files for peers

	mu    sync.Mutex
	saved []Client
}

func newSite(t *testing.T, service Service) *site {
	t.Helper()
	lab := netlab.New(t)
	s := &site{t: t, router: lab.NS("router"), inner: lab.NS("inner"), pool: newPool("2001:db8:1::/56"), dir: lab.Dir()}
	for _, ns := range []*netlab.NS{s.router, s.inner} {
		ns.Sysctl("net.ipv6.conf.all.accept_dad", "0")
		ns.Sysctl("net.ipv6.conf.default.accept_dad", "0")
		ns.Sysctl("net.ipv6.conf.all.forwarding", "1")
	}
	lab.Veth(s.router, "tr0", s.inner, "wan0", "02:00:00:00:01:01", "02:00:00:00:02:01")
	lab.Veth(s.inner, "lan0", lab.NS("host"), "eth0")
	s.inner.LinkLocal("wan0")
	s.start(service)
	return s
}

// start runs a server until stop or the end of the test.
func (s *site) start(service Service) {
	s.t.Helper()
	s.mu.Lock()
	saved := s.saved
	s.mu.Unlock()
	s.server = New(Config{Downstream: "inner", ServerID: routerID, Lender: s.pool, Saved: saved, Keep: s.keep,
		Logger: slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	s.server.SetLink(linkOf(s.t, s.router, "tr0"))
	s.server.Set(service)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.router.Do(func() error { return s.server.Run(ctx) }) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("Run: %v", err)
		}
	})
	s.t.Cleanup(s.stop)
}

func (s *site) keep(c []Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved = c
}

// linkOf is what a reader of the kernel would say of an interface.
func linkOf(t *testing.T, n *netlab.NS, name string) kernel.Link {
	t.Helper()
	l := kernel.Link{Name: name, Up: true, Carrier: true, LinkLocal: n.LinkLocal(name)}
	if err := n.Do(func() error {
		i, err := net.InterfaceByName(name)
		if err == nil {
			l.Index = i.Index
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return l
}

// file writes a file for a peer and returns its path.
func (s *site) file(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *site) run(name string, args ...string) *netlab.Process {
	s.t.Helper()
	return s.inner.Start(s.inner.Command(context.Background(), name, args...))
}

// addressOnLAN waits until the inner router's LAN has an address of the prefix.
func (s *site) addressOnLAN(prefix string) {
	s.t.Helper()
	p := netip.MustParsePrefix(prefix)
	netlab.Eventually(s.t, patience, "an address of "+prefix+" on the inner router's LAN", func() (bool, string) {
		out := s.inner.IP("-6 -o addr show dev lan0 scope global -deprecated")
		for _, word := range strings.Fields(out) {
			if a, err := netip.ParsePrefix(word); err == nil && p.Contains(a.Addr()) {
				return true, out
			}
		}
		return false, out + s.pool.lent()
	})
}

// often makes those who take no Reconfigure renew every five seconds.
func often() Service { s := told; s.Renew = 5; return s }

// dhcpcd starts a dhcpcd that gives lan0 a /64.
func (s *site) dhcpcd(options string) *netlab.Process {
	s.t.Helper()
	netlab.NeedProgram(s.t, "dhcpcd", "dhcpcd-base")
	conf := "duid\nipv6only\nnoipv6rs\nscript /bin/true\n" + options + "interface wan0\n  ia_pd 1 lan0/0/64\n"
	return s.run("dhcpcd", "-B", "-d", "-f", s.file("dhcpcd.conf", conf), "wan0")
}

// TestDhcpcd: addresses its LAN, and does it anew as soon as the Reconfigure says so, whose digest it has checked.
func TestDhcpcd(t *testing.T) {
	s := newSite(t, told)
	s.dhcpcd("option dhcp6_reconfigure_accept\n")
	s.addressOnLAN("2001:db8:1::/64")
	s.pool.renumber("2001:db8:2::/56")
	s.server.Changed()
	s.addressOnLAN("2001:db8:2::/64")
}

// TestDhcpcdHasTwo: prefixes of both delegations of a site, in one IA, the second after a Reconfigure.
func TestDhcpcdHasTwo(t *testing.T) {
	s := newSite(t, told)
	s.dhcpcd("option dhcp6_reconfigure_accept\n")
	s.addressOnLAN("2001:db8:1::/64")
	s.pool.add("2001:db8:2::/56")
	s.server.Changed()
	s.addressOnLAN("2001:db8:2::/64")
	s.addressOnLAN("2001:db8:1::/64")
}

// TestDhcpcdRestarts: it missed a renumbering while it was down, and starts with a Rebind of what it had. (One that holds a
// Reconfigure key forgets its lease and starts with a Solicit.)
func TestDhcpcdRestarts(t *testing.T) {
	s := newSite(t, told)
	p := s.dhcpcd("")
	s.addressOnLAN("2001:db8:1::/64")
	if err := p.Stop(); err != nil {
		t.Logf("dhcpcd: %v", err) // one of its processes may outlive the others until it is killed
	}
	s.pool.renumber("2001:db8:3::/56")
	s.dhcpcd("")
	s.addressOnLAN("2001:db8:3::/64")
	if last := s.pool.last(); last.Verb != Rebind {
		t.Errorf("dhcpcd has asked with %s", last.Verb)
	}
}

// TestDhclient: knows no Reconfigure, so it has to ask often.
func TestDhclient(t *testing.T) {
	netlab.NeedProgram(t, "dhclient", "isc-dhcp-client")
	s := newSite(t, often())
	script := s.file("script", `#!/bin/sh
[ "$old_ip6_prefix" ] && [ "$old_ip6_prefix" != "$new_ip6_prefix" ] && ip -6 address flush dev lan0 scope global
[ "$new_ip6_prefix" ] && exec ip -6 address replace "${new_ip6_prefix%::/*}::1/64" dev lan0
exit 0
`)
	leases := filepath.Join(s.dir, "leases")
	s.file("leases", "")
	s.run("dhclient", "-6", "-P", "-d", "-cf", s.file("conf", ""), "-lf", leases, "-pf", filepath.Join(s.dir, "pid"), "-sf", script, "wan0")
	s.addressOnLAN("2001:db8:1::/64")
	s.pool.renumber("2001:db8:2::/56")
	s.server.Changed()
	s.addressOnLAN("2001:db8:2::/64")
}

// TestDhclientStateless asks for nothing but information.
func TestDhclientStateless(t *testing.T) {
	netlab.NeedProgram(t, "dhclient", "isc-dhcp-client")
	s := newSite(t, serving(Stateless))
	script := s.file("script", "#!/bin/sh\necho \"told $new_dhcp6_name_servers $new_dhcp6_domain_search\"\n")
	s.file("leases", "")
	p := s.run("dhclient", "-6", "-S", "-d", "-cf", s.file("conf", ""), "-lf", filepath.Join(s.dir, "leases"), "-pf", filepath.Join(s.dir, "pid"), "-sf", script, "wan0")
	netlab.Eventually(t, patience, "DNS server and search domain", func() (bool, string) {
		out := p.Output()
		return strings.Contains(out, "told fd00::53 home.example"), out
	})
}

// TestWide: addresses its LAN, and gives back what it has got at the end.
func TestWide(t *testing.T) {
	netlab.NeedProgram(t, "dhcp6c", "wide-dhcpv6-client")
	s := newSite(t, told)
	conf := s.file("dhcp6c.conf", `interface wan0 { send ia-pd 0; request domain-name-servers; };
id-assoc pd 0 { prefix ::/60 infinity; prefix-interface lan0 { sla-id 1; sla-len 4; ifid 1; }; };
`)
	p := s.run("dhcp6c", "-f", "-D", "-c", conf, "-p", filepath.Join(s.dir, "pid"), "wan0")
	s.addressOnLAN("2001:db8:1:1::/64")
	if err := p.Stop(); err != nil {
		t.Logf("dhcp6c: %v", err)
	}
	netlab.Eventually(t, patience, "the Release", func() (bool, string) { return s.pool.count() == 0, s.pool.lent() })
}

// uplinkd runs this project's own client on the inner router.
func (s *site) uplinkd(t *testing.T, machine pd.Config) (c *pdclient.Client, latest func() pdclient.Update) {
	t.Helper()
	var mu sync.Mutex
	var last pdclient.Update
	c = pdclient.New(pdclient.Config{Uplink: "wan", Machine: machine, ReportAfter: time.Minute, Logger: slog.New(slog.DiscardHandler),
		Observe: func(u pdclient.Update) { mu.Lock(); defer mu.Unlock(); last = u }})
	c.SetLink(linkOf(t, s.inner, "wan0"))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.inner.Do(func() error { return c.Run(ctx) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("client: %v", err)
		}
	})
	return c, func() pdclient.Update { mu.Lock(); defer mu.Unlock(); return last }
}

// TestUplinkd: obtains, is reconfigured after a renumbering, by a restarted server too, and releases. Its lifetimes are
// long: without Reconfigure it would not hear of anything in time.
func TestUplinkd(t *testing.T) {
	s := newSite(t, told)
	c, latest := s.uplinkd(t, pd.Config{ClientID: innerID, PDs: []pd.PDConfig{{IAID: 7, Length: 60}}, Reconfigure: true, RapidCommit: true,
		ORO: []uint16{pd.OptDNSServers}})
	holds := func(want ...string) {
		t.Helper()
		netlab.Eventually(t, patience, fmt.Sprintf("a lease of %v", want), func() (bool, string) {
			u := latest()
			var has []string
			for _, p := range u.Lease.Prefixes {
				has = append(has, p.Prefix.String())
			}
			return slices.Equal(has, want), fmt.Sprintf("%v, %s %s; %s", has, u.State, u.Failure, s.pool.lent())
		})
	}
	holds("2001:db8:1::/60")
	if u := latest(); len(u.Lease.DNS) != 1 {
		t.Errorf("DNS servers %v", u.Lease.DNS)
	}
	s.pool.renumber("2001:db8:2::/56")
	s.server.Changed()
	holds("2001:db8:2::/60")

	s.stop()
	s.start(told)
	s.pool.add("2001:db8:3::/56")
	s.server.Changed()
	holds("2001:db8:2::/60", "2001:db8:3::/60")

	if err := c.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	netlab.Eventually(t, patience, "the Release", func() (bool, string) { return s.pool.count() == 0, s.pool.lent() })
}

// TestUplinkdStateless: DNS and no more.
func TestUplinkdStateless(t *testing.T) {
	s := newSite(t, serving(Stateless))
	_, latest := s.uplinkd(t, pd.Config{ClientID: innerID, Stateless: true, ORO: []uint16{pd.OptDNSServers, pd.OptNTPServer}})
	netlab.Eventually(t, patience, "DNS and NTP", func() (bool, string) {
		l := latest().Lease
		return len(l.DNS) == 1 && len(l.NTP) == 1, fmt.Sprintf("%+v", l.Info)
	})
}
