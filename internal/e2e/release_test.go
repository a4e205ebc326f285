package e2e

import (
	"syscall"
	"testing"

	"uplinkd/pd"
)

// TestRelease gives the lease back at the end only where the config asks for it (RFC 9096 WPD-9).
func TestRelease(t *testing.T) {
	t.Parallel()
	s, v := bound(t, forever, prompt)
	s.end(syscall.SIGTERM)
	if n := v.Counts().Seen[pd.Release]; n != 0 {
		t.Errorf("%d Releases although the config does not ask for one", n)
	}
	before := s.kernelText()
	s.configure(releasing)
	s.start()
	s.awaitHealthy()
	s.hangup()
	if n := v.Counts().Seen[pd.Release]; n != 0 {
		t.Errorf("%d Releases after a restart and SIGHUP", n)
	}
	if now := s.kernelText(); now != before {
		t.Errorf("before:\n%safter:\n%s", before, now)
	}
	s.end(syscall.SIGTERM)
	if n, left := v.Counts().Seen[pd.Release], v.Bindings(); n != 1 || len(left) != 0 {
		t.Errorf("%d Releases, want 1; still bound: %v", n, left)
	}
	// What was given back may be somebody else's soon.
	if left := addresses(s.router, "lan0"); len(left) > 0 {
		t.Errorf("after the Release lan0 has %v", left)
	}
	s.hostAddress("2001:db8::/32", "deprecated", deprecated) // hosts are told before the daemon goes (RFC 9915 §18.2.7)
	s.start()
	s.awaitHealthy()
	s.reach()
	s.end(syscall.SIGKILL)
	if n := v.Counts().Seen[pd.Release]; n != 1 {
		t.Errorf("%d Releases after SIGKILL, want still 1", n)
	}
}

const releasing = `
[uplink.fiber]
interface = "wan0"
dhcpv6.delay = false
dhcpv6.release = true

[downstream.lan]
interface = "lan0"
`
