package wire

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"uplinkd/pd"
)

// resolver reads an Encrypted DNS option (OPTION_V6_DNR, RFC 9463). Addresses on the provider's link are of no use to hosts.
func (d *decoder) resolver(code dhcpv6.OptionCode, b []byte) {
	if len(d.m.Resolvers) == maxResolvers {
		d.fault("%s dropped: more than %d", name(code), maxResolvers)
		return
	}
	var r pd.Resolver
	if len(b) >= 2 {
		r.Priority, b = binary.BigEndian.Uint16(b), b[2:]
	}
	adn, b, ok := cutField(b)
	if !ok {
		d.fault("%s dropped: the name is cut short", name(code))
		return
	}
	names := d.hostNames(code, adn, 1)
	if len(names) == 0 {
		return
	}
	r.Name = names[0]
	if len(b) > 0 {
		addresses, params, ok := cutField(b)
		if !ok {
			d.fault("%s dropped: the addresses are cut short", name(code))
			return
		}
		r.Addresses = slices.DeleteFunc(d.servers(code, nil, addresses), netip.Addr.IsLinkLocalUnicast)
		r.Params = bytes.Clone(params)
	}
	if err := r.Check(); err != nil {
		d.fault("%s dropped: %v", name(code), err)
		return
	}
	d.m.Resolvers = append(d.m.Resolvers, r)
}

// cutField takes a field that begins with its length, in two octets, off b.
func cutField(b []byte) (field, rest []byte, ok bool) {
	if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
		return nil, nil, false
	}
	end := 2 + int(binary.BigEndian.Uint16(b))
	return b[2:end], b[end:], true
}

// addResolvers adds an option for each.
func addResolvers(o *dhcpv6.Options, list []pd.Resolver) error {
	for _, r := range list {
		if _, err := appendName(nil, r.Name); err != nil {
			return err
		}
		adn, addresses := r.Fields()
		b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, r.Priority), uint16(len(adn)))
		b = append(b, adn...)
		if len(addresses) > 0 {
			b = append(append(binary.BigEndian.AppendUint16(b, uint16(len(addresses))), addresses...), r.Params...)
		}
		o.Add(generic(dhcpv6.OptionV6DNR, b))
	}
	return nil
}
