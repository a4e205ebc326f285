package radv

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Signs compares what routers advertised on an uplink with what they advertise now, and finds what suggests that the uplink
// is on another network, or that this one was renumbered: then a DHCPv6 client verifies what it holds (RFC 9915 §18.2.12).
// It is pure; the zero value has seen nothing yet.
type Signs struct {
	link   int        // index of the interface
	router netip.Addr // the best default router that there was last
	away   bool       // there is no default router now
	macs   macs       // of router
	before Facts
}

// Read takes in facts in their order and says in words, for people, what is suspicious; "" if nothing is. What is heard
// first on a link is no change: the client verifies its lease by itself when a link comes up.
func (s *Signs) Read(f Facts, now time.Time) string {
	if f.Interface != s.link {
		*s = Signs{link: f.Interface, before: f}
		s.routerSigns(f, now)
		return ""
	}
	signs := append(s.routerSigns(f, now), prefixSigns(s.before, f, now)...)
	s.before = f
	if more := len(signs) - maxSigns; more > 0 {
		signs = append(signs[:maxSigns], fmt.Sprintf("%d more", more))
	}
	return strings.Join(signs, ", ")
}

// maxSigns bounds a line of the log that others on the link can cause.
const maxSigns = 4

// routerSigns compares the best default router. One that was none for a while may have been restarted, without what it or its
// server knew of us, or have lost its own prefixes and got them back.
func (s *Signs) routerSigns(f Facts, now time.Time) (signs []string) {
	if len(f.Routers) == 0 {
		s.away = true
		return nil
	}
	router, mac := f.Routers[0].Address, f.MACs[0]
	switch {
	case router != s.router:
		if s.router.IsValid() {
			signs = append(signs, "another default router: "+router.String())
		}
		s.router, s.macs = router, macs{}
		s.macs.news(mac, now)
	case s.macs.news(mac, now): // many providers call all of their routers fe80::1
		signs = append(signs, "default router "+router.String()+" has another MAC address: "+mac)
	case s.away:
		signs = append(signs, "default router is back: "+router.String())
	}
	s.away = false
	return signs
}

// macs are the MAC addresses that a router has said it has. Two routers with one link-local address tell theirs in turn: an
// address that is known counts only after a pause, which doubles. So this comes to rest, and when one of them takes the
// other's place now and then it still counts.
type macs struct {
	last  string
	known []string
	quiet time.Time     // until then a known one says nothing
	pause time.Duration // the last one
}

const (
	maxMACs       = 8
	firstMACPause = 30 * time.Second
	longMACPause  = time.Hour // a router advertises at least every half hour (RFC 4861 §6.2.1)
)

// news takes in what the router says now, and reports whether that suggests another network. What it says first does not.
func (m *macs) news(mac string, now time.Time) bool {
	if mac == "" || mac == m.last {
		return false
	}
	first := m.last == ""
	m.last = mac
	if !slices.Contains(m.known, mac) {
		m.known = append(m.known[max(0, len(m.known)+1-maxMACs):], mac)
		return !first
	}
	if now.Before(m.quiet) {
		return false
	}
	if now.Sub(m.quiet) > longMACPause {
		m.pause = 0
	}
	m.pause = min(max(firstMACPause, 2*m.pause), longMACPause)
	m.quiet = now.Add(m.pause)
	return true
}

// prefixSigns compares the prefixes. One whose lifetime runs out was to go, and says nothing.
func prefixSigns(before, after Facts, now time.Time) (signs []string) {
	for _, p := range after.Prefixes {
		if o, known := before.prefix(p.Prefix); p.OnLink && !o.OnLink {
			signs = append(signs, "new on-link prefix: "+p.Prefix.String())
		} else if known && o.used() && p.PreferredUntil.IsZero() && !o.PreferredUntil.Over(now) {
			signs = append(signs, "prefix deprecated by a router: "+p.Prefix.String())
		}
	}
	for _, o := range before.Prefixes {
		if _, there := after.prefix(o.Prefix); !there && o.used() && !o.ValidUntil.Over(now.Add(tolerance)) {
			signs = append(signs, "prefix withdrawn by a router: "+o.Prefix.String())
		}
	}
	return signs
}

// prefix finds what f says about a prefix.
func (f Facts) prefix(p netip.Prefix) (found Prefix, ok bool) {
	for _, o := range f.Prefixes {
		if o.Prefix == p {
			return o, true
		}
	}
	return Prefix{}, false
}

// used reports whether hosts have a use for p: addresses, or neighbours.
func (p Prefix) used() bool { return p.OnLink || p.Autonomous }
