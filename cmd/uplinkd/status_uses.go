package main

import (
	"fmt"
	"net/netip"
	"strings"

	"uplinkd/internal/config"
	"uplinkd/internal/ctl"
	"uplinkd/internal/lifetime"
	"uplinkd/policy"
)

// downstream writes what a downstream has, and what of it inner routers and hosts have or had.
func (p page) downstream(d ctl.Downstream) {
	title := "downstream " + d.Name
	if d.Kind != string(config.Access) {
		title += ", " + d.Kind
	}
	if d.Interface != "" {
		title += ", on " + d.Interface
	}
	verdict, good := verdictOn(d)
	p.title(strings.Replace(title, d.Name+", on", d.Name+" on", 1), good, verdict)
	var rows [][]string
	for _, n := range d.Subnets {
		row := []string{subnetText(n), fromText(n.Uplink), preferredText(n.State, n.Preferred), "valid " + lifetime.Span(n.Valid.Seconds)}
		if n.Preferred.Seconds == lifetime.Infinity {
			row = append(row[:2], "for ever")
		}
		rows = append(rows, row)
	}
	label := "subnet"
	if d.Kind == string(config.Access) {
		label = "address"
	}
	for _, line := range table(rows) {
		p.field(label, line)
	}
	p.service(d)
	p.loans(d)
	if d.Kind == string(config.Access) || d.Announced.Send {
		text := announcedText(d.Announced)
		if !d.Announced.Send {
			text += ", since " + silence(d)
		}
		p.field("announced", text)
	}
	p.former(d)
}

// verdictOn says in a word whether a downstream has what it is there for.
func verdictOn(d ctl.Downstream) (verdict string, good bool) {
	byInterface := d.AnyIP != nil && d.AnyIP.Mode != string(config.AnyIPSubnet)
	switch {
	case !d.LinkUp:
		return "the interface is missing or down", false
	case byInterface && d.AnyIP.Armed:
		return "armed", true
	case byInterface:
		return "NOT ARMED", false
	case len(d.Subnets) == 0:
		return "no subnet", false
	}
	switch config.Kind(d.Kind) {
	case config.Transit:
		if d.Via.IsValid() {
			return "routed to " + d.Via.String(), true
		}
		return "for inner routers", true
	case config.Service:
		return "every address is the router's own", true
	case config.Reserve:
		return "kept unreachable", true
	}
	return "numbered", true
}

// subnetText is the router's own address in a subnet, or the subnet where it has none.
func subnetText(n ctl.Subnet) string {
	switch {
	case !n.Address.IsValid():
		return n.Prefix.String()
	case n.Address.Bits() == n.Prefix.Bits():
		return n.Address.String()
	}
	return n.Prefix.String() + " with " + n.Address.Addr().String()
}

func fromText(uplink string) string {
	if uplink == "" {
		return "ULA"
	}
	return "from " + uplink
}

// service says which packets are a service's.
func (p page) service(d ctl.Downstream) {
	a := d.AnyIP
	if a == nil {
		return
	}
	text := ""
	switch config.AnyIPMode(a.Mode) {
	case config.AnyIPInterface:
		text = "what arrives there for an address that nobody else has"
	case config.AnyIPMark:
		text = fmt.Sprintf("what has the mark 0x%x and is for an address that nobody else has", a.Mark)
		if len(a.Ports) > 0 {
			text += "; marked is what arrives for " + strings.Join(a.Ports, ", ")
		}
	default:
		text = "what is for its subnet"
		if len(d.Subnets) == 0 {
			text = "nothing, since it has no subnet"
		}
	}
	if a.Nonlocal {
		text += "; programs may bind to any address"
	}
	p.field("takes", text)
}

// few is how many lines of one kind a page has at most for what is over: a provider that renumbers often leaves many.
const few = 2

func (p page) loans(d ctl.Downstream) {
	clients := map[netip.Addr]string{} // the DUID behind a link-local address; "" if there are several
	for _, l := range d.Loans {
		if first, known := clients[l.Via]; known && first != l.Client {
			clients[l.Via] = ""
		} else {
			clients[l.Via] = l.Client
		}
	}
	var rows [][]string
	for _, l := range d.Loans {
		to := "to " + l.Via.String()
		if l.Offered {
			to = "offered " + to
		}
		if clients[l.Via] == "" {
			to += " (…" + l.Client[max(0, len(l.Client)-len("00:00:01")):] + ")"
		}
		held := "for " + lifetime.Span(l.Until.Seconds)
		if l.State != string(policy.Preferred) {
			held = l.State + " " + held
		}
		rows = append(rows, []string{l.Prefix.String(), fromText(l.Uplink), held, to})
	}
	for _, line := range table(rows) {
		p.field("lent", line)
	}
	if len(d.Ended) > few {
		longest := uint32(0)
		for _, l := range d.Ended {
			longest = max(longest, l.Until.Seconds)
		}
		p.field("lent before", fmt.Sprintf("%d prefixes; inner routers are told for another %s that they have them no more (all of them: --json)", len(d.Ended), lifetime.Span(longest)))
		return
	}
	for _, l := range d.Ended {
		p.field("lent before", fmt.Sprintf("%s to %s, which is told for another %s that it has it no more", l.Prefix, shortDUID(l.Client), lifetime.Span(l.Until.Seconds)))
	}
}

// shortDUID leaves the end of a DUID, which tells clients apart.
func shortDUID(text string) string {
	const most = len("00:03:00:01:02:00:00:00:00:01")
	if len(text) > most {
		return "…" + text[len(text)-most+1:]
	}
	return text
}

// withdrawn writes which delegations of an uplink were over before their time.
func (p page) withdrawn(list []ctl.Withdrawn) {
	if len(list) <= few {
		for _, w := range list {
			p.field("withdrawn", fmt.Sprintf("%s  over before its time, refused for another %s", w.Prefix, lifetime.Span(w.Until.Seconds)))
		}
		return
	}
	longest := uint32(0)
	for _, w := range list {
		longest = max(longest, w.Until.Seconds)
	}
	p.field("withdrawn", fmt.Sprintf("%d prefixes, over before their time, refused for another %s (all of them: --json)", len(list), lifetime.Span(longest)))
}

// former writes what a downstream has no more.
func (p page) former(d ctl.Downstream) {
	lines := formerTexts(d)
	if len(lines) <= few {
		for _, text := range lines {
			p.field("stale", text)
		}
		return
	}
	gone, longest := 0, uint32(0)
	for _, o := range d.Old {
		if o.Gone {
			gone++
		}
		if o.Until != nil {
			longest = max(longest, o.Until.Seconds)
		}
	}
	text := fmt.Sprintf("%d old prefixes", len(lines))
	switch gone {
	case 0:
	case len(lines):
		text += ", all of them gone; who sends from them is told"
	default:
		text += fmt.Sprintf(", %d of them gone; who sends from these is told", gone)
	}
	if longest > 0 {
		text += ", for another " + lifetime.Span(longest)
	}
	p.field("stale", text+" (all of them: --json)")
}

// formerTexts says of each prefix that a downstream has no more what becomes of it.
func formerTexts(d ctl.Downstream) (lines []string) {
	said := map[string]bool{}
	for _, o := range d.Old {
		said[o.Prefix.String()] = true
		text := o.Prefix.String() + " is not used any more"
		if o.Gone {
			text = o.Prefix.String() + " is gone; who sends from it is told"
		}
		if o.Via.IsValid() {
			text += ", behind " + o.Via.String()
		}
		if o.Until != nil {
			text += ", for another " + lifetime.Span(o.Until.Seconds)
		}
		lines = append(lines, text)
	}
	for _, s := range d.Announced.Stale {
		if !said[s.String()] {
			lines = append(lines, s.String()+" (hosts are told to stop using it)")
		}
	}
	return lines
}
