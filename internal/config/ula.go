package config

import "net/netip"

// ula accepts "off", "auto" and what a site may assign to itself: fd00::/8. For fc00::/8 RFC 4193 §3.2 has left open who
// assigns it, and nobody ever was. A site has a /48 of its own; a network, a /64.
func ula(v value) (ULA, bool) {
	const advice = `write "auto" to have one made, or one such as "fd12:3456:789a::/48"`
	if v.kind == kindString {
		switch v.text {
		case "off":
			return ULA{}, true
		case "auto":
			return ULA{Auto: true}, true
		}
	}
	p, ok := prefix6(advice)(v)
	if !ok {
		return ULA{}, false
	}
	switch {
	case netip.MustParsePrefix("fc00::/8").Contains(p.Addr()):
		return ULA{}, v.bad("%v is in fc00::/8, which nobody may assign to himself (RFC 4193 §3.2); %s", p, advice)
	case !netip.MustParsePrefix("fd00::/8").Contains(p.Addr()):
		return ULA{}, v.bad("%v is not in fd00::/8, the prefixes for local use (RFC 4193); %s", p, advice)
	case p.Bits() < 48 || p.Bits() > 64:
		return ULA{}, v.bad("length %d is out of range: a site has a prefix of length 48 (RFC 4193), and parts of it down to 64 can be given to uplinkd", p.Bits())
	}
	return ULA{Prefix: p}, true
}
