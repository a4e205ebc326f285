// Package docs has no code: its test keeps README.md and the pages here in step with the program and with each other.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pages goes to the top of the repository, and returns the text of each page by its path from there.
func pages(t *testing.T) map[string]string {
	t.Helper()
	t.Chdir("..")
	files, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, file := range append(files, "README.md") {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[file] = string(b)
	}
	return texts
}

var sampleMark = regexp.MustCompile(`^<!-- from (\S+) -->$`)

// A block of output behind "<!-- from FILE -->" stands in that golden file, line for line. A line "..." leaves some out,
// and "$ command" is not part of the output.
func TestSamples(t *testing.T) {
	found := 0
	for page, text := range pages(t) {
		lines := strings.Split(text, "\n")
		for i, line := range lines {
			mark := sampleMark.FindStringSubmatch(line)
			if mark == nil {
				continue
			}
			found++
			golden, err := os.ReadFile(mark[1])
			if err != nil {
				t.Errorf("%s:%d: %v", page, i+1, err)
				continue
			}
			if part := missing(sample(lines[i+1:]), string(golden)); part != "" {
				t.Errorf("%s:%d: this is no longer in %s; copy it from there:\n%s", page, i+1, mark[1], part)
			}
		}
	}
	if found < 3 {
		t.Errorf("there are only %d marked samples", found)
	}
}

// sample returns the indented block at the beginning of lines, without the indentation.
func sample(lines []string) (block []string) {
	for _, line := range lines {
		code, indented := strings.CutPrefix(line, "    ")
		if !indented && line != "" {
			break
		}
		if !strings.HasPrefix(code, "$ ") {
			block = append(block, code)
		}
	}
	return block
}

// missing returns the first part of a sample that does not follow the parts before it in text, or "".
func missing(block []string, text string) string {
	var parts []string
	for part := range strings.SplitSeq("\n"+strings.Join(block, "\n")+"\n", "\n...\n") {
		if part = strings.Trim(part, "\n"); part != "" {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return "(an empty sample)"
	}
	text = "\n" + text
	for _, part := range parts {
		_, rest, found := strings.Cut(text, "\n"+part+"\n")
		if !found {
			return part
		}
		text = "\n" + rest
	}
	return ""
}

func TestMissing(t *testing.T) {
	const text = "one\ntwo\nthree\nfour\n"
	for block, want := range map[string]string{
		"one\ntwo": "", "two\n...\nfour": "", "one\n...\ntwo": "", "\nfour\n": "",
		"tw": "tw", "one\nthree": "one\nthree", "three\n...\none": "one", "...\ntwo\n...": "", "...": "(an empty sample)",
	} {
		if got := missing(strings.Split(block, "\n"), text); got != want {
			t.Errorf("missing(%q) = %q, want %q", block, got, want)
		}
	}
}

// Links to files of the repository and to headings lead somewhere.
func TestLinks(t *testing.T) {
	texts := pages(t)
	link := regexp.MustCompile(`\]\(([^)\s:]+)\)`)
	for page, text := range texts {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %s: %v", page, m[1], err)
			} else if anchor != "" && !headings(texts[target])[anchor] {
				t.Errorf("%s: %s: there is no such heading", page, m[1])
			}
		}
	}
}

// headings returns the names under which the headings of a page can be linked to.
func headings(text string) map[string]bool {
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		names[strings.ReplaceAll(name, " ", "-")] = true
	}
	return names
}
