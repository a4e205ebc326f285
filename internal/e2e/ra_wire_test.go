package e2e

import (
	"encoding/hex"
	"strings"
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/internal/netlab"
)

// The tests of this file read with tcpdump what a host hears from the router, and ask with rdisc6.

// heard are the router advertisements that arrive at the host.
type heard struct {
	s       *site
	tcpdump *netlab.Process
}

// hears begins to listen on the host's link.
func (s *site) hears() *heard {
	s.t.Helper()
	netlab.NeedProgram(s.t, "tcpdump", "tcpdump")
	netlab.NeedProgram(s.t, "rdisc6", "ndisc6")
	h := &heard{s: s, tcpdump: s.host.Start(s.host.Command(s.t.Context(), "tcpdump", "-l", "-n", "-t", "-vv", "-Q", "in", "-i", "eth0", "icmp6 and ip6[40] == 134"))}
	s.eventually("tcpdump to listen", func() (bool, string) {
		out := h.tcpdump.Output()
		return strings.Contains(out, "listening on eth0"), out
	})
	return h
}

// all are the advertisements heard so far, in the words of tcpdump.
func (h *heard) all() []string {
	_, text, _ := strings.Cut(h.tcpdump.Output(), "listening on")
	parts := strings.Split(text, "\nIP6 ")
	return parts[1:]
}

// next waits for an advertisement after the first n which has what is wanted, and returns it and the number of those until then.
func (h *heard) next(n int, what string, wanted ...string) (message string, number int) {
	h.s.t.Helper()
	h.s.eventually(what, func() (bool, string) {
		list := h.all()
		for i, m := range list[min(n, len(list)):] {
			if containsAll(m, wanted) {
				message, number = m, n+i+1
				return true, ""
			}
		}
		return false, strings.Join(list[min(n, len(list)):], "\n")
	})
	return message, number
}

func containsAll(text string, wanted []string) bool {
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// asks has the host solicit, and reports whether somebody answered.
func (h *heard) asks() bool {
	return strings.Contains(output(h.s.host, "rdisc6", "-1", "-r", "2", "-w", "1000", "eth0"), "Hop limit")
}

// TestRAWithoutWayOut: RFC 7084 G-4 and G-5. When the uplink loses its default router the hosts hear of it at once; they keep
// their addresses. The router is a default router again as soon as it can be.
func TestRAWithoutWayOut(t *testing.T) {
	t.Parallel()
	s, v := bound(t, forever, prompt)
	h := s.hears()
	for _, c := range []struct {
		what, life string
		change     func()
	}{{"the uplink's router goes away", "router lifetime 0s", v.StopRA}, {"it is back", "router lifetime 1800s", v.StartRA}} {
		before, began := len(h.all()), time.Now()
		c.change()
		m, n := h.next(before, c.what, c.life)
		t.Logf("%7.1f ms until the host heard of it: %s", time.Since(began).Seconds()*1000, c.what)
		if n != before+1 {
			t.Errorf("%s: said only in advertisement %d after it:\n%s", c.what, n-before, strings.Join(h.all()[before:], "\n"))
		}
		if !containsAll(m, []string{"hlim 255", "[icmp6 sum ok]", "Flags [onlink, auto]", "valid time 5400s, pref. time 2700s"}) {
			t.Errorf("%s:\n%s", c.what, m)
		}
		h.next(n, c.what+", said again", c.life)
	}
	s.hostAddress(pool, "preferred", preferred)
	s.reach()
}

// sendsRAs reports whether the daemon has a raw socket on lan0 in the router.
func (s *site) sendsRAs() bool {
	s.t.Helper()
	address := s.router.LinkLocal("lan0").As16()
	for i := 0; i < len(address); i += 4 { // /proc has words of four octets in the order of the machine
		word := address[i : i+4]
		word[0], word[1], word[2], word[3] = word[3], word[2], word[1], word[0]
	}
	return strings.Contains(s.router.Run("cat", "/proc/net/raw6"), strings.ToUpper(hex.EncodeToString(address[:])))
}

// TestRASwitchedOff: with ra.enabled = false nothing is sent and no socket is open. Switched on and off again, the router says that
// it is no default router, and leaves addresses alone: another daemon may announce the same prefix.
func TestRASwitchedOff(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	s.simulate(forever)
	off := prompt + "ra.enabled = false\n"
	s.configure(off)
	s.start()
	s.awaitHealthy()
	h := s.hears()
	if h.asks() || len(h.all()) != 0 || s.sendsRAs() {
		t.Errorf("switched off: socket %t, advertisements: %q", s.sendsRAs(), h.all())
	}
	s.configure(prompt)
	s.hangup()
	old := s.hostAddress(pool, "preferred", preferred)
	if !h.asks() || !s.sendsRAs() {
		t.Errorf("switched on: socket %t, advertisements: %q", s.sendsRAs(), h.all())
	}
	before := len(h.all())
	s.configure(off)
	s.hangup()
	m, n := h.next(before, "the last word", "router lifetime 0s")
	if strings.Contains(m, "prefix info") || strings.Contains(m, "rdnss") {
		t.Errorf("the last word withdraws more than the router:\n%s", m)
	}
	s.eventually("the socket to be closed", func() (bool, string) { return !s.sendsRAs(), "/proc/net/raw6 has it" })
	if h.asks() || len(h.all()) != n {
		t.Errorf("switched off again: %q", h.all()[n:])
	}
	if a := s.hostAddress(pool, "preferred", preferred); a.Local != old.Local {
		t.Errorf("the host had %s and has %s", old.Local, a.Local)
	}
}

// TestRAFinal: a daemon that ends says nothing, since the kernel routes on. A downstream that leaves the config takes back
// everything it has said.
func TestRAFinal(t *testing.T) {
	t.Parallel()
	s, _ := bound(t, isp.Config{Preferred: 3000, Valid: 4000}, prompt)
	h := s.hears()
	s.end(syscall.SIGTERM)
	before := len(h.all())
	if h.asks() {
		t.Error("somebody answers without a daemon")
	}
	for _, m := range h.all()[:before] {
		if strings.Contains(m, "router lifetime 0s") {
			t.Errorf("at the end of the daemon:\n%s", m)
		}
	}
	s.hostAddress(pool, "preferred", preferred)
	s.reach()

	s.start()
	s.awaitHealthy()
	h.next(before, "advertisements after a restart", "router lifetime 1800s")
	before = len(h.all())
	uplink, _, _ := strings.Cut(prompt, "[downstream.lan]")
	s.configure(uplink)
	s.hangup()
	h.next(before, "the withdrawal of everything", "router lifetime 0s", "valid time 0s, pref. time 0s")
	s.hostAddress(pool, "deprecated", deprecated)
}
