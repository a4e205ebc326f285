package config

import (
	"fmt"
	"math"
)

// check looks for mistakes that show only when sections are compared.
func (p *parser) check() {
	p.checkRules()
	p.checkInterfaces()
	p.checkMarks()
	for i, d := range p.config.Downstreams {
		s := p.downstreams[i]
		p.checkFrom(d, s)
		p.checkRA(d, s)
		p.checkPoolRA(i)
		p.checkFits(d, s)
		for j := range i {
			p.checkOverlap(d, s, p.config.Downstreams[j], p.downstreams[j])
		}
	}
}

// checkRules keeps the priorities apart and in the order in which the routing policy needs them: services by interface or
// mark, specific routes of main, sockets bound to an uplink, sources, sources that are withdrawn, sources that are
// refused, and what is left.
func (p *parser) checkRules() {
	rules := p.config.RuleBase
	order := []struct {
		key         string
		first, last uint32
	}{
		{"anyip", rules.AnyIP, rules.AnyIP},
		{"main", rules.Main, rules.Main},
		{"oif", rules.OIF + 1, rules.OIF + MaxUplinks},
		{"from", rules.From + 1, rules.From + MaxUplinks},
		{"withdrawn", rules.Withdrawn + 1, rules.Withdrawn + MaxUplinks},
		{"strict", rules.Strict, rules.Strict},
		{"onlink", rules.OnLink, rules.OnLink},
	}
	for i := 1; i < len(order); i++ {
		before, after := order[i-1], order[i]
		if after.first > before.last {
			continue
		}
		key := after.key
		if p.rules.find(key) == nil {
			key = before.key
		}
		p.rules.fail(p.rules.at(key), key, "the priorities of rules.%s (%s) must all be lower than those of rules.%s (%s)",
			before.key, priorities(before.first, before.last), after.key, priorities(after.first, after.last))
	}
}

func priorities(first, last uint32) string {
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d to %d, one for each uplink", first, last)
}

// checkInterfaces allows one use per interface: two DHCPv6 clients or two routers' worth of advertisements on one link
// undo each other's work. Inner routers may sit on the link of an access network, several of them, and a service may take
// what arrives anywhere.
func (p *parser) checkInterfaces() {
	uplinks, networks, services := map[string]*section{}, map[string]*section{}, map[string]*section{}
	free := func(s *section, iface string, seen map[string]*section, format string) bool {
		first, taken := seen[iface]
		if taken && iface != "" {
			s.fail(s.at("interface"), "interface", format, quote(iface), first.path, first.at("interface"))
			return false
		}
		return true
	}
	const oneUse = "%s is already the interface of %s (%v)"
	for i, u := range p.config.Uplinks {
		if s := p.uplinks[i]; free(s, u.Interface, uplinks, oneUse) {
			uplinks[u.Interface] = s
		}
	}
	for i, d := range p.config.Downstreams {
		switch s := p.downstreams[i]; {
		case d.Kind == Access && free(s, d.Interface, uplinks, oneUse) && free(s, d.Interface, networks, oneUse):
			networks[d.Interface] = s
		case d.Kind == Transit:
			free(s, d.Interface, uplinks, oneUse)
		case d.AnyIP.Mode == AnyIPInterface && free(s, d.Interface, services, "what arrives on %s is already for %s (%v)"):
			services[d.Interface] = s
		}
	}
}

// checkMarks keeps services by mark apart: the rule of one matches whatever has its bits, so no two have one in common.
func (p *parser) checkMarks() {
	for i, d := range p.config.Downstreams {
		for j, o := range p.config.Downstreams[:i] {
			if byMark := d.AnyIP.Mode == AnyIPMark && o.AnyIP.Mode == AnyIPMark; byMark && d.AnyIP.Mark&o.AnyIP.Mark != 0 {
				s, first := p.downstreams[i], p.downstreams[j]
				s.fail(s.at("anyip.mark"), "anyip.mark", "%#x has bits of %#x, the mark of %s (%v); set another", d.AnyIP.Mark, o.AnyIP.Mark, first.path, first.at("anyip.mark"))
				break
			}
		}
	}
}

func (p *parser) checkFrom(d Downstream, s *section) {
	var names []string
	for _, u := range p.config.Uplinks {
		names = append(names, u.Name)
	}
	n := s.find("from")
	for i, from := range d.From {
		if _, ok := p.uplink(from); ok {
			continue
		}
		at := n.value
		if n.kind == kindList {
			at = n.items[i].value
		}
		s.fail(at, "from", "there is no uplink %s%s", quote(from), didYouMean(from, names))
	}
}

func (p *parser) uplink(name string) (Uplink, bool) {
	for _, u := range p.config.Uplinks {
		if u.Name == name {
			return u, true
		}
	}
	return Uplink{}, false
}

func (p *parser) checkRA(d Downstream, s *section) {
	ra := d.RA
	if d.Kind == Access && s.find("ra.enabled") != nil && ra.Enabled && d.Length != 64 {
		s.fail(s.at("ra.enabled"), "ra.enabled", "router advertisements are only sent for subnets of length 64, and this one has length %d (RFC 4862 §5.5.3)", d.Length)
	}
	if ra.RouterLifetime != 0 && ra.RouterLifetime < ra.MaxInterval {
		s.fail(s.at("ra.router_lifetime"), "ra.router_lifetime", "%s is shorter than ra.max_interval (%s): hosts would lose their router between two advertisements; 0 is allowed",
			span(ra.RouterLifetime), span(ra.MaxInterval))
	}
	if ra.PreferredLifetime < ra.MaxInterval {
		s.fail(s.at("ra.preferred_lifetime"), "ra.preferred_lifetime", "%s is shorter than ra.max_interval (%s): addresses of hosts would be deprecated between two advertisements",
			span(ra.PreferredLifetime), span(ra.MaxInterval))
	}
	if ra.ValidLifetime < ra.PreferredLifetime {
		s.fail(s.at("ra.valid_lifetime"), "ra.valid_lifetime", "%s is shorter than ra.preferred_lifetime (%s)", span(ra.ValidLifetime), span(ra.PreferredLifetime))
	}
}

// checkPoolRA refuses ra of a pool that has none, because the router advertisements on its link are those of another: of the
// network there, else of the first pool.
func (p *parser) checkPoolRA(i int) {
	d, s := p.config.Downstreams[i], p.downstreams[i]
	n := s.find("ra")
	if d.Kind != Transit || d.Via.IsValid() || n == nil {
		return
	}
	for j, o := range p.config.Downstreams {
		if o.Interface == d.Interface && (o.Kind == Access || o.Kind == Transit && !o.Via.IsValid() && j < i) {
			s.fail(n.key, "ra", "router advertisements on %s are those of %s (%v); remove this, or set ra there", quote(d.Interface), p.downstreams[j].path, o.Pos)
			return
		}
	}
}

// checkFits compares a subnet with the delegations that its uplinks ask for. Servers may give another length than the
// hint; without a hint all that is known is that a delegation has at least one bit.
func (p *parser) checkFits(d Downstream, s *section) {
	hinted := false
	for i, u := range p.config.Uplinks {
		hint := u.DHCPv6.hint()
		if !d.uses(u.Name) || hint == 0 {
			continue
		}
		hinted = true
		key := p.uplinks[i].path + ".dhcpv6.length"
		switch up := p.uplinks[i]; {
		case up.find("dhcpv6.prefixes") != nil:
			key = up.path + ".dhcpv6.prefixes"
		case up.find("dhcpv6.length") == nil:
			key = up.path + ".profile"
		}
		if d.Length < hint {
			s.fail(s.at("length"), "length", "a subnet of length %d does not fit into a /%d delegation (%s)", d.Length, hint, key)
		} else if last := lastID(d.Length - hint); d.Subnet > last {
			s.fail(s.at("subnet"), "subnet", "subnet id %d does not fit: a /%d delegation (%s) has %d /%d subnets (0 to %d)",
				d.Subnet, hint, key, last+1, d.Length, last)
		}
	}
	if last := lastID(d.Length - 1); !hinted && d.Subnet > last {
		s.fail(s.at("subnet"), "subnet", "subnet id %d does not fit: no delegation has more than %d /%d subnets (0 to %d)",
			d.Subnet, last+1, d.Length, last)
	}
}

// hint is the shortest length that is asked for, so the largest delegation to expect; 0 if it is open for any prefix.
func (d DHCPv6) hint() (shortest uint8) {
	for _, w := range d.Prefixes {
		hint := w.hint()
		if hint == 0 {
			return 0
		}
		if shortest == 0 || hint < shortest {
			shortest = hint
		}
	}
	return shortest
}

// hint is the length that w asks for by itself or by that of its prefix, the shorter of both; 0 for none.
func (w PrefixWish) hint() uint8 {
	if !w.Prefix.IsValid() || w.Length != 0 && int(w.Length) < w.Prefix.Bits() {
		return w.Length
	}
	return uint8(w.Prefix.Bits())
}

// lastID is the highest subnet id of the given number of bits.
func lastID(bits uint8) int64 {
	if bits >= 63 {
		return math.MaxInt64
	}
	return 1<<bits - 1
}

// checkOverlap compares two explicit subnets. Both are counted from the start of the same delegation, so the one with the
// longer prefix lies inside the other when its leading bits are the other's id.
func (p *parser) checkOverlap(a Downstream, sa *section, b Downstream, sb *section) {
	if a.Subnet < 0 || b.Subnet < 0 || !p.shareUplink(a, b) {
		return
	}
	place := fmt.Sprintf("%s (%v)", sb.path, sb.at("subnet"))
	switch {
	case a.Length == b.Length && a.Subnet == b.Subnet:
		sa.fail(sa.at("subnet"), "subnet", "subnet id %d is already that of %s", a.Subnet, place)
	case a.Length > b.Length && uint64(a.Subnet)>>(a.Length-b.Length) == uint64(b.Subnet):
		sa.fail(sa.at("subnet"), "subnet", "/%d subnet %d lies inside the /%d subnet %d of %s", a.Length, a.Subnet, b.Length, b.Subnet, place)
	case a.Length < b.Length && uint64(b.Subnet)>>(b.Length-a.Length) == uint64(a.Subnet):
		sa.fail(sa.at("subnet"), "subnet", "/%d subnet %d contains the /%d subnet %d of %s", a.Length, a.Subnet, b.Length, b.Subnet, place)
	}
}

func (p *parser) shareUplink(a, b Downstream) bool {
	for _, u := range p.config.Uplinks {
		if a.uses(u.Name) && b.uses(u.Name) {
			return true
		}
	}
	return false
}
