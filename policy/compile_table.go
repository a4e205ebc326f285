package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel"
)

// table makes the nft table of the site, if it needs one.
func (c *compiler) table() {
	rules := c.deadSources()
	var why []string
	if rules.Text() != "" {
		why = append(why, "hosts that use a dead source are told (RFC 7084 L-14)")
	}
	if marks := c.marks(); len(marks) > 0 {
		why = append(why, "what is for services by port is marked")
		rules.Chains = append(rules.Chains, kernel.Chain{Name: "anyip", Hook: kernel.Hook{Type: "filter", Point: "prerouting", Priority: "mangle"}, Rules: marks})
	}
	if body := rules.Text(); body != "" {
		c.state.Tables = append(c.state.Tables, kernel.Table{Family: "ip6", Body: body,
			Reason: kernel.Reason{Config: "all downstreams", Rule: strings.Join(why, "; ")}})
	}
}

// deadSources answers what comes from prefixes that are not this router's any more: TCP with a reset, which ends a
// connection at once, everything else with ICMPv6 unreachable code 5. What hosts ask the router itself goes on, all of
// NDP, and what stays within the site. See kernel's example of this name for where it has to stand and why.
func (c *compiler) deadSources() (rules kernel.Ruleset) {
	var devices []string
	var dead []netip.Prefix
	for _, d := range c.site.Downstreams {
		if k := config.Kind(d.Kind); (k == config.Access || k == config.Transit) && kernel.Spellable(d.Interface) {
			devices = append(devices, d.Interface)
		}
		for _, s := range d.Dead {
			dead = append(dead, s.Prefix)
		}
	}
	if len(devices) == 0 || len(dead) == 0 {
		return rules
	}
	return kernel.Ruleset{
		Sets: []kernel.Set{kernel.DeviceSet("downstreams", devices), kernel.PrefixSet("dead", dead)},
		Chains: []kernel.Chain{
			{Name: "dead_source", Rules: []string{
				"ip6 daddr { fe80::/10, ff00::/8 } return",
				"fib daddr type { local, anycast } return",
				"fib daddr oifname " + kernel.Devices(devices) + " return",
				"meta l4proto tcp reject with tcp reset",
				"reject with icmpv6 type policy-fail",
			}},
			{Name: "prerouting", Hook: kernel.Hook{Type: "filter", Point: "prerouting", Priority: "raw"}, Rules: []string{
				"iifname @downstreams ip6 saddr @dead jump dead_source",
			}},
		},
	}
}

// marks are the rules that mark what is for services by port.
func (c *compiler) marks() (rules []string) {
	for _, d := range c.site.Downstreams {
		from := ""
		if d.Interface != "" {
			from = "iifname " + kernel.Quote(d.Interface) + " "
		}
		for _, protocol := range []string{"tcp", "udp"} {
			var ports []string
			for _, p := range d.AnyIP.Ports {
				if number, ok := strings.CutPrefix(p, protocol+"/"); ok {
					ports = append(ports, number)
				}
			}
			if len(ports) > 0 {
				slices.Sort(ports)
				rules = append(rules, fmt.Sprintf("%s%s dport { %s } meta mark set meta mark | 0x%x", from, protocol, strings.Join(slices.Compact(ports), ", "), d.AnyIP.Mark))
			}
		}
	}
	return rules
}
