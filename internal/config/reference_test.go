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

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse(File{"uplinkd.toml", []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
