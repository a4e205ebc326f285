package pd

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// DUID is a DHCP unique identifier: an opaque string of 3 to 130 octets (RFC 9915 §11.1: type and 1 to 128 octets),
// compared only for equality.
type DUID string

// ParseDUID reads colon-separated or plain hexadecimal.
func ParseDUID(s string) (DUID, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil {
		return "", fmt.Errorf("DUID %q: want hexadecimal octets, e.g. 00:03:00:01:02:00:00:00:01:01", s)
	}
	d := DUID(b)
	if !d.Valid() {
		return "", fmt.Errorf("DUID %q: %d octets, want 3 to 130", s, len(b))
	}
	return d, nil
}

// Valid reports whether d has an allowed length.
func (d DUID) Valid() bool { return len(d) >= 3 && len(d) <= 130 }

// String is lower-case hexadecimal, octets separated by colons.
func (d DUID) String() string {
	var b strings.Builder
	for i := range len(d) {
		if i > 0 {
			b.WriteByte(':')
		}
		fmt.Fprintf(&b, "%02x", d[i])
	}
	return b.String()
}

// MarshalText writes the form of String.
func (d DUID) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the form of String; an empty text is the empty DUID.
func (d *DUID) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*d = ""
		return nil
	}
	*d, err = ParseDUID(string(b))
	return err
}
