package pd

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
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

// Types of DUID (RFC 9915 §11.2, §11.5) and the hardware type of Ethernet.
const (
	duidLLT          = 1
	duidUUID         = 4
	hardwareEthernet = 1
)

// NewDUID makes a DUID to be kept for ever: one of link-layer address and time (DUID-LLT) if there is a mac, else one of
// 16 random octets (DUID-UUID), for routers with nothing but PPP. It panics if it needs random and that is shorter.
func NewDUID(mac []byte, now time.Time, random []byte) DUID {
	if len(mac) == 0 {
		uuid := [16]byte(random)
		uuid[6] = uuid[6]&0x0f | 0x40 // RFC 9562 §5.4: version 4
		uuid[8] = uuid[8]&0x3f | 0x80 // variant of RFC 9562
		return DUID(append([]byte{0, duidUUID}, uuid[:]...))
	}
	epoch := time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)
	b := []byte{0, duidLLT, 0, hardwareEthernet}
	b = binary.BigEndian.AppendUint32(b, uint32(now.Unix()-epoch.Unix()))
	return DUID(append(b, mac[:min(len(mac), 130-len(b))]...))
}
