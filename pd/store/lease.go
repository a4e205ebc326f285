package store

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"uplinkd/pd"
)

const (
	duidName     = "duid.json"
	duidVersion  = 1
	leaseVersion = 1
)

// DUID returns the DUID on disk, or the one that create makes, which is then on disk. If the file was of no use, the
// error is ErrCorrupt and the DUID that is returned with it is new and saved: servers may then delegate other prefixes.
// After any other error the DUID is "".
func (d *Dir) DUID(create func() pd.DUID) (pd.DUID, error) {
	var id pd.DUID
	rerr := d.ReadJSON(duidName, duidVersion, &id)
	if rerr == nil && !id.Valid() {
		rerr = d.corrupt(duidName, fmt.Errorf("DUID of %d octets, want 3 to 130", len(id)))
	}
	switch {
	case rerr == nil:
		return id, nil
	case !errors.Is(rerr, fs.ErrNotExist) && !errors.Is(rerr, ErrCorrupt):
		return "", rerr
	}
	id = create()
	if !id.Valid() {
		return "", fmt.Errorf("write %s: DUID of %d octets, want 3 to 130", d.file(duidName), len(id))
	}
	if err := d.WriteJSON(duidName, duidVersion, id); err != nil {
		return "", err
	}
	if errors.Is(rerr, fs.ErrNotExist) {
		return id, nil
	}
	return id, rerr
}

// Lease returns the lease of an uplink, the zero Lease if none is on disk. After ErrCorrupt the lease is zero too.
func (d *Dir) Lease(uplink string) (pd.Lease, error) {
	var l pd.Lease
	name := leaseName(uplink)
	err := d.ReadJSON(name, leaseVersion, &l)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return pd.Lease{}, nil
	case err != nil:
		return pd.Lease{}, err
	}
	if err := checkLease(l); err != nil {
		return pd.Lease{}, d.corrupt(name, err)
	}
	return l, nil
}

// SaveLease makes l the lease of an uplink.
func (d *Dir) SaveLease(uplink string, l pd.Lease) error {
	return d.WriteJSON(leaseName(uplink), leaseVersion, l)
}

// checkLease finds what JSON lets through and the machine and the kernel would not: people edit these files.
func checkLease(l pd.Lease) error {
	if l.ServerID != "" && !l.ServerID.Valid() {
		return fmt.Errorf("server_id of %d octets, want 3 to 130", len(l.ServerID))
	}
	for _, p := range l.Prefixes {
		if !p.Prefix.IsValid() || !p.Prefix.Addr().Is6() || p.Prefix.Bits() == 0 || p.Prefix != p.Prefix.Masked() {
			return fmt.Errorf("prefix %s: want an IPv6 prefix without host bits", p.Prefix)
		}
		if p.PreferredUntil.Compare(p.ValidUntil) > 0 {
			return fmt.Errorf("prefix %s: preferred until %s, longer than valid until %s", p.Prefix, p.PreferredUntil, p.ValidUntil)
		}
	}
	for _, a := range l.DNS {
		if !a.Is6() {
			return fmt.Errorf("DNS server %s: want an IPv6 address", a)
		}
	}
	return nil
}

// leaseName is the file of an uplink. Letters, digits, '-' and '_' stand for themselves, every other octet is %XX: two
// uplinks never share a file, and no name leaves the directory.
func leaseName(uplink string) string {
	var b strings.Builder
	b.WriteString("lease-")
	for i := range len(uplink) {
		c := uplink[i]
		if c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	b.WriteString(".json")
	return b.String()
}
