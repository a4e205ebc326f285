package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/ctl"
	"uplinkd/internal/kernel/rtnl"
	"uplinkd/internal/netlab"
)

const (
	farAddress = "2001:db8:ffff::1"   // the server behind the provider
	pool       = "2001:db8:1100::/40" // the provider delegates from here
	newPool    = "2001:db8:1200::/40" // and from here after it has renumbered
	routerLL   = "fe80::ff:fe00:101"  // of wan0, from its MAC address
	limit      = 30 * time.Second     // for anything that has to happen at all; no test measures by it
)

// smallest is the smallest useful config.
const smallest = `
[uplink.fiber]
interface = "wan0"

[downstream.lan]
interface = "lan0"
`

// prompt is smallest without the second of random delay before the first Solicit.
var prompt = strings.Replace(smallest, "wan0\"\n", "wan0\"\ndhcpv6.delay = false\n", 1)

// site is far - isp - router - host, each in a namespace of its own, with uplinkd on the router.
type site struct {
	t                      *testing.T
	lab                    *netlab.Lab
	far, isp, router, host *netlab.NS
	kernel                 *rtnl.Kernel // of the router
	dir, config            string
	daemon                 *netlab.Process
	retired                []*netlab.Process // daemons that have ended
}

// newSite builds the topology. withDAD leaves duplicate address detection on, as real networks have it; without it links
// are usable at once.
func newSite(t *testing.T, withDAD bool) *site {
	t.Helper()
	netlab.Need(t)
	netlab.NeedProgram(t, "ping", "iputils-ping")
	l := netlab.New(t)
	s := &site{t: t, lab: l, far: l.NS("far"), isp: l.NS("isp"), router: l.NS("router"), host: l.NS("host"), dir: l.Dir()}
	s.config = filepath.Join(s.dir, "uplinkd.toml")
	for _, ns := range []*netlab.NS{s.far, s.isp, s.router, s.host} {
		if !withDAD {
			ns.Sysctl("net.ipv6.conf.all.accept_dad", "0")
			ns.Sysctl("net.ipv6.conf.default.accept_dad", "0")
		}
	}
	s.isp.Sysctl("net.ipv6.conf.all.forwarding", "1")
	l.Veth(s.far, "eth0", s.isp, "core0")
	s.far.IP("-6 address add %s/64 dev eth0 nodad", farAddress)
	s.isp.IP("-6 address add 2001:db8:ffff::2/64 dev core0 nodad")
	s.far.IP("-6 route add default via 2001:db8:ffff::2")
	s.connectUplink()
	s.connectHost()
	s.router.LinkLocal("wan0")
	s.router.LinkLocal("lan0")
	if err := s.router.Do(func() (err error) { s.kernel, err = rtnl.Open(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kernel.Close)
	t.Cleanup(s.noRaces)
	return s
}

func (s *site) connectUplink() {
	s.t.Helper()
	s.lab.Veth(s.isp, "up0", s.router, "wan0", "02:00:00:00:01:02", "02:00:00:00:01:01")
	s.isp.IP("-6 address add 2001:db8:1:1::1/64 dev up0 nodad")
}

func (s *site) connectHost() {
	s.t.Helper()
	s.lab.Veth(s.router, "lan0", s.host, "eth0", "02:00:00:00:02:01", "02:00:00:00:02:02")
}

// configure writes the config.
func (s *site) configure(text string) {
	s.t.Helper()
	dirs := fmt.Sprintf("state_dir = %q\nrun_dir = %q\n", filepath.Join(s.dir, "state"), filepath.Join(s.dir, "run"))
	if err := os.WriteFile(s.config, []byte(dirs+text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// start starts uplinkd with the config written last.
func (s *site) start() {
	s.t.Helper()
	s.daemon = s.router.Start(s.command("run"))
}

// command is an invocation of the program under test on the router.
func (s *site) command(verb string, args ...string) *exec.Cmd {
	return s.router.Command(context.Background(), os.Getenv(binaryVar), append([]string{verb, "--config", s.config}, args...)...)
}

// end stops the daemon by a signal and waits for its end. SIGTERM has to be followed by status 0.
func (s *site) end(sig syscall.Signal) {
	s.t.Helper()
	if err := s.daemon.Signal(sig); err != nil {
		s.t.Fatalf("%v uplinkd: %v", sig, err)
	}
	select {
	case <-s.daemon.Done():
	case <-time.After(limit):
		s.t.Fatalf("uplinkd has not ended %s after %v", limit, sig)
	}
	if err := s.daemon.Err(); sig == syscall.SIGTERM && err != nil {
		s.t.Errorf("uplinkd after SIGTERM: %v", err)
	}
	s.retired = append(s.retired, s.daemon)
	s.daemon = nil
}

// hangup makes the daemon read its config again and waits until it has.
func (s *site) hangup() {
	s.t.Helper()
	before := strings.Count(s.daemon.Output(), "config reloaded")
	if err := s.daemon.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
	s.eventually("the config to be reloaded", func() (bool, string) {
		return strings.Count(s.daemon.Output(), "config reloaded") > before, ""
	})
}

// noRaces looks into what all daemons have said for reports of the race detector and of a crash.
func (s *site) noRaces() {
	for _, p := range append(s.retired, s.daemon) {
		if p == nil {
			continue
		}
		for _, word := range []string{"WARNING: DATA RACE", "panic:", "fatal error:"} {
			if strings.Contains(p.Output(), word) {
				s.t.Errorf("uplinkd printed %q:\n%s", word, p.Output())
			}
		}
	}
}

func (s *site) client() *ctl.Client { return ctl.Dial(filepath.Join(s.dir, "run", ctl.SocketName)) }

func (s *site) status() (ctl.Status, error) { return s.client().Status(s.t.Context()) }

// statusNow is status of a daemon that has to answer.
func (s *site) statusNow() ctl.Status {
	s.t.Helper()
	st, err := s.status()
	if err != nil {
		s.t.Fatalf("status: %v", err)
	}
	return st
}

// eventually waits for check, but not longer than the daemon lives.
func (s *site) eventually(what string, check func() (bool, string)) {
	s.t.Helper()
	daemon := s.daemon
	netlab.Eventually(s.t, limit, what, func() (bool, string) {
		ok, text := check()
		if daemon == nil || ok {
			return ok, text
		}
		select {
		case <-daemon.Done():
			s.t.Fatalf("while waiting for %s uplinkd ended: %v", what, daemon.Err())
		default:
		}
		return ok, text
	})
}

// awaitHealthy waits until the daemon has nothing left to do.
func (s *site) awaitHealthy() ctl.Status {
	s.t.Helper()
	var st ctl.Status
	s.eventually("a healthy site", func() (ok bool, text string) {
		var err error
		st, err = s.status()
		return err == nil && st.Health == ctl.OK && st.Waiting == 0, fmt.Sprintf("%s, %d waiting, %v, %v", st.Summary, st.Waiting, st.Problems, err)
	})
	return st
}

// delegation waits until the daemon has a preferred delegation inside within and returns it.
func (s *site) delegation(within string) (found ctl.Delegation) {
	s.t.Helper()
	s.eventually("a delegation from "+within, func() (bool, string) {
		st, err := s.status()
		if err != nil {
			return false, err.Error()
		}
		for _, u := range st.Uplinks {
			for _, g := range u.Delegations {
				if g.State == "preferred" && inside(within, g.Prefix.Addr()) {
					found = g
				}
			}
		}
		return found.Prefix.IsValid(), st.Summary
	})
	return found
}

// address is what `ip -json address` says of one.
type address struct {
	Local      netip.Addr `json:"local"`
	Bits       int        `json:"prefixlen"`
	Tentative  bool       `json:"tentative"`
	Deprecated bool       `json:"deprecated"`
	Valid      uint32     `json:"valid_life_time"`
	Preferred  uint32     `json:"preferred_life_time"`
}

// addresses are the usable global addresses of an interface; none if there is no such interface.
func addresses(ns *netlab.NS, dev string) (found []address) {
	out, err := ns.Command(context.Background(), "ip", "-json", "-6", "address", "show", "dev", dev, "scope", "global").Output()
	var links []struct {
		Info []address `json:"addr_info"`
	}
	if err != nil || json.Unmarshal(out, &links) != nil {
		return nil
	}
	for _, l := range links {
		for _, a := range l.Info {
			if a.Local.IsValid() && !a.Tentative {
				found = append(found, a)
			}
		}
	}
	return found
}

// hostAddress waits for an address of the host inside within for which accept is true.
func (s *site) hostAddress(within, what string, accept func(address) bool) (found address) {
	s.t.Helper()
	s.eventually("an address from "+within+" on the host, "+what, func() (bool, string) {
		list := addresses(s.host, "eth0")
		for _, a := range list {
			if inside(within, a.Local) && accept(a) {
				found = a
				return true, ""
			}
		}
		return false, fmt.Sprint(list)
	})
	return found
}

func preferred(a address) bool  { return !a.Deprecated }
func deprecated(a address) bool { return a.Deprecated }

func inside(prefix string, a netip.Addr) bool { return netip.MustParsePrefix(prefix).Contains(a) }

// reach waits until the host gets an answer from the server behind the provider.
func (s *site) reach() {
	s.t.Helper()
	s.eventually("the host to reach "+farAddress, func() (bool, string) {
		out := output(s.host, "ping", "-6", "-n", "-c", "1", "-W", "1", farAddress)
		return strings.Contains(out, " 1 received"), out
	})
}

// output is what a program in ns prints, whether or not it succeeds.
func output(ns *netlab.NS, name string, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	out, _ := ns.Command(ctx, name, args...).CombinedOutput()
	return string(out)
}

// run runs a verb of the program to its end.
func (s *site) run(verb string, args ...string) (stdout, stderr string, status int) {
	s.t.Helper()
	cmd := s.command(verb, args...)
	var out, err strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &err
	var exit *exec.ExitError
	if e := cmd.Run(); errors.As(e, &exit) {
		status = exit.ExitCode()
	} else if e != nil {
		s.t.Fatalf("uplinkd %s: %v", verb, e)
	}
	return out.String(), err.String(), status
}
