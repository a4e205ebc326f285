package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"uplinkd/internal/ctl"
	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
)

// phases are the headings of a script.
var phases = map[string]string{
	"sysctl":    "kernel variables",
	"aggregate": "what no downstream uses is unreachable, and every uplink's table has an end",
	"route":     "next hops of the uplinks, and the subnets on their interfaces",
	"rule":      "which packets use which table",
	"address":   "the router's own addresses",
	"nft":       "what the packet filter answers and marks",
}

// script writes an invented plan as a shell script.
func (p page) script(x ctl.Plan, inv invention, file string) {
	p.comment(fmt.Sprintf("What uplinkd would do with the configuration %s if the provider behind uplink %s delegated %s (valid %s, preferred %s) "+
		"and its router were %s. All interfaces are taken to exist, to be up and to have carrier; their hardware addresses are invented. The kernel starts empty.",
		file, inv.uplink, inv.prefixes.String(), lifetime.Span(uint32(inv.valid/time.Second)), lifetime.Span(uint32(inv.preferred/time.Second)), inv.gateway))
	if inv.standIn {
		p.comment("What this router makes for itself at its first start could not be read from the state directory (run as root once it has started): " +
			"fd00:db8::/48 stands for its ULA prefix, and addresses with address = \"stable\" are not its own.")
	}
	p.operations(x.Operations)
	p.announcements(x.Announced)
	if len(x.Events) > 0 {
		p.heading("# --- events for hooks")
		for _, e := range x.Events {
			p.comment(e.Text())
		}
	}
	p.planProblems(x.Problems)
}

// plan writes what a daemon keeps in the kernel, as a shell script that makes it without the daemon.
func (p page) plan(x ctl.Plan) {
	p.comment(fmt.Sprintf("%s that uplinkd keeps in the kernel, as the commands that make them in a kernel without any "+
		"(after uplinkd clean). Lifetimes are those left at %s.", count(len(x.Rows), "object"), x.Time.UTC().Format("2006-01-02 15:04:05 MST")))
	if slices.ContainsFunc(x.Operations, addsAddress) {
		p.comment("After this script, and before uplinkd is started again, which would take the addresses for somebody else's:")
		p.put(plain, "#     sed -n 's/^ip address add/ip address del/p' plan.sh | sh")
		p.newline()
	}
	p.operations(x.Operations)
	p.announcements(x.Announced)
	p.newline()
	if len(x.Waiting) == 0 {
		p.comment("nothing waits to be removed")
	} else {
		p.comment("to be removed when every uplink has reported or timed out:")
		for _, o := range x.Waiting {
			p.comment("    " + o.Command)
		}
	}
	p.planProblems(x.Problems)
}

// operations writes operations as commands, each with its reason above it.
func (p page) operations(list []ctl.Operation) {
	if slices.ContainsFunc(list, addsAddress) {
		p.comment("uplinkd marks its addresses as its own (IFA_PROTO 200), as it does routes and rules; that is left out here, because " +
			"\"ip address ... proto\" needs an iproute2 newer than 6.1.")
	}
	phase, why := "", ctl.Reason{}
	for _, o := range list {
		if o.Phase != phase {
			phase, why = o.Phase, ctl.Reason{}
			p.heading("# --- " + phase + ": " + phases[phase])
		}
		if o.Reason != why {
			why = o.Reason
			p.reason(why)
		}
		p.put(plain, shell(o))
		p.newline()
	}
}

// comment writes text as comments of a shell script, in which every line needs its mark.
func (p page) comment(text string) {
	for _, line := range wrap(text, columns-len("# ")) {
		p.put(plain, "# "+line)
		p.newline()
	}
}

func (p page) reason(r ctl.Reason) { p.comment(r.Rule + " [" + r.Config + "]") }

func (p page) announcements(list []ctl.Announced) {
	if len(list) == 0 {
		return
	}
	p.heading("# --- router advertisements")
	for _, a := range list {
		p.comment("downstream " + a.Downstream + " on " + a.Interface + ": " + announcedText(a.Announcement))
		if len(a.Stale) > 0 {
			p.comment("    stale, hosts are told to stop using it: " + join(a.Stale))
		}
	}
}

func (p page) planProblems(list []ctl.Problem) {
	if len(list) == 0 {
		return
	}
	p.heading("# --- problems")
	for _, x := range list {
		p.comment(x.Path + ": " + x.Code + ": " + x.Message)
	}
}

// shell is an operation as a line of a shell script.
func shell(o ctl.Operation) string {
	command := o.Command
	if script, ok := strings.CutPrefix(command, "nft '"); ok { // one word, in which a device may have an apostrophe
		return "nft " + shellWord(strings.TrimSuffix(script, "'"))
	}
	if addsAddress(o) {
		command = strings.TrimSuffix(command, fmt.Sprintf(" proto %d", kernel.Protocol))
	}
	words := strings.Fields(command)
	for i, w := range words {
		words[i] = shellWord(w)
	}
	command = strings.Join(words, " ")
	if o.Optional {
		command += " || true # not every kernel has it"
	}
	return command
}

// shellWord quotes a word that a shell would not take literally: names of interfaces may hold anything but "/", ":" and
// space.
func shellWord(w string) string {
	const literal = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-"
	if strings.Trim(w, literal) == "" {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

func addsAddress(o ctl.Operation) bool { return o.Phase == kernel.PhaseAddress.String() }
