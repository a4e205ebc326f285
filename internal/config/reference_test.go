package config

import (
	"os"
	"regexp"
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
	want := mustParse(t, smallest+"[hook.log]\nrun = \"/etc/uplinkd/hooks/10-log-prefix\"\n")
	if diff := cmp.Diff(want, got, equalButPlaces); diff != "" {
		t.Errorf("(-defaults +contrib/uplinkd.toml)\n%s", diff)
	}
}

// TestReferenceIsComplete asks the parser which keys it knows and looks for each in the reference.
func TestReferenceIsComplete(t *testing.T) {
	tree, errs := readTree(File{"uplinkd.toml", []byte(reference(t, true))})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var p parser
	p.readRoot(tree, nil)
	for _, s := range p.sections {
		for _, key := range s.known {
			if s.find(key) == nil {
				t.Errorf("contrib/uplinkd.toml does not show %s", strings.TrimPrefix(s.path+"."+key, "."))
			}
		}
	}
	if len(p.sections) != 5 {
		t.Errorf("%d sections were read; want the top, rules, an uplink, a downstream and a hook", len(p.sections))
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

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse(File{"uplinkd.toml", []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
