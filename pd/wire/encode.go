package wire

import (
	"encoding/binary"
	"fmt"
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"uplinkd/pd"
)

// Encode returns m as octets. The order of options is fixed, so equal messages have equal octets. It refuses only what
// the format cannot hold.
func Encode(m pd.Message) ([]byte, error) {
	if !known(m.Type) {
		return nil, fmt.Errorf("encode message: type %d is not a message between client and server", m.Type)
	}
	options, err := encodeOptions(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.Type, err)
	}
	if m.XID > 0xffffff {
		return nil, fmt.Errorf("encode %s: transaction id %#x has more than 24 bits", m.Type, m.XID)
	}
	msg := dhcpv6.Message{
		MessageType:   dhcpv6.MessageType(m.Type),
		TransactionID: dhcpv6.TransactionID{byte(m.XID >> 16), byte(m.XID >> 8), byte(m.XID)},
		Options:       dhcpv6.MessageOptions{Options: options},
	}
	b := msg.ToBytes()
	if len(b) > maxMessage {
		return nil, fmt.Errorf("encode %s: %d octets, want at most %d", m.Type, len(b), maxMessage)
	}
	return b, nil
}

func encodeOptions(m pd.Message) (o dhcpv6.Options, err error) {
	for _, id := range []struct {
		code dhcpv6.OptionCode
		duid pd.DUID
	}{{dhcpv6.OptionClientID, m.ClientID}, {dhcpv6.OptionServerID, m.ServerID}} {
		if id.duid == "" {
			continue
		}
		if !id.duid.Valid() {
			return nil, fmt.Errorf("%s of %d octets, want 3 to 130", name(id.code), len(id.duid))
		}
		o.Add(generic(id.code, []byte(id.duid)))
	}
	if m.Preference != 0 {
		o.Add(dhcpv6.OptPreference(m.Preference))
	}
	if m.RapidCommit {
		o.Add(generic(dhcpv6.OptionRapidCommit, nil))
	}
	if fromClient(m.Type) || m.Elapsed != 0 { // N-11: clients say it in every message
		o.Add(dhcpv6.OptElapsedTime(saturate(m.Elapsed)))
	}
	if len(m.ORO) > 0 {
		codes := make([]dhcpv6.OptionCode, len(m.ORO))
		for i, c := range m.ORO {
			codes[i] = dhcpv6.OptionCode(c)
		}
		o.Add(dhcpv6.OptRequestedOption(codes...))
	}
	for _, s := range []struct {
		code    dhcpv6.OptionCode
		seconds uint32
	}{{dhcpv6.OptionSolMaxRT, m.SolMaxRT}, {dhcpv6.OptionInfMaxRT, m.InfMaxRT}} {
		if s.seconds != 0 {
			o.Add(generic(s.code, binary.BigEndian.AppendUint32(nil, s.seconds)))
		}
	}
	if err := addResolver(&o, m); err != nil {
		return nil, err
	}
	if err := addStatus(&o, m.Status); err != nil {
		return nil, err
	}
	for _, ia := range m.IAPDs {
		option, err := encodeIAPD(ia)
		if err != nil {
			return nil, fmt.Errorf("IA_PD %d: %w", ia.IAID, err)
		}
		o.Add(option)
	}
	return o, nil
}

func encodeIAPD(ia pd.IAPD) (*dhcpv6.OptIAPD, error) {
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
	// The library writes the low 16 bits of a longer length.
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
	return o, addStatus(&o.Options.Options, p.Status)
}

func addResolver(o *dhcpv6.Options, m pd.Message) error {
	if len(m.DNS) > 0 {
		servers := make([]net.IP, len(m.DNS))
		for i, a := range m.DNS {
			if !a.Is6() {
				return fmt.Errorf("DNS server %s: not an IPv6 address", a)
			}
			servers[i] = a.AsSlice()
		}
		o.Add(dhcpv6.OptDNS(servers...))
	}
	if len(m.DomainSearch) > 0 {
		var b []byte
		var err error
		for _, n := range m.DomainSearch {
			if b, err = appendName(b, n); err != nil {
				return err
			}
		}
		o.Add(generic(dhcpv6.OptionDomainSearchList, b))
	}
	return nil
}

// addStatus adds s unless it is plain success, which an absent option means too (RFC 9915 §21.13).
func addStatus(o *dhcpv6.Options, s pd.Status) error {
	if s == (pd.Status{}) {
		return nil
	}
	if len(s.Text) > maxMessage/2 {
		return fmt.Errorf("status text of %d octets, want at most %d", len(s.Text), maxMessage/2)
	}
	o.Add(generic(dhcpv6.OptionStatusCode, append(binary.BigEndian.AppendUint16(nil, uint16(s.Code)), s.Text...)))
	return nil
}

func generic(code dhcpv6.OptionCode, data []byte) *dhcpv6.OptionGeneric {
	return &dhcpv6.OptionGeneric{OptionCode: code, OptionData: data}
}

func seconds(s uint32) time.Duration { return time.Duration(s) * time.Second }

// saturate bounds an elapsed time to what its field holds; the library would wrap around (RFC 9915 §21.9: 0xffff).
func saturate(d time.Duration) time.Duration {
	return min(max(d, 0), maxElapsed*10*time.Millisecond)
}
