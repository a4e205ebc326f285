package config

import (
	"fmt"
	"math"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"
)

// File is one piece of the configuration: uplinkd.toml or one of conf.d/*.toml. Name is used in messages only.
type File struct {
	Name string
	Data []byte
}

// Bounds of the configuration.
const (
	MaxFileSize = 1 << 20 // bytes of one file

	// MaxUplinks bounds the number u of an uplink: tables and priorities are base+u, and the default bases, 9000, 10000
	// and 19999, lie at least 999 apart.
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
	p.config.StateDir = get(s, "state_dir", "/var/lib/uplinkd", absolutePath)
	p.config.RunDir = get(s, "run_dir", "/run/uplinkd", runDir)
	p.config.TableBase = get(s, "table_base", 1000, tableBase)
	p.readRules(s)
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
		Main:   get(p.rules, "main", 1000, priority),
		OIF:    get(p.rules, "oif", 9000, priority),
		From:   get(p.rules, "from", 10000, priority),
		Strict: get(p.rules, "strict", 19999, priority),
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

func (p *parser) readDownstream(name string, n *node) {
	s := p.section(joinPath("downstream", name), n)
	d := Downstream{
		Name:      name,
		Interface: required(s, "interface", `"lan0"`, interfaceName),
		Kind:      get(s, "kind", Access, oneOf(Access)),
		From:      get(s, "from", nil, orWord("*", nil, list(text))),
		Subnet:    get(s, "subnet", AutoSubnet, orWord("auto", int64(AutoSubnet), integer[int64](0, math.MaxInt64))),
		Length:    get(s, "length", 64, integer[uint8](1, 128)),
		Pos:       n.key,
	}
	d.Address = get(s, "address", defaultAddress(d.Length), hostPart(d.Length))
	d.RA = readRA(s)
	p.config.Downstreams, p.downstreams = append(p.config.Downstreams, d), append(p.downstreams, s)
}

// defaultAddress is ::1; a /128 has no host part.
func defaultAddress(length uint8) netip.Addr {
	if length == 128 {
		return netip.IPv6Unspecified()
	}
	return netip.MustParseAddr("::1")
}

// hostPart accepts an address that leaves the subnet's bits zero. All zeros is the Subnet-Router anycast address
// (RFC 4291 §2.6.1), which only links of two addresses do without (RFC 6164).
func hostPart(length uint8) func(value) (netip.Addr, bool) {
	return func(v value) (netip.Addr, bool) {
		a, ok := address6(v)
		if !ok {
			return a, false
		}
		if network := netip.PrefixFrom(a, int(length)).Masked().Addr(); !network.IsUnspecified() {
			return a, v.bad(`%v does not fit: it is the part behind the subnet's /%d, such as "::1"`, a, length)
		}
		if a.IsUnspecified() && length < 127 {
			return a, v.bad(`:: is the anycast address of all routers of a subnet; choose another, such as "::1"`)
		}
		return a, true
	}
}

// readRA applies the bounds of RFC 4861 §6.2.1.
func readRA(s *section) RA {
	ra := RA{
		Enabled:           get(s, "ra.enabled", true, boolean),
		MaxInterval:       get(s, "ra.max_interval", 600*time.Second, duration(4*time.Second, 1800*time.Second)),
		RouterLifetime:    get(s, "ra.router_lifetime", 1800*time.Second, seconds(0, 9000*time.Second)),
		PreferredLifetime: get(s, "ra.preferred_lifetime", 2700*time.Second, seconds(time.Second, (math.MaxUint32-1)*time.Second)),
		ValidLifetime:     get(s, "ra.valid_lifetime", 5400*time.Second, seconds(time.Second, (math.MaxUint32-1)*time.Second)),
		DNS:               get(s, "ra.dns", nil, orWord("auto", nil, list(dnsServer))),
		MTU:               get(s, "ra.mtu", 0, mtu),
	}
	lowest, highest := 3*time.Second, ra.MaxInterval*3/4
	ra.MinInterval = get(s, "ra.min_interval", max(ra.MaxInterval/3, lowest), duration(lowest, highest))
	return ra
}

// dnsServer accepts what hosts can send queries to; RFC 8106 §5.1 allows link-local addresses.
func dnsServer(v value) (netip.Addr, bool) {
	a, ok := address6(v)
	if ok && (a.IsUnspecified() || a.IsLoopback() || a.IsMulticast()) {
		return a, v.bad("%v is not the address of a name server", a)
	}
	return a, ok
}

// mtu accepts 0 (say nothing) or what IPv6 allows (RFC 8200 §5).
func mtu(v value) (uint32, bool) {
	n, ok := integer[uint32](0, 65535)(v)
	if ok && n > 0 && n < 1280 {
		return 0, v.bad("%d is out of range: 1280 to 65535, or 0 for none", n)
	}
	return n, ok
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

// uses reports whether downstream d draws on the uplink.
func (d Downstream) uses(uplink string) bool {
	return len(d.From) == 0 || slices.Contains(d.From, uplink)
}
