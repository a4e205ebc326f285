package radv

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/netlab"
	"uplinkd/policy"
)

// pair is two namespaces with a veth between them: a router with lan0 and a host with eth0, or a provider and a router.
func pair(t *testing.T, a, b string) (*netlab.NS, *netlab.NS) {
	t.Helper()
	lab := netlab.New(t)
	router, host := lab.NS(a), lab.NS(b)
	for _, n := range []*netlab.NS{router, host} {
		n.Sysctl("net.ipv6.conf.default.accept_dad", "0") // not to wait for duplicate address detection
	}
	router.Sysctl("net.ipv6.conf.all.forwarding", "1")
	lab.Veth(router, "lan0", host, "eth0")
	return router, host
}

// linkOf returns the facts about a link that can be used.
func linkOf(t *testing.T, n *netlab.NS, name string) kernel.Link {
	t.Helper()
	address := n.LinkLocal(name)
	var ifi *net.Interface
	err := n.Do(func() (err error) {
		ifi, err = net.InterfaceByName(name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return kernel.Link{Name: name, Index: ifi.Index, Up: true, Carrier: true, MTU: ifi.MTU, MAC: ifi.HardwareAddr.String(), LinkLocal: address}
}

// within returns open as seen from inside n.
func within(n *netlab.NS, open func(kernel.Link) (conn, error)) func(kernel.Link) (conn, error) {
	return func(l kernel.Link) (c conn, err error) {
		err = n.Do(func() error {
			c, err = open(l)
			return err
		})
		return c, err
	}
}

// goRun runs a task until the end of the test.
func goRun(t *testing.T, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// sends starts a Sender on lan0 of the router.
func sends(t *testing.T, router *netlab.NS, a policy.Announcement) *Sender {
	t.Helper()
	s := NewSender("lan", quiet)
	s.port.open, s.openFormer = within(router, s.port.open), within(router, s.openFormer)
	s.SetLink(linkOf(t, router, "lan0"))
	s.Set(a)
	goRun(t, s.Run)
	return s
}

// shows waits until a command in n prints what is wanted, or, with a leading "!", does not print it any more.
func shows(t *testing.T, n *netlab.NS, command, want string) {
	t.Helper()
	text, absent := strings.CutPrefix(want, "!")
	netlab.Eventually(t, 20*time.Second, fmt.Sprintf("%s: ip %s shows %q", n.Name, command, want), func() (bool, string) {
		out := n.IP("%s", command)
		return strings.Contains(out, text) != absent, out
	})
}

func TestKernelHost(t *testing.T) {
	router, host := pair(t, "router", "host")
	a := announce(time.Now(), prefixA)
	s := sends(t, router, a)
	shows(t, host, "-6 addr show dev eth0", "inet6 2001:db8:a:0:")
	shows(t, host, "-6 addr show dev eth0", "preferred_lft 2")
	shows(t, host, "-6 route show default", "default via "+router.LinkLocal("lan0").String()+" dev eth0 proto ra")

	renumbered := announce(time.Now(), prefixB, prefixA)
	renumbered.Prefixes[1].Stale = true
	s.Set(renumbered)
	shows(t, host, "-6 addr show dev eth0 -deprecated", "inet6 2001:db8:b:0:")
	shows(t, host, "-6 addr show dev eth0 deprecated", "inet6 2001:db8:a:0:")
	shows(t, host, "-6 addr show dev eth0 -deprecated", "!inet6 2001:db8:a:0:")

	renumbered.Router = false
	s.Set(renumbered)
	shows(t, host, "-6 route show default", "!default")
	shows(t, host, "-6 addr show dev eth0 -deprecated", "inet6 2001:db8:b:0:")
}

// TestKernelFlags has a host that knows a prefix by both flags, a router that announces it without them from then on, and the end
// of the prefix. The host hears of that; of the next prefix it makes no address, and does not take it for on-link.
func TestKernelFlags(t *testing.T) {
	router, host := pair(t, "router", "host")
	a := announce(time.Now(), prefixA)
	s := sends(t, router, a)
	shows(t, host, "-6 addr show dev eth0 -deprecated", "inet6 2001:db8:a:0:")
	shows(t, host, "-6 route show", "2001:db8:a::/64 dev eth0")
	a.NotOnLink, a.NotAutonomous, a.Router = true, true, false
	s.Set(a)
	shows(t, host, "-6 route show default", "!default") // it has heard of it

	b := announce(time.Now(), prefixB, prefixA)
	b.NotOnLink, b.NotAutonomous, b.Prefixes[1].Stale = true, true, true
	s.Set(b)
	shows(t, host, "-6 route show default", "default via")
	shows(t, host, "-6 addr show dev eth0 -deprecated", "!inet6 2001:db8:a:0:")
	shows(t, host, "-6 route show", "!2001:db8:a::/64 dev eth0")
	shows(t, host, "-6 addr show dev eth0", "!inet6 2001:db8:b:0:")
	shows(t, host, "-6 route show", "!2001:db8:b::/64 dev eth0")
}

// TestKernelRoutes has a host that takes routes (RFC 4191 type C): it keeps those inside when there is no way out, and drops the
// one that is withdrawn.
func TestKernelRoutes(t *testing.T) {
	router, host := pair(t, "router", "host")
	host.Sysctl("net.ipv6.conf.eth0.accept_ra_rt_info_max_plen", "128")
	gateway := " via " + router.LinkLocal("lan0").String()
	a := announce(time.Now(), prefixA)
	a.Preference = "low"
	a.Routes = []policy.AnnouncedRoute{toForever("2001:db8:a::/56"), toForever("fd00:0:1:2:8000::/65")}
	s := sends(t, router, a)
	shows(t, host, "-6 route show default", "default"+gateway)
	shows(t, host, "-6 route show default", "pref low")
	shows(t, host, "-6 route show", "2001:db8:a::/56"+gateway)
	shows(t, host, "-6 route show", "fd00:0:1:2:8000::/65"+gateway)
	a.Router = false
	s.Set(a)
	shows(t, host, "-6 route show default", "!default")
	shows(t, host, "-6 route show", "2001:db8:a::/56"+gateway)
	a.Routes = a.Routes[1:]
	s.Set(a)
	shows(t, host, "-6 route show", "!2001:db8:a::/56"+gateway)
	shows(t, host, "-6 route show", "fd00:0:1:2:8000::/65"+gateway)
}

// TestKernelRdisc6 lets another implementation ask and read.
func TestKernelRdisc6(t *testing.T) {
	netlab.NeedProgram(t, "rdisc6", "ndisc6")
	router, host := pair(t, "router", "host")
	a := announce(time.Now(), prefixA)
	a.DNS, a.Search, a.MTU = []netip.Addr{netip.MustParseAddr("2001:db8:a::1")}, []string{"lan.example"}, 1480
	a.Preference, a.Other = "high", true
	a.Routes = []policy.AnnouncedRoute{toForever("2001:db8:a::/56"), toForever("fd00:0:1:2:8000::/65"), {Prefix: prefixB}}
	sends(t, router, a)
	host.LinkLocal("eth0")
	out := host.Run("rdisc6", "-1", "-r", "5", "-w", "4000", "eth0")
	for _, want := range []string{
		"Hop limit                 :           64", "Stateful address conf.    :           No", "Stateful other conf.      :          Yes",
		"Router preference         :         high", "Router lifetime           :         1800",
		"Prefix                   : 2001:db8:a::/64", "Autonomous address conf.:          Yes", "Pref. time              :         2",
		"MTU                      :         1480", "Recursive DNS server     : 2001:db8:a::1", "DNS search list          : lan.example",
		"Route                    : 2001:db8:a::/56", "Route                    : fd00:0:1:2:8000::/65", "Route                    : 2001:db8:b::/64",
		"Source link-layer address:", "from " + router.LinkLocal("lan0").String(),
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	for _, complaint := range []string{"unknown", "invalid", "malformed", "bad"} {
		if strings.Contains(strings.ToLower(out), complaint) {
			t.Errorf("rdisc6 complains: %q", complaint)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

// TestKernelBesideRadvd has a second router on the link. The host takes from each what it says, and the end of the one changes
// nothing for the other.
func TestKernelBesideRadvd(t *testing.T) {
	netlab.NeedProgram(t, "radvd", "radvd")
	lab := netlab.New(t)
	ours, theirs, host := lab.NS("ours"), lab.NS("theirs"), lab.NS("host")
	host.IP("link add br0 type bridge")
	for _, n := range []*netlab.NS{ours, theirs, host} {
		n.Sysctl("net.ipv6.conf.all.accept_dad", "0")
		n.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	}
	for i, n := range []*netlab.NS{ours, theirs} {
		n.Sysctl("net.ipv6.conf.all.forwarding", "1")
		port := fmt.Sprintf("port%d", i)
		lab.Veth(n, "lan0", host, port)
		host.IP("link set %s master br0", port)
	}
	host.Sysctl("net.ipv6.conf.br0.accept_dad", "0")
	host.IP("link set br0 up")
	host.LinkLocal("br0")
	theirRoute, ourRoute := "default via "+theirs.LinkLocal("lan0").String(), "default via "+ours.LinkLocal("lan0").String()
	conf := filepath.Join(t.TempDir(), "radvd.conf")
	text := "interface lan0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; AdvDefaultPreference low; prefix 2001:db8:b::/64 { }; };\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	radvd := theirs.Start(theirs.Command(t.Context(), "radvd", "-n", "-m", "stderr", "-C", conf, "-p", conf+".pid"))
	a := announce(time.Now(), prefixA)
	a.Preference = "high"
	s := sends(t, ours, a)
	shows(t, host, "-6 addr show dev br0", "inet6 2001:db8:a:0:")
	shows(t, host, "-6 addr show dev br0", "inet6 2001:db8:b:0:")
	shows(t, host, "-6 route show default", ourRoute)
	shows(t, host, "-6 route show default", theirRoute)
	shows(t, host, "-6 route get 2001:db8:ffff::1 from ::", "via "+ours.LinkLocal("lan0").String()) // high before low

	a.Router = false
	s.Set(a)
	shows(t, host, "-6 route show default", "!"+ourRoute)
	shows(t, host, "-6 route show default", theirRoute)
	a.Router = true
	s.Set(a)
	shows(t, host, "-6 route show default", ourRoute)
	if err := radvd.Stop(); err != nil {
		t.Logf("radvd: %v", err)
	}
	shows(t, host, "-6 route show default", "!"+theirRoute)
	shows(t, host, "-6 route show default", ourRoute)
	shows(t, host, "-6 addr show dev br0 -deprecated", "inet6 2001:db8:a:0:")
}

// TestKernelLinkDown takes the link down and up without a word to the Sender: its socket fails, and must come back.
func TestKernelLinkDown(t *testing.T) {
	router, host := pair(t, "router", "host")
	s := sends(t, router, announce(time.Now(), prefixA))
	shows(t, host, "-6 addr show dev eth0", "inet6 2001:db8:a:0:")
	before := router.LinkLocal("lan0")
	router.IP("link set lan0 down")
	s.Set(announce(time.Now(), prefixA, prefixB))
	router.IP("link set lan0 up")
	if after := router.LinkLocal("lan0"); after != before {
		t.Fatalf("the link-local address changed from %s to %s", before, after)
	}
	shows(t, host, "-6 addr show dev eth0", "inet6 2001:db8:b:0:")
}

// TestKernelReplacedLink gives the Sender another interface of the same name.
func TestKernelReplacedLink(t *testing.T) {
	lab := netlab.New(t)
	router, host := lab.NS("router"), lab.NS("host")
	for _, n := range []*netlab.NS{router, host} {
		n.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	}
	lab.Veth(router, "lan0", host, "eth0")
	s := sends(t, router, announce(time.Now(), prefixA))
	shows(t, host, "-6 addr show dev eth0", "inet6 2001:db8:a:0:")
	router.IP("link del lan0")
	lab.Veth(router, "lan0", host, "eth0")
	s.SetLink(linkOf(t, router, "lan0"))
	shows(t, host, "-6 addr show dev eth0", "inet6 2001:db8:a:0:")
}

const radvdConf = `interface lan0 {
	AdvSendAdvert on;
	AdvManagedFlag on;
	AdvDefaultPreference high;
	MinRtrAdvInterval 3;
	MaxRtrAdvInterval 4;
	prefix 2001:db8:a::/64 { AdvOnLink on; AdvAutonomous off; };
	RDNSS 2001:db8::53 { };
	DNSSL provider.example { };
};
`

// TestKernelRadvd lets another implementation speak to the Listener, and say goodbye.
func TestKernelRadvd(t *testing.T) {
	netlab.NeedProgram(t, "radvd", "radvd")
	provider, router := pair(t, "provider", "router")
	provider.LinkLocal("lan0")
	dir := t.TempDir()
	conf := filepath.Join(dir, "radvd.conf")
	if err := os.WriteFile(conf, []byte(radvdConf), 0o600); err != nil {
		t.Fatal(err)
	}
	facts := make(chan Facts, 100)
	l := NewListener("fiber", func(f Facts) { facts <- f }, quiet)
	l.port.open = within(router, l.port.open)
	l.SetLink(linkOf(t, router, "eth0"))
	goRun(t, l.Run)
	radvd := provider.Start(provider.Command(t.Context(), "radvd", "-n", "-m", "stderr", "-C", conf, "-p", filepath.Join(dir, "radvd.pid")))

	await := func(what string, done func(Facts) bool) {
		t.Helper()
		var last Facts
		netlab.Eventually(t, 30*time.Second, what, func() (bool, string) {
			select {
			case last = <-facts:
				return done(last), fmt.Sprintf("%+v", last)
			default:
				return false, fmt.Sprintf("%+v", last)
			}
		})
	}
	gateway := provider.LinkLocal("lan0")
	await("facts of radvd", func(f Facts) bool {
		return len(f.Routers) == 1 && f.Routers[0].Address == gateway && f.Managed && !f.Other &&
			len(f.DNS) == 1 && f.DNS[0] == netip.MustParseAddr("2001:db8::53") &&
			len(f.Search) == 1 && f.Search[0] == "provider.example" &&
			len(f.Prefixes) == 1 && f.Prefixes[0].Prefix == prefixA && f.Prefixes[0].OnLink && !f.Prefixes[0].Autonomous
	})
	if err := radvd.Stop(); err != nil {
		t.Logf("radvd: %v", err)
	}
	await("the end of the router, which radvd announces when it stops", func(f Facts) bool { return len(f.Routers) == 0 })
}
