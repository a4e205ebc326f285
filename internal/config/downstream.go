package config

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// keyKinds are the keys, and groups of keys, that not every kind has.
var keyKinds = map[string][]Kind{
	"interface": {Access, Transit, Service},
	"address":   {Access, Transit},
	"via":       {Transit},
	"dhcpv6":    {Access, Transit},
	"ra":        {Access, Transit},
	"anyip":     {Service},
}

// has reports whether downstreams of kind k have the key. An unknown kind has them all: it has been reported, and which of
// the keys are right is not known.
func (k Kind) has(key string) bool {
	kinds, some := keyKinds[key]
	return !some || k == "" || slices.Contains(kinds, k)
}

func downstreamKind(v value) (Kind, bool) {
	k, _ := oneOf(Access, Transit, Service, Reserve)(v)
	return k, true
}

// uses reports whether downstream d draws on the uplink.
func (d Downstream) uses(uplink string) bool {
	return len(d.From) == 0 || slices.Contains(d.From, uplink)
}

func (p *parser) readDownstream(name string, n *node) {
	s := p.section(joinPath("downstream", name), n)
	d := Downstream{Name: name, Kind: get(s, "kind", Access, downstreamKind), Subnet: AutoSubnet, Length: 64, Host: HostNone, Pos: n.key}
	s.refuseKeysOfOtherKinds(d.Kind)
	if d.Kind.has("anyip") {
		d.AnyIP = readAnyIP(s)
	}
	switch d.Kind {
	case Access, Transit:
		d.Interface = required(s, "interface", `"lan0"`, interfaceName)
	case Service:
		d.Interface = readServiceInterface(s, d.AnyIP)
	case "":
		d.Interface = get(s, "interface", "", interfaceName)
	}
	if d.HasSubnet() {
		d.From = get(s, "from", nil, orWord("*", nil, list(text)))
		d.Subnet = get(s, "subnet", AutoSubnet, subnetID(d.Kind))
		d.Length = get(s, "length", 64, integer[uint8](1, 128))
	} else {
		for _, key := range []string{"from", "subnet", "length"} {
			s.refuse(key, "a service with anyip.mode = %q takes what no other use has, and has no subnet; remove it", d.AnyIP.Mode)
		}
	}
	if d.Kind.has("address") {
		h := get(s, "address", defaultHost(d), hostMode(d))
		d.Host, d.Address = h.mode, h.part
	}
	if d.Kind.has("via") {
		d.Via = get(s, "via", netip.Addr{}, orWord("dhcpv6", netip.Addr{}, nextHop))
	}
	if d.Via.IsValid() {
		s.refuse("dhcpv6", "with via the whole subnet is routed to one router, and nobody has to ask for it; remove this or via")
	} else if d.Kind.has("dhcpv6") {
		d.DHCPv6 = readServer(s, d)
	}
	switch {
	case d.Kind == Transit && d.Via.IsValid():
		s.refuse("ra", "with via there are no router advertisements for inner routers; remove this or via")
	case d.Kind == Transit:
		d.RA = readPoolRA(s)
	case d.Kind.has("ra"):
		d.RA = readRA(s)
	}
	p.config.Downstreams, p.downstreams = append(p.config.Downstreams, d), append(p.downstreams, s)
}

// refuseKeysOfOtherKinds reports each key, or group of keys, that means nothing for a downstream of kind k.
func (s *section) refuseKeysOfOtherKinds(k Kind) {
	for _, name := range slices.Clone(s.node.names) {
		if k.has(name) {
			continue
		}
		kinds := make([]string, len(keyKinds[name]))
		for i, other := range keyKinds[name] {
			kinds[i] = quote(string(other))
		}
		s.refuse(name, "is only for kind %s, and this downstream is of kind %q; remove it or set another kind", strings.Join(kinds, " or "), k)
	}
}

// subnetID accepts a number, or one of the ways to choose one.
func subnetID(k Kind) func(value) (int64, bool) {
	return func(v value) (int64, bool) {
		if v.kind != kindString {
			return integer[int64](0, math.MaxInt64)(v)
		}
		switch {
		case v.text == "auto":
			return AutoSubnet, true
		case v.text == "hash":
			return HashSubnet, true
		case v.text == "vlan" && (k == Service || k == Reserve):
			return 0, v.bad(`"vlan" is the VLAN id of the downstream's interface, and one of kind %q has none; write a number, "auto" or "hash"`, k)
		case v.text == "vlan":
			return VLANSubnet, true
		}
		if _, err := strconv.ParseUint(v.text, 0, 63); err == nil {
			return 0, v.bad("write the number without quotes: subnet = %s", v.text)
		}
		return 0, v.bad("%s is neither a number nor a way to choose one%s", quote(v.text), didYouMean(v.text, []string{"auto", "hash", "vlan"}))
	}
}

// host is the router's own address in a subnet: Downstream.Host and Downstream.Address.
type host struct {
	mode HostMode
	part netip.Addr
}

// defaultHost is ::1; a /128 has no host part. An inner router gets along with link-local addresses.
func defaultHost(d Downstream) host {
	switch {
	case d.Kind == Transit:
		return host{mode: HostNone}
	case d.Length == 128:
		return host{part: netip.IPv6Unspecified()}
	}
	return host{part: netip.MustParseAddr("::1")}
}

// hostMode accepts a host part or one of the words for ways to make one. Interface identifiers have 64 bits (RFC 4291 §2.5.1).
func hostMode(d Downstream) func(value) (host, bool) {
	return func(v value) (host, bool) {
		if v.kind != kindString {
			return host{}, v.bad("expected a string, found %s", v.kind)
		}
		switch mode := HostMode(v.text); mode {
		case HostEUI64, HostStable:
			if d.Length > 64 {
				return host{}, v.bad("%q makes 64 bits, and behind a subnet of length %d there are %d; write them, such as %q",
					mode, d.Length, 128-d.Length, defaultHost(Downstream{Length: d.Length}).part)
			}
			return host{mode: mode}, true
		case HostNone:
			if d.Kind == Access {
				return host{}, v.bad(`"none" is for kind "transit"; hosts need an address of their router`)
			}
			return host{mode: mode}, true
		}
		if _, err := netip.ParseAddr(v.text); err != nil && v.text != "" {
			words := []string{string(HostEUI64), string(HostStable)}
			if d.Kind == Transit {
				words = append(words, string(HostNone))
			}
			return host{}, v.bad(`%s is neither the part of an address behind the prefix, such as "::1", nor a way to make one%s`,
				quote(v.text), didYouMean(v.text, words))
		}
		part, ok := hostPart(d.Length)(v)
		return host{part: part}, ok
	}
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

// nextHop accepts the link-local address of an inner router: the only kind that stays when prefixes change.
func nextHop(v value) (netip.Addr, bool) {
	if v.kind == kindString {
		if a, err := netip.ParseAddr(v.text); err != nil || !a.IsLinkLocalUnicast() {
			return a, v.bad(`%s is not a link-local address; write that of the inner router on this link, such as "fe80::2", or "dhcpv6"`, quote(v.text))
		}
	}
	return address6(v)
}

// readServer reads the keys dhcpv6.* of a network or pool.
func readServer(s *section, d Downstream) Server {
	srv := Server{
		Enabled:  s.enabled("dhcpv6"),
		Delegate: get(s, "dhcpv6.delegate", true, boolean),
		Length:   get(s, "dhcpv6.length", 64, integer[uint8](1, 64)),
	}
	largest, shortest := uint8(1), min(60, srv.Length)
	if d.Kind == Transit {
		largest, shortest = d.Length, min(d.Length, 64)
	}
	srv.Shortest = get(s, "dhcpv6.shortest", shortest, integer[uint8](1, 64))
	switch {
	case d.Kind == Transit && d.Length > 64:
		if via := s.find("via"); srv.Enabled && srv.Delegate && (via == nil || via.text == "dhcpv6") {
			s.fail(s.at("length"), "length", "inner routers that ask by DHCPv6 get prefixes of length 64 or shorter, and this subnet has length %d; "+
				`to route it to one router, write its address, such as via = "fe80::2"`, d.Length)
		}
	case srv.Length < largest:
		s.fail(s.at("dhcpv6.length"), "dhcpv6.length", "a /%d does not fit into this subnet of length %d", srv.Length, d.Length)
	case srv.Shortest < largest:
		s.fail(s.at("dhcpv6.shortest"), "dhcpv6.shortest", "a /%d does not fit into this subnet of length %d", srv.Shortest, d.Length)
	case srv.Shortest > srv.Length:
		s.fail(s.at("dhcpv6.shortest"), "dhcpv6.shortest", "%d is longer than dhcpv6.length (%d), what a router gets that names no length", srv.Shortest, srv.Length)
	}
	return srv
}

// readRA applies the bounds of RFC 4861 §6.2.1.
func readRA(s *section) RA {
	ra := RA{
		Enabled:           s.enabled("ra"),
		MaxInterval:       get(s, "ra.max_interval", 600*time.Second, duration(4*time.Second, 1800*time.Second)),
		RouterLifetime:    get(s, "ra.router_lifetime", 1800*time.Second, seconds(0, 9000*time.Second)),
		PreferredLifetime: get(s, "ra.preferred_lifetime", 2700*time.Second, seconds(time.Second, (math.MaxUint32-1)*time.Second)),
		ValidLifetime:     get(s, "ra.valid_lifetime", 5400*time.Second, seconds(time.Second, (math.MaxUint32-1)*time.Second)),
		DNS:               get(s, "ra.dns", nil, orWord("auto", nil, list(dnsServer))),
		MTU:               get(s, "ra.mtu", 0, mtu),
		Preference:        get(s, "ra.preference", "medium", oneOf("low", "medium", "high")),
		Routes:            get(s, "ra.routes", true, boolean),
		Autonomous:        get(s, "ra.autonomous", true, boolean),
		OnLink:            get(s, "ra.on_link", true, boolean),
		Managed:           get(s, "ra.managed", false, boolean),
	}
	lowest, highest := 3*time.Second, ra.MaxInterval*3/4
	ra.MinInterval = get(s, "ra.min_interval", max(ra.MaxInterval/3, lowest), duration(lowest, highest))
	return ra
}

// readPoolRA reads what there is of ra.* for a pool: inner routers are told of the way out, and of nothing that the other keys
// are about.
func readPoolRA(s *section) RA {
	if ra := s.find("ra"); ra != nil && ra.kind == kindTable {
		for _, name := range ra.names {
			if name != "enabled" {
				s.refuse("ra."+name, `is only for kind "access"; for inner routers there is ra.enabled; remove it`)
			}
		}
	}
	return RA{Enabled: s.enabled("ra")}
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
