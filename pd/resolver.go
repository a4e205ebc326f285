package pd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxParams bounds Resolver.Params, in octets.
const maxParams = 255

// Resolver is a DNS resolver with an encrypted protocol that a network designates (DNR, RFC 9463).
type Resolver struct {
	Priority  uint16       `json:"priority"`            // lower is better
	Name      string       `json:"name"`                // by which it proves who it is: the Authentication Domain Name
	Addresses []netip.Addr `json:"addresses,omitempty"` // none: clients find them, and the rest, by the name
	Params    []byte       `json:"params,omitempty"`    // SvcParams (RFC 9460 §2.2) as on the wire: protocols, port, path
}

// Check finds what must not get into leases, messages and hooks.
func (r Resolver) Check() error {
	switch {
	case r.Priority == 0:
		return fmt.Errorf("priority 0 (AliasMode), which is not for this option")
	case len(r.Addresses) == 0 && len(r.Params) > 0:
		return fmt.Errorf("parameters without addresses")
	case len(r.Params) > maxParams:
		return fmt.Errorf("%d octets of parameters, want at most %d", len(r.Params), maxParams)
	}
	for _, a := range r.Addresses {
		if !a.Is6() || a.Is4In6() || a.Zone() != "" || !a.IsGlobalUnicast() {
			return fmt.Errorf("%s is not the address of a server", a)
		}
	}
	if err := checkHostName(r.Name); err != nil {
		return err
	}
	return checkParams(r.Params)
}

// checkParams checks the frame of SvcParams (RFC 9460 §2.2); what the values mean is up to those who use them.
func checkParams(b []byte) error {
	for last := -1; len(b) > 0; {
		if len(b) < 4 || len(b)-4 < int(binary.BigEndian.Uint16(b[2:])) {
			return fmt.Errorf("the last parameter is cut short")
		}
		key := int(binary.BigEndian.Uint16(b))
		if key <= last {
			return fmt.Errorf("parameter %d comes after %d", key, last)
		}
		last, b = key, b[4+int(binary.BigEndian.Uint16(b[2:])):]
	}
	return nil
}

// Equal reports whether r and o are the same.
func (r Resolver) Equal(o Resolver) bool {
	return r.Priority == o.Priority && r.Name == o.Name && slices.Equal(r.Addresses, o.Addresses) && bytes.Equal(r.Params, o.Params)
}

// String is name=address,address in one word.
func (r Resolver) String() string {
	if len(r.Addresses) == 0 {
		return r.Name
	}
	var list []string
	for _, a := range r.Addresses {
		list = append(list, a.String())
	}
	return r.Name + "=" + strings.Join(list, ",")
}

// Fields are r as options have it: the name without compression (RFC 9915 §10), and the addresses.
func (r Resolver) Fields() (name, addresses []byte) {
	for label := range strings.SplitSeq(r.Name, ".") {
		name = append(append(name, byte(len(label))), label...)
	}
	for _, a := range r.Addresses {
		addresses = append(addresses, a.AsSlice()...)
	}
	return append(name, 0), addresses
}
