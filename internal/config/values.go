package config

import (
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// value is a node on its way to a typed value; its parsers report what is wrong with it and return false.
type value struct {
	*node
	section *section
	key     string
}

func (v value) bad(format string, args ...any) bool {
	v.section.fail(v.value, v.key, format, args...)
	return false
}

// item is the value of one element of a list.
func (v value) item(n *node) value { return value{node: n, section: v.section, key: v.key} }

func text(v value) (string, bool) {
	if v.kind != kindString {
		return "", v.bad("expected a string, found %s", v.kind)
	}
	if strings.ContainsFunc(v.text, unicode.IsControl) {
		return "", v.bad("%s contains a control character", quote(v.text))
	}
	return v.text, true
}

func boolean(v value) (bool, bool) {
	if v.kind != kindBool {
		return false, v.bad("expected true or false, found %s", v.kind)
	}
	return v.text == "true", true
}

// integer returns a parser for lo … hi. Hexadecimal (0x5), octal and binary are part of TOML.
func integer[T uint8 | uint16 | uint32 | int | int64](lo, hi int64) func(value) (T, bool) {
	return func(v value) (T, bool) {
		if v.kind != kindInteger {
			return 0, v.bad("expected an integer, found %s", v.kind)
		}
		n, err := strconv.ParseInt(v.text, 0, 64)
		if err != nil || n < lo || n > hi {
			return 0, v.bad("%s is out of range: %d to %d", printable(v.text), lo, hi)
		}
		return T(n), true
	}
}

// duration returns a parser for lo … hi, written as a string ("30s", "1h30m") or as an integer of seconds.
func duration(lo, hi time.Duration) func(value) (time.Duration, bool) {
	return func(v value) (time.Duration, bool) {
		var d time.Duration
		switch v.kind {
		case kindInteger:
			seconds, err := strconv.ParseInt(v.text, 0, 64)
			if err != nil || seconds < 0 || seconds > int64(hi/time.Second) {
				return 0, v.bad("%s seconds are out of range: %s to %s", printable(v.text), span(lo), span(hi))
			}
			d = time.Duration(seconds) * time.Second
		case kindString:
			var err error
			if d, err = time.ParseDuration(v.text); err != nil {
				return 0, v.bad(`%s is not a duration; write a string with a unit, such as "30s", "500ms" or "1h30m", or an integer of seconds`, quote(v.text))
			}
		default:
			return 0, v.bad(`expected a duration such as "30s", or an integer of seconds, found %s`, v.kind)
		}
		if d < lo || d > hi {
			return 0, v.bad("%s is out of range: %s to %s", span(d), span(lo), span(hi))
		}
		return d, true
	}
}

// seconds is duration for fields that count whole seconds on the wire.
func seconds(lo, hi time.Duration) func(value) (time.Duration, bool) {
	parse := duration(lo, hi)
	return func(v value) (time.Duration, bool) {
		d, ok := parse(v)
		if ok && d%time.Second != 0 {
			return 0, v.bad("%s is not a whole number of seconds", span(d))
		}
		return d, ok
	}
}

// span writes a duration as one would in the file: "600s", "1.5s", "100ms".
func span(d time.Duration) string {
	if d != 0 && d.Abs() < time.Second {
		return d.String()
	}
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
}

// oneOf returns a parser for words of a fixed list.
func oneOf[T ~string](known ...T) func(value) (T, bool) {
	words := make([]string, len(known))
	for i, k := range known {
		words[i] = string(k)
	}
	return func(v value) (T, bool) {
		s, ok := text(v)
		if !ok {
			return "", false
		}
		for _, k := range known {
			if s == string(k) {
				return k, true
			}
		}
		return "", v.bad("unknown word %s%s", quote(s), didYouMean(s, words))
	}
}

// list returns a parser for a list of items without repetition. A single item may stand without brackets.
func list[T comparable](item func(value) (T, bool)) func(value) ([]T, bool) {
	return func(v value) ([]T, bool) {
		if v.kind != kindList {
			one, ok := item(v)
			return []T{one}, ok
		}
		if len(v.items) == 0 {
			return nil, v.bad("the list is empty; name at least one, or remove the key")
		}
		all, valid, seen := []T(nil), true, map[T]bool{}
		for _, n := range v.items {
			one, ok := item(v.item(n))
			if ok && seen[one] {
				ok = v.item(n).bad("%s stands twice in the list", quote(fmt.Sprint(one)))
			}
			seen[one] = true
			valid = valid && ok
			all = append(all, one)
		}
		return all, valid
	}
}

// upTo returns a parser for a list of at most limit items, which may be empty. A single item may stand without brackets.
// If clash is set, it says how two items contradict each other, "" if they do not.
func upTo[T any](limit int, item func(value) (T, bool), clash func(before, after T) string) func(value) ([]T, bool) {
	return func(v value) ([]T, bool) {
		nodes := []*node{v.node}
		if v.kind == kindList {
			nodes = v.items
		}
		if len(nodes) > limit {
			return nil, v.item(nodes[limit]).bad("%d entries; at most %d are supported", len(nodes), limit)
		}
		all, places, valid := make([]T, 0, len(nodes)), make([]Position, 0, len(nodes)), true
		for _, n := range nodes {
			one, ok := item(v.item(n))
			for i := 0; ok && clash != nil && i < len(all); i++ {
				if problem := clash(all[i], one); problem != "" {
					ok = v.item(n).bad("%s (%v)", problem, places[i])
				}
			}
			if valid = valid && ok; ok {
				all, places = append(all, one), append(places, n.value)
			}
		}
		return all, valid
	}
}

// table returns the section of an inline table; example is one in TOML.
func (v value) table(example string) (*section, bool) {
	if v.kind != kindTable {
		return nil, v.bad("expected a table such as %s, found %s", example, v.kind)
	}
	return v.section.entry(v.key, v.node), true
}

// orWord accepts one word as the spelled-out default: `subnet = "auto"`.
func orWord[T any](word string, meaning T, parse func(value) (T, bool)) func(value) (T, bool) {
	return func(v value) (T, bool) {
		if v.kind == kindString && v.text == word {
			return meaning, true
		}
		return parse(v)
	}
}

// interfaceName accepts what the kernel does as the name of an interface (dev_valid_name: at most 15 bytes, not "." or
// "..", no slash, colon or space), and nothing that cannot be printed.
func interfaceName(v value) (string, bool) {
	s, ok := text(v)
	switch {
	case !ok:
		return "", false
	case s == "" || len(s) > 15:
		return "", v.bad("%s is not the name of an interface: it must have 1 to 15 bytes", quote(s))
	case s == "." || s == ".." || strings.ContainsAny(s, "/:") || strings.ContainsFunc(s, unicode.IsSpace):
		return "", v.bad(`%s is not the name of an interface: no "/", ":" or spaces, and not "." or ".."`, quote(s))
	}
	return s, true
}

// absolutePath accepts a file name that means the same in every working directory.
func absolutePath(v value) (string, bool) {
	s, ok := text(v)
	switch {
	case !ok:
		return "", false
	case !path.IsAbs(s):
		return "", v.bad("%s is not an absolute path; begin it with /", quote(s))
	case path.Clean(s) != s:
		return "", v.bad("%s is not in its shortest form; write %s", quote(s), quote(path.Clean(s)))
	case s == "/":
		return "", v.bad("%s is the root of the file system; name something below it", quote(s))
	}
	return s, true
}

// address6 accepts an IPv6 address without a zone.
func address6(v value) (netip.Addr, bool) {
	s, ok := text(v)
	if !ok {
		return netip.Addr{}, false
	}
	switch a, err := netip.ParseAddr(s); {
	case err != nil:
		return a, v.bad("%s is not an IPv6 address; write one such as \"2001:db8::53\" or \"::1\"", quote(s))
	case a.Is4(), a.Is4In6():
		return a, v.bad("%s is an IPv4 address, and uplinkd is about IPv6; write one such as \"2001:db8::53\" or \"::1\"", quote(s))
	case a.Zone() != "":
		return a, v.bad("%s names an interface; leave that away and write %s", quote(s), quote(a.WithZone("").String()))
	default:
		return a, true
	}
}

// prefix6 returns a parser for an IPv6 prefix; advice says what to write, with an example.
func prefix6(advice string) func(value) (netip.Prefix, bool) {
	return func(v value) (netip.Prefix, bool) {
		s, ok := text(v)
		if !ok {
			return netip.Prefix{}, false
		}
		switch p, err := netip.ParsePrefix(s); {
		case err != nil:
			return p, v.bad("%s is not an IPv6 prefix; %s", quote(s), advice)
		case p.Addr().Is4(), p.Addr().Is4In6():
			return p, v.bad("%s is an IPv4 prefix, and uplinkd is about IPv6; %s", quote(s), advice)
		case p.Masked() != p:
			return p, v.bad("%s has bits behind its length; write %s", quote(s), quote(p.Masked().String()))
		default:
			return p, true
		}
	}
}

// nameProblem returns why s cannot name an uplink, a downstream or a hook. Names stand in file names, in environment
// variables and in logs.
func nameProblem(s string) string {
	ok := s != "" && len(s) <= 63
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case i > 0 && (c == '-' || c == '_' || c == '.'):
		default:
			ok = false
		}
	}
	if ok {
		return ""
	}
	return "a name has 1 to 63 of the characters a-z 0-9 - _ . and begins with a letter or a digit"
}
