package pd

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const conformancePage = "../docs/conformance.md"

// TestConformance holds docs/conformance.md to what shows it: each row of checklist.tsv and habits.tsv has a transcript that
// names it, or a test that exists, and the transcripts go as they stand. With -update it writes the page.
func TestConformance(t *testing.T) {
	scripts := readHeaders(t)
	rows, habits := readRows(t, "checklist.tsv", "N-"), readRows(t, "habits.tsv", "Q")
	known := map[string]bool{}
	for _, r := range append(rows[:len(rows):len(rows)], habits...) {
		known[r.id] = true
		r.check(t, scripts)
	}
	for n := range 62 {
		if id := fmt.Sprintf("N-%d", n+1); !known[id] {
			t.Errorf("checklist.tsv lacks row %s", id)
		}
	}
	for _, s := range scripts {
		for _, id := range s.rows {
			if !known[id] {
				t.Errorf("testdata/%s.txt names row %s, which is in neither checklist.tsv nor habits.tsv", s.name, id)
			}
		}
	}
	page := conformance(rows, habits, scripts)
	if *update {
		if err := os.WriteFile(conformancePage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(conformancePage); err != nil || string(have) != page {
		t.Errorf("%s is out of date (%v): run go test ./pd -run TestConformance -update", conformancePage, err)
	}
}

// script is the head of a transcript.
type script struct {
	name, title string
	rows        []string
	passes      bool
}

func (s script) link() string { return fmt.Sprintf("[%s](../pd/testdata/%s.txt)", s.name, s.name) }

func readHeaders(t *testing.T) (scripts []script) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations in testdata: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s := script{name: strings.TrimSuffix(filepath.Base(file), ".txt"), passes: *update || replay(t, string(b)) == string(b)} // TestConversations updates it
		for line := range strings.Lines(string(b)) {
			text, comment := strings.CutPrefix(strings.TrimSpace(line), "# ")
			if !comment {
				break
			}
			if rows, ok := strings.CutPrefix(text, "rows: "); ok {
				s.rows = strings.Fields(rows)
				break
			}
			s.title = strings.TrimSpace(s.title + " " + text)
		}
		if len(s.rows) == 0 || s.title == "" {
			t.Errorf("%s does not begin with a title and a line \"# rows: …\"", file)
		}
		scripts = append(scripts, s)
	}
	return scripts
}

// row is a line of checklist.tsv or habits.tsv.
type row struct {
	id, level, source, requirement string
	elsewhere                      []proof // besides transcripts
	not                            string  // why the row is not applicable
}

// proof is a test, or a case of one: "TestName/case".
type proof struct{ dir, test string }

func (p proof) String() string { return fmt.Sprintf("%s in `%s`", p.test, p.dir) }

// exists looks for the test in the sources of the package, and for the name of the case there or in testdata.
func (p proof) exists(t *testing.T) bool {
	files, err := filepath.Glob("../" + p.dir + "/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	test, name, isCase := strings.Cut(p.test, "/")
	data, err := filepath.Glob("../" + p.dir + "/testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	found, named := false, !isCase || len(data) > 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found = found || regexp.MustCompile(`(?m)^func `+regexp.QuoteMeta(test)+`\(`).Match(b)
		named = named || strings.Contains(string(b), strconv.Quote(name))
	}
	return found && named
}

// readRows reads lines of id, level, source, requirement, and what shows it besides transcripts: "package: test; package:
// test", or "not applicable: reason".
func readRows(t *testing.T, file, prefix string) (rows []row) {
	b, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 5 {
			t.Fatalf("%s: %d columns in %q, want 5", file, len(f), line)
		}
		r := row{id: f[0], level: f[1], source: f[2], requirement: f[3]}
		number, ok := strings.CutPrefix(r.id, prefix)
		if n, err := strconv.Atoi(number); !ok || err != nil || n <= last {
			t.Fatalf("%s: row %q after %s%d", file, r.id, prefix, last)
		} else {
			last = n
		}
		if why, not := strings.CutPrefix(f[4], "not applicable: "); not {
			r.not = why
		} else if f[4] != "" {
			for _, where := range strings.Split(f[4], "; ") {
				dir, test, ok := strings.Cut(where, ": ")
				if !ok {
					t.Fatalf("%s: %s names %q, want \"package: test\"", file, r.id, where)
				}
				r.elsewhere = append(r.elsewhere, proof{dir, test})
			}
		}
		rows = append(rows, r)
	}
	return rows
}

// scripts are the transcripts about the row.
func (r row) scripts(all []script) (of []script) {
	for _, s := range all {
		if slices.Contains(s.rows, r.id) {
			of = append(of, s)
		}
	}
	return of
}

// check looks whether the row has a proof, and whether the tests that it names exist.
func (r row) check(t *testing.T, scripts []script) {
	if r.not == "" && len(r.elsewhere) == 0 && len(r.scripts(scripts)) == 0 {
		t.Errorf("%s (%s) is shown nowhere", r.id, r.requirement)
	}
	for _, p := range r.elsewhere {
		if !p.exists(t) {
			t.Errorf("%s is said to be shown by %s, which does not exist", r.id, p)
		}
	}
}

// shown are the proofs as they stand on the page.
func (r row) shown(scripts []script) string {
	if r.not != "" {
		return r.not
	}
	var proofs []string
	for _, s := range r.scripts(scripts) {
		proofs = append(proofs, s.link())
	}
	for _, p := range r.elsewhere {
		proofs = append(proofs, p.String())
	}
	return strings.Join(proofs, ", ")
}

func (r row) result(scripts []script) string {
	switch {
	case r.not != "":
		return "not applicable"
	case slices.ContainsFunc(r.scripts(scripts), func(s script) bool { return !s.passes }):
		return "fails"
	}
	return "passes"
}

// conformance is the page.
func conformance(rows, habits []row, scripts []script) string {
	var b strings.Builder
	b.WriteString(`# Conformance of the DHCPv6 client

What RFC 9915 and its neighbours demand of a client for delegated prefixes, addresses and stateless configuration, and of the
WAN side of a router that has one; and what shows that uplinkd does it. Most rows are shown by transcripts: conversations under
virtual time, in which every message, every change of the lease and every state is compared (` + "`go test ./pd`" + `). Others are shown
by the named test of the named package.

This page is generated by ` + "`go test ./pd -run TestConformance -update`" + ` from ` + "`pd/testdata`" + `. The result is that of the transcripts
when the page was made, and CI runs them and all tests again; it fails when the page is out of date, a row has no proof, or a
test that is named does not exist.

| row | level | source | requirement | shown by | result |
| --- | --- | --- | --- | --- | --- |
`)
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.id, r.level, r.source, r.requirement, r.shown(scripts), r.result(scripts))
	}
	b.WriteString("\n## Habits of providers and servers\n\nWhat is seen in the field, whatever the RFC says.\n\n| habit | seen in | what uplinkd does | shown by | result |\n| --- | --- | --- | --- | --- |\n")
	for _, h := range habits {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", h.level, h.source, h.requirement, h.shown(scripts), h.result(scripts))
	}
	b.WriteString("\n## The transcripts\n\n| transcript | what happens |\n| --- | --- |\n")
	for _, s := range scripts {
		fmt.Fprintf(&b, "| %s | %s |\n", s.link(), s.title)
	}
	return b.String()
}
