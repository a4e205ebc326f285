package radv

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const conformancePage = "../../docs/conformance-lan.md"

var proofPattern = regexp.MustCompile("(Test\\w+)(/[\\w-]+)? (?:and (Test\\w+) )?in\\s+`([\\w/]+)`")

// TestConformanceLAN holds docs/conformance-lan.md to what shows it: every row of its tables has a test, a link to another table
// or a reason why not, and the tests that the page names exist.
func TestConformanceLAN(t *testing.T) {
	b, err := os.ReadFile(conformancePage)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	rows := 0
	for line := range strings.Lines(page) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) != 4 || strings.HasPrefix(line, "| ---") || strings.Contains(line, "shown by |") {
			continue
		}
		rows++
		if p := cells[3]; !proofPattern.MatchString(p) && !strings.HasPrefix(p, "not done: ") && !strings.Contains(p, "](#") {
			t.Errorf("nothing shows %s %s", cells[0], cells[2])
		}
	}
	if rows < 30 {
		t.Errorf("only %d rows", rows)
	}
	named := proofPattern.FindAllStringSubmatch(page, -1)
	if tests := strings.Count(page, "Test"); tests != len(named)+strings.Count(page, " and Test")+strings.Count(page, "-run Test") {
		t.Errorf("%d tests are named, of %d the package is clear", tests, len(named))
	}
	for _, m := range named {
		for _, test := range []string{m[1], m[3]} {
			if test != "" && !defined(t, m[4], test, strings.TrimPrefix(m[2], "/")) {
				t.Errorf("there is no %s%s in %s", test, m[2], m[4])
			}
		}
	}
}

// defined reports whether a package has that test, and a file of the case's name in testdata.
func defined(t *testing.T, dir, test, name string) bool {
	t.Helper()
	dir = filepath.Join("../..", dir)
	if name != "" {
		if data, err := filepath.Glob(filepath.Join(dir, "testdata", name+".*")); err != nil || len(data) == 0 {
			return false
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "\nfunc "+test+"(") {
			return true
		}
	}
	return false
}
