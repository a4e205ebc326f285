package e2e

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"uplinkd/internal/ctl"
	"uplinkd/internal/netlab"
)

// The tests of this file put another router behind the router: far - isp - router - inner - its host. The inner one gets
// its prefixes from the DHCPv6 server of the downstream.

// transit is a /60 for inner routers; withInner has a network on the link to them beside it.
const (
	transit = `
[downstream.transit]
interface = "lan1"
kind = "transit"
length = 60
`
	withInner = transit + `
[downstream.link]
interface = "lan1"
`
)

// nested is a site with an inner router, whose own site it is as well: its provider is the outer router.
type nested struct {
	*site
	inner *site
}

func newNested(t *testing.T, more string) (*nested, *simulated) {
	t.Helper()
	s := newSite(t, false)
	n := &nested{site: s, inner: &site{t: t, lab: s.lab, far: s.far, isp: s.router, router: s.lab.NS("inner"), host: s.lab.NS("innerhost"),
		dir: filepath.Join(s.dir, "inner")}}
	n.inner.config = filepath.Join(n.inner.dir, "uplinkd.toml")
	if err := os.Mkdir(n.inner.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []*netlab.NS{n.inner.router, n.inner.host} {
		ns.Sysctl("net.ipv6.conf.all.accept_dad", "0")
		ns.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	}
	n.plugInner()
	n.inner.connectHost()
	for _, l := range []struct {
		ns  *netlab.NS
		dev string
	}{{s.router, "lan1"}, {n.inner.router, "wan0"}, {n.inner.router, "lan0"}, {n.inner.host, "eth0"}} {
		l.ns.LinkLocal(l.dev)
	}
	t.Cleanup(n.inner.noRaces)
	v := s.simulate(forever)
	s.configure(prompt + more)
	s.start()
	s.awaitHealthy()
	return n, v
}

func (n *nested) plugInner() {
	n.lab.Veth(n.router, "lan1", n.inner.router, "wan0", "02:00:00:00:04:01", "02:00:00:00:04:02")
}

// lent are the prefixes that the outer router has lent.
func (n *nested) lent() (list []ctl.Loan) {
	st, err := n.status()
	if err != nil {
		return nil
	}
	for _, d := range st.Downstreams {
		list = append(list, d.Loans...)
	}
	return list
}

// awaitLoan waits until one is lent of within.
func (n *nested) awaitLoan(within string) (found ctl.Loan) {
	n.t.Helper()
	n.eventually("a loan of "+within, func() (bool, string) {
		for _, l := range n.lent() {
			if inside(within, l.Prefix.Addr()) && l.State == "preferred" && !l.Offered {
				found = l
				return true, ""
			}
		}
		return false, strings.Join(strings.Fields(n.router.IP("-6 route show proto 200")), " ")
	})
	if out := n.router.IP("-6 route show %s", found.Prefix); !strings.Contains(out, "via "+found.Via.String()+" dev lan1") {
		n.t.Errorf("lent, but the kernel says %q", out)
	}
	return found
}

// TestInnerUplinkd has a second uplinkd as inner router. It asks for a /62 for two networks, on a transit and on an access
// network; its host follows the provider's renumbering at once, since uplinkd takes Reconfigure messages. Neither a restart of
// the outer router nor its death takes anything away.
func TestInnerUplinkd(t *testing.T) {
	for _, c := range []struct{ name, downstream string }{
		{"transit", transit},
		{"transit beside a network", withInner},
		{"access", "[downstream.second]\ninterface = \"lan1\"\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, v := newNested(t, c.downstream)
			n.inner.configure(strings.Replace(prompt, "delay = false\n", "delay = false\ndhcpv6.length = 62\n", 1))
			n.inner.start()
			n.inner.awaitHealthy()
			loan := n.awaitLoan(pool)
			if loan.Prefix.Bits() != 62 {
				t.Errorf("lent %s", loan.Prefix)
			}
			old := n.inner.hostAddress(loan.Prefix.String(), "preferred", preferred)
			n.inner.reach()
			n.reach()

			for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
				before := n.kernelText()
				n.end(sig)
				if text := n.kernelText(); text != before {
					t.Errorf("after %v: want\n%shave\n%s", sig, before, text)
				}
				n.start()
				n.awaitHealthy()
				if again := n.awaitLoan(pool); again.Prefix != loan.Prefix {
					t.Errorf("after %v %s is lent, and was %s", sig, again.Prefix, loan.Prefix)
				}
				if text := n.kernelText(); text != before {
					t.Errorf("after %v and a restart: want\n%shave\n%s", sig, before, text)
				}
				n.inner.reach()
			}

			if err := v.Renumber(netip.MustParsePrefix(newPool), 0); err != nil {
				t.Fatal(err)
			}
			if _, stderr, status := n.run("renew"); status != 0 {
				t.Fatal(stderr)
			}
			n.awaitLoan(newPool)
			n.inner.delegation(newPool)
			n.inner.hostAddress(newPool, "preferred", preferred)
			n.inner.eventually("the host's old address to be deprecated", func() (bool, string) {
				for _, a := range addresses(n.inner.host, "eth0") {
					if a.Local == old.Local {
						return a.Deprecated, "it is preferred"
					}
				}
				return true, ""
			})
			n.inner.reach()
		})
	}
}

// TestInnerLate makes the interface towards the inner router after the start of the daemon, and then anew.
func TestInnerLate(t *testing.T) {
	t.Parallel()
	n, _ := newNested(t, withInner)
	n.router.IP("link del lan1")
	n.problem("interface lan1 does not exist")
	n.plugInner()
	n.awaitHealthy()
	n.inner.configure(prompt)
	n.inner.start()
	loan := n.awaitLoan(pool)
	n.inner.hostAddress(loan.Prefix.String(), "preferred", preferred)
	n.inner.reach()
	n.router.IP("link del lan1")
	n.plugInner()
	n.awaitHealthy()
	n.inner.awaitHealthy()
	if again := n.awaitLoan(pool); again.Prefix != loan.Prefix {
		t.Errorf("%s is lent, and was %s", again.Prefix, loan.Prefix)
	}
	n.inner.reach()
}

// TestInnerLeaves gives back what was lent: the route goes with it.
func TestInnerLeaves(t *testing.T) {
	t.Parallel()
	n, _ := newNested(t, withInner)
	n.inner.configure(prompt)
	n.inner.start()
	n.awaitLoan(pool)
	if _, stderr, status := n.inner.run("release", "fiber"); status != 0 {
		t.Fatal(stderr)
	}
	n.eventually("nothing to be lent", func() (bool, string) {
		routes := n.router.IP("-6 route show via %s", n.inner.router.LinkLocal("wan0"))
		return len(n.lent()) == 0 && routes == "", routes
	})
}

// TestPortTaken starts while another program has the port of DHCPv6 servers.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	var other net.PacketConn
	if err := s.router.Do(func() (err error) { other, err = net.ListenPacket("udp6", "[::]:547"); return err }); err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s.simulate(forever)
	s.configure(prompt)
	s.start()
	s.problem("listen on udp [::]:547 dev lan0")
	s.hostAddress(pool, "preferred", preferred) // RAs need no DHCPv6
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	s.awaitHealthy()
}

// TestInnerDhcpcd has Debian's dhcpcd as inner router, in its usual form: with a Reconfigure key, so that the host behind it
// hears of a renumbering.
func TestInnerDhcpcd(t *testing.T) {
	t.Parallel()
	netlab.NeedProgram(t, "dhcpcd", "dhcpcd-base")
	n, v := newNested(t, withInner)
	n.inner.router.Sysctl("net.ipv6.conf.all.forwarding", "1")
	n.inner.router.Sysctl("net.ipv6.conf.wan0.accept_ra", "2")
	conf := filepath.Join(n.inner.dir, "dhcpcd.conf")
	text := "duid\nipv6only\nnoipv6rs\nscript /bin/true\noption dhcp6_reconfigure_accept\ninterface wan0\n  ia_pd 1 lan0/0/64\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p := n.inner.router.Start(n.inner.router.Command(context.Background(), "dhcpcd", "-B", "-d", "-f", conf, "wan0"))
	n.inner.daemon = p
	loan := n.awaitLoan(pool)
	n.innerLAN(loan.Prefix)
	n.end(syscall.SIGKILL)
	n.start()
	n.awaitHealthy()
	n.innerLAN(loan.Prefix)
	if err := v.Renumber(netip.MustParsePrefix(newPool), 0); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := n.run("renew"); status != 0 {
		t.Fatal(stderr)
	}
	n.innerLAN(n.awaitLoan(newPool).Prefix)
}

// innerLAN waits until dhcpcd has numbered its LAN, and takes the part of a host there, which has a router but no RA.
func (n *nested) innerLAN(prefix netip.Prefix) {
	n.t.Helper()
	n.inner.eventually("an address of "+prefix.String()+" on the inner router's LAN", func() (bool, string) {
		list := addresses(n.inner.router, "lan0")
		for _, a := range list {
			if prefix.Contains(a.Local) && !a.Deprecated {
				return true, ""
			}
		}
		return false, n.inner.router.IP("-6 addr show dev lan0")
	})
	n.inner.host.IP("-6 address flush dev eth0 scope global")
	n.inner.host.IP("-6 address add %s/64 dev eth0 nodad", prefix.Addr().Next().Next().Next())
	n.inner.host.IP("-6 route replace default via %s dev eth0", n.inner.router.LinkLocal("lan0"))
	n.inner.reach()
}

// TestStatelessHost asks only about DNS, as a host with SLAAC does that sees the O flag.
func TestStatelessHost(t *testing.T) {
	t.Parallel()
	netlab.NeedProgram(t, "dhclient", "isc-dhcp-client")
	cfg := forever
	cfg.DNS = []netip.Addr{netip.MustParseAddr("2001:db8:ffff::53")}
	s, _ := bound(t, cfg, prompt)
	file := func(name, text string) string {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	script := file("script", "#!/bin/sh\necho \"told $new_dhcp6_name_servers\"\n")
	p := s.host.Start(s.host.Command(context.Background(), "dhclient", "-6", "-S", "-d", "-cf", file("dhclient.conf", ""), "-lf", file("leases", ""),
		"-pf", filepath.Join(s.dir, "pid"), "-sf", script, "eth0"))
	s.eventually("the host to be told of DNS", func() (bool, string) {
		out := p.Output()
		return strings.Contains(out, "told 2001:db8:ffff::53"), out
	})
}
