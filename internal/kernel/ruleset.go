package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Ruleset is what stands in an nft table, as a value that renders to one canonical text. Sets hold what changes
// (prefixes, devices); chains hold rules that look things up in sets, so that nobody has to paste addresses into rules.
type Ruleset struct {
	Sets   []Set
	Chains []Chain // a chain that is jumped to has to come before the one that jumps
}

// Set is a named set. Make one with PrefixSet or DeviceSet.
type Set struct {
	Name     string
	typ      string
	interval bool
	elements []string
}

// PrefixSet is a set of IPv6 prefixes, for "ip6 saddr @name". nft refuses overlapping elements, so a prefix inside
// another one is left out.
func PrefixSet(name string, prefixes []netip.Prefix) Set {
	s := Set{Name: name, typ: "ipv6_addr", interval: true}
	sorted := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		sorted = append(sorted, p.Masked())
	}
	slices.SortFunc(sorted, netip.Prefix.Compare) // by address, then length: what contains comes before what it contains
	var last netip.Prefix
	for _, p := range sorted {
		if !last.IsValid() || !last.Overlaps(p) {
			s.elements = append(s.elements, p.String())
			last = p
		}
	}
	return s
}

// DeviceSet is a set of network interfaces, for "iifname @name". Devices that are not Spellable are left out.
func DeviceSet(name string, devices []string) Set {
	return Set{Name: name, typ: "ifname", elements: quoted(devices)}
}

// Devices is a set without a name, for rules that cannot look into a DeviceSet: "fib daddr oifname" (up to nft 1.0.6 at
// least it has another type than iifname). At least one device has to be Spellable.
func Devices(devices []string) string { return "{ " + strings.Join(quoted(devices), ", ") + " }" }

func quoted(devices []string) (elements []string) {
	for _, d := range devices {
		if Spellable(d) {
			elements = append(elements, Quote(d))
		}
	}
	slices.Sort(elements)
	return slices.Compact(elements)
}

// Spellable reports whether nft(8) can name a device. The kernel allows almost every character in names of devices; nft
// knows no way to write a quotation mark, and '*' stands for any ending.
func Spellable(device string) bool {
	if device == "" || len(device) > 15 {
		return false
	}
	for _, c := range []byte(device) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"*\\", c) >= 0 {
			return false
		}
	}
	return true
}

// Quote is the name of a Spellable device as rules have to write it.
func Quote(device string) string { return `"` + device + `"` }

// Chain is a chain with its rules in nft(8) syntax. With a Hook packets pass it there, with policy accept; without, rules
// jump to it.
type Chain struct {
	Name  string
	Hook  Hook
	Rules []string
}

// Hook is where and when a base chain sees packets: Hook{"filter", "prerouting", "raw"}. A priority is a name or a name
// and an offset, "filter - 10".
type Hook struct{ Type, Point, Priority string }

// Text is the sets and chains in nft(8) syntax, a statement per line, one tab deep, as they stand between the braces of a
// table; "" for an empty Ruleset.
func (r Ruleset) Text() string {
	var b strings.Builder
	for _, s := range r.Sets {
		s.render(&b)
	}
	for _, c := range r.Chains {
		c.render(&b)
	}
	return b.String()
}

func (s Set) render(b *strings.Builder) {
	fmt.Fprintf(b, "\tset %s {\n\t\ttype %s\n", s.Name, s.typ)
	if s.interval {
		b.WriteString("\t\tflags interval\n")
	}
	if len(s.elements) > 0 {
		fmt.Fprintf(b, "\t\telements = { %s }\n", strings.Join(s.elements, ", "))
	}
	b.WriteString("\t}\n")
}

func (c Chain) render(b *strings.Builder) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	if c.Hook != (Hook{}) {
		fmt.Fprintf(b, "\t\ttype %s hook %s priority %s; policy accept;\n", c.Hook.Type, c.Hook.Point, c.Hook.Priority)
	}
	for _, rule := range c.Rules {
		fmt.Fprintf(b, "\t\t%s\n", rule)
	}
	b.WriteString("\t}\n")
}
