package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// commentedOut is a line of contrib/uplinkd.toml that is a setting, as opposed to an explanation.
var commentedOut = regexp.MustCompile(`(?m)^#([a-z\[])`)

// reference returns contrib/uplinkd.toml, with its settings in force if whole is set.
func reference(t testing.TB, whole bool) string {
	t.Helper()
	b, err := os.ReadFile("../../contrib/uplinkd.toml")
	if err != nil {
		t.Fatal(err)
	}
	if whole {
		return commentedOut.ReplaceAllString(string(b), "$1")
	}
	return string(b)
}

func TestReferenceIsTheSmallestConfig(t *testing.T) {
	got, want := mustParse(t, reference(t, false)), mustParse(t, smallest)
	if diff := cmp.Diff(want, got, equalButPlaces); diff != "" {
		t.Errorf("(-smallest +contrib/uplinkd.toml)\n%s", diff)
	}
}

func TestReferenceShowsDefaults(t *testing.T) {
	got := mustParse(t, reference(t, true))
	want := mustParse(t, smallest+`
[downstream.inner]
kind = "transit"
interface = "lan0"
[downstream.hosting]
kind = "service"
[downstream.catchall]
kind = "service"
interface = "wan0"
anyip.mode = "interface"
[downstream.web]
kind = "service"
interface = "wan0"
anyip.mode = "mark"
anyip.ports = ["tcp/80", "tcp/443"]
[downstream.spare]
kind = "reserve"
[hook.log]
run = "/etc/uplinkd/hooks/10-log-prefix"
`)
	if diff := cmp.Diff(want, got, equalButPlaces); diff != "" {
		t.Errorf("(-defaults +contrib/uplinkd.toml)\n%s", diff)
	}
}

// TestReferenceIsComplete asks the parser which keys it knows and looks for each in the reference. A key that several kinds of
// downstreams have is shown for one of them.
func TestReferenceIsComplete(t *testing.T) {
	tree, errs := readTree(File{"uplinkd.toml", []byte(reference(t, true))})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var p parser
	p.readRoot(tree, nil)
	known, shown := map[string]bool{}, map[string]bool{}
	for _, s := range p.sections {
		kind, _, _ := strings.Cut(s.path, ".")
		for _, key := range s.known {
			key = strings.TrimPrefix(kind+"."+key, ".")
			known[key] = true
			shown[key] = shown[key] || s.find(strings.TrimPrefix(key, kind+".")) != nil
		}
	}
	for key := range known {
		if !shown[key] {
			t.Errorf("contrib/uplinkd.toml does not show %s", key)
		}
	}
	var kinds []Kind
	for _, d := range p.config.Downstreams {
		kinds = append(kinds, d.Kind)
	}
	if want := []Kind{Access, Transit, Service, Service, Service, Reserve}; !slices.Equal(kinds, want) || len(p.sections) != 4+len(want) {
		t.Errorf("%d sections were read, downstreams %v; want the top, rules, an uplink, downstreams %v and a hook", len(p.sections), kinds, want)
	}
}

// TestReferenceExamples parses the examples in the comments of the reference, and sees to it that they show each key that an
// entry of a list may have.
func TestReferenceExamples(t *testing.T) {
	shown := map[string]bool{}
	examples := regexp.MustCompile(`(?m)^#   (.*)$`).FindAllStringSubmatch(reference(t, false), -1)
	var known []string
	for _, e := range examples {
		tree, errs := readTree(File{"example.toml", []byte("[uplink.fiber]\ninterface = \"wan0\"\n" + e[1])})
		if len(errs) > 0 {
			t.Fatalf("%s: %v", e[1], errs)
		}
		var p parser
		p.readRoot(tree, nil)
		if len(p.errs) > 0 {
			t.Errorf("%s: %v", e[1], p.errs)
		}
		for _, s := range p.uplinks {
			for _, entry := range s.entries {
				for _, key := range entry.known {
					known = append(known, entry.path+"."+key)
					shown[entry.path+"."+key] = shown[entry.path+"."+key] || entry.find(key) != nil
				}
			}
		}
	}
	if len(examples) != 5 || len(known) == 0 {
		t.Errorf("%d examples with %d keys of entries; want one for each list of dhcpv6.*", len(examples), len(known))
	}
	for _, key := range known {
		if !shown[key] {
			t.Errorf("no example in contrib/uplinkd.toml shows %s", key)
		}
	}
}

// TestManualExamples parses the examples of docs/manual.md in the chapter on uses, each for itself.
func TestManualExamples(t *testing.T) {
	b, err := os.ReadFile("../../docs/manual.md")
	if err != nil {
		t.Fatal(err)
	}
	_, chapter, _ := strings.Cut(string(b), "\n## Uses of a prefix\n")
	chapter, _, _ = strings.Cut(chapter, "\n## ")
	kinds := map[Kind]int{}
	examples := regexp.MustCompile(`(?m)(?:^    .*\n|^\n)+`).FindAllString(chapter, -1)
	for _, e := range examples {
		if strings.TrimSpace(e) == "" {
			continue
		}
		c, err := Parse(File{"example.toml", []byte(e + "\n[uplink.fiber]\ninterface = \"wan0\"\n")})
		if err != nil {
			t.Errorf("%s\n%v", e, err)
			continue
		}
		for _, d := range c.Downstreams {
			kinds[d.Kind]++
		}
	}
	if len(kinds) != 4 {
		t.Errorf("the manual has examples of the kinds %v; want all four", kinds)
	}
}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse(File{"uplinkd.toml", []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
