package client

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/pd/wire"
)

// TestAnySource has answers from global addresses and other ports than 547, as some providers send them
// (https://github.com/opnsense/core/issues/7527, https://github.com/openwrt/firewall4/pull/81). That the socket lets them
// through is shown by TestSocket.
func TestAnySource(t *testing.T) {
	for _, from := range []string{"[fe80::2]:546", "[fe80::2]:49152", "[2001:db8::1]:547", "[2001:db8::1]:1", "[fd00::1]:547"} {
		t.Run(from, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := start(t, silent)
				l.SetLink(wan)
				time.Sleep(100 * time.Millisecond)
				c := l.conn()
				answer := granting(c.sent[0])[0]
				answer.Preference = 255
				b, err := wire.Encode(answer)
				if err != nil {
					t.Fatal(err)
				}
				c.packets <- packet{b, time.Now(), netip.MustParseAddrPort(from), wan.LinkLocal}
				synctest.Wait()
				wantMessages(t, c, "Solicit", "Request")
			})
		})
	}
}
