package engine

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel/fake"
	"uplinkd/policy"
)

// The kernel is asked for a packet filter only while the config has a service that depends on it.
func TestFilterIsLookedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, filtered := 0, false
		var failure error
		kern := &fake.Kernel{Link: fakeLinks()}
		e := start(t, kern, newMemory(), parse(t, bound.config), func(o *Options) {
			o.Filtered = func(context.Context) (bool, error) { asked++; return filtered, failure }
		})
		walker{t, e, kern, kern.SetLink}.visit(bound)
		if asked != 0 {
			t.Errorf("asked %d times for nobody", asked)
		}
		const trap = "[downstream.trap]\nkind = \"service\"\ninterface = \"wan0\"\nanyip.mode = \"interface\"\n"
		if err := e.Reload(t.Context(), parse(t, bound.config+trap)); err != nil {
			t.Fatal(err)
		}
		armed := func() bool { return e.Snapshot().Site.Downstream("trap").AnyIP.Armed }
		if armed() || asked == 0 {
			t.Errorf("without a filter: armed %v, asked %d times", armed(), asked)
		}
		filtered = true
		e.Hint()
		pass(time.Second)
		if !armed() {
			t.Error("not armed although there is a filter")
		}
		failure = errors.New("no buffer space available")
		filtered = false
		e.Hint()
		pass(time.Second)
		if !armed() {
			t.Error("a failed look takes the service away")
		}
		failure = nil
		e.Hint()
		pass(time.Second)
		if armed() {
			t.Error("armed although the filter has gone")
		}
		before := asked
		if err := e.Reload(t.Context(), parse(t, bound.config+trap+"anyip.unfiltered = true\n")); err != nil {
			t.Fatal(err)
		}
		if !armed() || asked != before {
			t.Errorf("unfiltered on purpose: armed %v, asked %d times more", armed(), asked-before)
		}
	})
}

// The ULA prefix is the config's, or the router's own where the config asks for one.
func TestULA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := netip.MustParsePrefix("fd99:8877:6655::/48")
		kern := &fake.Kernel{Link: fakeLinks()}
		var served policy.Site
		e := start(t, kern, newMemory(), parse(t, bound.config), func(o *Options) {
			o.ULA = own
			o.Serve = func(s policy.Site) { served = s }
		})
		for text, want := range map[string]netip.Prefix{
			"ula = \"auto\"\n":                   own,
			"ula = \"fd12:3456:789a::/48\"\n":    netip.MustParsePrefix("fd12:3456:789a::/48"),
			"ula = \"fd12:3456:789a:40::/60\"\n": netip.MustParsePrefix("fd12:3456:789a:40::/60"),
			"":                                   {},
		} {
			if err := e.Reload(t.Context(), parse(t, text+bound.config)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := e.Snapshot().Site.ULA; got != want || served.ULA != want {
				t.Errorf("%s: %s, and servers were told of %s", text, got, served.ULA)
			}
		}
	})
}
