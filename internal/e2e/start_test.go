package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/pd"
)

// starting is prompt with a start mode, and a short time until nothing waits for the uplink any more.
func starting(mode string) string {
	return strings.Replace(prompt, "wan0\"\n", fmt.Sprintf("wan0\"\ndhcpv6.start = %q\ndhcpv6.report_after = \"1s\"\n", mode), 1)
}

// silentRouter is a provider that does not advertise until its RAs are set.
func (s *site) silentRouter() *simulated {
	s.t.Helper()
	v := s.simulate(forever)
	v.StopRA()
	return v
}

// TestStartRAMO has a provider that says first nothing, then nothing about DHCPv6, and at last that it wants its clients to
// ask for a prefix.
func TestStartRAMO(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*isp.RA){
		"P flag":  func(ra *isp.RA) { ra.Prefixes[0].PreferPD = true },
		"M and O": func(ra *isp.RA) { ra.Unmanaged = false },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, false)
			v := s.silentRouter()
			ra := isp.RA{Interval: time.Second, Unmanaged: true, Prefixes: []isp.RAPrefix{linkPrefix}}
			v.SetRA(ra)
			s.configure(starting("ra-mo"))
			s.router.IP("-6 route add unreachable 2001:db8:1177::/56 metric 2147483647 proto 200") // of a delegation long gone
			s.start()
			s.awaitWaiting("waiting for a router advertisement with the M or O flag")
			v.StartRA()
			s.eventually("a default route from RAs that say nothing about DHCPv6", func() (bool, string) {
				u := s.uplink()
				return u.Gateway.IsValid(), fmt.Sprintf("%+v", u)
			})
			s.awaitRA(v, 2)
			s.awaitWaiting("waiting for a router advertisement with the M or O flag")
			s.holds(holding{}) // what nobody needs is removed: a client that waits holds up nothing for longer than report_after
			if seen := v.Counts().Seen; len(seen) > 0 {
				t.Fatalf("the client has sent %v before any router said that there is a server", seen)
			}
			ra.Prefixes = []isp.RAPrefix{linkPrefix}
			change(&ra)
			v.SetRA(ra)
			s.begun(v)

			// What was begun goes on: a lease is verified after a restart, whatever routers say.
			v.StopRA()
			s.end(syscall.SIGKILL)
			s.start()
			s.awaitSeen(v, pd.Rebind, 1)
			s.eventually("the lease to be confirmed", func() (bool, string) {
				c := s.uplink().Client
				return c.State == "bound", c.State
			})
			if seen := v.Counts().Seen; seen[pd.Solicit] != 1 {
				t.Errorf("the client has sent %v", seen)
			}
			_, delegations := s.awaitHeld(0, 1)
			if !inside(pool, delegations[0].Addr()) {
				t.Errorf("holds %v", delegations)
			}
		})
	}
}

// TestStartRA begins with any advertisement.
func TestStartRA(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v := s.silentRouter()
	s.configure(starting("ra"))
	s.start()
	s.awaitWaiting("waiting for a router advertisement")
	if seen := v.Counts().Seen; len(seen) > 0 {
		t.Fatalf("the client has sent %v before it heard a router", seen)
	}
	v.SetRA(isp.RA{Interval: time.Second, Unmanaged: true})
	v.StartRA()
	s.begun(v)
}

// TestStartLink does not wait for routers: some providers delegate prefixes and advertise nothing (RFC 7084 WPD-4).
func TestStartLink(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v := s.silentRouter()
	s.configure(starting("link"))
	s.start()
	s.awaitSeen(v, pd.Solicit, 1)
	s.delegation(pool)
}

// TestLearnedBeforeLease ends the daemon, as a power failure does, when all that it has of the provider is a SOL_MAX_RT. The
// next one knows it (RFC 9915 §18.2.9 and §21.24).
func TestLearnedBeforeLease(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	cfg := forever
	cfg.SolMaxRT = 4321
	v := s.simulate(cfg)
	v.Intercept(func(req pd.Message, _ *pd.Message) bool { return req.Type == pd.Solicit })
	s.configure(strings.Replace(prompt, "wan0\"\n", "wan0\"\ndhcpv6.rapid_commit = false\ndhcpv6.report_after = \"10m\"\n", 1))
	s.start()
	file := filepath.Join(s.dir, "state", "lease-fiber.json")
	learned := func() (bool, string) {
		b, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(b), `"sol_max_rt": 4321`), fmt.Sprintf("%v\n%s", err, b)
	}
	s.eventually("SOL_MAX_RT to be on disk", learned)
	if c := s.uplink().Client; c.Received != nil || c.Cause != "" {
		t.Errorf("meanwhile the client is %+v", c)
	}
	s.end(syscall.SIGKILL)
	v.Silence(true)
	s.start()
	s.eventually("the client to solicit", func() (bool, string) {
		c := s.uplink().Client
		return c.State == "soliciting", c.State
	})
	if ok, text := learned(); !ok {
		t.Errorf("the restart has lost it: %s", text)
	}
	v.Silence(false)
	v.Intercept(nil)
	s.begun(v)
	if ok, text := learned(); !ok {
		t.Errorf("the lease has none: %s", text)
	}
}

// awaitWaiting waits until the client waits for routers.
func (s *site) awaitWaiting(state string) {
	s.t.Helper()
	s.eventually("the client to be "+state, func() (bool, string) {
		c := s.uplink().Client
		return c.State == state, fmt.Sprintf("%+v", c)
	})
	s.eventually("status to say so", func() (bool, string) {
		out, _, _ := s.run("status")
		return strings.Contains(out, state), out
	})
}

// begun waits until the site works.
func (s *site) begun(v *simulated) {
	s.t.Helper()
	s.awaitSeen(v, pd.Solicit, 1)
	s.delegation(pool)
	_, delegations := s.awaitHeld(0, 1)
	s.holds(onLAN(nil, delegations...))
	s.hostAddress(pool, "preferred", preferred)
	s.reach()
}
