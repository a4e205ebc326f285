package config

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Profile is a set of defaults for the keys dhcpv6.* of an uplink, made for one provider whose DHCPv6 is documented to want
// it. What the user's file says wins.
type Profile struct {
	Name    string
	Summary string    // one line
	About   string    // what else has to be set up for this provider; may be empty
	Sources []string  // URLs: where the provider's wishes are documented
	Needs   []Need    // keys that only the user can know, in the order of the profile
	Sets    []Setting // in the order of the profile
	Repeat  int       // dhcpv6.prefixes stands for as many entries as the uplink has downstreams, up to this many; 0: for itself
	keys    *node     // the same as the text of a section
}

// Need is a key without which a profile is of no use.
type Need struct {
	Key string // "dhcpv6.auth"
	For string // what has to be written there
}

// Setting is a default that a profile sets: a string, an int64, a bool, or []any and map[string]any of these.
type Setting struct {
	Key   string // "dhcpv6.duid"
	Value any
}

// String returns the setting as a line of TOML.
func (s Setting) String() string { return s.Key + " = " + tomlText(s.Value) }

//go:embed profiles/*.toml
var profileFiles embed.FS

// Profiles are all profiles, by name. The caller must not change them.
var Profiles = sync.OnceValue(func() []Profile {
	names, err := fs.Glob(profileFiles, "profiles/*.toml")
	if err != nil {
		panic(err)
	}
	all := make([]Profile, len(names)) // Glob sorts
	for i, file := range names {
		b, err := profileFiles.ReadFile(file)
		if err != nil {
			panic(err)
		}
		if all[i], err = readProfile(strings.TrimSuffix(path.Base(file), ".toml"), b); err != nil {
			panic(err) // the files are part of the program
		}
	}
	return all
})

// ProfileNames are the names of all profiles.
func ProfileNames() []string {
	var names []string
	for _, p := range Profiles() {
		names = append(names, p.Name)
	}
	return names
}

// FindProfile returns the profile of that name.
func FindProfile(name string) (Profile, bool) {
	i := slices.IndexFunc(Profiles(), func(p Profile) bool { return p.Name == name })
	if i < 0 {
		return Profile{}, false
	}
	return Profiles()[i], true
}

// readProfile reads what stands around the settings. They themselves are read as part of the section that names the profile.
func readProfile(name string, text []byte) (Profile, error) {
	root, errs := readTree(File{"profile " + name, text})
	if len(errs) > 0 {
		return Profile{}, errs
	}
	s := &section{errs: &errs, node: root}
	p := Profile{
		Name:    name,
		Summary: required(s, "summary", `"…"`, words),
		About:   get(s, "about", "", words),
		Sources: required(s, "sources", `["https://…"]`, list(words)),
		Repeat:  get(s, "prefix_per_downstream_up_to", 0, integer[int](1, maxPrefixes)),
		keys:    root,
	}
	for key, n := range leaves(root.children["needs"]) {
		need, ok := words(value{node: n, section: s, key: key})
		if ok {
			p.Needs = append(p.Needs, Need{key, need})
		}
	}
	for key, n := range leaves(root.children["dhcpv6"]) {
		p.Sets = append(p.Sets, Setting{"dhcpv6." + key, plain(n)})
	}
	if len(p.Sets) == 0 {
		s.fail(root.key, "dhcpv6", "the profile sets nothing")
	}
	s.known = append(s.known, "needs", "dhcpv6")
	s.finish()
	if len(errs) > 0 {
		return Profile{}, errs
	}
	return p, nil
}

// words is a text that says something.
func words(v value) (string, bool) {
	s, ok := text(v)
	if ok && s == "" {
		return "", v.bad("is empty")
	}
	return s, ok
}

// leaves yields the values of a section by their keys, in order; n may be nil.
func leaves(n *node) func(yield func(string, *node) bool) {
	return func(yield func(string, *node) bool) {
		if n == nil {
			return
		}
		for _, name := range n.names {
			if !yield(name, n.children[name]) {
				return
			}
		}
	}
}

// plain is the value of n without its place. Profiles have no values of other kinds.
func plain(n *node) any {
	switch n.kind {
	case kindTable:
		m := map[string]any{}
		for key, child := range leaves(n) {
			m[key] = plain(child)
		}
		return m
	case kindList:
		all := make([]any, len(n.items))
		for i, item := range n.items {
			all[i] = plain(item)
		}
		return all
	case kindBool:
		return n.text == "true"
	case kindInteger:
		i, err := strconv.ParseInt(n.text, 0, 64)
		if err != nil {
			panic(err)
		}
		return i
	}
	return n.text
}

// tomlText is a value as TOML, keys of tables in alphabetical order.
func tomlText(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = tomlText(item)
		}
		return "[" + strings.Join(items, ", ") + "]"
	case map[string]any:
		var pairs []string
		for key, item := range v {
			pairs = append(pairs, key+" = "+tomlText(item))
		}
		slices.Sort(pairs)
		return "{ " + strings.Join(pairs, ", ") + " }"
	}
	return fmt.Sprint(v)
}

// profile reads the key of that name and makes the profile's settings the defaults of the section.
func (s *section) profile() string {
	name := get(s, "profile", "", profileName)
	p, ok := FindProfile(name)
	if !ok {
		return "" // none, or an unknown one that has been reported
	}
	s.defaults = p.keys
	for _, need := range p.Needs {
		if n := s.find(need.Key); n == nil || n.kind == kindString && n.text == "" {
			s.fail(s.at("profile"), "profile", "%s needs %s too: %s", quote(name), need.Key, need.For)
		}
	}
	return name
}

// repeatPrefixes gives an uplink with such a profile an IA_PD for each of its downstreams. A provider who delegates one /64 at
// a time would else number one network only, and one who is asked for more than there are networks would number them twice.
func (p *parser) repeatPrefixes() {
	for i := range p.config.Uplinks {
		u := &p.config.Uplinks[i]
		profile, _ := FindProfile(u.Profile)
		if s := p.uplinks[i]; profile.Repeat == 0 || s.find("dhcpv6.prefixes") != nil || s.find("dhcpv6.length") != nil {
			continue
		}
		n := 0
		for _, d := range p.config.Downstreams {
			if d.uses(u.Name) && d.HasSubnet() {
				n++
			}
		}
		u.DHCPv6.Prefixes = slices.Repeat(u.DHCPv6.Prefixes, min(max(n, 1), profile.Repeat))
	}
}

func profileName(v value) (string, bool) {
	name, ok := text(v)
	if _, known := FindProfile(name); ok && !known && name != "" {
		return "", v.bad("there is no profile %s; known are %s (see: uplinkd profiles)", quote(name), strings.Join(ProfileNames(), ", "))
	}
	return name, ok
}
