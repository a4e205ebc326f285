package ctl

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/engine"
	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

var now = time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)

func in(d time.Duration) lifetime.Deadline { return lifetime.Until(now.Add(d)) }

// planned is what an engine with the small config shows when the uplink has the given delegations.
func planned(t *testing.T, delegations ...policy.Granted) *engine.Snapshot {
	t.Helper()
	cfg, err := config.Parse(config.File{Name: "uplinkd.toml", Data: []byte("[uplink.fiber]\ninterface = \"wan0\"\n\n[downstream.lan]\ninterface = \"lan0\"\n")})
	if err != nil {
		t.Fatal(err)
	}
	w := policy.World{Now: now, Links: map[string]kernel.Link{
		"wan0": {Name: "wan0", Index: 1, Up: true, Carrier: true}, "lan0": {Name: "lan0", Index: 2, Up: true, Carrier: true}},
		Uplinks: map[string]policy.UplinkFacts{"fiber": {Reported: true, Delegations: delegations,
			Heard: policy.Heard{Routers: []policy.Router{{Address: netip.MustParseAddr("fe80::1"), Until: in(29 * time.Minute)}}}}}}
	site, problems, _ := policy.Plan(cfg, w, policy.Ledger{})
	lease := pd.Lease{ServerID: "\x00\x03\x00\x01\x02\x00\x00\x00\x00\x01", Received: now.Add(-time.Hour), T1: in(30 * time.Minute), T2: in(time.Hour)}
	for _, g := range delegations {
		lease.Prefixes = append(lease.Prefixes, pd.LeasedPrefix{IAID: 7, Prefix: g.Prefix, PreferredUntil: g.PreferredUntil, ValidUntil: g.ValidUntil})
	}
	return &engine.Snapshot{Version: "v1", Ready: true, Site: site, Problems: problems, Wanted: policy.Compile(site),
		Clients: map[string]engine.ClientStatus{"fiber": {State: "bound", Reported: true, Lease: lease, Cause: pd.CauseRenewed, Since: now.Add(-3 * time.Hour)}}}
}

var granted = policy.Granted{Prefix: netip.MustParsePrefix("2001:db8:100::/56"), PreferredUntil: in(52 * time.Minute), ValidUntil: in(72 * time.Minute)}

// problem adds a finding to a snapshot.
func problem(path, code, message string) func(*engine.Snapshot) {
	return func(s *engine.Snapshot) {
		s.Problems = append(s.Problems, policy.Problem{Path: path, Code: code, Message: message})
	}
}

// TestEveryProblemSaysWhatToDo goes through the codes: the advice, or else the message itself (by a command or a key to
// set), must say it.
func TestEveryProblemSaysWhatToDo(t *testing.T) {
	inMessage := []string{"interface-down", "address-too-long", "delegation-too-short", "state-damaged", "interface-name", "no-vlan",
		"no-mac", "duplicate-address"}
	codes := map[string]bool{"config-not-loaded": true, "state-damaged": true}
	for _, dir := range []string{"../../policy", "../engine", "../../cmd/uplinkd"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?:\.problem\([^"\n]*(?:"[a-z]+\."[^"\n]*)?|Code: )"([a-z-]+)"`).FindAllSubmatch(b, -1) {
				codes[string(m[1])] = true
			}
		}
	}
	if len(codes) < 14 {
		t.Errorf("only these codes were found in the sources: %v", codes)
	}
	for code := range codes {
		if got := advice(policy.Problem{Path: "uplink.fiber", Code: code}, policy.Uplink{Name: "fiber", Interface: "wan0"}); (got == "") != slices.Contains(inMessage, code) {
			t.Errorf("%s: advice %q", code, got)
		}
	}
}

func TestHealth(t *testing.T) {
	old := granted
	old.PreferredUntil = in(-time.Minute)
	small := granted
	small.Prefix = netip.MustParsePrefix("2001:db8:100::/80")
	for _, tt := range []struct {
		name    string
		change  func(*engine.Snapshot)
		grants  []policy.Granted
		hooks   []HookStatus
		health  Health
		summary string
	}{
		{"all is well", nil, []policy.Granted{granted}, []HookStatus{{Name: "ddns", OK: true}}, OK, "1 uplink up, 1 prefix, 1 downstream numbered"},
		{"nothing yet", func(s *engine.Snapshot) { s.Ready = false }, nil, nil, Starting, "the kernel has not followed yet; fiber has no prefix, the client is bound"},
		{"no prefix", nil, nil, nil, NoPrefix, "nothing to number hosts with; fiber has no prefix, the client is bound"},
		{"only an old prefix", nil, []policy.Granted{old}, nil, NoPrefix, "nothing to number hosts with; fiber has only deprecated prefixes"},
		{"too small", nil, []policy.Granted{small}, nil, Degraded,
			"lan has no subnet: uplink fiber delegated 2001:db8:100::/80, too small for a /64"},
		{"given back", func(s *engine.Snapshot) { s.Clients["fiber"] = engine.ClientStatus{State: pd.StateReleased} }, nil, nil, NoPrefix,
			"nothing to number hosts with; fiber has given its prefix back, uplinkd renew fiber asks for one"},
		{"not extended", problem("uplink.fiber", "lease-not-extended", "the lease is not extended, 2001:db8:1194:ea00::/56 keeps working until 02:57:00; old connections until 03:20:00; no server"),
			[]policy.Granted{granted}, nil, Degraded, "fiber: the lease is not extended, 2001:db8:1194:ea00::/56 keeps working until 02:57:00"},
		{"bad config", problem("config", "config-not-loaded", "/etc/uplinkd/uplinkd.toml:3:1: downstream.lan.colour: unknown key; known are interface"),
			[]policy.Granted{granted}, nil, Degraded, "config: /etc/uplinkd/uplinkd.toml:3:1: downstream.lan.colour: unknown key"},
		{"a long one", problem("downstream.lan", "x", strings.Repeat("long ", 20)+": and more"),
			[]policy.Granted{granted}, nil, Degraded, "lan: " + strings.Repeat("long ", 17)[:84] + "…"},
		{"several", func(s *engine.Snapshot) {
			problem("downstream.lan", "a", "first")(s)
			problem("downstream.lan", "b", "second")(s)
			problem("kernel", "c", "third")(s)
		}, []policy.Granted{granted}, nil, Degraded, "lan: first; 2 more problems"},
		{"only what is said already", func(s *engine.Snapshot) {
			s.Site.Uplinks[0].Up, s.Site.Uplinks[0].Reason = false, "interface wan0 does not exist"
			problem("uplink.fiber", "no-interface", "interface wan0 does not exist; see: ip link")(s)
		}, []policy.Granted{granted}, nil, Degraded, "fiber is down: interface wan0 does not exist"},
		{"uplink down", func(s *engine.Snapshot) { s.Site.Uplinks[0].Up, s.Site.Uplinks[0].Reason = false, "no carrier on wan0" },
			[]policy.Granted{granted}, nil, Degraded, "fiber is down: no carrier on wan0"},
		{"hook fails", nil, []policy.Granted{granted}, []HookStatus{{Name: "ddns"}}, Degraded, "hook ddns fails"},
	} {
		s := planned(t, tt.grants...)
		if tt.change != nil {
			tt.change(s)
		}
		got := StatusOf(s, tt.hooks, now)
		if got.Health != tt.health || got.Summary != tt.summary {
			t.Errorf("%s: %s: %s; want %s: %s", tt.name, got.Health, got.Summary, tt.health, tt.summary)
		}
	}
}

func TestLifetimesAreThoseOfTheQuestion(t *testing.T) {
	s := planned(t, granted)
	st := StatusOf(s, nil, now.Add(10*time.Minute))
	g := st.Uplinks[0].Delegations[0]
	if g.Preferred != (Lifetime{42 * 60, "2026-11-22T02:52:00Z"}) || g.Valid.Seconds != 62*60 {
		t.Errorf("ten minutes later: %+v", g)
	}
	if p := st.Downstreams[0].Announced.Prefixes[0]; p.Preferred != 42*60 || p.Valid != 62*60 {
		t.Errorf("announced ten minutes later: %+v", p)
	}
	forever := granted
	forever.PreferredUntil, forever.ValidUntil = lifetime.Forever(), lifetime.Forever()
	st = StatusOf(planned(t, forever), nil, now)
	if g := st.Uplinks[0].Delegations[0]; g.Valid != (Lifetime{lifetime.Infinity, "forever"}) {
		t.Errorf("for ever: %+v", g)
	}
	if p := st.Downstreams[0].Announced.Prefixes[0]; p.Preferred != 2700 || p.Valid != 5400 {
		t.Errorf("announced of for ever: %+v, want the caps of the config", p)
	}
}

func TestExplain(t *testing.T) {
	s := planned(t, granted)
	s.Site.Downstreams[0].Announce.Prefixes = append(s.Site.Downstreams[0].Announce.Prefixes,
		policy.AnnouncedPrefix{Prefix: netip.MustParsePrefix("2001:db8:99::/64"), Stale: true})
	for _, tt := range []struct {
		addr   string
		role   string // part of the first role; "": not ours
		routes int
		rules  string // priorities
	}{
		{"2001:db8:100::1", "the router's own address on lan0", 5, "1000 9001 9001 10001 19999"},
		{"2001:db8:100::99", "in the subnet of downstream lan", 5, "1000 9001 9001 10001 19999"},
		{"2001:db8:100:7::1", "in a part that no downstream uses: unreachable", 4, "1000 9001 9001 10001 19999"},
		{"2001:db8:99::5", "told to stop using", 3, "1000 9001 9001 19999"},
		{"fe80::1", "the next hop of uplink fiber", 2, ""},
		{"2001:db8:ffff::1", "", 0, ""},
		{"192.0.2.1", "", 0, ""},
	} {
		x := Explain(s, netip.MustParseAddr(tt.addr), now)
		if x.Ours != (tt.role != "") || x.Ours && !strings.Contains(x.Roles[0], tt.role) {
			t.Errorf("%s: ours %v, roles %q; want %q", tt.addr, x.Ours, x.Roles, tt.role)
		}
		var prefs []string
		for _, r := range x.Rules {
			prefs = append(prefs, strings.Fields(r.Text)[1])
		}
		if got := strings.Join(prefs, " "); got != tt.rules {
			t.Errorf("%s: rules %s, want %s", tt.addr, got, tt.rules)
		}
		if len(x.Routes) != tt.routes {
			t.Errorf("%s: %d routes, want %d: %+v", tt.addr, len(x.Routes), tt.routes, x.Routes)
		}
	}
	x := Explain(s, netip.MustParseAddr("2001:db8:100::99"), now)
	if len(x.Routes) == 0 || !strings.HasPrefix(x.Routes[0].Text, "2001:db8:100::/64 dev lan0") || !strings.HasPrefix(x.Routes[1].Text, "unreachable 2001:db8:100::/56") {
		t.Errorf("routes are not the longest first: %+v", x.Routes)
	}
	if len(x.Subnets) != 1 || x.Subnets[0].Config != "downstream.lan (uplinkd.toml:4)" || len(x.Delegations) != 1 ||
		x.Delegations[0].Client.ServerID == "" || len(x.Addresses) != 1 {
		t.Errorf("lease, config line and address are not all named: %+v", x)
	}
}
