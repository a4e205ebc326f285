package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/pd"
)

// linkPrefix is the prefix of the link between provider and router, as in RAs; nobody makes addresses of it.
var linkPrefix = isp.RAPrefix{Prefix: netip.MustParsePrefix("2001:db8:1:1::/64"), OnLink: true, Preferred: 3000, Valid: 4000}

// TestSuspicion has routers advertise what suggests that the network is another one. The client asks whether its lease is
// still good, and when it is, nothing changes.
func TestSuspicion(t *testing.T) {
	t.Parallel()
	another := linkPrefix
	another.Prefix = netip.MustParsePrefix("2001:db8:1:2::/64")
	for _, c := range []struct {
		name   string
		change func(*isp.RA)
		why    string
	}{
		{"deprecated", func(ra *isp.RA) { ra.Prefixes[0].Preferred = 0 }, "prefix deprecated by a router: 2001:db8:1:1::/64"},
		{"withdrawn", func(ra *isp.RA) { ra.Prefixes[0].Preferred, ra.Prefixes[0].Valid = 0, 0 }, "prefix withdrawn by a router: 2001:db8:1:1::/64"},
		{"new prefix", func(ra *isp.RA) { ra.Prefixes = append(ra.Prefixes, another) }, "new on-link prefix: 2001:db8:1:2::/64"},
		{"other MAC", func(ra *isp.RA) { ra.Hardware = net.HardwareAddr{2, 0, 0, 0, 9, 9} }, "default router fe80::ff:fe00:102 has another MAC address: 02:00:00:00:09:09"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := forever
			cfg.RA.Prefixes = []isp.RAPrefix{linkPrefix}
			s, v := bound(t, cfg, prompt)
			_, delegations := s.held()
			s.holds(onLAN(nil, delegations...))
			s.eventually("the RA to be heard by the kernel", func() (bool, string) {
				routes := s.router.IP("-6 route show 2001:db8:1:1::/64 dev wan0")
				return routes != "", "no route of the on-link prefix"
			})
			log := subscribe(t, s.router)
			ra := isp.RA{Interval: 4 * time.Second, Prefixes: slices.Clone(cfg.RA.Prefixes)}
			c.change(&ra)
			v.SetRA(ra)
			s.awaitSeen(v, pd.Rebind, 1)
			s.eventually("the lease to be confirmed", func() (bool, string) {
				client := s.uplink().Client
				return client.State == "bound", client.State
			})
			if out := s.daemon.Output(); strings.Count(out, c.why) != 1 {
				t.Errorf("the log does not say once %q:\n%s", c.why, out)
			}
			s.holds(onLAN(nil, delegations...))
			s.awaitRA(v, 2) // the same again is no news
			if seen := v.Counts().Seen; seen[pd.Rebind] != 1 || seen[pd.Solicit] != 1 || seen[pd.Renew] != 0 {
				t.Errorf("the client has sent %v", seen)
			}
			onLink := netip.MustParsePrefix("2001:db8:1::/48")
			heard := slices.DeleteFunc(written(log.take()), func(m notification) bool { return len(about([]notification{m}, onLink)) > 0 })
			if len(heard) > 0 {
				t.Errorf("a lease that is still good was written to the kernel again:\n%s", show(heard))
			}
		})
	}
}

// awaitRA waits for so many more advertisements.
func (s *site) awaitRA(v *simulated, more int) {
	s.t.Helper()
	before := v.Counts().RA
	s.eventually(fmt.Sprintf("%d more RAs", more), func() (bool, string) {
		n := v.Counts().RA - before
		return n >= more, fmt.Sprint(n)
	})
}

// TestSuspicionRenumbered has the provider move to another pool, and say so only by deprecating the prefix of the link: a
// client that waited for T1 would use a dead prefix for hours.
func TestSuspicionRenumbered(t *testing.T) {
	t.Parallel()
	cfg := forever
	cfg.RA.Prefixes = []isp.RAPrefix{linkPrefix}
	s, v := bound(t, cfg, prompt)
	if err := v.Renumber(netip.MustParsePrefix(newPool), 0); err != nil {
		t.Fatal(err)
	}
	old, another := linkPrefix, linkPrefix
	old.Preferred, another.Prefix = 0, netip.MustParsePrefix("2001:db8:1:2::/64")
	v.SetRA(isp.RA{Interval: 4 * time.Second, Prefixes: []isp.RAPrefix{old, another}})
	s.delegation(newPool)
	_, delegations := s.awaitHeld(0, 1)
	s.holds(onLAN(nil, delegations...))
	s.hostAddress(newPool, "preferred", preferred)
	s.reach()
	if seen := v.Counts().Seen; seen[pd.Rebind] != 1 || seen[pd.Solicit] != 1 {
		t.Errorf("the client has sent %v", seen)
	}
}

// TestFlappingLink takes the carrier away twenty times, and each time the client notices. It verifies its lease after each
// return, until its limit of messages holds it back; the lease and what follows from it in the kernel stay all the time.
func TestFlappingLink(t *testing.T) {
	t.Parallel()
	s, v := bound(t, forever, prompt)
	_, delegations := s.held()
	s.holds(onLAN(nil, delegations...))
	before := s.kernelText()
	log := subscribe(t, s.router)
	const flaps = 20
	for range flaps {
		for _, up := range []bool{false, true} {
			s.isp.IP("link set up0 %s", map[bool]string{false: "down", true: "up"}[up])
			s.eventually(fmt.Sprintf("the client to see the link up: %t", up), func() (bool, string) {
				c := s.uplink().Client
				return c.State != "" && (c.State != pd.StateNoLink) == up, c.State
			})
		}
	}
	s.isp.LinkLocal("up0")
	s.isp.IP("-6 address add 2001:db8:1:1::1/64 dev up0 nodad") // the flaps took away what the provider had on up0
	s.route(pool)
	s.eventually("the lease to be confirmed", func() (bool, string) {
		c := s.uplink().Client
		return c.State == "bound" && v.Counts().Seen[pd.Rebind] > 0, fmt.Sprint(c, v.Counts().Seen)
	})
	t.Logf("messages after %d flaps: %v", flaps, v.Counts().Seen)
	if seen := v.Counts().Seen; seen[pd.Solicit] != 1 || seen[pd.Renew] != 0 {
		t.Errorf("the client has sent %v", seen)
	}
	v.withinLimit(t)
	if _, now := s.held(); !slices.Equal(now, delegations) {
		t.Errorf("holds %v, held %v", now, delegations)
	}
	s.holds(onLAN(nil, delegations...))
	if now := s.kernelText(); now != before {
		t.Errorf("the kernel before:\n%safter:\n%s", before, now)
	}
	for _, m := range gone(written(log.take())) {
		if delegations[0].Overlaps(m.Prefix) && m.Prefix.IsValid() {
			t.Errorf("taken away meanwhile: %s", m.Text)
		}
	}
	s.reach()
}

// withinLimit checks that the client has never sent more than 20 messages in 20 s (RFC 9915 §14.1).
func (v *simulated) withinLimit(t *testing.T) {
	t.Helper()
	const most, window = 20, 20 * time.Second
	list := v.Exchanges()
	for i := range list {
		// What was sent at the beginning of a window may have arrived late, so the window is a little shorter here.
		if last := i + most; last < len(list) && list[last].At.Sub(list[i].At) < window-time.Second {
			t.Errorf("%d messages in %s", most+1, list[last].At.Sub(list[i].At))
		}
	}
}
