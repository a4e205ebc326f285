package config

import (
	"encoding/hex"
	"math"
	"strconv"
	"strings"

	"uplinkd/pd"
)

// duid accepts a kind of DUID (RFC 9915 §11, RFC 6355) or its octets, which come out in lower case.
func duid(v value) (string, bool) {
	s, ok := text(v)
	if !ok {
		return "", false
	}
	number, enterprise := strings.CutPrefix(s, "en:")
	switch {
	case s == "auto", s == "llt", s == "ll", s == "uuid":
		return s, true
	case enterprise:
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n == 0 {
			return "", v.bad(`%s does not end in an enterprise number of IANA's list, such as "en:32473"`, quote(s))
		}
		return "en:" + strconv.FormatUint(n, 10), true
	case strings.HasPrefix(s, "0x"):
		b, ok := octets(math.MaxUint16)(v)
		if !ok {
			return "", false
		}
		if !pd.DUID(b).Valid() {
			return "", v.bad("a DUID of %d octets; it must have 3 to 130 (RFC 9915 §11.1)", len(b))
		}
		return "0x" + hex.EncodeToString(b), true
	}
	return "", v.bad(`unknown kind of DUID %s; known are "auto", "llt", "ll", "uuid", "en:NUMBER", and octets in hexadecimal such as "0x00030001020000000101"`, quote(s))
}

// iaid accepts every number: no server may read a meaning into an IAID (RFC 9915 §12).
func iaid(v value) (*uint32, bool) {
	n, ok := integer[uint32](0, math.MaxUint32)(v)
	return &n, ok
}

// authentication accepts the content of an Authentication option, which has eleven octets before what depends on the
// protocol (RFC 9915 §21.11); "" is none. No message of it shows the content: it may be a password.
func authentication(v value) ([]byte, bool) {
	const header, limit = 11, maxOptionData
	s, ok := text(v)
	if !ok || s == "" {
		return nil, ok
	}
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	switch {
	case err != nil:
		return nil, v.bad("expected two hexadecimal digits for each octet, with nothing between them")
	case len(b) < header || len(b) > limit:
		return nil, v.bad("%d octets; the content of an Authentication option has %d to %d (RFC 9915 §21.11)", len(b), header, limit)
	}
	return b, true
}

// checkIAIDs finds the IAID of the uplink, which its first entry has unless that says another, in a later one.
func (s *section) checkIAIDs(d DHCPv6) {
	if d.IAID == nil || len(d.Prefixes) == 0 || d.Prefixes[0].IAID != nil {
		return
	}
	for _, w := range d.Prefixes[1:] {
		if w.IAID != nil && *w.IAID == *d.IAID {
			s.fail(s.at("dhcpv6.iaid"), "dhcpv6.iaid", "the first entry of dhcpv6.prefixes has this IAID, %d, and so has a later one (%v); each needs one of its own (RFC 9915 §12)",
				*d.IAID, s.at("dhcpv6.prefixes"))
		}
	}
}

// checkAsks refuses an uplink that would have nothing to say.
func (s *section) checkAsks(d DHCPv6) {
	if len(d.Prefixes) > 0 || d.Address != AddressNever || d.Information {
		return
	}
	s.fail(s.at("dhcpv6.prefixes"), "dhcpv6.prefixes", `nothing is asked for: this is empty, dhcpv6.address "never" and dhcpv6.information false; change one of them`)
}
