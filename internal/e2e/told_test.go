package e2e

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
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/internal/kernel"
	"uplinkd/internal/radv"
	"uplinkd/pd"
)

// TestToldPassesThrough follows what a provider tells besides prefixes, by DHCPv6 and in RAs, to hooks, status and the
// router advertisements on the LAN; changes come through, restarts tell nothing again.
func TestToldPassesThrough(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	cfg := forever
	cfg.DNS, cfg.DomainSearch = []netip.Addr{netip.MustParseAddr("2001:db8:f::53")}, []string{"example.net"}
	cfg.RA.PREF64, cfg.RA.CaptivePortal, cfg.RA.RouterLifetime = []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96")}, "https://portal.example/api?a=1&b=$(id)", 20*time.Minute
	v := s.simulate(cfg)
	var mu sync.Mutex
	tell := pd.Info{AFTR: "aftr.example.net", NTP: []netip.Addr{netip.MustParseAddr("2001:db8:f::123")}, NTPNames: []string{"ntp.example.net"},
		S46:       []pd.Option{{Code: 94, Data: []byte{0, 89, 0, 0}}},
		Resolvers: []pd.Resolver{{Priority: 1, Name: "dot.example.net", Addresses: []netip.Addr{netip.MustParseAddr("2001:db8:f::853")}, Params: []byte("\x00\x01\x00\x04\x03dot")}}}
	v.Intercept(func(_ pd.Message, reply *pd.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		reply.AFTR, reply.NTP, reply.NTPNames, reply.S46, reply.Resolvers = tell.AFTR, tell.NTP, tell.NTPNames, tell.S46, tell.Resolvers
		return true
	})
	dir := filepath.Join(s.dir, "calls")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	script := s.write("hook", fmt.Sprintf(hookScript, dir))
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	s.configure(prompt + fmt.Sprintf("\n[hook.keep]\nrun = %q\non = [\"uplink.informed\"]\n", script))
	lan := s.listenOnLAN()
	s.start()
	s.awaitHealthy()
	all := []string{"UPLINKD_DNS=2001:db8:f::53", "UPLINKD_DOMAIN_SEARCH=example.net", "UPLINKD_NTP=2001:db8:f::123 ntp.example.net",
		"UPLINKD_AFTR=aftr.example.net", "UPLINKD_CAPTIVE_PORTAL=https://portal.example/api?a=1&b=$(id)", "UPLINKD_PREF64=64:ff9b::/96", "UPLINKD_OPTION_94=00590000",
		"UPLINKD_ENCRYPTED_DNS=dot.example.net=2001:db8:f::853"}
	s.informed(all...)
	lan.await(s, "what the provider tells, in a router advertisement on the LAN", func(f radv.Facts) bool {
		return len(f.PREF64) == 1 && f.PREF64[0].Prefix == netip.MustParsePrefix("64:ff9b::/96") && f.CaptivePortal == "https://portal.example/api?a=1&b=$(id)" &&
			len(f.DNS) == 1 && len(f.Search) == 1
	})
	if told := s.uplink().Told; told.AFTR != "aftr.example.net" || len(told.PREF64) != 1 || len(told.S46) != 1 || told.CaptivePortal == "" {
		t.Errorf("status has %+v", told)
	}
	if st, err := s.status(); err != nil || len(st.Downstreams[0].Announced.Resolvers) != 1 || !st.Downstreams[0].Announced.Resolvers[0].Equal(tell.Resolvers[0]) {
		t.Errorf("announced: %+v, %v", st.Downstreams, err)
	}

	// A renewal is no news, and neither is a restart, however it comes about.
	s.renew()
	names := s.hookCalls()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		s.end(sig)
		s.start()
		s.awaitHealthy()
		s.renew()
		s.reconciles(1)
		if again := s.hookCalls(); !slices.Equal(again, names) {
			t.Errorf("after %v and a restart with nothing changed the hook was called again: %v, before: %v", sig, again, names)
		}
	}

	mu.Lock()
	tell.AFTR = "other.example.net"
	mu.Unlock()
	s.renew()
	s.informed(append(slices.Clone(all[:3]), "UPLINKD_AFTR=other.example.net")...)
}

// informed waits for a call of the hook with all these variables.
func (s *site) informed(variables ...string) {
	s.t.Helper()
	s.eventually("a hook to be told "+strings.Join(variables, ", "), func() (bool, string) {
		last := ""
		found, _ := filepath.Glob(filepath.Join(s.dir, "calls", "*-uplink.informed.env.done")) // the pattern is a good one
		for _, f := range found {
			env, err := os.ReadFile(f)
			if err != nil {
				return false, err.Error()
			}
			lines := strings.Split(string(env), "\n")
			if !slices.ContainsFunc(variables, func(v string) bool { return !slices.Contains(lines, v) }) {
				return true, ""
			}
			last = string(env)
		}
		return false, last
	})
}

// lanFacts are what the LAN host hears in router advertisements.
type lanFacts struct {
	mu     sync.Mutex
	latest radv.Facts
}

// listenOnLAN has the LAN host read router advertisements until the test ends.
func (s *site) listenOnLAN() *lanFacts {
	s.t.Helper()
	var heard lanFacts
	l := radv.NewListener("lan", func(f radv.Facts) {
		heard.mu.Lock()
		defer heard.mu.Unlock()
		heard.latest = f
	}, slog.New(slog.DiscardHandler))
	link := kernel.Link{Name: "eth0", Up: true, Carrier: true, LinkLocal: s.host.LinkLocal("eth0")}
	if err := s.host.Do(func() error {
		i, err := net.InterfaceByName("eth0")
		if err == nil {
			link.Index = i.Index
		}
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	l.SetLink(link)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.host.Do(func() error { return l.Run(ctx) }) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
	return &heard
}

func (h *lanFacts) await(s *site, what string, ok func(radv.Facts) bool) {
	s.t.Helper()
	s.eventually(what, func() (bool, string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		return ok(h.latest), fmt.Sprintf("%+v", h.latest)
	})
}

// TestRouterReachesOutFromLoopback has a router without a LAN and without an address from the provider reach a server with
// an address out of its prefix (RFC 7084 WAA-7).
func TestRouterReachesOutFromLoopback(t *testing.T) {
	t.Parallel()
	s := newSite(t, true)
	s.simulate(forever)
	s.configure("[uplink.fiber]\ninterface = \"wan0\"\ndhcpv6.delay = false\n")
	s.router.IP("link set lo up")
	s.start()
	s.eventually("the far server to answer the router", func() (bool, string) {
		out := output(s.router, "ping", "-6", "-n", "-c", "1", "-W", "1", farAddress)
		return strings.Contains(out, " 1 received"), out
	})
	own := s.uplink().Loopback
	if g := s.delegation(pool).Prefix; len(own) != 1 || !g.Contains(own[0].Address) {
		t.Fatalf("on lo: %v", own)
	}
	if out := output(s.router, "ip", "-6", "route", "get", farAddress); !strings.Contains(out, "src "+own[0].Address.String()+" ") {
		t.Errorf("the source is another: %s", out)
	}
	before := s.kernelText()
	s.end(syscall.SIGKILL)
	s.start()
	s.awaitHealthy()
	if after := s.kernelText(); after != before {
		t.Errorf("after SIGKILL and a restart:\n%s\nbefore:\n%s", after, before)
	}
}

// TestPreferredPD has a provider whose routers announce two prefixes for SLAAC, one of them with the P flag (RFC 9762): the
// router numbers itself from the other one only, on kernels that know the flag (6.12 and later).
func TestPreferredPD(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v := s.simulate(forever)
	s.configure(prompt)
	s.start()
	s.awaitHealthy()
	known := output(s.router, "sysctl", "-n", "net.ipv6.conf.wan0.ra_honor_pio_pflag") == "1\n"
	prefix := func(p string, pd bool) isp.RAPrefix {
		return isp.RAPrefix{Prefix: netip.MustParsePrefix(p), OnLink: true, Autonomous: true, PreferPD: pd, Preferred: 3000, Valid: 4000}
	}
	v.SetRA(isp.RA{Interval: 4 * time.Second, Prefixes: []isp.RAPrefix{prefix("2001:db8:1:2::/64", true), prefix("2001:db8:1:3::/64", false)}})
	numbered := func(p string) bool {
		return slices.ContainsFunc(addresses(s.router, "wan0"), func(a address) bool { return netip.MustParsePrefix(p).Contains(a.Local) })
	}
	s.eventually("SLAAC on wan0", func() (bool, string) { return numbered("2001:db8:1:3::/64"), fmt.Sprint(addresses(s.router, "wan0")) })
	if got := numbered("2001:db8:1:2::/64"); got == known {
		t.Errorf("an address out of the prefix with the P flag: %t; the kernel knows the flag: %t", got, known)
	}
}
