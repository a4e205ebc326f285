// Package man has no code: its test keeps the manual pages in step with the program and the reference configuration.
package man

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// help returns what the program itself says about its command line.
func help(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, append(args, "--help")...).CombinedOutput()
	if err != nil {
		t.Fatalf("uplinkd %s --help: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// The page lists exactly the verbs of the program, and every option that one of them has.
func TestVerbs(t *testing.T) {
	program := filepath.Join(t.TempDir(), "uplinkd")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, "../../cmd/uplinkd").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	page := read(t, "uplinkd.8")
	verbs := firsts(regexp.MustCompile(`(?m)^  ([a-z]+)  `), help(t, program))
	if len(verbs) < 5 {
		t.Fatalf("uplinkd --help lists only %q", verbs)
	}
	section, _, _ := strings.Cut(page[strings.Index(page, ".Ss Verbs"):], ".Ss Options")
	documented := firsts(regexp.MustCompile(`(?m)^\.It Cm ([a-z]+)`), section)
	if !slices.Equal(documented, verbs) {
		t.Errorf("the page has the verbs\n%q, the program has\n%q", documented, verbs)
	}
	for _, verb := range verbs {
		if verb == "help" {
			continue
		}
		for _, option := range firsts(regexp.MustCompile(`(?m)^  --([a-z-]+)`), help(t, program, verb)) {
			if !strings.Contains(page, "Fl Fl "+option) {
				t.Errorf("the page does not mention --%s of uplinkd %s", option, verb)
			}
		}
	}
}

// The page lists exactly the keys of the reference configuration, in its order and with its defaults.
func TestKeys(t *testing.T) {
	setting := regexp.MustCompile(`(?m)^#?([a-z0-9_.]+) = (.*)$`)
	var keys []string
	for _, m := range setting.FindAllStringSubmatch(read(t, "../uplinkd.toml"), -1) {
		if m[1] == "interface" || m[1] == "run" { // required: the reference has an example, not a default
			m[2] = ""
		}
		keys = append(keys, m[1]+" "+m[2])
	}
	macros := strings.NewReplacer("No = ", "", "Bq ", "[", "Qo Qc", `""`, "Qq ", `"`, `\(dq`, `"`)
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^\.It Cm ([a-z0-9_.]+) ?(.*)$`).FindAllStringSubmatch(read(t, "uplinkd.toml.5"), -1) {
		value := macros.Replace(m[2])
		if strings.Count(value, `"`)%2 == 1 {
			value += `"`
		}
		if strings.HasPrefix(value, "[") && value != "[]" {
			value += "]"
		}
		documented = append(documented, m[1]+" "+value)
	}
	if !slices.Equal(documented, keys) {
		t.Errorf("the page has\n%s\nthe reference configuration has\n%s", strings.Join(documented, "\n"), strings.Join(keys, "\n"))
	}
}

func firsts(r *regexp.Regexp, text string) (found []string) {
	for _, m := range r.FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}
