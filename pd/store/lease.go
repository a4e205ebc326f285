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
	id, rerr := d.SavedDUID()
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

// SavedDUID returns the DUID on disk. The error is fs.ErrNotExist if there is none, and ErrCorrupt if the file was of no use.
func (d *Dir) SavedDUID() (pd.DUID, error) {
	var id pd.DUID
	if err := d.ReadJSON(duidName, duidVersion, &id); err != nil {
		return "", err
	}
	if !id.Valid() {
		return "", d.corrupt(duidName, fmt.Errorf("DUID of %d octets, want 3 to 130", len(id)))
	}
	return id, nil
}

// ErrOtherDUID is in the error of SetDUID when there is another DUID already.
var ErrOtherDUID = errors.New("there is another DUID")

// SetDUID makes id, which another client has used, the DUID on disk. Another one that is there stays unless force is set:
// it may be what the provider knows this router by.
func (d *Dir) SetDUID(id pd.DUID, force bool) error {
	if !id.Valid() {
		return fmt.Errorf("write %s: DUID of %d octets, want 3 to 130", d.file(duidName), len(id))
	}
	saved, err := d.SavedDUID()
	switch {
	case err == nil && saved != id && !force:
		return fmt.Errorf("write %s: %w, %s", d.file(duidName), ErrOtherDUID, saved)
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrCorrupt): // a damaged one was set aside
		return err
	}
	return d.WriteJSON(duidName, duidVersion, id)
}

// storedLease is a lease as it is on disk.
type storedLease struct {
	pd.Lease
	// IAID is that of all prefixes, in files of an uplinkd that knew only one IA_PD for each uplink. Their prefixes have
	// none of their own.
	IAID *uint32 `json:"iaid,omitempty"`
}

// converted is the lease in the form of today.
func (s storedLease) converted() pd.Lease {
	if s.IAID != nil {
		for i := range s.Prefixes {
			s.Prefixes[i].IAID = *s.IAID
		}
	}
	return s.Lease
}

// Lease returns the lease of an uplink, the zero Lease if none is on disk. After ErrCorrupt the lease is zero too.
func (d *Dir) Lease(uplink string) (pd.Lease, error) {
	var s storedLease
	name := leaseName(uplink)
	err := d.ReadJSON(name, leaseVersion, &s)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return pd.Lease{}, nil
	case err != nil:
		return pd.Lease{}, err
	}
	l := s.converted()
	if err := checkLease(l); err != nil {
		return pd.Lease{}, d.corrupt(name, err)
	}
	return l, nil
}

// SaveLease makes l the lease of an uplink. It may contain a key; as all files here it is readable by its owner only.
func (d *Dir) SaveLease(uplink string, l pd.Lease) error {
	return d.WriteJSON(leaseName(uplink), leaseVersion, l)
}

func leaseName(uplink string) string { return uplinkFile("lease", uplink) }

// uplinkFile is the file of an uplink for a kind of thing. Letters, digits, '-' and '_' stand for themselves, every other
// octet is %XX: two uplinks never share a file, and no name leaves the directory.
func uplinkFile(kind, uplink string) string {
	var b strings.Builder
	b.WriteString(kind + "-")
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
