package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"uplinkd/pd"
)

// iapd reads an IA_PD (RFC 9915 §21.21) into the message.
func (d *decoder) iapd(b []byte) {
	if len(b) < iapdHeader {
		d.fault("IA_PD dropped: %d octets, want at least %d", len(b), iapdHeader)
		return
	}
	ia := pd.IAPD{
		IAID: binary.BigEndian.Uint32(b),
		T1:   binary.BigEndian.Uint32(b[4:]),
		T2:   binary.BigEndian.Uint32(b[8:]),
	}
	where := fmt.Sprintf("IA_PD %d", ia.IAID)
	if ia.T1 > ia.T2 && ia.T2 > 0 { // N-40
		d.fault("%s dropped: T1 %d s is after T2 %d s", where, ia.T1, ia.T2)
		return
	}
	if !d.part(where) {
		return
	}
	var seen singletons
	where += ": "
	d.walk(where, b[iapdHeader:], func(code dhcpv6.OptionCode, data []byte) {
		switch code {
		case dhcpv6.OptionStatusCode:
			if seen.first(d, where, code) {
				ia.Status = d.status(where, data)
			}
		case dhcpv6.OptionIAPrefix:
			if p, ok := d.iaprefix(where, data); ok {
				ia.Prefixes = append(ia.Prefixes, p)
			}
		}
	})
	d.m.IAPDs = append(d.m.IAPDs, ia)
}

// part counts an IA_PD or a prefix and reports whether it still fits.
func (d *decoder) part(where string) bool {
	if d.parts++; d.parts > maxLeaseParts {
		d.fault("%s dropped: more than %d IA_PDs and prefixes", where, maxLeaseParts)
		return false
	}
	return true
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
	if p.Preferred > p.Valid { // N-40
		d.fault("%s dropped: preferred lifetime %d s is longer than valid lifetime %d s", where, p.Preferred, p.Valid)
		return p, false
	}
	if !d.part(where) {
		return p, false
	}
	var seen singletons
	where += ": "
	d.walk(where, b[iaprefixHeader:], func(code dhcpv6.OptionCode, data []byte) {
		if code == dhcpv6.OptionStatusCode && seen.first(d, where, code) {
			p.Status = d.status(where, data)
		}
	})
	return p, true
}
