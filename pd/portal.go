package pd

import (
	"fmt"
	"strings"
)

// MaxURI bounds the URI of a captive portal, in octets.
const MaxURI = 2048

// noPortal is what a network says that has no captive portal (RFC 8910 §2).
const noPortal = "urn:ietf:params:capport:unrestricted"

// PortalURI checks the URI of a captive portal as a network gives it, by DHCPv6 or in a router advertisement (RFC 8910).
// It is empty for a network that says that it has none. It may contain what RFC 3986 §2 allows and nothing else: no space,
// quotation mark, bracket or control character gets as far as a hook or a log.
func PortalURI(uri string) (string, error) {
	if len(uri) > MaxURI {
		return "", fmt.Errorf("%d octets, want at most %d", len(uri), MaxURI)
	}
	if uri == noPortal {
		return "", nil
	}
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return "", fmt.Errorf("neither http nor https")
	}
	if rest == "" || strings.ContainsRune("/?#", rune(rest[0])) {
		return "", fmt.Errorf("no host")
	}
	if strings.ContainsFunc(uri, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("-._~:/?#[]@!$&'()*+,;=%", r)
	}) {
		return "", fmt.Errorf("a character that is not allowed in a URI")
	}
	return uri, nil
}
