package policy

import (
	"fmt"
	"strings"
	"testing"
)

// manyDownstreams is a /44 with a thousand networks.
func manyDownstreams(tb testing.TB, n int) (string, World) {
	var text strings.Builder
	text.WriteString("[uplink.fiber]\ninterface = \"wan0\"\n")
	names := []string{"wan0", "lo"}
	for i := range n {
		fmt.Fprintf(&text, "[downstream.lan%d]\ninterface = \"lan%d\"\n", i, i)
		names = append(names, fmt.Sprintf("lan%d", i))
	}
	w := world(epoch, names...)
	w.Uplinks["fiber"] = UplinkFacts{Reported: true, Delegations: []Granted{granted(epoch, "2001:db8:1100::/44", 3000, 4000)}}
	return text.String(), w
}

// A thousand networks out of a /44 are to be planned in less than 10 ms. No test asserts it: how long a busy machine takes says
// nothing.
func BenchmarkPlan(b *testing.B) {
	text, w := manyDownstreams(b, 1000)
	cfg := configOf(b, text)
	site, problems, led := Plan(cfg, w, Ledger{})
	if len(problems) > 0 || len(site.Downstreams[999].Subnets) != 1 {
		b.Fatalf("%v", problems)
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			Plan(cfg, w, Ledger{})
		}
	})
	b.Run("again", func(b *testing.B) {
		for b.Loop() {
			Plan(cfg, w, led)
		}
	})
	b.Run("compile", func(b *testing.B) {
		for b.Loop() {
			Compile(site)
		}
	})
}
