package main

import (
	"fmt"
	"slices"
	"strings"

	"uplinkd/internal/ctl"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

var statusVerb = verb{
	name: "status", summary: "how the site is: uplinks, prefixes, downstreams, problems",
	about: "Asks the daemon how uplinks, delegated prefixes and downstreams are and what is wrong. " +
		"The first line says it in words, with what needs attention first: OK, DEGRADED (a prefix is in use, something needs attention), NO PREFIX or STARTING. " +
		"--json prints the same as a document whose field \"health\" is ok, degraded, no-prefix or starting.",
	failed:   "the daemon cannot be asked (whatever it answers is status 0)",
	examples: []string{"uplinkd status", "uplinkd status --json | jq -r .health", "watch -n 1 uplinkd status"},
	run:      cmdStatus,
}

func cmdStatus(env *environment, args []string) int {
	fs := env.flags("status")
	env.askFlags(fs)
	env.jsonFlag(fs)
	if _, status, ok := env.parse(fs, args, 0, 0); !ok {
		return status
	}
	s, err := env.client().Status(env.ctx)
	if err != nil {
		return env.fail(err)
	}
	if env.json {
		return env.printJSON(s)
	}
	env.page().status(s)
	return exitOK
}

// headlines are the first word of a status and its colour.
var headlines = map[ctl.Health]struct {
	word  string
	style style
}{
	ctl.OK:       {"OK", green},
	ctl.Degraded: {"DEGRADED", yellow},
	ctl.NoPrefix: {"NO PREFIX", red},
	ctl.Starting: {"STARTING", yellow},
}

func (p page) status(s ctl.Status) {
	head := headlines[s.Health]
	if head.word == "" {
		head.word = strings.ToUpper(string(s.Health)) // a newer daemon
	}
	p.block("", head.word+": "+s.Summary, head.style)
	p.problems(s.Problems)
	for _, u := range s.Uplinks {
		p.uplink(u, s)
	}
	if s.ULA.IsValid() {
		p.newline()
		p.put(bold, "ULA prefix: ")
		text := s.ULA.String()
		if slices.ContainsFunc(s.Uplinks, func(u ctl.Uplink) bool { return !u.Unasked }) {
			text += ", beside what is delegated"
		}
		p.put(plain, text)
		p.newline()
	}
	for _, d := range s.Downstreams {
		p.downstream(d)
	}
	p.hooks(s)
	p.newline()
	c := s.Counters
	tables := ""
	if len(s.Tables) > 0 {
		tables = " (nft: " + strings.Join(s.Tables, ", ") + ")"
	}
	p.block("", fmt.Sprintf("%s%s wanted, %d waiting to be removed; last reconcile took %.1f ms",
		count(s.Rows, "kernel object"), tables, s.Waiting, c.LastSeconds*1000), plain)
	p.block("", fmt.Sprintf("since the start: %s, %s, %d of them failed, %s; uplinkd %s",
		count(int(c.Reconciles), "reconcile"), count(int(c.KernelWrites), "kernel write"), c.KernelErrors, count(int(c.Events), "event"), s.Daemon), plain)
}

// title writes a heading such as "uplink fiber on wan0: up".
func (p page) title(text string, good bool, verdict string) {
	p.newline()
	p.put(bold, text+": ")
	color := red
	if good {
		color = green
	}
	p.put(color, verdict)
	p.newline()
}

func (p page) uplink(u ctl.Uplink, s ctl.Status) {
	verdict := "up"
	if !u.Up {
		verdict = "DOWN, " + u.Reason
	}
	p.title("uplink "+u.Name+" on "+u.Interface, u.Up, verdict)
	switch {
	case !u.Gateway.IsValid():
		p.field("gateway", "none")
	case u.GatewayLeft != nil:
		p.field("gateway", fmt.Sprintf("%s, %s; table %d, metric %d", u.Gateway, left(*u.GatewayLeft), u.Table, u.Metric))
	}
	p.field("client", clientText(u.Name, u.Client, s))
	if u.Client.Failure != "" {
		p.field("last failure", u.Client.Failure)
	}
	p.lack(u)
	var rows [][]string
	for _, g := range u.Delegations {
		rows = append(rows, []string{g.Prefix.String(), preferredText(g.State, g.Preferred), "valid " + lifetime.Span(g.Valid.Seconds)})
	}
	for _, line := range table(rows) {
		p.field("delegation", line)
	}
	switch {
	case len(rows) > 0:
	case u.Unasked:
		p.field("delegation", "none, and none is asked for (dhcpv6.prefixes)")
	default:
		p.field("delegation", "none")
	}
	p.withdrawn(u.Withdrawn)
	for _, a := range u.Addresses {
		p.field("address", fmt.Sprintf("%s by DHCPv6  preferred %s  valid %s", a.Address, lifetime.Span(a.Preferred.Seconds), lifetime.Span(a.Valid.Seconds)))
	}
	for _, a := range u.Loopback {
		p.field("address", fmt.Sprintf("%s on lo, out of the delegation  preferred %s  valid %s", a.Address, lifetime.Span(a.Preferred.Seconds), lifetime.Span(a.Valid.Seconds)))
	}
	for _, f := range u.Told.Facts() {
		p.field(f.Name, f.Text)
	}
}

// lack writes why a lease lacks something that was asked for. An address is only a wish while there are prefixes, and many
// providers have none to give: that is worth a few words, and no more for as long as the lease lives.
func (p page) lack(u ctl.Uplink) {
	note := u.Client.Note
	switch {
	case note == "":
	case len(u.Delegations) > 0 && strings.Contains(note, "IA_NA") && !strings.Contains(note, "IA_PD"):
		if _, code, ok := strings.Cut(note, "refused: "); ok {
			code, _, _ = strings.Cut(code, " ")
			p.field("address", "none by DHCPv6: "+code)
			return
		}
		p.field("address", "none by DHCPv6")
	default:
		p.field("not given", note)
	}
}

// preferredText is the state of a prefix, and for how long yet if it is preferred.
func preferredText(state string, l ctl.Lifetime) string {
	if state == string(policy.Preferred) {
		return state + " " + lifetime.Span(l.Seconds)
	}
	return state
}

func clientText(uplink string, c ctl.Client6, s ctl.Status) string {
	text := c.State
	switch c.State {
	case pd.StateReleased:
		text += " (ask again: uplinkd renew " + uplink + ")"
	case pd.StateRenewing, pd.StateRebinding:
		text += ", bound"
	}
	if c.Since != nil {
		text += " for " + since(*c.Since, s.Time)
	}
	if c.Received != nil {
		text += ", lease last extended " + since(*c.Received, s.Time) + " ago"
	}
	if c.State == pd.StateBound && c.Renew != nil && c.Renew.Seconds > 0 {
		text += ", renews in " + lifetime.Span(c.Renew.Seconds)
	}
	return text
}

func announcedText(a ctl.Announcement) string {
	if !a.Send {
		return "nothing"
	}
	parts := []string{"router no"}
	if a.Router {
		parts[0] = "router yes, for " + lifetime.Span(a.Lifetime)
		if a.Prefer != "" {
			parts[0] += ", preference " + a.Prefer
		}
	}
	for _, x := range a.Prefixes {
		parts = append(parts, fmt.Sprintf("%s (preferred %s, valid %s)", x.Prefix, lifetime.Span(x.Preferred), lifetime.Span(x.Valid)))
	}
	if a.NotAutonomous {
		parts = append(parts, "hosts make no addresses of their own")
	}
	if a.Managed {
		parts = append(parts, "hosts ask for addresses by DHCPv6")
	}
	if a.NotOnLink {
		parts = append(parts, "hosts send everything to the router")
	}
	if len(a.DNS) > 0 {
		parts = append(parts, "DNS "+join(a.DNS))
	}
	if len(a.Resolvers) > 0 {
		parts = append(parts, "encrypted DNS "+join(a.Resolvers))
	}
	if len(a.Search) > 0 {
		parts = append(parts, "search "+strings.Join(a.Search, ", "))
	}
	if len(a.PREF64) > 0 {
		parts = append(parts, "NAT64 "+join(a.PREF64))
	}
	if len(a.Routes) > 0 {
		parts = append(parts, "routes "+join(a.Routes))
	}
	if a.Other {
		parts = append(parts, "more by DHCPv6")
	}
	if a.Portal != "" {
		parts = append(parts, "captive portal "+a.Portal)
	}
	return strings.Join(parts, "; ")
}

// silence is why nothing is announced on d.
func silence(d ctl.Downstream) string {
	announced := func(n ctl.Subnet) bool { return n.Prefix.Bits() == 64 }
	switch {
	case !d.LinkUp:
		return "the interface is missing or down"
	case len(d.Subnets) == 0:
		return "there is no subnet"
	case !slices.ContainsFunc(d.Subnets, announced):
		return "hosts can only use subnets of length 64 (RFC 4862)"
	}
	return "ra is off"
}

func (p page) problems(list []ctl.Problem) {
	if len(list) == 0 {
		return
	}
	p.heading("problems")
	for _, x := range list {
		p.block("  ", x.Path+": "+x.Code, yellow)
		p.block("    ", x.Message, plain)
		if x.Advice != "" {
			p.block("    ", "To do: "+x.Advice, plain)
		}
	}
}

func (p page) hooks(s ctl.Status) {
	if len(s.Hooks) == 0 {
		return
	}
	p.heading("hooks")
	for _, h := range s.Hooks {
		text := "ok, " + count(int(h.Runs), "run")
		if !h.OK {
			text = fmt.Sprintf("FAILED: %s; %d of %s failed", h.Error, h.Failures, count(int(h.Runs), "run"))
		}
		if h.LastRun != nil {
			text += "; last " + since(*h.LastRun, s.Time) + " ago"
		}
		if h.NextTry != nil {
			text += "; tries again in " + since(s.Time, *h.NextTry)
		}
		if h.Waiting > 0 {
			text += "; waiting to be told: " + count(h.Waiting, "event")
		}
		color := plain
		if !h.OK {
			color = red
		}
		p.block(fmt.Sprintf("  %-12s ", h.Name), text, color)
	}
}

// join lists things with commas.
func join[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, x := range list {
		texts[i] = x.String()
	}
	return strings.Join(texts, ", ")
}
