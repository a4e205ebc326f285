package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/ctl"
	"uplinkd/pd"
)

// TestReloadOfNobody asks for a reload and goes away. It is carried out all the same: the new network works.
func TestReloadOfNobody(t *testing.T) {
	t.Parallel()
	s, _ := bound(t, forever, prompt)
	guest := s.lab.NS("guest")
	guest.Sysctl("net.ipv6.conf.all.accept_dad", "0")
	guest.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	s.lab.Veth(s.router, "lan1", guest, "eth0")
	s.configure(prompt + "[downstream.guest]\ninterface = \"lan1\"\n")
	conn, err := net.Dial("unix", filepath.Join(s.dir, "run", ctl.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "POST /v1/reload HTTP/1.1\r\nHost: uplinkd\r\nContent-Length: 0\r\n\r\n")
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	s.eventually("an address on the guest host", func() (bool, string) {
		list := addresses(guest, "eth0")
		return len(list) > 0 && inside(pool, list[0].Local), s.daemon.Output()
	})
	s.awaitHealthy()
}

// TestReloadAtAnyTime sends SIGHUP to a daemon that is starting, and to one that is stopping. It is no reason to die.
func TestReloadAtAnyTime(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	s.simulate(forever)
	s.configure(prompt)
	lock := filepath.Join(s.dir, "state", "lock")
	for range 5 {
		s.start()
		daemon, mine := s.daemon, fmt.Sprintf("%d\n", s.daemon.PID())
		// The lock is the first that is seen of a daemon; the runtime of Go, before its main, does die of SIGHUP.
		s.atOnce("the lock to be taken", func() bool {
			pid, err := os.ReadFile(lock)
			return err == nil && string(pid) == mine
		})
		s.hangup()
		s.awaitHealthy()
		if err := daemon.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.daemon, s.retired = nil, append(s.retired, daemon)
		s.atOnce("the end", func() bool {
			_ = daemon.Signal(syscall.SIGHUP) // it may have ended
			select {
			case <-daemon.Done():
				return true
			default:
				return false
			}
		})
		if err := daemon.Err(); err != nil {
			t.Errorf("the end: %v\n%s", err, daemon.Output())
		}
	}
}

// TestReloadWithoutDisk changes the section of an uplink whose lease the disk has refused, while its provider is silent: the
// client goes on with the lease that it held, and the LAN keeps its prefix.
func TestReloadWithoutDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v := s.simulate(forever)
	s.configure(prompt)
	obstacle := filepath.Join(s.dir, "state", "lease-fiber.json.tmp", "in the way")
	if err := os.MkdirAll(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	s.start()
	before := s.hostAddress(pool, "preferred", preferred)
	s.problem("lease-fiber.json.tmp")
	v.Silence(true)
	s.configure(strings.Replace(prompt, "dhcpv6.delay = false", "dhcpv6.delay = false\ndhcpv6.dscp = 48", 1))
	solicits := v.Counts().Seen[pd.Solicit]
	s.hangup()
	s.eventually("the client to ask about the lease", func() (bool, string) {
		seen := v.Counts().Seen
		return seen[pd.Confirm]+seen[pd.Rebind]+seen[pd.Renew] > 0 || seen[pd.Solicit] > solicits, fmt.Sprint(seen)
	})
	if n := v.Counts().Seen[pd.Solicit] - solicits; n > 0 {
		t.Errorf("the client has forgotten the lease: it has sent %d Solicits", n)
	}
	if after := s.hostAddress(pool, "preferred", preferred); after.Local != before.Local {
		t.Errorf("the host has %s, before it had %s", after.Local, before.Local)
	}
	s.reach()
}

// atOnce waits for check without the pauses of eventually.
func (s *site) atOnce(what string, check func() bool) {
	s.t.Helper()
	for end := time.Now().Add(limit); !check(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			s.t.Fatalf("waited %s for %s", limit, what)
		}
	}
}
