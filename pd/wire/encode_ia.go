package wire

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"uplinkd/pd"
)

func addIAs(o *dhcpv6.Options, m pd.Message) error {
	for _, ia := range m.IANAs {
		option, err := encodeIANA(ia)
		if err != nil {
			return fmt.Errorf("IA_NA 0x%08x: %w", ia.IAID, err)
		}
		o.Add(option)
	}
	for _, ia := range m.IAPDs {
		option, err := encodeIAPD(ia)
		if err != nil {
			return fmt.Errorf("IA_PD 0x%08x: %w", ia.IAID, err)
		}
		o.Add(option)
	}
	return nil
}

func encodeIANA(ia pd.IANA) (dhcpv6.Option, error) {
	o := &dhcpv6.OptIANA{T1: seconds(ia.T1), T2: seconds(ia.T2)}
	binary.BigEndian.PutUint32(o.IaId[:], ia.IAID)
	if err := addStatus(&o.Options.Options, ia.Status); err != nil {
		return nil, err
	}
	for _, a := range ia.Addresses {
		if !a.Address.Is6() {
			return nil, fmt.Errorf("IAADDR %s: not an IPv6 address", a.Address)
		}
		option := &dhcpv6.OptIAAddress{IPv6Addr: a.Address.AsSlice(), PreferredLifetime: seconds(a.Preferred), ValidLifetime: seconds(a.Valid)}
		if err := addStatus(&option.Options.Options, a.Status); err != nil {
			return nil, err
		}
		o.Options.Add(option)
	}
	return fits(o)
}

func encodeIAPD(ia pd.IAPD) (dhcpv6.Option, error) {
	o := &dhcpv6.OptIAPD{T1: seconds(ia.T1), T2: seconds(ia.T2)}
	binary.BigEndian.PutUint32(o.IaId[:], ia.IAID)
	if err := addStatus(&o.Options.Options, ia.Status); err != nil {
		return nil, err
	}
	for _, p := range ia.Prefixes {
		option, err := encodeIAPrefix(p)
		if err != nil {
			return nil, err
		}
		o.Options.Add(option)
	}
	return fits(o)
}

// fits refuses an option that is too long for its length field: the library writes the low 16 bits.
func fits(o dhcpv6.Option) (dhcpv6.Option, error) {
	if n := len(o.ToBytes()); n > maxMessage {
		return nil, fmt.Errorf("%d octets, want at most %d", n, maxMessage)
	}
	return o, nil
}

func encodeIAPrefix(p pd.IAPrefix) (*dhcpv6.OptIAPrefix, error) {
	o := &dhcpv6.OptIAPrefix{PreferredLifetime: seconds(p.Preferred), ValidLifetime: seconds(p.Valid)}
	switch {
	case p.Prefix.IsValid() && !p.Prefix.Addr().Is6():
		return nil, fmt.Errorf("IAPREFIX %s: not an IPv6 prefix", p.Prefix)
	case p.Prefix.IsValid():
		o.Prefix = &net.IPNet{IP: p.Prefix.Addr().AsSlice(), Mask: net.CIDRMask(p.Prefix.Bits(), 128)}
	case p.HintLen >= 1 && p.HintLen <= 128:
		o.Prefix = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(int(p.HintLen), 128)}
	default: // `::/0` has crashed a provider's gateway (odhcp6c#37); RFC 9915 §21.22: SHOULD NOT
		return nil, fmt.Errorf("IAPREFIX with neither prefix nor hint (length %d, want 1 to 128)", p.HintLen)
	}
	if p.Exclude.IsValid() {
		if !p.Prefix.IsValid() || p.Exclude.Bits() <= p.Prefix.Bits() || !p.Prefix.Contains(p.Exclude.Addr()) {
			return nil, fmt.Errorf("IAPREFIX %s: Prefix Exclude %s is not inside it", p.Prefix, p.Exclude)
		}
		o.Options.Add(generic(dhcpv6.OptionPDExclude, encodeExclude(p.Prefix, p.Exclude)))
	}
	return o, addStatus(&o.Options.Options, p.Status)
}

// encodeExclude is the opposite of decoder.exclude (RFC 6603 §4.2).
func encodeExclude(p, exclude netip.Prefix) []byte {
	n := exclude.Bits() - p.Bits()
	b := make([]byte, 1+(n+7)/8)
	b[0] = byte(exclude.Bits())
	a := exclude.Addr().As16()
	for i := range n {
		if at := p.Bits() + i; a[at/8]&(0x80>>(at%8)) != 0 {
			b[1+i/8] |= 0x80 >> (i % 8)
		}
	}
	return b
}
