package e2e

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"uplinkd/internal/isp"
	"uplinkd/pd"
)

// TestReconfigure renumbers the site of a client that would not ask for hours: nothing tells it but a Reconfigure. Those
// that the provider has not made ask for a Rebind, which must never be sent because of them.
func TestReconfigure(t *testing.T) {
	t.Parallel()
	s, v := bound(t, forever, prompt)
	_, old := s.held()
	if err := v.Renumber(netip.MustParsePrefix(newPool), 0); err != nil {
		t.Fatal(err)
	}
	s.forge(v, isp.Unauthenticated, isp.WrongDigest, isp.Replayed)
	s.eventually("the forged Reconfigure to be in the log", func() (bool, string) {
		out := s.daemon.Output()
		return strings.Contains(out, "Reconfigure: dropped one"), out
	})
	s.holds(onLAN(nil, old...))
	if n := v.Counts().Seen[pd.Renew]; n != 0 {
		t.Errorf("%d Renews before anybody has asked for one", n)
	}

	s.genuine(v, pd.Renew)
	s.awaitSeen(v, pd.Renew, 1)
	s.delegation(newPool)
	_, renumbered := s.awaitHeld(0, 1)
	s.holds(onLAN(nil, renumbered...))
	s.hostAddress(newPool, "preferred", preferred)
	s.reach()

	// The key and the replay value are on disk: after a restart the genuine counts, and what was sent before does not.
	s.end(syscall.SIGKILL)
	s.start()
	s.awaitSeen(v, pd.Rebind, 1) // is what is held still good?
	s.eventually("the lease to be confirmed", func() (bool, string) {
		c := s.uplink().Client
		return c.State == "bound", c.State
	})
	s.forge(v, isp.Replayed, isp.WrongDigest)
	if err := v.Renumber(netip.MustParsePrefix(pool), 0); err != nil {
		t.Fatal(err)
	}
	s.genuine(v, pd.Renew)
	s.awaitSeen(v, pd.Renew, 2)
	s.delegation(pool)
	_, back := s.awaitHeld(0, 1)
	s.holds(onLAN(nil, back...))
	if seen := v.Counts().Seen; seen[pd.Rebind] != 1 || seen[pd.Renew] != 2 || seen[pd.Solicit] != 1 {
		t.Errorf("the client has sent %v", seen)
	}
}

// forge sends Reconfigures that ask for a Rebind.
func (s *site) forge(v *simulated, kinds ...isp.Forgery) {
	s.t.Helper()
	for _, f := range kinds {
		if n, err := v.Forge(pd.Rebind, f); n != 1 || err != nil {
			s.t.Fatalf("forgery %d: sent %d, %v", f, n, err)
		}
	}
}

func (s *site) genuine(v *simulated, typ pd.MessageType) {
	s.t.Helper()
	if n, err := v.Reconfigure(typ); n != 1 || err != nil {
		s.t.Fatalf("Reconfigure for %s: sent %d, %v", typ, n, err)
	}
}

// TestReconfigureRefused does not ask for a key, and does not listen to a provider that gives none.
func TestReconfigureRefused(t *testing.T) {
	t.Parallel()
	s, v := bound(t, forever, strings.Replace(prompt, "wan0\"\n", "wan0\"\ndhcpv6.reconfigure = false\n", 1))
	if n, err := v.Reconfigure(pd.Renew); n != 0 || err != nil {
		t.Errorf("%d clients have a key, %v", n, err)
	}
	_, delegations := s.held()
	s.holds(onLAN(nil, delegations...))
}
