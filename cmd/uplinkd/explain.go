package main

import (
	"fmt"
	"net/netip"
	"strings"

	"uplinkd/internal/ctl"
	"uplinkd/internal/lifetime"
)

var explainVerb = verb{
	name: "explain", args: "ADDRESS|PREFIX", summary: "what uplinkd has to do with an address or prefix, and why",
	about: "Asks the daemon about an IP address: what it is (the router's own, in a downstream's subnet, lent to an inner router, in an unused part of a delegation, " +
		"withdrawn, gone, a next hop, on the link of an uplink), the lease and the lines of the configuration behind it, and the routes, rules and nft tables that concern it, each with its reason. " +
		"Of a prefix it tells what holds for all of its addresses, and who has which parts of it.",
	failed:   "it is not ours, or the daemon cannot be asked",
	examples: []string{"uplinkd explain 2001:db8:100::1", "uplinkd explain 2001:db8:100:fe::/64", "uplinkd explain --json 2001:db8:100::1 | jq -r '.roles[]'"},
	run:      cmdExplain,
}

func cmdExplain(env *environment, args []string) int {
	fs := env.flags("explain")
	env.askFlags(fs)
	env.jsonFlag(fs)
	rest, status, ok := env.parse(fs, args, 1, 1)
	if !ok {
		return status
	}
	var what fmt.Stringer
	if prefix, err := netip.ParsePrefix(rest[0]); err == nil {
		what = prefix.Masked()
	} else if addr, err := netip.ParseAddr(rest[0]); err == nil {
		what = addr
	} else {
		return env.usage("explain", "%q is neither an IP address nor a prefix", rest[0])
	}
	x, err := env.client().Explain(env.ctx, what)
	if err != nil {
		return env.fail(err)
	}
	switch {
	case env.json:
		env.printJSON(x)
	case x.Ours:
		env.page().explanation(x)
	default:
		env.page().block("", subject(x)+" is not ours: no delegation, subnet, next hop, link or announcement of uplinkd has to do with it. "+
			"All there is: uplinkd status", plain)
	}
	if !x.Ours {
		return exitFailed
	}
	return exitOK
}

// subject is what was asked about.
func subject(x ctl.Explanation) string {
	if x.Prefix.IsValid() {
		return x.Prefix.String()
	}
	return x.Address.String()
}

func (p page) explanation(x ctl.Explanation) {
	p.put(bold, subject(x)+" is")
	p.newline()
	for _, r := range x.Roles {
		p.block("  - ", r, plain)
	}
	p.contains(x.Contains)
	if len(x.Subnets)+len(x.Loans)+len(x.Delegations) > 0 {
		p.newline()
	}
	for _, l := range x.Loans {
		p.field("lent", fmt.Sprintf("%s, part of %s, %s, for %s unless extended", l.Prefix, l.Delegation, l.State, lifetime.Span(l.Until.Seconds)))
		p.field("", fmt.Sprintf("to %s, IAID 0x%08x", l.Client, l.IAID))
		p.field("", "by "+l.Config)
	}
	for _, n := range x.Subnets {
		p.field("subnet", fmt.Sprintf("%s, number %d of %s, %s, valid %s", n.Prefix, n.ID, n.Delegation, preferredText(n.State, n.Preferred), lifetime.Span(n.Valid.Seconds)))
		p.field("", "asked for by "+n.Config)
	}
	for _, g := range x.Delegations {
		p.field("delegation", fmt.Sprintf("%s on uplink %s, %s, valid %s", g.Prefix, g.Uplink, preferredText(g.State, g.Preferred), lifetime.Span(g.Valid.Seconds)))
		p.field("", "asked for by "+g.Config)
		p.field("lease", leaseText(g.Client, x))
	}
	p.rowList("addresses", x.Addresses)
	p.rowList("routes that match it, the most specific first", x.Routes)
	p.rowList("rules for packets from it or to it, in order", x.Rules)
	p.rowList("nft tables", x.Tables)
}

// contains writes who has what of a prefix; only the first of very many.
func (p page) contains(parts []ctl.Part) {
	if len(parts) == 0 {
		return
	}
	const most = 64
	p.heading("who has what of it")
	var rows [][]string
	for _, x := range parts[:min(len(parts), most)] {
		rows = append(rows, []string{x.Prefix.String(), x.Use})
	}
	for _, line := range table(rows) {
		p.block("  ", line, plain)
	}
	if more := len(parts) - most; more > 0 {
		p.block("  ", fmt.Sprintf("and %d more; all of them: --json", more), plain)
	}
}

func leaseText(c ctl.Client6, x ctl.Explanation) string {
	if c.ServerID == "" {
		return "none"
	}
	text := fmt.Sprintf("from server %s, IAID 0x%08x", c.ServerID, c.IAID)
	if c.Received != nil {
		text += ", " + strings.TrimSpace(c.Cause+" "+since(*c.Received, x.Time)+" ago")
	}
	if c.Renew != nil && c.Rebind != nil {
		text += ", renew " + leftUntil(*c.Renew) + ", rebind " + leftUntil(*c.Rebind)
	}
	return text
}

func leftUntil(l ctl.Lifetime) string {
	if l.Seconds == 0 {
		return "due"
	}
	return "in " + lifetime.Span(l.Seconds)
}

func (p page) rowList(heading string, rows []ctl.Row) {
	if len(rows) == 0 {
		return
	}
	p.heading(heading)
	for _, r := range rows {
		p.block("  ", r.Text, plain)
		p.block("      ", r.Reason.Rule+" ["+r.Reason.Config+"]", plain)
	}
}
