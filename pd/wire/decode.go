package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"uplinkd/pd"
)

// Decode returns the message in b. It fails only if there is no message to speak of: a header cut short, or a type that
// is no message between client and server. Everything below that is dropped piecemeal and named in Faults. The message
// does not refer to b: Raw is a copy.
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
	raw := bytes.Clone(b)
	d := decoder{m: pd.Message{Type: pd.MessageType(b[0]), XID: binary.BigEndian.Uint32(b) & 0xffffff, Raw: raw}}
	var seen singletons
	d.walk("", raw[headerLen:], func(code dhcpv6.OptionCode, data []byte) {
		switch {
		case names[code] == "":
			d.unknown(code, data)
		case repeatable[code] || seen.first(&d, "", code):
			d.option(code, data)
		}
	})
	return d.m, nil
}

type decoder struct {
	m          pd.Message
	looked     int // options so far, on all levels
	parts      int // IAs, prefixes and addresses so far
	auths      int // Authentication options so far
	s46Octets  int // of containers that were kept
	rawOctets  int // of unknown options that were kept
	rawDropped bool
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
		if !d.look() {
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

// look counts an option or suboption and reports whether the message may have it.
func (d *decoder) look() bool {
	if d.looked++; d.looked == maxOptions+1 {
		d.fault("more than %d options: the rest dropped", maxOptions)
	}
	return d.looked <= maxOptions
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

// option reads one option of the top level that has a name. What belongs elsewhere is skipped.
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
	case dhcpv6.OptionReconfAccept:
		d.m.ReconfAccept = d.sized(code, b, 0)
	case dhcpv6.OptionReconfMessage:
		d.reconfMessage(code, b)
	case dhcpv6.OptionAuth:
		d.auth(code, b)
	case dhcpv6.OptionORO:
		d.oro(b)
	case dhcpv6.OptionSolMaxRT:
		d.m.SolMaxRT = d.maxRT(code, b)
	case dhcpv6.OptionInfMaxRT:
		d.m.InfMaxRT = d.maxRT(code, b)
	case dhcpv6.OptionInformationRefreshTime:
		d.refresh(code, b)
	case dhcpv6.OptionStatusCode:
		d.m.Status = d.status("", b)
	case dhcpv6.OptionIAPD:
		d.iapd(b)
	case dhcpv6.OptionIANA:
		d.iana(b)
	case dhcpv6.OptionUserClass, dhcpv6.OptionVendorClass:
		d.class(code, b)
	default:
		d.info(code, b)
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

// refresh reads an Information Refresh Time (RFC 9915 §21.23). Values below IRT_MINIMUM count as IRT_MINIMUM, which
// matters here only for 0, since that means "absent" in pd.Message.
func (d *decoder) refresh(code dhcpv6.OptionCode, b []byte) {
	if !d.sized(code, b, 4) {
		return
	}
	if d.m.InfoRefresh = binary.BigEndian.Uint32(b); d.m.InfoRefresh == 0 {
		d.m.InfoRefresh = irtMinimum
	}
}

func (d *decoder) reconfMessage(code dhcpv6.OptionCode, b []byte) {
	if !d.sized(code, b, 1) {
		return
	}
	switch t := pd.MessageType(b[0]); t {
	case pd.Renew, pd.Rebind, pd.InformationRequest:
		d.m.ReconfMsg = t
	default: // §21.19
		d.fault("%s dropped: type %d, want 5, 6 or 11", name(code), t)
	}
}

// auth reads an Authentication option (RFC 9915 §21.11). Two of them are none (§20.2).
func (d *decoder) auth(code dhcpv6.OptionCode, b []byte) {
	if d.auths++; d.auths > 1 {
		d.m.Auth = nil
		d.fault("%s dropped: option number %d of its kind", name(code), d.auths)
		return
	}
	if n := len(b); n < authHeader || n > authHeader+maxAuthInfo {
		d.fault("%s dropped: %d octets, want %d to %d", name(code), n, authHeader, authHeader+maxAuthInfo)
		return
	}
	d.m.Auth = &pd.Auth{Protocol: b[0], Algorithm: b[1], RDM: b[2], Replay: binary.BigEndian.Uint64(b[3:]),
		Info: bytes.Clone(b[authHeader:])}
}

// class reads a User Class or Vendor Class option of a client (RFC 9915 §21.15, §21.16). Servers have no class that
// matters to us.
func (d *decoder) class(code dhcpv6.OptionCode, b []byte) {
	switch {
	case !fromClient(d.m.Type):
		d.unknown(code, b)
	case code == dhcpv6.OptionUserClass:
		d.m.UserClass = d.classData(code, b)
	case len(b) < 4:
		d.fault("%s dropped: %d octets, want at least 4", name(code), len(b))
	case len(d.m.VendorClass) == maxClasses:
		d.fault("%s dropped: more than %d", name(code), maxClasses)
	default:
		d.m.VendorClass = append(d.m.VendorClass, pd.VendorClass{Enterprise: binary.BigEndian.Uint32(b), Data: d.classData(code, b[4:])})
	}
}

// classData reads a list of opaque values, each behind its length in two octets.
func (d *decoder) classData(code dhcpv6.OptionCode, b []byte) (data [][]byte) {
	for len(b) >= 2 {
		n := int(binary.BigEndian.Uint16(b))
		b = b[2:]
		switch {
		case n > len(b):
			d.fault("%s: value of %d octets, %d left: the rest dropped", name(code), n, len(b))
			return data
		case len(data) == maxClasses:
			d.fault("%s: more than %d values: the rest dropped", name(code), maxClasses)
			return data
		}
		data = append(data, bytes.Clone(b[:n]))
		b = b[n:]
	}
	if len(b) > 0 {
		d.fault("%s: %d stray octets at the end", name(code), len(b))
	}
	return data
}
