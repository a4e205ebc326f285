package store

import (
	"fmt"
	"net/netip"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// reconfKeyLen is the length of a Reconfigure key in octets (RFC 9915 §20.4).
const reconfKeyLen = 16

// checkLease finds what JSON lets through and the machine and the kernel would not: people edit these files. No message of
// it shows a key.
func checkLease(l pd.Lease) error {
	if l.ServerID != "" && !l.ServerID.Valid() {
		return fmt.Errorf("server_id of %d octets, want 3 to 130", len(l.ServerID))
	}
	for _, p := range l.Prefixes {
		if err := checkPrefix("prefix", p.Prefix); err != nil {
			return err
		}
		if err := checkLifetimes("prefix "+p.Prefix.String(), p.PreferredUntil, p.ValidUntil); err != nil {
			return err
		}
		if e := p.Exclude; e.IsValid() && (e != e.Masked() || e.Bits() <= p.Prefix.Bits() || !p.Prefix.Contains(e.Addr())) {
			return fmt.Errorf("prefix %s: exclude %s is not inside it", p.Prefix, e)
		}
	}
	for _, p := range l.Previous {
		if err := checkPrefix("previous prefix", p); err != nil {
			return err
		}
	}
	for _, a := range l.Addresses {
		if !a.Address.Is6() || a.Address.Is4In6() || a.Address.Zone() != "" || !a.Address.IsGlobalUnicast() {
			return fmt.Errorf("address %s: want an IPv6 unicast address", a.Address)
		}
		if err := checkLifetimes("address "+a.Address.String(), a.PreferredUntil, a.ValidUntil); err != nil {
			return err
		}
	}
	if k := l.Reconf; k != nil && (!k.ServerID.Valid() || len(k.Key) != reconfKeyLen) {
		return fmt.Errorf("reconf: server_id of %d octets and key of %d, want 3 to 130 and %d", len(k.ServerID), len(k.Key), reconfKeyLen)
	}
	return l.Info.Check()
}

func checkPrefix(what string, p netip.Prefix) error {
	if !p.IsValid() || !p.Addr().Is6() || p.Bits() == 0 || p != p.Masked() {
		return fmt.Errorf("%s %s: want an IPv6 prefix without host bits", what, p)
	}
	if why := pd.Undelegable(p); why != "" {
		return fmt.Errorf("%s %s: %s", what, p, why)
	}
	return nil
}

func checkLifetimes(what string, preferred, valid lifetime.Deadline) error {
	if preferred.Compare(valid) > 0 {
		return fmt.Errorf("%s: preferred until %s, longer than valid until %s", what, preferred, valid)
	}
	return nil
}
