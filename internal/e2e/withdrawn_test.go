package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestWithdrawnDoesNotLoop: a provider takes a prefix back and goes on routing it here, as many do for a while. What comes for
// it is refused instead of going back and forth, and so is what has a source in it, until its lease would have ended; then
// nothing is left of it.
func TestWithdrawnDoesNotLoop(t *testing.T) {
	t.Parallel()
	s, v := bound(t, offer{preferred: 25, valid: 30, t1: 1000, t2: 1000}.simulated(), prompt)
	old := s.delegation(pool).Prefix
	v.SetLifetimes(1000, 1000, 900, 950)
	if err := v.Renumber(netip.MustParsePrefix(newPool), 0); err != nil {
		t.Fatal(err)
	}
	s.renew()
	s.delegation(newPool)
	s.eventually(old.String()+" to be withdrawn", func() (bool, string) {
		list := s.statusNow().Uplinks[0].Withdrawn
		return len(list) == 1 && list[0].Prefix == old, fmt.Sprint(list)
	})
	s.unusedIsUnreachable(old)

	// A tunnel of the router's user, which no downstream knows of, still has an address of it.
	s.router.IP("link add tun0 type veth peer name tun1")
	s.router.IP("link set tun0 up")
	s.router.IP("link set tun1 up")
	a := old.Addr().As16()
	a[7], a[15] = 0x66, 1
	source := netip.AddrFrom16(a).String()
	s.router.IP("-6 address add %s/64 dev tun0 nodad", source)
	if out := output(s.router, "ip", "-6", "route", "get", farAddress, "from", source); !strings.Contains(out, "unreachable") {
		t.Errorf("what comes from %s, which is withdrawn, goes to %s", source, out)
	}
	s.router.IP("link del tun0")

	s.eventually("nothing of "+old.String()+" to be left", func() (bool, string) {
		text := s.kernelText()
		return !strings.Contains(text, strings.TrimSuffix(old.Addr().String(), ":")), text
	})
	s.reach()
}
