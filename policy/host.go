package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"

	"uplinkd/internal/config"
)

// routerAddress is the router's own address in a subnet of c: the zero Prefix if it has none there, or none yet. A subnet
// in which it cannot have the address that the config wants is not used (ok is false), and a problem says so.
func (p *planner) routerAddress(c config.Downstream, d *Downstream, n netip.Prefix) (address netip.Prefix, ok bool) {
	path := "downstream." + c.Name
	if c.Kind == config.Service || c.Kind == config.Reserve {
		return address, true
	}
	link, exists := p.w.Links[c.Interface]
	host := c.Address
	switch c.Host {
	case config.HostNone:
		return address, true
	case config.HostEUI64:
		if !exists {
			return address, true
		}
		id, has := eui64(link.MAC)
		if !has {
			p.problem(path, "no-mac", "interface %s has no MAC address to make an address of; set address to \"stable\" or to a host part such as \"::1\"", c.Interface)
			return address, false
		}
		host = hostOf(id)
	case config.HostStable:
		if host, ok = stableHost(c, n, p.w.Secret, p.led.Duplicates[c.Name]); !ok {
			p.problem(path, "duplicate-address", "others on %s have all of %d addresses that were tried in %s; see: ip -6 neigh show dev %s", c.Interface, maxDAD, n, c.Interface)
			return address, false
		}
	}
	if address, ok = hostIn(n, host); !ok {
		p.problem(path, "address-too-long", "host part %s does not fit into the %d host bits of %s; set address to a shorter one", host, 128-n.Bits(), n)
		return address, false
	}
	if c.Kind == config.Transit { // the subnet is not on-link
		address = netip.PrefixFrom(address.Addr(), 128)
	}
	return address, true
}

// hostIn returns host's low bits in p; ok is false when host has bits that p's prefix covers or when the result would be
// the prefix's own address (the Subnet-Router anycast address, RFC 4291 §2.6.1) of a subnet with host bits.
func hostIn(p netip.Prefix, host netip.Addr) (netip.Prefix, bool) {
	a, h := p.Addr().As16(), host.As16()
	for i := range a {
		bits := min(8, max(0, p.Bits()-8*i))
		if h[i]&^(0xff>>bits) != 0 {
			return netip.Prefix{}, false
		}
		a[i] |= h[i]
	}
	r := netip.PrefixFrom(netip.AddrFrom16(a), p.Bits())
	return r, p.Bits() > 126 || r.Addr() != p.Addr()
}

// hostOf is an interface identifier as a host part.
func hostOf(id [8]byte) netip.Addr {
	var a [16]byte
	copy(a[8:], id[:])
	return netip.AddrFrom16(a)
}

// eui64 makes an interface identifier of a MAC address (RFC 4291 appendix A).
func eui64(mac string) (id [8]byte, ok bool) {
	b, err := hex.DecodeString(strings.ReplaceAll(mac, ":", ""))
	if err != nil || len(b) != 6 {
		return id, false
	}
	return [8]byte{b[0] ^ 2, b[1], b[2], 0xff, 0xfe, b[3], b[4], b[5]}, true
}

// maxDAD is how many addresses are tried in a subnet before others on the link are believed to have all of them. RFC 7217 §6
// asks for three, for hosts; without this address a network has no router.
const maxDAD = 16

// stableHost makes an interface identifier that stays the same in a subnet and tells nothing about the interface (RFC 7217).
// The DAD counter is the number of those before it that others have turned out to have; it is not kept as such, so that
// it starts anew in every subnet.
func stableHost(c config.Downstream, n netip.Prefix, secret []byte, duplicates []netip.Addr) (netip.Addr, bool) {
	for counter := range maxDAD {
		host := hostOf(stableID(n, c.Interface, c.Name, uint32(counter), secret))
		if a, ok := hostIn(n, host); ok && !reservedID(host) && !slices.Contains(duplicates, a.Addr()) {
			return host, true
		}
	}
	return netip.Addr{}, false
}

// stableID is RFC 7217's F with SHA-256: the downstream's name stands for the network. What varies in length is preceded by it.
func stableID(n netip.Prefix, iface, network string, counter uint32, secret []byte) (id [8]byte) {
	h := sha256.New()
	prefix := n.Masked().Addr().As16()
	for _, part := range [][]byte{prefix[:], {byte(n.Bits())}, []byte(iface), []byte(network), binary.BigEndian.AppendUint32(nil, counter), secret} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write(part)
	}
	return [8]byte(h.Sum(nil)[24:])
}

// reservedID reports whether an interface identifier has a meaning of its own (RFC 5453): it is that of the Subnet-Router
// anycast address, of IANA's block of Ethernet addresses (0200:5eff:fe00::/40), or of other anycast addresses.
func reservedID(host netip.Addr) bool {
	b := host.As16()
	id := binary.BigEndian.Uint64(b[8:])
	return id == 0 || id>>24 == 0x02005efffe || id >= 0xfdffffffffffff80 && id <= 0xfdffffffffffffff
}

// noteDuplicates remembers addresses of downstreams that others on the link turn out to have: the kernel tells only once.
func (p *planner) noteDuplicates(c config.Downstream) {
	found := p.w.Links[c.Interface].Duplicates
	if c.Host != config.HostStable || len(found) == 0 {
		return
	}
	known := appendNew(slices.Clip(p.led.Duplicates[c.Name]), found)
	p.led.Duplicates[c.Name] = known[max(0, len(known)-maxDuplicates):]
}

// maxDuplicates bounds what is remembered per downstream.
const maxDuplicates = 64
