// Package identity reads by which DHCP identifier other DHCPv6 clients of a router are known to its providers, out of the
// files that they leave: octets in, values out.
//
// It does not look for these files and stores nothing; what comes of a value is the caller's. Files are taken for hostile:
// every reader is bounded by MaxFile, and what it returns is validated.
package identity

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"uplinkd/pd"
	"uplinkd/pd/wire"
)

// MaxFile is how long a file may be. Lease files of dhclient grow until it starts the next time.
const MaxFile = 1 << 20

// Identity is what a file says about another client.
type Identity struct {
	DUID        pd.DUID
	Delegations []Delegation // by interface, and in the order of the file
	Addresses   []Address    // likewise
}

// Delegation is a prefix that another client was delegated last.
type Delegation struct {
	Interface string // "" where the file does not say
	IAID      uint32
	Prefix    netip.Prefix
}

// Address is an IA_NA in which another client had an address last.
type Address struct {
	Interface string // "" where the file does not say
	IAID      uint32
}

// checkSize refuses what is too long to be what it should be.
func checkSize(b []byte) error {
	if len(b) > MaxFile {
		return fmt.Errorf("longer than %d octets: not such a file", MaxFile)
	}
	return nil
}

// valid turns octets into a DUID.
func valid(b []byte) (pd.DUID, error) {
	d := pd.DUID(b)
	if !d.Valid() {
		return "", fmt.Errorf("DUID of %d octets, want 3 to 130", len(d))
	}
	return d, nil
}

// Text reads the file of dhcpcd's DUID: hexadecimal octets with colons between them, on a line.
func Text(b []byte) (pd.DUID, error) {
	if err := checkSize(b); err != nil {
		return "", err
	}
	line, rest, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	if rest != "" {
		return "", errors.New("line 2: want one line with a DUID")
	}
	if len(line) > 3*130 {
		return "", fmt.Errorf("line 1: %d characters are too many for a DUID", len(line))
	}
	d, err := pd.ParseDUID(line)
	if err != nil {
		return "", fmt.Errorf("line 1: %w", err)
	}
	return d, nil
}

// Wide reads the DUID file of the WIDE client: the length as 16 bits in the byte order of the machine, then the DUID. The
// length of the file says which order that is, so a file of another machine can be read too.
func Wide(b []byte) (pd.DUID, error) {
	if err := checkSize(b); err != nil {
		return "", err
	}
	if len(b) < 2 {
		return "", fmt.Errorf("%d octets, want two with a length and a DUID", len(b))
	}
	n, little, big := len(b)-2, int(binary.LittleEndian.Uint16(b)), int(binary.BigEndian.Uint16(b))
	if n != little && n != big {
		return "", fmt.Errorf("says that %d octets follow (or %d, of a machine with the other byte order), but %d do", little, big, n)
	}
	return valid(b[2:])
}

// DhcpcdLease reads what dhcpcd keeps of a lease: the Reply as it was received.
func DhcpcdLease(b []byte) (Identity, error) {
	if err := checkSize(b); err != nil {
		return Identity{}, err
	}
	m, err := wire.Decode(b)
	if err != nil {
		return Identity{}, err
	}
	if m.Type != pd.Reply {
		return Identity{}, errors.New("not a DHCPv6 Reply")
	}
	id := Identity{DUID: m.ClientID}
	for _, o := range m.IAPDs {
		for _, p := range o.Prefixes {
			if p.Prefix.IsValid() && p.Valid > 0 {
				id.Delegations = append(id.Delegations, Delegation{IAID: o.IAID, Prefix: p.Prefix})
			}
		}
	}
	for _, o := range m.IANAs {
		if slices.ContainsFunc(o.Addresses, func(a pd.IAAddress) bool { return a.Valid > 0 }) {
			id.Addresses = append(id.Addresses, Address{IAID: o.IAID})
		}
	}
	return id, nil
}

// LinkLayer is the DUID-LL (RFC 9915 §11.4) of an Ethernet address, which odhcp6c uses unless it is given another.
func LinkLayer(mac []byte) (pd.DUID, error) {
	zero := true
	for _, c := range mac {
		zero = zero && c == 0
	}
	if len(mac) != 6 || zero {
		return "", errors.New("no Ethernet address to make a DUID of")
	}
	return pd.DUID(append([]byte{0, 3, 0, 1}, mac...)), nil
}

// typeNames are what networkctl writes in place of the two octets of the type.
var typeNames = map[string]string{"DUID-LLT": "0001", "DUID-EN/Vendor": "0002", "DUID-LL": "0003", "UUID": "0004"}

// Parse reads a DUID as people have it: hexadecimal, or as networkctl shows it (DUID-EN/Vendor:0000ab11…).
func Parse(s string) (pd.DUID, error) {
	if name, rest, ok := strings.Cut(s, ":"); ok && typeNames[name] != "" {
		return pd.ParseDUID(typeNames[name] + rest)
	}
	return pd.ParseDUID(s)
}

// enterprise is the number of the systemd project with which its DUID-EN (RFC 9915 §11.3) begins.
const enterprise = 43793

// networkdKey is under which systemd-networkd hashes the machine id, which is not to be shown to others.
var networkdKey = [16]byte{0x80, 0x11, 0x8c, 0xc2, 0xfe, 0x4a, 0x03, 0xee, 0x3e, 0xd6, 0x0c, 0x6f, 0x36, 0x39, 0x14, 0x09}

// MachineID is the DUID that systemd-networkd makes of the text of /etc/machine-id when it is not told another
// (DUIDType=, DUIDRawData=).
func MachineID(b []byte) (pd.DUID, error) {
	if err := checkSize(b); err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	id, err := hex.DecodeString(text)
	if err != nil || len(id) != 16 {
		return "", errors.New("line 1: want the 32 hexadecimal digits of a machine id")
	}
	d := binary.BigEndian.AppendUint32([]byte{0, 2}, enterprise)
	return pd.DUID(binary.LittleEndian.AppendUint64(d, siphash24(networkdKey, id))), nil
}
