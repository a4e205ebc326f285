package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"uplinkd/internal/config"
	"uplinkd/internal/ctl"
	"uplinkd/internal/engine"
	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

// night is when the statuses of these tests are asked for.
var night = time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)

func at(d time.Duration) lifetime.Deadline { return lifetime.Until(night.Add(d)) }

// scene is what an engine knows.
type scene struct {
	config  string
	links   []string // present and up, with carrier
	facts   map[string]policy.UplinkFacts
	clients map[string]engine.ClientStatus
	ledger  policy.Ledger
	hooks   []ctl.HookStatus
	more    []policy.Problem
	waiting []kernel.Op
	ready   bool
	inner   []policy.Borrower
	globals map[string][]netip.Prefix // addresses on links
	onLink  map[string][]netip.Prefix // neighbours
}

func (s scene) snapshot(t *testing.T) *engine.Snapshot {
	t.Helper()
	cfg, err := config.Parse(config.File{Name: "uplinkd.toml", Data: []byte(s.config)})
	if err != nil {
		t.Fatal(err)
	}
	w := policy.World{Now: night, Links: map[string]kernel.Link{}, Uplinks: s.facts, ULA: cfg.ULA.Prefix, Borrowers: s.inner}
	var links []kernel.Link
	for i, name := range s.links {
		w.Links[name] = kernel.Link{Name: name, Index: i + 1, Up: true, Carrier: true, MTU: 1500, Globals: s.globals[name], OnLink: s.onLink[name],
			OnLinkMetric: 256, LinkLocal: netip.MustParseAddr(fmt.Sprintf("fe80::a%d", i))}
		links = append(links, w.Links[name])
	}
	site, problems, ledger := policy.Plan(cfg, w, s.ledger)
	return &engine.Snapshot{Version: "v0.1", Ready: s.ready, Site: site, Links: links, Problems: append(problems, s.more...), Clients: s.clients,
		Wanted: policy.Compile(site), Waiting: s.waiting, Ledger: ledger,
		Counters: engine.Counters{Steps: 12, Writes: 14, Events: 2, LastStep: 830 * time.Microsecond}}
}

const smallConfig = `[uplink.fiber]
interface = "wan0"

[downstream.lan]
interface = "lan0"
`

const largeConfig = smallConfig + `
[downstream.guest]
interface = "guest0"

[uplink.cable]
interface = "wan1"
`

const everyKind = "ula = \"fd12:3456:789a::/48\"\n" + smallConfig + `
[downstream.inner]
interface = "tr0"
kind = "transit"
length = 60

[downstream.office]
interface = "tr1"
kind = "transit"
via = "fe80::2"
length = 60

[downstream.web]
kind = "service"

[downstream.trap]
interface = "wan0"
kind = "service"
anyip.mode = "interface"

[downstream.ports]
interface = "wan0"
kind = "service"
anyip = { mode = "mark", ports = ["tcp/80", "udp/53"] }

[downstream.spare]
kind = "reserve"
`

const innerRouter pd.DUID = "\x00\x03\x00\x01\x02\x00\x00\x00\x00\x77"

// borrower is an inner router on a downstream.
func borrower(downstream string, iaid uint32, length uint8) policy.Borrower {
	return policy.Borrower{Downstream: downstream, Client: innerRouter, IAID: iaid, Via: netip.MustParseAddr("fe80::77"), Length: length, Until: at(time.Hour)}
}

// otherBorrower has the link-local address of innerRouter, and another DUID.
func otherBorrower() policy.Borrower {
	b := borrower("inner", 4, 62)
	b.Until = at(80 * time.Minute) // longer than the delegation
	b.Client = "\x00\x04\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"
	return b
}

func delegation(prefix string, preferred, valid time.Duration) policy.Granted {
	return policy.Granted{Prefix: netip.MustParsePrefix(prefix), PreferredUntil: at(preferred), ValidUntil: at(valid)}
}

func boundClient(g ...policy.Granted) engine.ClientStatus {
	l := pd.Lease{ServerID: "\x00\x03\x00\x01\x02\x00\x00\x00\x00\x01", Received: night.Add(-8 * time.Minute), T1: at(22 * time.Minute), T2: at(40 * time.Minute)}
	for _, p := range g {
		l.Prefixes = append(l.Prefixes, pd.LeasedPrefix{IAID: 7, Prefix: p.Prefix, PreferredUntil: p.PreferredUntil, ValidUntil: p.ValidUntil})
	}
	return engine.ClientStatus{State: "bound", Since: night.Add(-(3*time.Hour + 12*time.Minute)), Reported: true, Lease: l, Cause: pd.CauseRenewed}
}

func scenes() map[string]scene {
	heard := policy.Heard{Routers: []policy.Router{{Address: netip.MustParseAddr("fe80::1"), Until: at(29 * time.Minute)}}}
	first, second := delegation("2001:db8:100::/56", 52*time.Minute, 72*time.Minute), delegation("2001:db8:2200::/56", -time.Minute, 12*time.Minute)
	dns := []netip.Addr{netip.MustParseAddr("2001:db8:ffff::53"), netip.MustParseAddr("2001:db8:ffff::54")}
	hour := night.Add(-time.Hour)
	soon := night.Add(8 * time.Second)
	return map[string]scene{
		"ok": {config: smallConfig, links: []string{"wan0", "lan0"}, ready: true,
			facts:   map[string]policy.UplinkFacts{"fiber": {Reported: true, Delegations: []policy.Granted{first}, Heard: heard, Told: pd.Info{DNS: dns}}},
			clients: map[string]engine.ClientStatus{"fiber": boundClient(first)},
			hooks:   []ctl.HookStatus{{Name: "ddns", OK: true, Runs: 3, LastRun: &hour}}},
		"renumbering": {config: largeConfig, links: []string{"wan0", "lan0", "guest0"}, ready: true,
			facts: map[string]policy.UplinkFacts{"fiber": {Reported: true, Delegations: []policy.Granted{first, second}, Heard: policy.Heard{Routers: heard.Routers,
				PREF64: []policy.PREF64{{Prefix: netip.MustParsePrefix("64:ff9b::/96"), Until: at(29 * time.Minute)}}, CaptivePortal: "https://portal.example.net/"},
				Told: pd.Info{DNS: dns, DomainSearch: []string{"example.net"}}}, "cable": {Reported: true}},
			clients: map[string]engine.ClientStatus{"fiber": boundClient(first, second), "cable": {State: "waiting for link", Since: hour}},
			ledger: policy.Ledger{Announced: map[string][]policy.AnnouncedRecord{"lan": {{Prefix: netip.MustParsePrefix("2001:db8:99::/64"),
				Until: at(time.Hour)}}}, Holds: map[string][]policy.HeldRecord{"fiber": {{Prefix: netip.MustParsePrefix("2001:db8:99::/56"), Until: at(time.Hour)}}}},
			hooks: []ctl.HookStatus{{Name: "ddns", Runs: 7, Failures: 3, LastRun: &hour, NextTry: &soon, Waiting: 2,
				Error: "run /etc/uplinkd/hooks/ddns prefix.new: exit status 1"}, {Name: "log", OK: true}}},
		"no-prefix": {config: smallConfig, links: []string{"wan0", "lan0"}, ready: true,
			facts: map[string]policy.UplinkFacts{"fiber": {Reported: true, Heard: heard}},
			clients: map[string]engine.ClientStatus{"fiber": {State: "soliciting", Since: night.Add(-4*time.Minute - 12*time.Second), Reported: true,
				Failure: "server 00:03:00:01:02:00:00:00:00:01 offers nothing: NoPrefixAvail: your contract\x1b[2J has no IPv6\u202e" + strings.Repeat(" really", 12)}},
			more: []policy.Problem{{Path: "uplink.fiber", Code: "no-prefix", Message: "Solicit: NoPrefixAvail"}}},
		"no-prefix-but-told": {config: smallConfig, links: []string{"wan0", "lan0"}, ready: true,
			facts: map[string]policy.UplinkFacts{"fiber": {Reported: true, Addresses: []policy.Leased{{Address: netip.MustParseAddr("2001:db8:77::5"),
				PreferredUntil: at(time.Hour), ValidUntil: at(2 * time.Hour)}}, Told: pd.Info{DNS: dns, NTP: dns[:1], NTPNames: []string{"ntp.example.net"},
				SNTP: dns[1:], AFTR: "aftr.example.net", S46: []pd.Option{{Code: 94, Data: make([]byte, 40)}}, Unknown: []pd.Option{{Code: 17, Data: make([]byte, 7)}}},
				Heard: policy.Heard{Routers: heard.Routers, Search: []string{"example.net"}, CaptivePortal: "https://portal.example.net/api",
					PREF64: []policy.PREF64{{Prefix: netip.MustParsePrefix("64:ff9b::/96"), Until: at(29 * time.Minute)}}}}},
			clients: map[string]engine.ClientStatus{"fiber": {State: "bound", Since: hour, Reported: true,
				Note: "Request: server 00:03:00:01:02:00:00:00:00:01 refused: NoPrefixAvail (ask\x1b[2J the sales department) for IA_PD 0x00000001"}},
			more: []policy.Problem{{Path: "uplink.fiber", Code: "no-prefix", Message: "Request: NoPrefixAvail"}}},
		"kinds": {config: everyKind, links: []string{"wan0", "lan0", "tr0", "tr1"}, ready: true,
			facts:   map[string]policy.UplinkFacts{"fiber": {Reported: true, Delegations: []policy.Granted{first}, Heard: heard, Told: pd.Info{DNS: dns}}},
			clients: map[string]engine.ClientStatus{"fiber": boundClient(first)},
			inner:   []policy.Borrower{borrower("inner", 1, 62), borrower("lan", 2, 0), borrower("lan", 3, 0), otherBorrower()},
			ledger: policy.Ledger{Announced: map[string][]policy.AnnouncedRecord{"lan": {{Prefix: netip.MustParsePrefix("2001:db8:99::/64"), Until: at(time.Hour)}}},
				Loans: map[string][]policy.LoanRecord{"inner": {{Client: innerRouter, IAID: 1, Prefix: netip.MustParsePrefix("2001:db8:99:fc::/62"), Until: at(40 * time.Minute)}}},
				Holds: map[string][]policy.HeldRecord{"fiber": {{Prefix: netip.MustParsePrefix("2001:db8:99::/56"), Until: at(time.Hour)}}}}},
		"neighbours": {config: largeConfig, links: []string{"wan0", "lan0", "wan1"}, ready: true,
			facts: map[string]policy.UplinkFacts{"fiber": {Reported: true, Delegations: []policy.Granted{first}, Heard: heard},
				"cable": {Reported: true, Heard: heard}},
			globals: map[string][]netip.Prefix{"wan0": {netip.MustParsePrefix("2001:db8:aaaa::5/64")}},
			onLink:  map[string][]netip.Prefix{"wan0": {netip.MustParsePrefix("2001:db8:aaaa::/64")}, "wan1": {netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2001:db8:100:77::/64")}}},
		"no-lan": {config: "[uplink.fiber]\ninterface = \"wan0\"\n", links: []string{"wan0", "lo"}, ready: true,
			facts:   map[string]policy.UplinkFacts{"fiber": {Reported: true, Delegations: []policy.Granted{first}, Heard: heard}},
			clients: map[string]engine.ClientStatus{"fiber": boundClient(first)}},
		"released": {config: smallConfig, links: []string{"wan0", "lan0"}, ready: true,
			facts:   map[string]policy.UplinkFacts{"fiber": {Reported: true, Heard: heard}},
			clients: map[string]engine.ClientStatus{"fiber": {State: pd.StateReleased, Since: night.Add(-3 * time.Minute), Reported: true}},
			hooks:   []ctl.HookStatus{{Name: "ddns", OK: true, Runs: 1, LastRun: &hour, Waiting: 1}}},
		"flags": {config: smallConfig + "ra = { autonomous = false, on_link = false, managed = true }\n", links: []string{"wan0", "lan0"}, ready: true,
			facts: map[string]policy.UplinkFacts{"fiber": {Reported: true, Delegations: []policy.Granted{first}, Heard: heard,
				Told: pd.Info{Resolvers: []pd.Resolver{{Priority: 1, Name: "dot.example.net", Addresses: dns}, {Priority: 2, Name: "doh.example.net"}}}}},
			clients: map[string]engine.ClientStatus{"fiber": boundClient(first)}},
		"too-large": {config: smallConfig + "subnet = 300\n", links: []string{"wan0", "lan0"}, ready: true,
			facts:   map[string]policy.UplinkFacts{"fiber": {Reported: true, Delegations: []policy.Granted{first}, Heard: heard}},
			clients: map[string]engine.ClientStatus{"fiber": boundClient(first)}},
		"starting": {config: smallConfig, links: nil,
			facts: map[string]policy.UplinkFacts{}, clients: map[string]engine.ClientStatus{"fiber": {State: "starting"}},
			waiting: []kernel.Op{{Verb: kernel.Delete, Row: kernel.Address{Dev: "lan0", Prefix: netip.MustParsePrefix("2001:db8:3::1/64")}}},
			more:    []policy.Problem{{Path: "kernel", Code: "read-failed", Message: "read routes: operation not permitted"}}},
		"dead": {config: smallConfig, links: []string{"wan0", "lan0"}, ready: true,
			facts: map[string]policy.UplinkFacts{"fiber": {Reported: true}},
			clients: map[string]engine.ClientStatus{"fiber": {State: "soliciting", Since: night.Add(-14 * time.Minute), Reported: true,
				Failure: "Solicit: no server has answered 6 messages, trying on"}},
			more: []policy.Problem{{Path: "uplink.fiber", Code: "no-prefix", Message: "Solicit: no server has answered 6 messages, trying on"}}},
		"not-invited": {config: smallConfig + "\n[uplink.cable]\ninterface = \"wan1\"\ndhcpv6.start = \"ra\"\n", links: []string{"wan0", "wan1", "lan0"}, ready: true,
			facts: map[string]policy.UplinkFacts{"fiber": {Reported: true, Heard: heard}, "cable": {Reported: true}},
			clients: map[string]engine.ClientStatus{"fiber": {State: "waiting for a router advertisement with the M or O flag", Since: night.Add(-14 * time.Minute)},
				"cable": {State: "waiting for a router advertisement", Since: night.Add(-14 * time.Minute)}}},
		"local": {config: "ula = \"fd12:3456:789a::/48\"\n[uplink.fiber]\ninterface = \"wan0\"\ndhcpv6 = { prefixes = [], address = \"never\" }\n[downstream.lan]\ninterface = \"lan0\"\n",
			links: []string{"wan0", "lan0"}, ready: true, facts: map[string]policy.UplinkFacts{"fiber": {Reported: true, Heard: heard}},
			clients: map[string]engine.ClientStatus{"fiber": {State: "informed", Since: hour, Reported: true}}},
		"renewing": {config: smallConfig + "length = 72\n", links: []string{"wan0", "lan0"}, ready: true,
			facts: map[string]policy.UplinkFacts{"fiber": {Reported: true, Delegations: []policy.Granted{first}, Heard: heard}},
			clients: map[string]engine.ClientStatus{"fiber": func() engine.ClientStatus {
				c := boundClient(first)
				c.State, c.Lease.Received = pd.StateRenewing, time.Time{}
				c.Note = "Request: server 00:03:00:01:02:00:00:00:00:01 refused: NoAddrsAvail (none here) for IA_NA 0x00000102"
				return c
			}()},
			ledger: policy.Ledger{Announced: map[string][]policy.AnnouncedRecord{"lan": {
				{Prefix: netip.MustParsePrefix("2001:db8:97::/64"), Until: at(time.Hour)}, {Prefix: netip.MustParsePrefix("2001:db8:98::/64"), Until: at(20 * time.Minute)},
				{Prefix: netip.MustParsePrefix("2001:db8:99::/64"), Until: at(84 * time.Minute)}}},
				Holds: map[string][]policy.HeldRecord{"fiber": {{Prefix: netip.MustParsePrefix("2001:db8:97::/56"), Until: at(time.Hour)},
					{Prefix: netip.MustParsePrefix("2001:db8:98::/56"), Until: at(20 * time.Minute)}, {Prefix: netip.MustParsePrefix("2001:db8:99::/56"), Until: at(84 * time.Minute)}}}}},
		"forever": {config: smallConfig, links: []string{"wan0", "lan0"}, ready: true,
			facts: map[string]policy.UplinkFacts{"fiber": {Reported: true, Heard: policy.Heard{Routers: []policy.Router{{Address: netip.MustParseAddr("fe80::1"), Until: lifetime.Forever()}}},
				Delegations: []policy.Granted{{Prefix: netip.MustParsePrefix("2001:db8:100::/56"), PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()}}}},
			clients: map[string]engine.ClientStatus{"fiber": {State: pd.StateBound, Since: night.Add(-50 * time.Hour)}}},
	}
}

// TestStatusText compares the pages with testdata/status/*.txt, and holds all of them to what any page must be.
func TestStatusText(t *testing.T) {
	for name, s := range scenes() {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			page{w: &b}.status(ctl.StatusOf(s.snapshot(t), s.hooks, night))
			golden(t, "status/"+name+".txt", b.Bytes())
			for line := range strings.Lines(b.String()) {
				line = strings.TrimSuffix(line, "\n")
				if utf8.RuneCountInString(line) > columns || printable(line) != line || strings.TrimRight(line, " ") != line {
					t.Errorf("too wide, not printable or with a blank end: %q", line)
				}
			}
			var colored bytes.Buffer
			page{w: &colored, color: true}.status(ctl.StatusOf(s.snapshot(t), s.hooks, night))
			stripped := colored.String()
			for _, s := range []style{bold, red, green, yellow} {
				stripped = strings.ReplaceAll(stripped, "\x1b["+string(s)+"m", "")
			}
			stripped = strings.ReplaceAll(stripped, "\x1b[0m", "")
			if stripped != b.String() || colored.String() == stripped {
				t.Errorf("colours change the text, or there are none:\n%q", colored.String())
			}
		})
	}
}

func TestPlanTextOfDaemon(t *testing.T) {
	for _, name := range []string{"renumbering", "starting", "kinds"} {
		var b bytes.Buffer
		page{w: &b}.plan(ctl.PlanOf(scenes()[name].snapshot(t), night))
		golden(t, "status/"+name+".plan", b.Bytes())
	}
}

// explained asks about an address or a prefix.
func explained(s *engine.Snapshot, what string) ctl.Explanation {
	if p, err := netip.ParsePrefix(what); err == nil {
		return ctl.ExplainPrefix(s, p, night)
	}
	return ctl.Explain(s, netip.MustParseAddr(what), night)
}

var fileName = strings.NewReplacer(":", "_", "/", "-")

func TestExplainText(t *testing.T) {
	for name, list := range map[string][]string{
		"renumbering": {"2001:db8:100::1", "2001:db8:100:0:1234::1", "2001:db8:2200:77::1", "2001:db8:99::7", "2001:db8:99::/56", "fe80::1"},
		"no-lan":      {"2001:db8:100:ff::1"},
		"neighbours":  {"2001:db8:aaaa::99", "2001:db8:aaaa::/64", "2001:db8:aaaa::/48"},
	} {
		s := scenes()[name].snapshot(t)
		for _, what := range list {
			var b bytes.Buffer
			page{w: &b}.explanation(explained(s, what))
			golden(t, "status/explain-"+fileName.Replace(what)+".txt", b.Bytes())
		}
	}
}

func TestExplainTextOfUses(t *testing.T) {
	s := scenes()["kinds"].snapshot(t)
	for _, what := range []string{"2001:db8:100:fe::/64", "2001:db8:100:1c::1", "2001:db8:100:1::7", "2001:db8:100:20::9", "2001:db8:100:2::1", "fd12:3456:789a::/48",
		"fd12:3456:789a::7", "fd12:3456:789a:7000::1", "2001:db8:99::/64", "2001:db8:99:fc::1", "2001:db8:99:77::1", "2001:db8:100::/56", "2001:db8:100::/58", "2001:db8:100:80::/60", "2001:db8::/32", "fe80::77"} {
		x := explained(s, what)
		var b bytes.Buffer
		page{w: &b}.explanation(x)
		text, _, _ := strings.Cut(b.String(), "\nrules for packets")
		if len(x.Tables) > 0 {
			_, tables, _ := strings.Cut(b.String(), "\nnft tables")
			text += "\nnft tables" + tables
		}
		golden(t, "status/uses-"+fileName.Replace(what)+".txt", []byte(text))
	}
}

// TestExplainOwnAddress asks about the addresses that the router has from its provider: by DHCPv6, and by SLAAC.
func TestExplainOwnAddress(t *testing.T) {
	s := scenes()["no-prefix-but-told"]
	s.globals = map[string][]netip.Prefix{"wan0": {netip.MustParsePrefix("2001:db8:77::5/128"), netip.MustParsePrefix("2001:db8:77:1:2ff:fe00:1:1/64")}}
	for addr, want := range map[string]string{
		"2001:db8:77::5":             "the router's own address on wan0 (uplink fiber), leased by DHCPv6 (IA_NA) for another 2h",
		"2001:db8:77:1:2ff:fe00:1:1": "the router's own address on wan0 (uplink fiber), which uplinkd has not set: from a router advertisement (SLAAC) or somebody else",
	} {
		if x := ctl.Explain(s.snapshot(t), netip.MustParseAddr(addr), night); !x.Ours || len(x.Roles) != 1 || x.Roles[0] != want {
			t.Errorf("%s: %q, want %q", addr, x.Roles, want)
		}
	}
	if x := ctl.Explain(s.snapshot(t), netip.MustParseAddr("2001:db8:77::6"), night); x.Ours {
		t.Errorf("an address beside the router's: %q", x.Roles)
	}
}

// TestExplainLinks asks about neighbours on uplinks, and about the router's own link-local addresses.
func TestExplainLinks(t *testing.T) {
	for _, tt := range []struct{ scene, what, want string }{
		{"neighbours", "2001:db8:aaaa::5", "the router's own address on wan0 (uplink fiber), which uplinkd has not set: from a router advertisement (SLAAC) or somebody else"},
		{"neighbours", "2001:db8:aaaa::6", "on the link of uplink fiber (wan0)"},
		{"neighbours", "2001:db8:100::6", "in the subnet of downstream lan, on link at lan0"},
		{"neighbours", "2001:db8:100:77::6", "in delegation 2001:db8:100::/56 of uplink fiber, in a part that no downstream uses: unreachable | on the link of uplink cable (wan1)"},
		{"neighbours", "2001:db8:bbbb::6", "in 2001:db8::/32, on the link of uplink cable (wan1) for the kernel, but too much for one link: packets go where all others go"},
		{"neighbours", "2001:db8::/32", "on the link of uplink cable (wan1) for the kernel, but too much for one link: packets go where all others go"},
		{"neighbours", "3fff::6", ""},
		{"neighbours", "fe80::a0", "the router's own link-local address on wan0 (uplink fiber)"},
		{"neighbours", "fe80::a1", "the router's own link-local address on lan0, which hosts have as their default router (downstream lan)"},
		{"neighbours", "fe80::a9", ""},
		{"kinds", "fe80::a0", "the router's own link-local address on wan0 (uplink fiber)"},
		{"kinds", "fe80::a2", "the router's own link-local address on tr0, which inner routers have as their default router (downstream inner)"},
		{"kinds", "fe80::a3", "the router's own link-local address on tr1 (downstream office)"},
		{"dead", "fe80::a1", "the router's own link-local address on lan0 (downstream lan)"},
	} {
		x := explained(scenes()[tt.scene].snapshot(t), tt.what)
		if got := strings.Join(x.Roles, " | "); got != tt.want || x.Ours != (tt.want != "") {
			t.Errorf("%s in scene %s: ours %v, %q; want %q", tt.what, tt.scene, x.Ours, got, tt.want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain, übung":         "plain, übung",
		"\x1b[31mred\r\n\a":    `\u001b[31mred\u000d\u000a\u0007`,
		"\u202eright\u2066":    `\u202eright\u2066`,
		"csi \u009b31m":        `csi \u009b31m`,
		"bad \xff\x9b utf":     `bad \xff\x9b utf`,
		"tag \U000e0041":       `tag \U000e0041`,
		"line\u2028sep\u00a0x": `line\u2028sep\u00a0x`,
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %s, want %s", in, got, want)
		}
	}
	if got := string(safeJSON([]byte("{\n\"a\": \"\u009b31m\u202e \U000e0041 \U0001f600\u007f\"}"))); got != "{\n\"a\": \"\\u009b31m\\u202e \\udb40\\udc41 \U0001f600\\u007f\"}" {
		t.Errorf("safeJSON: %s", got)
	}
}
