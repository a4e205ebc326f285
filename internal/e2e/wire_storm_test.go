package e2e

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/pd"
)

// twoUplinks has a second uplink, on which there is no provider.
var twoUplinks = `
[uplink.fiber]
interface = "wan0"
dhcpv6.delay = false

[uplink.other]
interface = "wan1"
dhcpv6.delay = false

[downstream.lan]
interface = "lan0"
`

// stormRate is how many messages are forged in a second.
const stormRate = 10000

// TestStorm floods one uplink with forged messages. The Renews of the other are answered all the same, each of them the
// first time, and the kernel's lifetimes follow.
func TestStorm(t *testing.T) {
	t.Parallel()
	for name, storm := range map[string]struct {
		kind isp.StormKind
		felt string // what the daemon says because of it
	}{
		"DHCPv6": {isp.ForgedDHCPv6, "DHCPv6 packets dropped that answer nothing"},
		"RA":     {isp.ForgedRAs, "another default router"},
	} {
		t.Run(name, func(t *testing.T) { // one after the other: a storm is hard on everybody
			s := newSite(t, false)
			s.lab.Veth(s.far, "storm0", s.router, "wan1", "", "02:00:00:00:04:01")
			to := isp.Target{Hardware: net.HardwareAddr{2, 0, 0, 0, 4, 1}, Address: s.router.LinkLocal("wan1")}
			v := s.simulate(offer{preferred: 60, valid: 90, t1: 10, t2: 50}.simulated())
			s.configure(twoUplinks)
			s.start()
			s.awaitHeld(0, 1)
			s.reach()
			log := subscribe(t, s.router)

			rained := s.storm(storm.kind, to)
			s.eventually("the storm to be felt", func() (bool, string) {
				out := s.daemon.Output()
				return strings.Contains(out, storm.felt), out
			})
			before := v.Counts().Seen[pd.Renew]
			s.awaitSeen(v, pd.Renew, before+2)
			s.eventually("the Renews to be followed in the kernel", func() (bool, string) {
				// T1 is 10 s: without the last Renew no more than 80 of 90 s were left.
				list := addresses(s.router, "lan0")
				return len(list) == 1 && list[0].Valid > 82, fmt.Sprint(list)
			})
			s.reach()
			sent, took := rained()
			t.Logf("%d forged messages in %s: %.0f in a second", sent, took.Round(time.Millisecond), float64(sent)/took.Seconds())
			if sent == 0 {
				t.Error("there was no storm")
			}
			v.answeredAtOnce(t)
			for _, g := range gone(log.take()) {
				t.Errorf("in the storm: %s", g.Text)
			}
		})
	}
}

// storm begins a storm; the function returned ends it and tells how many messages it has sent.
func (s *site) storm(kind isp.StormKind, to isp.Target) (end func() (sent int, took time.Duration)) {
	s.t.Helper()
	var storm *isp.Storm
	if err := s.far.Do(func() (err error) { storm, err = isp.OpenStorm("storm0", kind, to); return err }); err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(s.t.Context())
	var sent int
	var took time.Duration
	var fault error
	over := make(chan struct{})
	go func() {
		defer close(over)
		sent, took, fault = storm.Run(ctx, stormRate)
	}()
	s.t.Cleanup(func() { stop(); <-over; storm.Close() })
	return func() (int, time.Duration) {
		s.t.Helper()
		stop()
		<-over
		if fault != nil {
			s.t.Error(fault)
		}
		return sent, took
	}
}

// answeredAtOnce fails the test if the client has had to repeat a message, or to go beyond a Renew.
func (v *simulated) answeredAtOnce(t *testing.T) {
	t.Helper()
	seen := map[uint32]pd.MessageType{}
	for _, e := range v.Exchanges() {
		if typ, again := seen[e.Request.XID]; again {
			t.Errorf("the client had to repeat a %s, after %s", typ, e.Request.Elapsed)
		}
		seen[e.Request.XID] = e.Request.Type
	}
	if now := v.Counts().Seen; now[pd.Solicit] != 1 || now[pd.Rebind] != 0 {
		t.Errorf("the client has sent %v", now)
	}
}
