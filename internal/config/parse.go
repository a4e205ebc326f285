package config

import (
	"fmt"
	"math"
	"path"
	"strings"
	"time"
	"unicode"
)

// File is one piece of the configuration: uplinkd.toml or one of conf.d/*.toml. Name is used in messages only.
type File struct {
	Name string
	Data []byte
}

// Directories where the configuration does not say.
const (
	DefaultStateDir = "/var/lib/uplinkd"
	DefaultRunDir   = "/run/uplinkd"
)

// Bounds of the configuration.
const (
	MaxFileSize = 1 << 20 // bytes of one file

	// MaxUplinks bounds the number u of an uplink: tables and priorities are base+u, and the default bases, 9000, 10000,
	// 12000 and 19999, lie at least 999 apart.
	MaxUplinks = 512

	// maxSections bounds downstreams and hooks; downstreams are compared in pairs.
	maxSections = 1000

	// maxSocketPath is the size of sun_path in unix(7) without its final zero byte.
	maxSocketPath = 107
)

// EventPatterns returns what may stand in a hook's "on": every event, every group of events, and "*".
func EventPatterns() []string {
	return []string{"*", "prefix.*", "prefix.new", "prefix.changed", "prefix.deprecated", "prefix.lost", "prefix.restored",
		"subnet.*", "subnet.new", "subnet.lost", "uplink.*", "uplink.up", "uplink.informed", "uplink.down"}
}

// Parse merges the files, the main one first, into a Config. The error is of type Errors and holds every mistake found;
// while a file is not valid TOML, only mistakes of that kind are looked for.
func Parse(files ...File) (*Config, error) {
	p := &parser{}
	trees := p.readTrees(files)
	if len(p.errs) == 0 {
		p.readRoot(merge(trees, &p.errs), files)
		p.repeatPrefixes()
		p.check()
	}
	if len(p.errs) > 0 {
		p.errs.sort(files)
		return nil, p.errs
	}
	return &p.config, nil
}

// RunDir is the run_dir of a configuration that may have mistakes elsewhere; "" if it cannot be told, since a file is not valid
// TOML or run_dir is one of the mistakes.
func RunDir(files ...File) string {
	p := &parser{}
	trees := p.readTrees(files)
	if len(p.errs) > 0 {
		return ""
	}
	dir := get(p.section("", merge(trees, &Errors{})), "run_dir", DefaultRunDir, runDir)
	if len(p.errs) > 0 {
		return ""
	}
	return dir
}

// parser collects the typed values and, beside each, the section it came from.
type parser struct {
	errs   Errors
	config Config

	sections    []*section // all of them
	rules       *section
	uplinks     []*section
	downstreams []*section
}

func (p *parser) section(path string, n *node) *section {
	s := &section{errs: &p.errs, path: path, node: n}
	p.sections = append(p.sections, s)
	return s
}

func (p *parser) readTrees(files []File) []*node {
	var trees []*node
	for _, f := range files {
		if len(f.Data) > MaxFileSize {
			p.errs = append(p.errs, Error{Pos: Position{f.Name, 1, 1},
				Msg: fmt.Sprintf("the file has %d bytes; at most %d are read", len(f.Data), MaxFileSize)})
			continue
		}
		tree, errs := readTree(f)
		trees, p.errs = append(trees, tree), append(p.errs, errs...)
	}
	return trees
}

// merge joins the trees of all files. What is set in one file cannot be set again in another: a section that is spread
// over files would depend on their order.
func merge(trees []*node, errs *Errors) *node {
	root := newTable(Position{})
	for _, tree := range trees {
		for _, name := range tree.names {
			n := tree.children[name]
			kept := root.children[name]
			if kept == nil {
				root.add(name, n)
				continue
			}
			if kept.kind != kindTable || n.kind != kindTable {
				*errs = append(*errs, twice(n, kept, name))
				continue
			}
			for _, inner := range n.names {
				if first := kept.children[inner]; first != nil {
					*errs = append(*errs, twice(n.children[inner], first, name, inner))
					continue
				}
				kept.add(inner, n.children[inner])
			}
		}
	}
	return root
}

func twice(second, first *node, names ...string) Error {
	return Error{Pos: second.key, Path: joinPath(names...), Msg: fmt.Sprintf("stands in two files; first at %v", first.key)}
}

func (p *parser) readRoot(root *node, files []File) {
	s := p.section("", root)
	p.config.StateDir = get(s, "state_dir", DefaultStateDir, absolutePath)
	p.config.RunDir = get(s, "run_dir", DefaultRunDir, runDir)
	p.config.TableBase = get(s, "table_base", 1000, tableBase)
	p.readRules(s)
	p.config.ULA = get(s, "ula", ULA{}, ula)
	for name, n := range p.named(s, "uplink", MaxUplinks) {
		p.readUplink(name, n)
	}
	for name, n := range p.named(s, "downstream", maxSections) {
		p.readDownstream(name, n)
	}
	for name, n := range p.named(s, "hook", maxSections) {
		p.readHook(name, n)
	}
	for _, s := range p.sections {
		s.finish()
	}
	if root.children["uplink"] == nil {
		at := Position{"no file", 1, 1}
		if len(files) > 0 {
			at.File = files[0].Name
		}
		s.fail(at, "uplink", `no uplink is configured; add a section [uplink.NAME] with interface = "wan0"`)
	}
}

// named yields the sections [kind.NAME] in the order of the file.
func (p *parser) named(s *section, kind string, limit int) func(yield func(string, *node) bool) {
	s.known = append(s.known, kind)
	return func(yield func(string, *node) bool) {
		all := s.node.children[kind]
		switch {
		case all == nil:
			return
		case all.kind != kindTable:
			s.fail(all.key, kind, "expected sections [%s.NAME], found %s", kind, all.kind)
			return
		case len(all.names) == 0:
			s.fail(all.key, kind, "the section needs a name: [%s.NAME]", kind)
		case len(all.names) > limit:
			s.fail(all.children[all.names[limit]].key, kind, "%d sections; at most %d are supported", len(all.names), limit)
			return
		}
		for _, name := range all.names {
			n := all.children[name]
			key := kind + "." + joinPath(name)
			switch problem := nameProblem(name); {
			case n.kind != kindTable:
				s.fail(n.key, key, "%s outside of a named section; it belongs below a line [%s.NAME]", n.kind, kind)
			case problem != "":
				s.fail(n.key, key, "%s", problem)
			case !yield(name, n):
				return
			}
		}
	}
}

func (p *parser) readRules(root *section) {
	root.known = append(root.known, "rules")
	n := root.node.children["rules"]
	switch {
	case n == nil:
		n = newTable(root.node.key)
	case n.kind != kindTable:
		root.fail(n.key, "rules", "expected a section [rules], found %s", n.kind)
		n = newTable(n.key)
	}
	// 0 is the local table's, 32766 the main table's: rules of uplinkd make sense between the two only.
	priority := integer[uint32](1, 32765)
	p.rules = p.section("rules", n)
	p.config.RuleBase = RuleBase{
		AnyIP:     get(p.rules, "anyip", 500, priority),
		Main:      get(p.rules, "main", 1000, priority),
		OIF:       get(p.rules, "oif", 9000, priority),
		From:      get(p.rules, "from", 10000, priority),
		Withdrawn: get(p.rules, "withdrawn", 12000, priority),
		Strict:    get(p.rules, "strict", 19999, priority),
		OnLink:    get(p.rules, "onlink", 20000, priority),
	}
}

func (p *parser) readUplink(name string, n *node) {
	s := p.section(joinPath("uplink", name), n)
	u := Uplink{
		Name:      name,
		Interface: required(s, "interface", `"wan0"`, interfaceName),
		Metric:    get(s, "metric", 1000, integer[uint32](1, math.MaxUint32-1)),
		Profile:   s.profile(),
		DHCPv6:    readDHCPv6(s),
		Pos:       n.key,
	}
	p.config.Uplinks, p.uplinks = append(p.config.Uplinks, u), append(p.uplinks, s)
}

func (p *parser) readHook(name string, n *node) {
	s := p.section(joinPath("hook", name), n)
	h := Hook{
		Name:    name,
		Run:     required(s, "run", `"/etc/uplinkd/hooks/10-log-prefix"`, command),
		Dialect: get(s, "dialect", "uplinkd", oneOf("uplinkd")),
		On:      get(s, "on", []string{"*"}, list(oneOf(EventPatterns()...))),
		Timeout: get(s, "timeout", 30*time.Second, duration(100*time.Millisecond, 10*time.Minute)),
		Pos:     n.key,
	}
	p.config.Hooks = append(p.config.Hooks, h)
}

// command accepts a program and its arguments. No shell splits words, so a single string with a space is more likely a
// command line than a path.
func command(v value) ([]string, bool) {
	if v.kind == kindString && strings.ContainsFunc(v.text, unicode.IsSpace) {
		return nil, v.bad(`%s contains a space; no shell is used, so write a list of path and arguments: run = ["/path", "argument"]`, quote(v.text))
	}
	if v.kind != kindList {
		s, ok := absolutePath(v)
		return []string{s}, ok
	}
	if len(v.items) == 0 {
		return nil, v.bad("the list is empty; write the path of the program and its arguments")
	}
	program, valid := absolutePath(v.item(v.items[0]))
	argv := []string{program}
	for _, n := range v.items[1:] {
		arg, ok := text(v.item(n))
		argv, valid = append(argv, arg), valid && ok
	}
	return argv, valid
}

// runDir accepts a directory in which the control socket's name is not too long for the kernel.
func runDir(v value) (string, bool) {
	dir, ok := absolutePath(v)
	if socket := path.Join(dir, "control.sock"); ok && len(socket) > maxSocketPath {
		return "", v.bad("%s has %d bytes; the name of a socket has at most %d", quote(socket), len(socket), maxSocketPath)
	}
	return dir, ok
}

// tableBase keeps the tables base+1 … base+MaxUplinks clear of those that the kernel and iproute2 name: 252 (compat) to 255 (local).
func tableBase(v value) (uint32, bool) {
	base, ok := integer[uint32](1, math.MaxUint32-MaxUplinks)(v)
	if ok && base <= 255 {
		return 0, v.bad("tables %d to %d collide with the system's tables 252 to 255; use a base above 255", base, base+MaxUplinks)
	}
	return base, ok
}
