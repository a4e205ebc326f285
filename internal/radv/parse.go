package radv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// ICMPv6 types and option types that are read (RFC 4861, RFC 8106, RFC 8910, RFC 8781).
const (
	typeSolicitation  = 133
	typeAdvertisement = 134

	optionSourceLink    = 1
	optionPrefix        = 3
	optionRDNSS         = 25
	optionDNSSL         = 31
	optionCaptivePortal = 37
	optionPREF64        = 38
)

// Bounds of what is kept of one advertisement.
const (
	maxHeardPrefixes = 16
	maxHeardServers  = 8
	maxHeardDomains  = 8
	maxHeardPREF64   = 4
)

// packet is an ICMPv6 message as received.
type packet struct {
	from     netip.Addr // without zone
	hopLimit int
	data     []byte // from the ICMPv6 header on; the kernel has checked the checksum
}

// preference is a default router preference (RFC 4191 §2.1); higher is better.
type preference int

const (
	low    preference = -1
	medium preference = 0
	high   preference = 1
)

// advertisement is what is used of a received router advertisement.
type advertisement struct {
	from           netip.Addr
	managed, other bool
	preference     preference
	routerUntil    lifetime.Deadline // the zero value: not a default router
	prefixes       []Prefix
	dns            []timed[netip.Addr]
	search         []timed[string]
	pref64         []timed[netip.Prefix]
	portal         *string // nil: nothing was said; "": there is none
	mac            string  // of the router: "02:00:00:00:01:02"; "": it does not say
}

// timed is a value that holds until a deadline.
type timed[T comparable] struct {
	value T
	until lifetime.Deadline
}

// parseAdvertisement checks p as RFC 4861 §6.1.2 asks and reads it. Options that are not valid in themselves are skipped:
// a provider's odd option must not cost the default route.
//
// The options are not read with the ndp library: it refuses the whole message for one odd option, computes their length
// in 8 bits, and decodes DNS names to Unicode.
func parseAdvertisement(p packet, now time.Time) (advertisement, error) {
	const fixed = 16
	switch {
	case !p.from.IsLinkLocalUnicast():
		return advertisement{}, errors.New("router advertisement: source is not link-local")
	case p.hopLimit != 255:
		return advertisement{}, fmt.Errorf("router advertisement: hop limit %d, not 255: it has crossed a router", p.hopLimit)
	case len(p.data) < fixed || p.data[0] != typeAdvertisement:
		return advertisement{}, fmt.Errorf("router advertisement: %d bytes that are none", len(p.data))
	case p.data[1] != 0:
		return advertisement{}, fmt.Errorf("router advertisement: ICMPv6 code %d, not 0", p.data[1])
	}
	a := advertisement{
		from:        p.from,
		managed:     p.data[5]&0x80 != 0,
		other:       p.data[5]&0x40 != 0,
		routerUntil: lifetime.After(now, uint32(binary.BigEndian.Uint16(p.data[6:8]))),
	}
	switch p.data[5] >> 3 & 3 {
	case 1:
		a.preference = high
	case 3:
		a.preference = low
	}
	err := walk(p.data[fixed:], func(kind byte, body []byte) {
		switch kind {
		case optionSourceLink:
			a.readMAC(body)
		case optionPrefix:
			a.readPrefix(body, now)
		case optionRDNSS:
			a.readServers(body, now)
		case optionDNSSL:
			a.readDomains(body, now)
		case optionCaptivePortal:
			a.readPortal(body)
		case optionPREF64:
			a.readPREF64(body, now)
		}
	})
	if err != nil {
		return advertisement{}, fmt.Errorf("router advertisement: %w", err)
	}
	return a, nil
}

// parseSolicitation checks p as RFC 4861 §6.1.1 asks and returns its source, which may be the unspecified address.
func parseSolicitation(p packet) (netip.Addr, error) {
	const fixed = 8
	switch {
	case p.hopLimit != 255:
		return netip.Addr{}, fmt.Errorf("router solicitation: hop limit %d, not 255: it has crossed a router", p.hopLimit)
	case len(p.data) < fixed || p.data[0] != typeSolicitation:
		return netip.Addr{}, fmt.Errorf("router solicitation: %d bytes that are none", len(p.data))
	case p.data[1] != 0:
		return netip.Addr{}, fmt.Errorf("router solicitation: ICMPv6 code %d, not 0", p.data[1])
	}
	linkAddress := false
	err := walk(p.data[fixed:], func(kind byte, _ []byte) { linkAddress = linkAddress || kind == optionSourceLink })
	if err == nil && linkAddress && p.from.IsUnspecified() {
		err = errors.New("source link-layer address option with the unspecified source address")
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("router solicitation: %w", err)
	}
	return p.from, nil
}

// walk calls visit with the type and the body (without type and length) of each option. An option of length 0 or one
// that reaches past the end makes the whole message invalid (RFC 4861 §4.6); dhcpcd#415 is a client that looped for ever.
func walk(b []byte, visit func(kind byte, body []byte)) error {
	for len(b) > 0 {
		if len(b) < 2 || b[1] == 0 {
			return errors.New("option of length 0")
		}
		n := int(b[1]) * 8
		if n > len(b) {
			return fmt.Errorf("option of %d bytes where %d are left", n, len(b))
		}
		visit(b[0], b[2:n])
		b = b[n:]
	}
	return nil
}

func (a *advertisement) readPrefix(b []byte, now time.Time) {
	if len(b) != 30 || len(a.prefixes) == maxHeardPrefixes {
		return
	}
	p := netip.PrefixFrom(netip.AddrFrom16([16]byte(b[14:30])), int(b[0])).Masked()
	valid, preferred := binary.BigEndian.Uint32(b[2:6]), binary.BigEndian.Uint32(b[6:10])
	// RFC 4862 §5.5.3: the link-local prefix, and one preferred for longer than it is valid, are to be ignored.
	if !p.IsValid() || !p.Addr().IsGlobalUnicast() || p.Addr().Is4In6() || preferred > valid {
		return
	}
	a.prefixes = append(a.prefixes, Prefix{
		Prefix:         p,
		OnLink:         b[1]&0x80 != 0,
		Autonomous:     b[1]&0x40 != 0,
		PreferPD:       b[1]&0x10 != 0,
		PreferredUntil: lifetime.After(now, preferred),
		ValidUntil:     lifetime.After(now, valid),
	})
}

func (a *advertisement) readServers(b []byte, now time.Time) {
	if len(b) < 22 || (len(b)-6)%16 != 0 {
		return
	}
	until := lifetime.After(now, binary.BigEndian.Uint32(b[2:6]))
	for b = b[6:]; len(b) > 0 && len(a.dns) < maxHeardServers; b = b[16:] {
		s := netip.AddrFrom16([16]byte(b[:16]))
		// A link-local server means nothing on any other link, and the facts are used on others.
		if s.IsGlobalUnicast() && !s.Is4In6() {
			a.dns = append(a.dns, timed[netip.Addr]{s, until})
		}
	}
}

func (a *advertisement) readDomains(b []byte, now time.Time) {
	if len(b) < 6 {
		return
	}
	until := lifetime.After(now, binary.BigEndian.Uint32(b[2:6]))
	names, ok := splitNames(b[6:])
	if !ok {
		return
	}
	for _, n := range names {
		if len(a.search) < maxHeardDomains && !slices.ContainsFunc(a.search, func(t timed[string]) bool { return t.value == n }) {
			a.search = append(a.search, timed[string]{n, until})
		}
	}
}

// readMAC reads the address of an Ethernet; those of other kinds of links are not used.
func (a *advertisement) readMAC(b []byte) {
	if len(b) == 6 && !bytes.Equal(b, make([]byte, 6)) {
		a.mac = net.HardwareAddr(b).String()
	}
}

// readPortal reads the URI of a captive portal (RFC 8910 §2.3), padded with zeros.
func (a *advertisement) readPortal(b []byte) {
	if uri, err := pd.PortalURI(string(bytes.TrimRight(b, "\x00"))); err == nil {
		a.portal = &uri
	}
}

// lengthsPREF64 are the prefix lengths behind the codes of RFC 8781 §4; there are no others.
var lengthsPREF64 = [...]int{96, 64, 56, 48, 40, 32}

// readPREF64 reads the prefix of a NAT64. Its lifetime is in units of 8 s, in the 13 bits before the length's code.
func (a *advertisement) readPREF64(b []byte, now time.Time) {
	if len(b) != 14 || len(a.pref64) == maxHeardPREF64 {
		return
	}
	scaled := binary.BigEndian.Uint16(b[:2])
	code := int(scaled & 7)
	if code >= len(lengthsPREF64) {
		return
	}
	var address [16]byte
	copy(address[:], b[2:])
	p := netip.PrefixFrom(netip.AddrFrom16(address), lengthsPREF64[code]).Masked()
	if !p.Addr().IsGlobalUnicast() || p.Addr().Is4In6() {
		return
	}
	a.pref64 = append(a.pref64, timed[netip.Prefix]{p, lifetime.After(now, uint32(scaled&^7))})
}

// splitNames reads a sequence of DNS names without compression (RFC 8106 §5.2), padded with zeros.
func splitNames(b []byte) (names []string, ok bool) {
	var labels []string
	for len(b) > 0 {
		n := int(b[0])
		if b = b[1:]; n > len(b) {
			return nil, false
		}
		if n > 0 {
			labels = append(labels, string(b[:n]))
			b = b[n:]
			continue
		}
		if len(labels) == 0 {
			continue // padding
		}
		name, valid := domain(strings.Join(labels, "."))
		if !valid {
			return nil, false
		}
		names, labels = append(names, name), nil
	}
	return names, len(labels) == 0
}

// domain returns name in lower case without the final dot, if it is a DNS name of letters, digits, hyphens and
// underscores: it ends up in resolver configuration, logs and the environment of hooks.
func domain(name string) (string, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "" || len(name) > 253 {
		return "", false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", false
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return "", false
			}
		}
	}
	return name, true
}
