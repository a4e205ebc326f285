package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"uplinkd/pd"
)

// addInfo adds what servers tell besides bindings.
func addInfo(o *dhcpv6.Options, in pd.Info) error {
	for _, list := range []struct {
		code    dhcpv6.OptionCode
		what    string
		servers []netip.Addr
	}{{dhcpv6.OptionDNSRecursiveNameServer, "DNS", in.DNS}, {dhcpv6.OptionSNTPServerList, "SNTP", in.SNTP}} {
		b, err := appendServers(nil, list.what, list.servers)
		if err != nil {
			return err
		}
		if len(b) > 0 {
			o.Add(generic(list.code, b))
		}
	}
	if err := addNames(o, dhcpv6.OptionDomainSearchList, in.DomainSearch...); err != nil {
		return err
	}
	if err := addNTP(o, in); err != nil {
		return err
	}
	if in.AFTR != "" {
		if err := addNames(o, dhcpv6.OptionAFTRName, in.AFTR); err != nil {
			return err
		}
	}
	if in.CaptivePortal != "" {
		o.Add(generic(dhcpv6.OptionCaptivePortal, []byte(in.CaptivePortal)))
	}
	if err := addResolvers(o, in.Resolvers); err != nil {
		return err
	}
	for _, list := range [][]pd.Option{in.S46, in.Unknown} {
		for _, u := range list {
			o.Add(generic(dhcpv6.OptionCode(u.Code), u.Data))
		}
	}
	return nil
}

func appendServers(b []byte, what string, servers []netip.Addr) ([]byte, error) {
	for _, a := range servers {
		if !a.Is6() {
			return nil, fmt.Errorf("%s server %s: not an IPv6 address", what, a)
		}
		b = append(b, a.AsSlice()...)
	}
	return b, nil
}

func addNames(o *dhcpv6.Options, code dhcpv6.OptionCode, names ...string) error {
	var b []byte
	var err error
	for _, n := range names {
		if b, err = appendName(b, n); err != nil {
			return err
		}
	}
	if len(b) > 0 {
		o.Add(generic(code, b))
	}
	return nil
}

// addNTP adds one NTP Server option per time source (RFC 5908 §4).
func addNTP(o *dhcpv6.Options, in pd.Info) error {
	for _, a := range in.NTP {
		b, err := appendServers([]byte{0, ntpAddress, 0, 16}, "NTP", []netip.Addr{a})
		if err != nil {
			return err
		}
		o.Add(generic(dhcpv6.OptionNTPServer, b))
	}
	for _, n := range in.NTPNames {
		encoded, err := appendName(nil, n)
		if err != nil {
			return err
		}
		b := binary.BigEndian.AppendUint16([]byte{0, ntpName}, uint16(len(encoded)))
		o.Add(generic(dhcpv6.OptionNTPServer, append(b, encoded...)))
	}
	return nil
}
