package wire

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"uplinkd/pd"
)

// info reads one option of what servers tell besides bindings.
func (d *decoder) info(code dhcpv6.OptionCode, b []byte) {
	switch code {
	case dhcpv6.OptionDNSRecursiveNameServer:
		d.m.DNS = d.servers(code, d.m.DNS, b)
	case dhcpv6.OptionSNTPServerList:
		d.m.SNTP = d.servers(code, d.m.SNTP, b)
	case dhcpv6.OptionNTPServer:
		d.ntp(code, b)
	case dhcpv6.OptionDomainSearchList:
		d.m.DomainSearch = d.hostNames(code, b, maxSearch)
	case dhcpv6.OptionAFTRName:
		if n := d.hostNames(code, b, 1); len(n) > 0 {
			d.m.AFTR = n[0]
		}
	case dhcpv6.OptionCaptivePortal:
		d.captivePortal(code, b)
	case dhcpv6.OptionV6DNR:
		d.resolver(code, b)
	case dhcpv6.OptionS46ContMapE, dhcpv6.OptionS46ContMapT, dhcpv6.OptionS46ContLW:
		d.s46(code, b)
	}
}

// servers appends the addresses in b to list.
func (d *decoder) servers(code dhcpv6.OptionCode, list []netip.Addr, b []byte) []netip.Addr {
	if len(b)%16 != 0 {
		d.fault("%s: last %d octets of %d dropped", name(code), len(b)%16, len(b))
	}
	for n := 0; len(b) >= 16; b = b[16:] {
		if len(list) == maxServers {
			d.fault("%s: more than %d addresses: the rest dropped", name(code), maxServers)
			return list
		}
		if n++; n > maxServersRead {
			d.fault("%s: more than %d good or bad addresses: the rest dropped", name(code), maxServersRead)
			return list
		}
		switch a := netip.AddrFrom16([16]byte(b)); {
		case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.Is4In6():
			d.fault("%s: %s dropped: not the address of a server", name(code), a)
		case !slices.Contains(list, a):
			list = append(list, a)
		}
	}
	return list
}

// hostNames reads at most limit names, good or bad.
func (d *decoder) hostNames(code dhcpv6.OptionCode, b []byte, limit int) []string {
	if len(b) == 0 {
		d.fault("%s dropped: no name in it", name(code))
	}
	return parseNames(b, limit, func(format string, args ...any) {
		d.fault(name(code)+": "+format, args...)
	})
}

// Suboptions of the NTP Server option (RFC 5908 §4).
const (
	ntpAddress   = 1
	ntpMulticast = 2
	ntpName      = 3
)

// ntp reads an NTP Server option. Multicast time is left out: nothing here could join the group.
func (d *decoder) ntp(code dhcpv6.OptionCode, b []byte) {
	for len(b) >= optionHeader {
		sub, n := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		b = b[optionHeader:]
		if !d.look() {
			return
		}
		if n > len(b) {
			d.fault("%s: suboption %d announces %d octets, %d left: the rest dropped", name(code), sub, n, len(b))
			return
		}
		switch sub {
		case ntpAddress:
			if d.sized(code, b[:n], 16) {
				d.m.NTP = d.servers(code, d.m.NTP, b[:n])
			}
		case ntpName:
			d.ntpName(code, b[:n])
		}
		b = b[n:]
	}
	if len(b) > 0 {
		d.fault("%s: %d stray octets at the end", name(code), len(b))
	}
}

func (d *decoder) ntpName(code dhcpv6.OptionCode, b []byte) {
	for _, n := range d.hostNames(code, b, 1) {
		switch {
		case slices.Contains(d.m.NTPNames, n):
		case len(d.m.NTPNames) == maxServers:
			d.fault("%s: more than %d names: the rest dropped", name(code), maxServers)
		default:
			d.m.NTPNames = append(d.m.NTPNames, n)
		}
	}
}

func (d *decoder) captivePortal(code dhcpv6.OptionCode, b []byte) {
	uri, err := pd.PortalURI(strings.TrimSuffix(string(b), "\x00")) // some servers send a C string
	if err != nil {
		d.fault("%s dropped: %v", name(code), err)
		return
	}
	d.m.CaptivePortal = uri
}

// s46 keeps a container of RFC 7598 as it is.
func (d *decoder) s46(code dhcpv6.OptionCode, b []byte) {
	if len(d.m.S46) == maxS46 || d.s46Octets+len(b) > maxRaw {
		d.fault("%s dropped: more than %d containers or %d octets", name(code), maxS46, maxRaw)
		return
	}
	d.s46Octets += len(b)
	d.m.S46 = append(d.m.S46, pd.Option{Code: uint16(code), Data: bytes.Clone(b)})
}

// unknown keeps an option without a name (RFC 9915 §16: never a fault), within bounds. That something was left out is
// said once.
func (d *decoder) unknown(code dhcpv6.OptionCode, b []byte) {
	if len(d.m.Unknown) < maxUnknown && d.rawOctets+len(b) <= maxRaw {
		d.rawOctets += len(b)
		d.m.Unknown = append(d.m.Unknown, pd.Option{Code: uint16(code), Data: bytes.Clone(b)})
		return
	}
	if !d.rawDropped {
		d.fault("%s and maybe others dropped: more than %d unknown options or %d octets of them", name(code), maxUnknown, maxRaw)
	}
	d.rawDropped = true
}
