package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// withProfile is a configuration that names the profile p and gives it what it needs.
func withProfile(p Profile, more string) string {
	text := "[uplink.fiber]\ninterface = \"wan0\"\nprofile = \"" + p.Name + "\"\n"
	for _, n := range p.Needs {
		text += map[string]string{"dhcpv6.auth": "dhcpv6.auth = \"0000000000000000000000666474692f\"\n"}[n.Key]
	}
	return text + more
}

func TestProfiles(t *testing.T) {
	if got := strings.Join(ProfileNames(), " "); got != "att dtag ntt-ngn orange-fr" {
		t.Errorf("profiles: %s", got)
	}
	for _, p := range Profiles() {
		t.Run(p.Name, func(t *testing.T) {
			if nameProblem(p.Name) != "" || p.Summary == "" || len(p.Sources) == 0 {
				t.Errorf("%+v", p)
			}
			for _, source := range p.Sources {
				if !strings.HasPrefix(source, "https://") {
					t.Errorf("source %s is no address", source)
				}
			}
			// The same keys in the file mean the same as the profile: so all of them are known, and right.
			var lines []string
			for _, s := range p.Sets {
				lines = append(lines, s.String())
			}
			named := mustParse(t, withProfile(p, "")).Uplinks[0]
			written := mustParse(t, strings.Replace(withProfile(p, strings.Join(lines, "\n")), "profile =", "# profile =", 1)).Uplinks[0]
			if named.Profile != p.Name || written.Profile != "" {
				t.Errorf("profile %q and %q", named.Profile, written.Profile)
			}
			if diff := cmp.Diff(written.DHCPv6, named.DHCPv6, equalButPlaces); diff != "" {
				t.Errorf("(-the same keys +profile)\n%s", diff)
			}
			if reflect.DeepEqual(named.DHCPv6, defaultDHCPv6) {
				t.Error("the profile changes nothing")
			}
		})
	}
}

// TestFileWins overrides each kind of key of a profile. A length is short for a list of prefixes, so that it replaces the
// profile's list.
func TestFileWins(t *testing.T) {
	orange, _ := FindProfile("orange-fr")
	att, _ := FindProfile("att")
	for _, c := range []struct {
		profile Profile
		keys    string
		want    func(*DHCPv6)
	}{
		{orange, `dhcpv6.address = "auto"`, func(d *DHCPv6) { d.Address = AddressAuto }},
		{orange, "dhcpv6.dscp = 0\ndhcpv6.priority = 0", func(d *DHCPv6) { d.DSCP, d.Priority = 0, 0 }},
		{orange, `dhcpv6.options = []`, func(d *DHCPv6) { d.Options = nil }},
		{orange, `dhcpv6.user_class = "FSVDSL_livebox.Internet.softathome.Livebox4"`, func(d *DHCPv6) {
			d.UserClass = [][]byte{[]byte("FSVDSL_livebox.Internet.softathome.Livebox4")}
		}},
		{orange, `dhcpv6.duid = "0x00030001020000000101"`, func(d *DHCPv6) { d.DUID = "0x00030001020000000101" }},
		{att, `dhcpv6.prefixes = { length = 64 }`, func(d *DHCPv6) { d.Prefixes = []PrefixWish{{Length: 64}} }},
		{att, `dhcpv6.length = 60`, func(d *DHCPv6) { d.Prefixes = []PrefixWish{{Length: 60}} }},
		{att, `dhcpv6.length = 0`, func(d *DHCPv6) { d.Prefixes = []PrefixWish{{}} }},
	} {
		want := mustParse(t, withProfile(c.profile, "")).Uplinks[0].DHCPv6
		c.want(&want)
		got := mustParse(t, withProfile(c.profile, c.keys)).Uplinks[0].DHCPv6
		if diff := cmp.Diff(want, got, equalButPlaces); diff != "" {
			t.Errorf("%s with %s (-want +got)\n%s", c.profile.Name, c.keys, diff)
		}
	}
}

// TestPrefixPerDownstream counts the networks of each uplink.
func TestPrefixPerDownstream(t *testing.T) {
	lan := func(n int, from string) (text string) {
		for i := range n {
			name := fmt.Sprintf("%s%d", strings.Trim(from, "*"), i)
			text += fmt.Sprintf("[downstream.%s]\ninterface = %q\nfrom = %q\n", name, name, from)
		}
		return text
	}
	const head = "[uplink.home]\ninterface = \"wan0\"\nprofile = \"att\"\n[uplink.work]\ninterface = \"wan1\"\nprofile = \"att\"\n"
	for _, c := range []struct {
		text       string
		home, work int
	}{
		{head, 1, 1},
		{head + lan(2, "home"), 2, 1},
		{head + lan(2, "home") + lan(3, "work"), 2, 3},
		{head + lan(9, "*"), 8, 8},
		{head + lan(2, "*") + "[downstream.web]\nkind = \"service\"\nanyip.mode = \"mark\"\n", 2, 2},
		{head + lan(2, "*") + "[downstream.web]\nkind = \"service\"\n", 3, 3},
		{head + "dhcpv6.prefixes = { length = 64 }\n" + lan(4, "*"), 4, 1},
		{head + "dhcpv6.length = 60\n" + lan(4, "*"), 4, 1},
	} {
		us := mustParse(t, c.text).Uplinks
		if n, m := len(us[0].DHCPv6.Prefixes), len(us[1].DHCPv6.Prefixes); n != c.home || m != c.work {
			t.Errorf("%s\n%d and %d prefixes, want %d and %d", c.text, n, m, c.home, c.work)
		}
		if us[0].DHCPv6.Prefixes[c.home-1].Length != 64 {
			t.Errorf("prefixes %+v", us[0].DHCPv6.Prefixes)
		}
	}
}

// A profile that is wrong is found when the program is tested, not when somebody uses it.
func TestReadProfile(t *testing.T) {
	const head = "summary = \"x\"\nsources = [\"https://example.com/\"]\n"
	for text, want := range map[string]string{
		head + "[dhcpv6]\nduid = \"ll\"":                   "",
		head + "[dhcpv6]":                                  "profile x:1:1: dhcpv6: the profile sets nothing",
		"[dhcpv6]\nduid = \"ll\"":                          "profile x:1:1: summary: missing; write for example summary = \"…\"\nprofile x:1:1: sources: missing; write for example sources = [\"https://…\"]",
		head + "about = \"\"\n[dhcpv6]\nduid = \"ll\"":     "profile x:3:9: about: is empty",
		head + "colour = \"\"\n[dhcpv6]\nduid = \"ll\"":    "profile x:3:1: colour: unknown key; known are summary, about, sources, prefix_per_downstream_up_to, needs, dhcpv6",
		head + "[dhcpv6]\nduid = ll":                       "profile x:4:8: write a string in quotes: \"ll\"",
		head + "[needs]\nx = 1\n[dhcpv6]\nduid = \"ll\"\n": "profile x:4:5: x: expected a string, found an integer",
	} {
		_, err := readProfile("x", []byte(text))
		if got := errorText(err); got != want {
			t.Errorf("%q: %s\nwant %s", text, got, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Settings keep the order of the profile and are typed for programs.
func TestProfileSettings(t *testing.T) {
	p, _ := FindProfile("orange-fr")
	i := slices.IndexFunc(p.Sets, func(s Setting) bool { return s.Key == "dhcpv6.vendor_class" })
	want := []any{map[string]any{"enterprise": int64(1038), "data": []any{"sagem"}}}
	if i < 0 || !reflect.DeepEqual(p.Sets[i].Value, want) {
		t.Fatalf("%+v", p.Sets)
	}
	if got := p.Sets[i].String(); got != `dhcpv6.vendor_class = [{ data = ["sagem"], enterprise = 1038 }]` {
		t.Error(got)
	}
	if p.Sets[0].Key != "dhcpv6.prefixes" || p.Sets[len(p.Sets)-1].String() != "dhcpv6.priority = 6" {
		t.Errorf("out of order: %v", p.Sets)
	}
}
