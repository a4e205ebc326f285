package config

import (
	"fmt"
	"slices"
	"strings"
)

// section is one table of the file while its keys are being read. Every key that is asked for becomes known; finish
// then refuses the others. So the list of keys exists once: in the functions that read them.
type section struct {
	errs  *Errors
	path  string
	node  *node
	known []string

	missing []string // required keys that are absent
	hints   []string // what to write for each of them

	defaults *node // keys that a profile sets; nil: none

	entries []*section // tables in lists: { length = 56 }
	before  int        // mistakes found before an entry was read
}

// entry is the table n in the list at key, to be read like a section of its own.
func (s *section) entry(key string, n *node) *section {
	e := &section{errs: s.errs, path: s.path + "." + key, node: n, before: len(*s.errs)}
	s.entries = append(s.entries, e)
	return e
}

// sound reports whether an entry that has just been read has no mistakes but unknown keys.
func (s *section) sound() bool { return len(*s.errs) == s.before && len(s.missing) == 0 }

// get returns the value of a dotted key, of the profile's where the file has none, or def when the key is absent or wrong.
func get[T any](s *section, key string, def T, parse func(value) (T, bool)) T {
	n := s.find(key)
	if n == nil {
		n = s.defaults.find(key)
	}
	return read(s, key, n, def, parse)
}

// read is get with the node of the key's value, nil if it has none.
func read[T any](s *section, key string, n *node, def T, parse func(value) (T, bool)) T {
	s.known = append(s.known, key)
	if n == nil {
		return def
	}
	if v, ok := parse(value{node: n, section: s, key: key}); ok {
		return v
	}
	return def
}

// required is get for a key without a default; hint is an example value in TOML.
func required[T any](s *section, key, hint string, parse func(value) (T, bool)) T {
	if s.find(key) == nil {
		s.missing, s.hints = append(s.missing, key), append(s.hints, hint)
	}
	var zero T
	return get(s, key, zero, parse)
}

// enabled returns the value of GROUP.enabled, for which GROUP = "off" is short; the default is true.
func (s *section) enabled(group string) bool {
	on := get(s, group+".enabled", true, boolean)
	n := s.find(group)
	if n == nil || n.kind == kindTable {
		return on
	}
	s.known = append(s.known, group)
	if n.kind != kindString || n.text != "off" {
		s.fail(n.value, group, `this can only be "off"; else write settings such as %s.enabled = true`, group)
	}
	return false
}

// refuse reports a key, or a group of keys, that contradicts others, if the file has it.
func (s *section) refuse(key, format string, args ...any) {
	if n := s.find(key); n != nil {
		s.known = append(s.known, key)
		s.fail(n.key, key, format, args...)
	}
}

// find returns the node of a dotted key that the file has, or nil.
func (s *section) find(key string) *node { return s.node.find(key) }

// at returns where a key's value stands; for an absent key, where the section does.
func (s *section) at(key string) Position {
	if n := s.find(key); n != nil {
		return n.value
	}
	return s.node.key
}

func (s *section) fail(at Position, key, format string, args ...any) {
	path := s.path
	switch {
	case path == "":
		path = key
	case key != "":
		path += "." + key
	}
	*s.errs = append(*s.errs, Error{Pos: at, Path: path, Msg: fmt.Sprintf(format, args...)})
}

// finish reports unknown keys and missing ones, here and in the entries of lists. A missing key that an unknown one was
// meant to be is reported once.
func (s *section) finish() {
	for _, e := range s.entries {
		e.finish()
	}
	meant := s.refuseUnknown(s.node, nil)
	for i, key := range s.missing {
		if !slices.Contains(meant, key) {
			s.fail(s.node.key, key, "missing; write for example %s = %s", key, s.hints[i])
		}
	}
}

// refuseUnknown walks the tables below n, whose path is parents, and returns the known keys that were suggested.
func (s *section) refuseUnknown(n *node, parents []string) (meant []string) {
	for _, name := range n.names {
		child := n.children[name]
		path := append(slices.Clip(parents), name)
		key := joinPath(path...)
		switch {
		case slices.Contains(s.known, key):
		case !s.isGroup(key):
			what := "unknown key"
			if child.kind == kindTable {
				what = "unknown section"
			}
			s.fail(child.key, key, "%s%s", what, s.suggest(key, parents, child.kind))
			if w, ok := Closest(key, s.words(child.kind)); ok {
				meant = append(meant, w)
			}
		case child.kind == kindTable:
			meant = append(meant, s.refuseUnknown(child, path)...)
		default:
			s.fail(child.key, key, "needs the name of a setting behind it: %s", strings.Join(s.group(key), ", "))
		}
	}
	return meant
}

// suggest is didYouMean, but where nothing is close it lists only what may stand in the same section as key.
func (s *section) suggest(key string, parents []string, k kind) string {
	words := s.words(k)
	if _, ok := Closest(key, words); !ok && len(parents) > 0 {
		words = s.group(joinPath(parents...))
	}
	return didYouMean(key, words)
}

// group returns the known keys below a dotted prefix: dhcpv6.length and so on for dhcpv6.
func (s *section) group(prefix string) []string {
	var keys []string
	for _, k := range s.known {
		if strings.HasPrefix(k, prefix+".") {
			keys = append(keys, k)
		}
	}
	return keys
}

func (s *section) isGroup(key string) bool { return len(s.group(key)) > 0 }

// words are the known keys, or the known groups in place of a section, for suggestions.
func (s *section) words(k kind) []string {
	var groups []string
	for _, key := range s.known {
		if i := strings.IndexByte(key, '.'); i > 0 && !slices.Contains(groups, key[:i]) {
			groups = append(groups, key[:i])
		}
	}
	if k == kindTable && len(groups) > 0 {
		return groups
	}
	return s.known
}
