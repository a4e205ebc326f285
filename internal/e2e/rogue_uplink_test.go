package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/ctl"
	"uplinkd/internal/isp"
	"uplinkd/internal/netlab"
	"uplinkd/pd"
)

// dslFirst is a site with another uplink, which comes first in the config.
const dslFirst = "[uplink.dsl]\ninterface = \"wan1\"\ndhcpv6.delay = false\n\n" + smallest

// rogue connects wan1 to another provider, which is not to be trusted: before says what it is besides.
func (s *site) rogue(cfg isp.Config, before func(p *isp.Provider)) *netlab.NS {
	s.t.Helper()
	ns := s.lab.NS("rogue")
	ns.Sysctl("net.ipv6.conf.all.accept_dad", "0")
	ns.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	s.lab.Veth(ns, "up1", s.router, "wan1", "02:00:00:00:05:02", "02:00:00:00:05:01")
	s.router.LinkLocal("wan1")
	cfg.Interface, cfg.RapidCommit, cfg.ServerID = "up1", true, "\x00\x03\x00\x01\x02\x00\x00\x00\x05\x02"
	cfg.Pool = netip.MustParsePrefix("2001:db8:2200::/40")
	p, err := isp.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	before(p)
	serve(s.t, ns, p)
	return ns
}

// reachFrom waits until the host reaches the Internet with that source.
func (s *site) reachFrom(source netip.Addr) {
	s.t.Helper()
	s.pings(s.host, farAddress, "-I", source.String())
}

// pings waits until to answers, with options of ping(8).
func (s *site) pings(from *netlab.NS, to string, options ...string) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%s to reach %s %s", from.Name, to, strings.Join(options, " ")), func() (bool, string) {
		out := output(from, "ping", append([]string{"-6", "-n", "-c", "1", "-W", "1", to}, options...)...)
		return strings.Contains(out, " 1 received"), out
	})
}

// awaitProblem waits for the problem of that code on the uplink dsl.
func (s *site) awaitProblem(code string) {
	s.t.Helper()
	s.eventually("the problem "+code, func() (bool, string) {
		list := s.statusNow().Problems
		return slices.ContainsFunc(list, func(p ctl.Problem) bool { return p.Path == "uplink.dsl" && p.Code == code }), fmt.Sprint(list)
	})
}

// besideDSL is a site whose host reaches far by its provider, beside another uplink on which there is nobody yet; lan is the
// host's network.
func besideDSL(t *testing.T) (s *site, host netip.Addr, lan netip.Prefix) {
	t.Helper()
	s = newSite(t, false)
	s.simulate(forever)
	s.configure(dslFirst)
	s.start()
	host = s.hostAddress(pool, "preferred", preferred).Local
	s.reachFrom(host)
	lan, _ = host.Prefix(64)
	return s, host, lan
}

// TestRogueAnnouncesNetwork sends RAs with the prefix of a network on another uplink, before and after its interface was down:
// hosts stay reachable, and the network is not numbered anew.
func TestRogueAnnouncesNetwork(t *testing.T) {
	t.Parallel()
	s, host, lan := besideDSL(t)
	s.rogue(forever, func(p *isp.Provider) {
		p.SetRA(isp.RA{Interval: time.Second, Prefixes: []isp.RAPrefix{{Prefix: lan, OnLink: true, Autonomous: true, Preferred: 3000, Valid: 4000}}})
	})
	s.awaitProblem("address-overlap")
	s.reachFrom(host)
	s.router.IP("link set lan0 down")
	s.router.IP("link set lan0 up")
	s.eventually("the network's route", func() (bool, string) {
		text := s.kernelText()
		return strings.Contains(text, "route "+lan.String()+" dev lan0"), text
	})
	s.hostAddress(lan.String(), "preferred", preferred)
	s.reachFrom(host)
	if rules := s.router.IP("-6 rule"); strings.Contains(rules, lan.Addr().String()) && strings.Contains(rules, "/128") {
		t.Errorf("rules:\n%s", rules)
	}
}

// TestRogueLeasesHostsAddress leases to the router, on another uplink, the address that a host has.
func TestRogueLeasesHostsAddress(t *testing.T) {
	t.Parallel()
	s, host, _ := besideDSL(t)
	cfg := forever
	cfg.Addresses = netip.MustParsePrefix("2001:db8:1:2::/64")
	s.rogue(cfg, func(p *isp.Provider) {
		p.Intercept(func(_ pd.Message, reply *pd.Message) bool {
			for i := range reply.IANAs {
				for j := range reply.IANAs[i].Addresses {
					reply.IANAs[i].Addresses[j].Address = host
				}
			}
			return true
		})
	})
	s.awaitProblem("address-overlap")
	s.reachFrom(host)
	out := s.router.IP("-6 address") + s.router.IP("-6 rule")
	if strings.Contains(out, host.String()) {
		t.Errorf("the router has the address of the host, or a rule for it:\n%s", out)
	}
}
