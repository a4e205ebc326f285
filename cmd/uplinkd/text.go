package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"uplinkd/internal/ctl"
	"uplinkd/internal/lifetime"
)

// columns is how wide texts for people are at most.
const columns = 100

// printable returns s with everything escaped that a terminal could take for more than a character: control and format
// characters (escape sequences, bidirectional overrides), and what is no UTF-8.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) < 0 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !unicode.IsPrint(r) && r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// style is an ECMA-48 "select graphic rendition" parameter.
type style string

const (
	plain  style = ""
	bold   style = "1"
	red    style = "1;31"
	green  style = "1;32"
	yellow style = "1;33"
)

// page writes text for people. Whatever it is given goes through printable; the only escape sequences in its output are
// the colours it makes itself.
type page struct {
	w     io.Writer
	color bool
}

func (env *environment) page() page { return page{env.stdout, env.color} }

func (p page) put(s style, text string) {
	text = printable(text)
	if p.color && s != plain && text != "" {
		text = "\x1b[" + string(s) + "m" + text + "\x1b[0m"
	}
	io.WriteString(p.w, text)
}

func (p page) newline() { io.WriteString(p.w, "\n") }

// heading writes a line that begins a part of the text.
func (p page) heading(text string) {
	p.newline()
	p.put(bold, text)
	p.newline()
}

// block writes lead and, beside it, text wrapped to the page.
func (p page) block(lead, text string, s style) {
	for i, line := range wrap(text, columns-len(lead)) {
		if i > 0 {
			lead = strings.Repeat(" ", len(lead))
		}
		io.WriteString(p.w, strings.TrimRight(lead, " "))
		if line != "" {
			io.WriteString(p.w, strings.Repeat(" ", len(lead)-len(strings.TrimRight(lead, " "))))
		}
		p.put(s, line)
		p.newline()
	}
}

// field writes a line "  label        text".
func (p page) field(label, text string) { p.block(fmt.Sprintf("  %-12s ", label), text, plain) }

// wrap breaks text at spaces into lines of at most width characters; longer words are broken too.
func wrap(text string, width int) []string {
	text = printable(text)
	var lines []string
	line := []rune(text)
	for len(line) > width {
		at := width
		for at > 0 && line[at] != ' ' {
			at--
		}
		if strings.TrimSpace(string(line[:at])) == "" {
			at = width
		}
		lines = append(lines, strings.TrimRight(string(line[:at]), " "))
		line = []rune(strings.TrimLeft(string(line[at:]), " "))
	}
	return append(lines, string(line))
}

// table lines up the cells of rows in columns and returns a line per row.
func table(rows [][]string) []string {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	lines := make([]string, len(rows))
	for i, row := range rows {
		for j, cell := range row {
			lines[i] += cell + strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell)+2)
		}
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}

// left writes a lifetime as a phrase: "52m left", "for ever", "over".
func left(l ctl.Lifetime) string {
	switch l.Seconds {
	case lifetime.Infinity:
		return "for ever"
	case 0:
		return "over"
	}
	return lifetime.Span(l.Seconds) + " left"
}

// since writes how long ago t was, seen from now.
func since(t, now time.Time) string {
	return lifetime.Span(uint32(min(max(0, now.Sub(t)/time.Second), lifetime.Infinity-1)))
}

// printJSON writes v indented.
func (env *environment) printJSON(v any) int {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return env.fail(err)
	}
	fmt.Fprintf(env.stdout, "%s\n", safeJSON(b))
	return exitOK
}

// safeJSON escapes in a JSON text what a terminal could take for more than a character. Such characters stand only
// inside strings, so the value stays the same.
func safeJSON(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for _, r := range string(b) {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}
