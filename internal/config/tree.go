package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// kind is the type of a TOML value, in the words of messages.
type kind string

const (
	kindTable   kind = "a section"
	kindList    kind = "a list"
	kindString  kind = "a string"
	kindInteger kind = "an integer"
	kindBool    kind = "true or false"
	kindFloat   kind = "a decimal number"
	kindTime    kind = "a date or time"
)

// node is a TOML value that knows where it stands. Absence of a node means "unset": defaults are filled in later.
type node struct {
	key   Position // of the key, or of the [ of the section
	value Position // of the value; for a section the same as key
	kind  kind
	text  string  // of a scalar; strings are unquoted
	items []*node // of a list

	path     []string // of a section, for messages
	names    []string // of a section: its keys in the order of the file
	children map[string]*node
	header   bool // a section opened by a [header] of its own
}

func newTable(at Position, path ...string) *node {
	return &node{key: at, value: at, kind: kindTable, path: path, children: map[string]*node{}}
}

// find returns the node of a dotted key below t, or nil; t may be nil.
func (t *node) find(key string) *node {
	for part := range strings.SplitSeq(key, ".") {
		if t == nil || t.kind != kindTable {
			return nil
		}
		t = t.children[part]
	}
	return t
}

// below returns the path of something inside the section t.
func (t *node) below(names ...string) []string { return slices.Concat(t.path, names) }

// reader turns one file into a tree. go-toml's decoder stops at the first value that does not fit and gives no positions
// of sections, so the tree is built from its syntax parser; the decoder still judges what is valid TOML.
type reader struct {
	file   File
	parser unstable.Parser
	lines  []int // offset of the first byte of each line
	errs   Errors
}

// readTree parses f. The tree may be used only if there are no errors.
func readTree(f File) (*node, Errors) {
	// go-toml finds positions by comparing capacities, so nothing may follow the text in its array.
	f.Data = f.Data[:len(f.Data):len(f.Data)]
	r := &reader{file: f, lines: []int{0}}
	for i, c := range f.Data {
		if c == '\n' {
			r.lines = append(r.lines, i+1)
		}
	}
	root := newTable(r.position(0))
	current := root
	r.parser.Reset(f.Data)
	for r.parser.NextExpression() {
		switch e := r.parser.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			current = r.openSection(root, e)
		case unstable.KeyValue:
			r.assign(current, e)
		}
	}
	if r.parser.Error() != nil || len(r.errs) == 0 {
		r.judge()
	}
	return root, r.errs
}

// judge lets go-toml decide whether the file is valid TOML.
func (r *reader) judge() {
	var any map[string]any
	err := toml.Unmarshal(r.file.Data, &any)
	if err == nil {
		return
	}
	at, msg := r.position(0), err.Error()
	if detail, ok := errors.AsType[*toml.DecodeError](err); ok {
		at.Line, at.Column = detail.Position()
	}
	msg = "invalid TOML: " + printable(strings.TrimPrefix(msg, "toml: "))
	if key, word, column := r.bareWord(at); word != "" {
		at.Column, msg = column, "write a string in quotes"
		if !isSecret(key, word) {
			msg += ": " + quote(word)
		}
	}
	r.errs = append(r.errs, Error{Pos: at, Msg: msg})
}

// isSecret reports whether word is nothing to show in a terminal, a log or a bug report: it is what a key, as it is written,
// says about dhcpv6.auth, or looks like that under a key that is mistyped.
func isSecret(key, word string) bool {
	last := key[strings.LastIndexByte(key, '.')+1:]
	return strings.Trim(last, `"`) == "auth" || len(word) >= 16 && strings.Trim(word, "0123456789abcdefABCDEF") == ""
}

// bareWord returns a key, what stands without quotes as its value, and where, if it can only be meant as a string: most
// other formats need no quotes. In an inline table it must be where the mistake is, since others stand in the same line.
func (r *reader) bareWord(at Position) (key, word string, column int) {
	if at.Line < 1 || at.Line > len(r.lines) {
		return "", "", 0
	}
	text := r.file.Data[r.lines[at.Line-1]:]
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	for _, m := range bareValue.FindAllSubmatchIndex(text, -1) {
		if m[0] > 0 && (at.Column <= m[4] || at.Column > m[5]+1) {
			continue
		}
		word = strings.TrimRight(string(text[m[4]:m[5]]), " \t\r")
		if word == "true" || word == "false" || strings.Trim(word, "+-0123456789_.") == "" {
			continue
		}
		return string(text[m[2]:m[3]]), word, m[4] + 1
	}
	return "", "", 0
}

// bareValue matches KEY = VALUE, at the beginning of a line or in an inline table, with a value that begins like no other
// TOML value than a number, a boolean or a date.
var bareValue = regexp.MustCompile(`(?:^|[{,])[ \t]*([A-Za-z0-9_."-]+)[ \t]*=[ \t]*([^ \t"'\[{#=][^"'\[\]{},#]*)`)

// openSection handles [a.b]. Lists of sections, [[a.b]], are refused; their keys go to a table that nobody reads.
func (r *reader) openSection(root *node, e *unstable.Node) *node {
	parts := r.key(e.Key())
	start := parts[0].offset
	for start > 0 && r.file.Data[start] != '[' {
		start--
	}
	if e.Kind == unstable.ArrayTable {
		start-- // the outer bracket
	}
	at := r.position(start)
	path := names(parts)
	if e.Kind == unstable.ArrayTable {
		instead := "[" + joinPath(path...) + "]"
		if len(path) > 2 { // inside a section: a list of tables is a value there
			instead = "the list behind its key, " + joinPath(path[2:]...) + " = [{ … }, { … }]"
		}
		r.fail(at, path, "[[%s]] opens a list of sections; write %s", joinPath(path...), instead)
		return newTable(at, path...)
	}
	t := r.descend(root, parts, at)
	if t.header {
		r.fail(at, path, "this section stands twice; first at %v", t.key)
		return newTable(at, path...)
	}
	t.header, t.key, t.value = true, at, at
	return t
}

// assign handles a.b = value, at the top of a section or inside an inline table.
func (r *reader) assign(t *node, e *unstable.Node) {
	parts := r.key(e.Key())
	last := parts[len(parts)-1]
	at := r.position(parts[0].offset)
	t = r.descend(t, parts[:len(parts)-1], at)
	if first := t.children[last.name]; first != nil {
		r.fail(at, t.below(last.name), "set twice; first at %v", first.key)
		return
	}
	n := r.build(e.Value(), r.position(r.valueOffset(last)), t.below(last.name))
	n.key = at
	t.add(last.name, n)
}

func (t *node) add(name string, n *node) {
	t.names = append(t.names, name)
	t.children[name] = n
}

// maxDepth is more than any section of uplinkd has; every level costs memory for its path.
const maxDepth = 8

// descend returns the table at parts below t and makes those that are missing.
func (r *reader) descend(t *node, parts []keyPart, at Position) *node {
	if len(t.path)+len(parts) > maxDepth {
		r.fail(at, t.path, "more than %d levels of sections", maxDepth)
		return newTable(at, t.path...)
	}
	for _, p := range parts {
		next := t.children[p.name]
		path := t.below(p.name)
		switch {
		case next == nil:
			next = newTable(at, path...)
			t.add(p.name, next)
		case next.kind != kindTable:
			r.fail(at, path, "is %s (%v), so nothing can be set inside it", next.kind, next.key)
			return newTable(at, path...)
		}
		t = next
	}
	return t
}

// build copies a value out of the parser, whose memory is reused.
func (r *reader) build(v *unstable.Node, at Position, path []string) *node {
	if v.Raw.Length > 0 {
		at = r.position(int(v.Raw.Offset))
	}
	n := &node{key: at, value: at, text: string(v.Data)}
	switch v.Kind {
	case unstable.InlineTable:
		n = newTable(at, path...)
		n.header = true
		if len(path) > maxDepth {
			r.fail(at, path[:maxDepth], "more than %d levels of sections", maxDepth)
			return n
		}
		for it := v.Children(); it.Next(); {
			if it.Node().Kind == unstable.KeyValue {
				r.assign(n, it.Node())
			}
		}
	case unstable.Array:
		n.kind = kindList
		for it := v.Children(); it.Next(); {
			n.items = append(n.items, r.build(it.Node(), r.opening(it.Node(), at), path))
		}
	case unstable.String:
		n.kind = kindString
	case unstable.Integer:
		n.kind = kindInteger
	case unstable.Bool:
		n.kind = kindBool
	case unstable.Float:
		n.kind = kindFloat
	default:
		n.kind = kindTime
	}
	return n
}

// opening is where a list inside the list at begins, which the parser does not say: as many brackets before its first value
// as it is deep. For a list without values or of more levels than anybody needs it is at.
func (r *reader) opening(v *unstable.Node, at Position) Position {
	depth := 0
	for ; v != nil && v.Kind == unstable.Array && depth <= maxDepth; v = v.Child() {
		depth++
	}
	if v == nil || v.Kind == unstable.Array || v.Raw.Length == 0 {
		return at
	}
	i := int(v.Raw.Offset)
	for ; depth > 0 && i > 0; i-- {
		if r.file.Data[i-1] == '[' {
			depth--
		}
	}
	return r.position(i)
}

// keyPart is one part of a dotted key.
type keyPart struct {
	name        string
	offset, end int // of the raw text, quotes included
}

func (r *reader) key(it unstable.Iterator) []keyPart {
	var parts []keyPart
	for it.Next() {
		n := it.Node()
		start := int(n.Raw.Offset)
		parts = append(parts, keyPart{name: string(n.Data), offset: start, end: start + int(n.Raw.Length)})
	}
	return parts
}

// valueOffset finds the value behind a key: the parser does not say where lists and inline tables begin.
func (r *reader) valueOffset(last keyPart) int {
	for i := last.end; i < len(r.file.Data); i++ {
		if c := r.file.Data[i]; c != ' ' && c != '\t' && c != '=' {
			return i
		}
	}
	return last.offset
}

// position turns an offset into line and column; columns count bytes, as Go's and GCC's do.
func (r *reader) position(offset int) Position {
	line := sort.SearchInts(r.lines, offset+1) - 1
	return Position{File: r.file.Name, Line: line + 1, Column: offset - r.lines[line] + 1}
}

func (r *reader) fail(at Position, path []string, format string, args ...any) {
	r.errs = append(r.errs, Error{Pos: at, Path: joinPath(path...), Msg: fmt.Sprintf(format, args...)})
}

func names(parts []keyPart) []string {
	all := make([]string, len(parts))
	for i, p := range parts {
		all[i] = p.name
	}
	return all
}

// joinPath writes a dotted path with quotes where TOML needs them, so nothing unprintable reaches a terminal.
func joinPath(names ...string) string {
	var b strings.Builder
	for i, n := range names {
		if i > 0 {
			b.WriteByte('.')
		}
		if isBareKey(n) && len(n) <= maxWord {
			b.WriteString(n)
		} else {
			b.WriteString(quote(n))
		}
	}
	return b.String()
}

// quote is strconv.Quote for messages: what is longer than any sensible word is cut.
func quote(s string) string {
	if len(s) > maxWord {
		return strconv.Quote(strings.ToValidUTF8(s[:maxWord], "")) + "…"
	}
	return strconv.Quote(s)
}

func isBareKey(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return s != ""
}

// printable replaces what must not reach a terminal.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if strconv.IsPrint(c) {
			return c
		}
		return '\uFFFD'
	}, s)
}
