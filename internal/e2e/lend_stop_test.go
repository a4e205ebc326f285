package e2e

import (
	"testing"
)

// TestInnerHearsOfConfig has the operator rename what lends, give its place to a transit, or end lending: the inner router,
// which takes Reconfigure messages, and so its host, hear of it at once and not when half the lifetime is over.
func TestInnerHearsOfConfig(t *testing.T) {
	const second = "[downstream.second]\ninterface = \"lan1\"\n"
	for _, c := range []struct {
		name, then string
		lends      bool
	}{
		{"renamed", "[downstream.other]\ninterface = \"lan1\"\n", true},
		{"transit", withInner, true},
		{"ended", second + "dhcpv6.delegate = false\n", false},
		{"off", second + "dhcpv6 = \"off\"\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, _ := newNested(t, second)
			n.inner.configure(prompt)
			n.inner.start()
			n.inner.awaitHealthy()
			n.inner.hostAddress(n.awaitLoan(pool).Prefix.String(), "preferred", preferred)
			n.configure(prompt + c.then)
			n.hangup()
			if c.lends {
				n.inner.hostAddress(n.awaitLoan(pool).Prefix.String(), "preferred", preferred)
				n.inner.reach()
				return
			}
			n.inner.eventually("no preferred address on the host", func() (bool, string) {
				for _, a := range addresses(n.inner.host, "eth0") {
					if preferred(a) {
						return false, a.Local.String()
					}
				}
				return true, ""
			})
		})
	}
}
