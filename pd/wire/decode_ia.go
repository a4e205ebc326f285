package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"uplinkd/pd"
)

// iaHead is what IA_PD and IA_NA have in common.
type iaHead struct {
	iaid, t1, t2 uint32
	status       pd.Status
}

// ia reads an IA and calls lease with each option of the given code, which holds a prefix or an address.
func (d *decoder) ia(kind string, b []byte, code dhcpv6.OptionCode, lease func(where string, data []byte)) (h iaHead, ok bool) {
	if len(b) < iaHeader {
		d.fault("%s dropped: %d octets, want at least %d", kind, len(b), iaHeader)
		return h, false
	}
	h.iaid, h.t1, h.t2 = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	where := fmt.Sprintf("%s 0x%08x", kind, h.iaid)
	if h.t1 > h.t2 && h.t2 > 0 { // N-40
		d.fault("%s dropped: T1 %d s is after T2 %d s", where, h.t1, h.t2)
		return h, false
	}
	if !d.part(where) {
		return h, false
	}
	where += ": "
	var seen singletons
	d.walk(where, b[iaHeader:], func(c dhcpv6.OptionCode, data []byte) {
		switch {
		case c == code:
			lease(where, data)
		case c == dhcpv6.OptionStatusCode && seen.first(d, where, c):
			h.status = d.status(where, data)
		}
	})
	return h, true
}

// iapd reads an IA_PD (RFC 9915 §21.21) into the message.
func (d *decoder) iapd(b []byte) {
	var prefixes []pd.IAPrefix
	h, ok := d.ia("IA_PD", b, dhcpv6.OptionIAPrefix, func(where string, data []byte) {
		if p, ok := d.iaprefix(where, data); ok {
			prefixes = append(prefixes, p)
		}
	})
	if ok {
		d.m.IAPDs = append(d.m.IAPDs, pd.IAPD{IAID: h.iaid, T1: h.t1, T2: h.t2, Status: h.status, Prefixes: prefixes})
	}
}

// iana reads an IA_NA (RFC 9915 §21.4) into the message.
func (d *decoder) iana(b []byte) {
	var addresses []pd.IAAddress
	h, ok := d.ia("IA_NA", b, dhcpv6.OptionIAAddr, func(where string, data []byte) {
		if a, ok := d.iaaddr(where, data); ok {
			addresses = append(addresses, a)
		}
	})
	if ok {
		d.m.IANAs = append(d.m.IANAs, pd.IANA{IAID: h.iaid, T1: h.t1, T2: h.t2, Status: h.status, Addresses: addresses})
	}
}

// part counts an IA, a prefix or an address and reports whether it still fits.
func (d *decoder) part(where string) bool {
	if d.parts++; d.parts > maxLeaseParts {
		d.fault("%s dropped: more than %d IAs, prefixes and addresses", where, maxLeaseParts)
		return false
	}
	return true
}

// lifetimes reports whether preferred and valid lifetime are possible (N-40).
func (d *decoder) lifetimes(where string, preferred, valid uint32) bool {
	if preferred > valid {
		d.fault("%s dropped: preferred lifetime %d s is longer than valid lifetime %d s", where, preferred, valid)
	}
	return preferred <= valid
}

// iaprefix reads an IA Prefix option (RFC 9915 §21.22).
func (d *decoder) iaprefix(where string, b []byte) (p pd.IAPrefix, ok bool) {
	if len(b) < iaprefixHeader {
		d.fault("%sIAPREFIX dropped: %d octets, want at least %d", where, len(b), iaprefixHeader)
		return p, false
	}
	p.Preferred, p.Valid = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	addr, bits := netip.AddrFrom16([16]byte(b[9:25])), int(b[8])
	where = fmt.Sprintf("%sIAPREFIX %s/%d", where, addr, bits)
	if bits < 1 || bits > 128 {
		d.fault("%s dropped: length out of 1 to 128", where)
		return p, false
	}
	p.Prefix = netip.PrefixFrom(addr, bits).Masked()
	if fromClient(d.m.Type) && p.Prefix.Addr().IsUnspecified() { // RFC 8168: a hint
		p.Prefix, p.HintLen = netip.Prefix{}, uint8(bits)
	} else if why := pd.Undelegable(p.Prefix); why != "" {
		d.fault("%s dropped: %s", where, why)
		return p, false
	}
	if !d.lifetimes(where, p.Preferred, p.Valid) || !d.part(where) {
		return p, false
	}
	var seen singletons
	where += ": "
	d.walk(where, b[iaprefixHeader:], func(code dhcpv6.OptionCode, data []byte) {
		switch {
		case code == dhcpv6.OptionStatusCode && seen.first(d, where, code):
			p.Status = d.status(where, data)
		case code == dhcpv6.OptionPDExclude && seen.first(d, where, code):
			p.Exclude = d.exclude(where, p.Prefix, data)
		}
	})
	return p, true
}

// exclude reads a Prefix Exclude option (RFC 6603 §4.2): the length of the excluded prefix, then those of its bits that
// come behind the delegated prefix p, left-aligned in as few octets as hold them. An invalid p is a hint.
func (d *decoder) exclude(where string, p netip.Prefix, b []byte) netip.Prefix {
	if len(b) < 2 || len(b) > 17 {
		d.fault("%sPrefix Exclude dropped: %d octets, want 2 to 17", where, len(b))
		return netip.Prefix{}
	}
	bits := int(b[0])
	if !p.IsValid() || bits <= p.Bits() || bits > 128 {
		d.fault("%sPrefix Exclude dropped: length %d is not inside the prefix", where, bits)
		return netip.Prefix{}
	}
	n := bits - p.Bits()
	if want := 1 + (n+7)/8; len(b) != want {
		d.fault("%sPrefix Exclude dropped: %d octets, want %d for length %d", where, len(b), want, bits)
		return netip.Prefix{}
	}
	a := p.Addr().As16()
	for i := range n {
		if b[1+i/8]&(0x80>>(i%8)) != 0 {
			at := p.Bits() + i
			a[at/8] |= 0x80 >> (at % 8)
		}
	}
	exclude := netip.PrefixFrom(netip.AddrFrom16(a), bits)
	if reversed(b[1:], n) {
		d.fault("%sPrefix Exclude: read as %s, but the octets of its subnet id seem to be in reverse order", where, exclude)
	}
	return exclude
}

// reversed reports whether the octets of a subnet id of n bits are in the wrong order, about which programs have differed
// (https://github.com/NetworkConfiguration/dhcpcd/issues/246). It shows where what has to be 0 behind the id is not, and
// would be in the other order; an id of whole octets tells nothing.
func reversed(id []byte, n int) bool {
	padding := byte(0xff) >> ((n-1)%8 + 1)
	return len(id) > 1 && id[len(id)-1]&padding != 0 && id[0]&padding == 0
}

// iaaddr reads an IA Address option (RFC 9915 §21.6).
func (d *decoder) iaaddr(where string, b []byte) (a pd.IAAddress, ok bool) {
	if len(b) < iaaddrHeader {
		d.fault("%sIAADDR dropped: %d octets, want at least %d", where, len(b), iaaddrHeader)
		return a, false
	}
	a.Address = netip.AddrFrom16([16]byte(b))
	a.Preferred, a.Valid = binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint32(b[20:])
	where = fmt.Sprintf("%sIAADDR %s", where, a.Address)
	if why := pd.Undelegable(netip.PrefixFrom(a.Address, 128)); why != "" {
		d.fault("%s dropped: %s", where, why)
		return a, false
	}
	if !d.lifetimes(where, a.Preferred, a.Valid) || !d.part(where) {
		return a, false
	}
	var seen singletons
	where += ": "
	d.walk(where, b[iaaddrHeader:], func(code dhcpv6.OptionCode, data []byte) {
		if code == dhcpv6.OptionStatusCode && seen.first(d, where, code) {
			a.Status = d.status(where, data)
		}
	})
	return a, true
}
