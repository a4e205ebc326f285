package config

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"uplinkd/pd"
)

// Bounds of the keys dhcpv6.*: whatever is configured within them fits into one UDP datagram.
const (
	maxPrefixes     = 16
	maxRequest      = 32
	maxOptions      = 32
	maxOptionData   = 1024 // octets
	maxUserClass    = 16
	maxVendorClass  = 8
	maxVendorData   = 8   // per enterprise
	maxClassData    = 255 // octets
	longestWishable = 64  // prefix length of a hint
)

func readDHCPv6(s *section) DHCPv6 {
	length := get(s, "dhcpv6.length", 0, integer[uint8](0, longestWishable))
	prefixes := s.find("dhcpv6.prefixes")
	if prefixes == nil && s.find("dhcpv6.length") == nil { // being short for a list, a length replaces that of a profile
		prefixes = s.defaults.find("dhcpv6.prefixes")
	}
	d := DHCPv6{
		Prefixes:    read(s, "dhcpv6.prefixes", prefixes, []PrefixWish{{Length: length}}, upTo(maxPrefixes, prefixWish, contradiction)),
		Address:     get(s, "dhcpv6.address", AddressAuto, oneOf(AddressAuto, AddressAlways, AddressNever)),
		Information: get(s, "dhcpv6.information", true, boolean),
		RapidCommit: get(s, "dhcpv6.rapid_commit", true, boolean),
		Reconfigure: get(s, "dhcpv6.reconfigure", true, boolean),
		Release:     get(s, "dhcpv6.release", false, boolean),
		Delay:       get(s, "dhcpv6.delay", true, boolean),
		ReportAfter: get(s, "dhcpv6.report_after", 15*time.Second, duration(100*time.Millisecond, 10*time.Minute)),
		Prefer:      get(s, "dhcpv6.prefer", "preference", oneOf("preference", "largest", "hint")),
		Start:       get(s, "dhcpv6.start", StartLink, oneOf(StartLink, StartRA, StartRAMO)),
		DUID:        get(s, "dhcpv6.duid", "auto", duid),
		IAID:        get(s, "dhcpv6.iaid", nil, orWord("auto", nil, iaid)),
		Auth:        get(s, "dhcpv6.auth", nil, authentication),
		Request:     get(s, "dhcpv6.request", nil, upTo(maxRequest, optionCode, sameCode)),
		Options:     get(s, "dhcpv6.options", nil, upTo(maxOptions, rawOption, sameOption)),
		UserClass:   get(s, "dhcpv6.user_class", nil, upTo(maxUserClass, classData, sameData)),
		VendorClass: get(s, "dhcpv6.vendor_class", nil, upTo(maxVendorClass, vendorClass, sameEnterprise)),
		DSCP:        get(s, "dhcpv6.dscp", 0, integer[uint8](0, 63)),
		Priority:    get(s, "dhcpv6.priority", 0, integer[int](0, 7)),
	}
	s.checkIAIDs(d)
	s.checkAsks(d)
	// A length of 0 says nothing, so it contradicts nothing.
	if n := s.find("dhcpv6.prefixes"); n != nil && length != 0 {
		s.fail(s.at("dhcpv6.length"), "dhcpv6.length", "this is short for dhcpv6.prefixes = [{ length = %d }], which is set too (%v); remove one of the two", length, n.key)
	}
	return d
}

// prefixWish reads an entry of dhcpv6.prefixes.
func prefixWish(v value) (PrefixWish, bool) {
	e, ok := v.table("{ length = 56 }")
	if !ok {
		return PrefixWish{}, false
	}
	w := PrefixWish{
		Length: get(e, "length", 0, integer[uint8](0, longestWishable)),
		Prefix: get(e, "prefix", netip.Prefix{}, prefixHint),
		Min:    get(e, "min", 0, integer[uint8](0, 128)),
		Max:    get(e, "max", 0, integer[uint8](0, 128)),
		IAID:   get(e, "iaid", nil, orWord("auto", nil, iaid)),
	}
	if w.Max != 0 && w.Min > w.Max {
		e.fail(e.at("min"), "min", "%d is more than max (%d): no prefix would be accepted", w.Min, w.Max)
		return w, false
	}
	if w.Length != 0 {
		w.checkAccepted(e, "length", w.Length)
	}
	if w.Prefix.IsValid() {
		w.checkAccepted(e, "prefix", uint8(w.Prefix.Bits()))
	}
	return w, e.sound()
}

// checkAccepted refuses a hint at a prefix that would not be accepted.
func (w PrefixWish) checkAccepted(e *section, key string, length uint8) {
	if length < w.Min {
		e.fail(e.at(key), key, "asks for a /%d, and min accepts no prefix shorter than /%d", length, w.Min)
	}
	if w.Max != 0 && length > w.Max {
		e.fail(e.at(key), key, "asks for a /%d, and max accepts no prefix longer than /%d", length, w.Max)
	}
}

// prefixHint accepts what a server may delegate.
func prefixHint(v value) (netip.Prefix, bool) {
	p, ok := prefix6(`write one such as "2001:db8:100::/56"`)(v)
	if why := pd.Undelegable(p); ok && why != "" {
		return p, v.bad("%v cannot be delegated: %s", p, why)
	}
	return p, ok
}

func contradiction(a, b PrefixWish) string {
	if a.IAID != nil && b.IAID != nil && *a.IAID == *b.IAID {
		return fmt.Sprintf("two entries have the IAID %d; each needs one of its own (RFC 9915 §12)", *a.IAID)
	}
	if !a.Prefix.IsValid() || !b.Prefix.IsValid() || !a.Prefix.Overlaps(b.Prefix) {
		return ""
	}
	return fmt.Sprintf("the prefixes of two entries overlap: %v and %v", a.Prefix, b.Prefix)
}

// refusedOptions are the options that a client must not name in an Option Request option (RFC 9915 §21.7), and what to do
// instead. The client sends them itself or has no business to, so dhcpv6.options refuses them, too.
var refusedOptions = map[uint16]string{
	1:  "the Client Identifier, which uplinkd sends itself and keeps in state_dir",
	2:  "the Server Identifier, which uplinkd sends itself; dhcpv6.prefer says how to choose among servers",
	3:  "the IA_NA, which asks for an address; use dhcpv6.address",
	4:  "the IA_TA, which is obsolete; dhcpv6.address asks for an address",
	5:  "the IAADDR, which is part of an IA_NA; dhcpv6.address asks for an address",
	6:  "the Option Request; use dhcpv6.request",
	7:  "the Preference, which only servers send; dhcpv6.prefer says what to make of it",
	8:  "the Elapsed Time, which uplinkd sends itself; remove it",
	9:  "the Relay Message, which only relays send; remove it",
	11: "the Authentication; use dhcpv6.auth to send one, and dhcpv6.reconfigure to accept what servers authenticate",
	12: "the Server Unicast, which is obsolete; remove it",
	13: "the Status Code, which only servers send; remove it",
	14: "the Rapid Commit; use dhcpv6.rapid_commit",
	15: "the User Class; use dhcpv6.user_class",
	16: "the Vendor Class; use dhcpv6.vendor_class",
	18: "the Interface-Id, which only relays send; remove it",
	19: "the Reconfigure Message, which only servers send; dhcpv6.reconfigure says whether to accept it",
	20: "the Reconfigure Accept; use dhcpv6.reconfigure",
	25: "the IA_PD, which asks for a prefix; use dhcpv6.prefixes",
	26: "the IAPREFIX, which is part of an IA_PD; use dhcpv6.prefixes",
}

// optionCode accepts what may stand in dhcpv6.request and dhcpv6.options.
func optionCode(v value) (uint16, bool) {
	code, ok := integer[uint16](1, math.MaxUint16)(v)
	if what := refusedOptions[code]; ok && what != "" {
		return code, v.bad("%d is %s", code, what)
	}
	return code, ok
}

func sameCode(a, b uint16) string {
	if a != b {
		return ""
	}
	return fmt.Sprintf("%d stands twice in the list", a)
}

// rawOption reads an entry of dhcpv6.options.
func rawOption(v value) (RawOption, bool) {
	e, ok := v.table(`{ code = 17, hex = "0000" }`)
	if !ok {
		return RawOption{}, false
	}
	o := RawOption{
		Code: required(e, "code", "17", optionCode),
		Data: required(e, "hex", `"0000", or "" for an option without content`, octets(maxOptionData)),
	}
	return o, e.sound()
}

// sameOption allows for options that may stand in a message more than once, such as Vendor-specific Information
// (RFC 9915 §21.17).
func sameOption(a, b RawOption) string {
	if a.Code != b.Code || !bytes.Equal(a.Data, b.Data) {
		return ""
	}
	return fmt.Sprintf("option %d stands twice in the list with the same content", a.Code)
}

// octets returns a parser for a string of at most limit octets in hexadecimal.
func octets(limit int) func(value) ([]byte, bool) {
	return func(v value) ([]byte, bool) {
		s, ok := text(v)
		if !ok {
			return nil, false
		}
		b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
		if err != nil {
			joined := separators.Replace(s)
			if _, err := hex.DecodeString(strings.TrimPrefix(joined, "0x")); err == nil {
				return nil, v.bad("%s has separators; write %s", quote(s), quote(joined))
			}
			return nil, v.bad(`%s is not a string of octets; write two hexadecimal digits for each, such as "00040e0a"`, quote(s))
		}
		if len(b) > limit {
			return nil, v.bad("%d octets; at most %d are supported", len(b), limit)
		}
		return b, true
	}
}

// separators are what other programs have between octets.
var separators = strings.NewReplacer(":", "", "-", "", " ", "")

// classData accepts a text or, behind 0x, octets. An empty one would be a mistake: there is nothing to tell.
func classData(v value) ([]byte, bool) {
	s, ok := text(v)
	if !ok {
		return nil, false
	}
	b := []byte(s)
	if strings.HasPrefix(s, "0x") {
		if b, ok = octets(maxClassData)(v); !ok {
			return nil, false
		}
	}
	if len(b) == 0 || len(b) > maxClassData {
		return nil, v.bad("%s has %d octets; it must have 1 to %d", quote(s), len(b), maxClassData)
	}
	return b, true
}

func sameData(a, b []byte) string {
	if !bytes.Equal(a, b) {
		return ""
	}
	return fmt.Sprintf("%s stands twice in the list", quote(string(a)))
}

// vendorClass reads an entry of dhcpv6.vendor_class. The option has at least one piece of data (RFC 9915 §21.16).
func vendorClass(v value) (VendorClass, bool) {
	e, ok := v.table(`{ enterprise = 1038, data = ["sagem"] }`)
	if !ok {
		return VendorClass{}, false
	}
	c := VendorClass{
		Enterprise: required(e, "enterprise", "1038", integer[uint32](1, math.MaxUint32)),
		Data:       required(e, "data", `["sagem"]`, upTo(maxVendorData, classData, sameData)),
	}
	if n := e.find("data"); n != nil && n.kind == kindList && len(n.items) == 0 {
		e.fail(n.value, "data", "the list is empty; name at least one")
	}
	return c, e.sound()
}

// sameEnterprise: each enterprise number has one option at most (RFC 9915 §21.16).
func sameEnterprise(a, b VendorClass) string {
	if a.Enterprise != b.Enterprise {
		return ""
	}
	return fmt.Sprintf("enterprise %d stands twice in the list", a.Enterprise)
}
