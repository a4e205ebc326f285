package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"uplinkd/pd"
)

// Decode returns the message in b. It fails only if there is no message to speak of: a header cut short, or a type that
// is no message between client and server. Everything below that is dropped piecemeal and named in Faults. The message
// does not refer to b.
func Decode(b []byte) (pd.Message, error) {
	switch {
	case len(b) < headerLen:
		return pd.Message{}, fmt.Errorf("decode DHCPv6 message: truncated header: %d of %d octets", len(b), headerLen)
	case len(b) > maxMessage:
		return pd.Message{}, fmt.Errorf("decode DHCPv6 message: %d octets, want at most %d", len(b), maxMessage)
	case !known(pd.MessageType(b[0])):
		return pd.Message{}, fmt.Errorf("decode DHCPv6 message: type %s is not a message between client and server",
			dhcpv6.MessageType(b[0]))
	}
	d := decoder{m: pd.Message{Type: pd.MessageType(b[0]), XID: binary.BigEndian.Uint32(b) & 0xffffff}}
	var seen singletons
	d.walk("", b[headerLen:], func(code dhcpv6.OptionCode, data []byte) {
		if names[code] != "" && (code == dhcpv6.OptionIAPD || seen.first(&d, "", code)) {
			d.option(code, data)
		}
	})
	return d.m, nil
}

type decoder struct {
	m      pd.Message
	parts  int // IA_PDs and prefixes so far
	looked int // options so far, on all levels
}

// fault notes what was dropped. Arguments are numbers and values of our own making, never raw octets; the text is made
// printable all the same.
func (d *decoder) fault(format string, args ...any) {
	switch n := len(d.m.Faults); {
	case n < maxFaults-1:
		d.m.Faults = append(d.m.Faults, printable(fmt.Sprintf(format, args...), maxFaultLen))
	case n == maxFaults-1:
		d.m.Faults = append(d.m.Faults, "more faults not shown")
	}
}

// walk calls f for every option in b that is whole, until the message has had maxOptions.
func (d *decoder) walk(where string, b []byte, f func(dhcpv6.OptionCode, []byte)) {
	for len(b) >= optionHeader {
		code, n := dhcpv6.OptionCode(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:]))
		b = b[optionHeader:]
		if d.looked++; d.looked > maxOptions {
			if d.looked == maxOptions+1 {
				d.fault("more than %d options: the rest dropped", maxOptions)
			}
			return
		}
		if n > len(b) {
			d.fault("%s%s dropped: announces %d octets, %d left", where, name(code), n, len(b))
			return
		}
		f(code, b[:n])
		b = b[n:]
	}
	if len(b) > 0 {
		d.fault("%s%d stray octets at the end", where, len(b))
	}
}

// singletons remembers which options were there, of those that may be there only once; all of them have codes below 128.
type singletons [2]uint64

// first reports whether code comes up for the first time, and notes a fault otherwise.
func (s *singletons) first(d *decoder, where string, code dhcpv6.OptionCode) bool {
	bit := uint64(1) << (code % 64)
	if s[code/64]&bit != 0 {
		d.fault("%ssecond %s dropped", where, name(code))
		return false
	}
	s[code/64] |= bit
	return true
}

// option reads one option of the top level. Unknown ones are skipped (RFC 9915 §16: never a fault).
func (d *decoder) option(code dhcpv6.OptionCode, b []byte) {
	switch code {
	case dhcpv6.OptionClientID:
		d.m.ClientID = d.duid(code, b)
	case dhcpv6.OptionServerID:
		d.m.ServerID = d.duid(code, b)
	case dhcpv6.OptionPreference:
		if d.sized(code, b, 1) {
			d.m.Preference = b[0]
		}
	case dhcpv6.OptionElapsedTime:
		if d.sized(code, b, 2) {
			d.m.Elapsed = time.Duration(binary.BigEndian.Uint16(b)) * 10 * time.Millisecond
		}
	case dhcpv6.OptionRapidCommit:
		d.m.RapidCommit = d.sized(code, b, 0)
	case dhcpv6.OptionORO:
		d.oro(b)
	case dhcpv6.OptionSolMaxRT:
		d.m.SolMaxRT = d.maxRT(code, b)
	case dhcpv6.OptionInfMaxRT:
		d.m.InfMaxRT = d.maxRT(code, b)
	case dhcpv6.OptionStatusCode:
		d.m.Status = d.status("", b)
	case dhcpv6.OptionDNSRecursiveNameServer:
		d.dns(b)
	case dhcpv6.OptionDomainSearchList:
		d.search(b)
	case dhcpv6.OptionIAPD:
		d.iapd(b)
	}
}

// sized reports whether an option has the length it must have.
func (d *decoder) sized(code dhcpv6.OptionCode, b []byte, want int) bool {
	if len(b) != want {
		d.fault("%s dropped: %d octets, want %d", name(code), len(b), want)
	}
	return len(b) == want
}

func (d *decoder) duid(code dhcpv6.OptionCode, b []byte) pd.DUID {
	id := pd.DUID(b)
	if !id.Valid() {
		d.fault("%s dropped: %d octets, want 3 to 130", name(code), len(b))
		return ""
	}
	return id
}

func (d *decoder) oro(b []byte) {
	if len(b)%2 != 0 {
		d.fault("Option Request: last octet of %d dropped", len(b))
	}
	for ; len(b) >= 2; b = b[2:] {
		if len(d.m.ORO) == maxORO {
			d.fault("Option Request: more than %d codes: the rest dropped", maxORO)
			return
		}
		d.m.ORO = append(d.m.ORO, binary.BigEndian.Uint16(b))
	}
}

func (d *decoder) maxRT(code dhcpv6.OptionCode, b []byte) uint32 {
	if !d.sized(code, b, 4) {
		return 0
	}
	s := binary.BigEndian.Uint32(b)
	if s < minMaxRT || s > maxMaxRT { // RFC 9915 §21.24, §21.25: MUST ignore
		d.fault("%s dropped: %d s, want %d to %d", name(code), s, minMaxRT, maxMaxRT)
		return 0
	}
	return s
}

func (d *decoder) status(where string, b []byte) pd.Status {
	if len(b) < 2 {
		d.fault("%sStatus Code dropped: %d octets, want at least 2", where, len(b))
		return pd.Status{}
	}
	return pd.Status{Code: pd.StatusCode(binary.BigEndian.Uint16(b)), Text: printable(string(b[2:]), maxStatusText)}
}

func (d *decoder) dns(b []byte) {
	if len(b)%16 != 0 {
		d.fault("DNS Servers: last %d octets of %d dropped", len(b)%16, len(b))
	}
	for n := 0; len(b) >= 16; b = b[16:] {
		if len(d.m.DNS) == maxDNS {
			d.fault("DNS Servers: more than %d addresses: the rest dropped", maxDNS)
			return
		}
		if n++; n > maxDNSRead {
			d.fault("DNS Servers: more than %d good or bad addresses: the rest dropped", maxDNSRead)
			return
		}
		switch a := netip.AddrFrom16([16]byte(b)); {
		case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.Is4In6():
			d.fault("DNS Servers: %s dropped: not the address of a server", a)
		case !slices.Contains(d.m.DNS, a):
			d.m.DNS = append(d.m.DNS, a)
		}
	}
}

func (d *decoder) search(b []byte) {
	d.m.DomainSearch = parseNames(b, func(format string, args ...any) {
		d.fault("Domain Search List: "+format, args...)
	})
}
