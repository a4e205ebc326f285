package wire

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// parseNames reads a list of names in the form of RFC 1035 §3.1 without compression (RFC 9915 §10), one label at a time.
// It returns the names that are host names, says what was wrong with others through fault, and stops at what cannot be
// read any further and after limit names, good or bad.
func parseNames(b []byte, limit int, fault func(format string, args ...any)) (names []string) {
	var labels []string
	length, bad, read := 0, "", 0
	for len(b) > 0 {
		n := int(b[0])
		b = b[1:]
		switch {
		case n == 0:
			if bad == "" && len(labels) > 0 {
				names = append(names, strings.Join(labels, "."))
			} else {
				fault("name dropped: %s", cmp.Or(bad, "the root is not a host name"))
			}
			if read++; read == limit && len(b) > 0 {
				fault("more than %d names: the rest dropped", limit)
				return names
			}
			labels, length, bad = nil, 0, ""
			continue
		case n > 63:
			fault("label type %#02x: compression is not allowed, the rest dropped", n&0xc0)
			return names
		case n > len(b):
			fault("label of %d octets, %d left: the rest dropped", n, len(b))
			return names
		}
		if length += n + 1; length > maxNameLen+1 && bad == "" {
			bad = fmt.Sprintf("longer than %d octets", maxNameLen)
		}
		if bad == "" {
			if err := checkLabel(b[:n]); err != nil {
				bad = err.Error()
			} else {
				labels = append(labels, string(b[:n]))
			}
		}
		b = b[n:]
	}
	if length > 0 {
		fault("name without end dropped")
	}
	return names
}

// maxNameLen is the longest host name in text form.
const maxNameLen = 253

// checkLabel reports whether b may be a label of a host name: letters, digits, hyphens and underscores.
func checkLabel(b []byte) error {
	for _, c := range b {
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return fmt.Errorf("octet %#02x is not allowed in a host name", c)
		}
	}
	if b[0] == '-' || b[len(b)-1] == '-' {
		return errors.New("a label begins or ends with a hyphen")
	}
	return nil
}

// appendName appends the encoding of a host name to b.
func appendName(b []byte, name string) ([]byte, error) {
	if len(name) > maxNameLen {
		return nil, fmt.Errorf("domain name of %d octets, want at most %d", len(name), maxNameLen)
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) < 1 || len(label) > 63 {
			return nil, fmt.Errorf("domain name %q: a label has %d octets, want 1 to 63", name, len(label))
		}
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0), nil
}
