package store

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"uplinkd/pd"
)

const (
	identityVersion = 1
	iaidVersion     = 1
)

// Identity is by which DUIDs a provider has known an uplink that has had one of its own.
type Identity struct {
	Used pd.DUID             `json:"used"` // the last one, whatever its kind
	Made map[string]MadeDUID `json:"made"` // by kind: those of a kind for which there is one come back when the config does
}

// MadeDUID is a DUID that was made for one uplink.
type MadeDUID struct {
	DUID    pd.DUID `json:"duid"`
	InPlace bool    `json:"in_place,omitempty"` // it is of another kind, since the interface had no hardware address
}

// Identity returns what is on disk for an uplink, the zero Identity if there is nothing. After ErrCorrupt it is zero too.
func (d *Dir) Identity(uplink string) (Identity, error) {
	var id Identity
	name := uplinkFile("duid", uplink)
	switch err := d.ReadJSON(name, identityVersion, &id); {
	case errors.Is(err, fs.ErrNotExist):
		return Identity{}, nil
	case err != nil:
		return Identity{}, err
	}
	if !id.Used.Valid() {
		return Identity{}, d.corrupt(name, fmt.Errorf("used: DUID of %d octets, want 3 to 130", len(id.Used)))
	}
	for _, kind := range slices.Sorted(maps.Keys(id.Made)) {
		if n := len(id.Made[kind].DUID); !id.Made[kind].DUID.Valid() {
			return Identity{}, d.corrupt(name, fmt.Errorf("made as %q: DUID of %d octets, want 3 to 130", kind, n))
		}
	}
	return id, nil
}

// SaveIdentity makes id that of an uplink.
func (d *Dir) SaveIdentity(uplink string, id Identity) error {
	return d.WriteJSON(uplinkFile("duid", uplink), identityVersion, id)
}

// IAIDs are those by which a provider has known another client on the interface of an uplink.
type IAIDs struct {
	Prefixes []uint32 `json:"prefixes,omitempty"` // of IA_PDs, in the order of dhcpv6.prefixes
	Address  *uint32  `json:"address,omitempty"`  // of the IA_NA
}

// IAIDs returns what was imported for an uplink, nothing if nothing was. After ErrCorrupt it is nothing too.
func (d *Dir) IAIDs(uplink string) (IAIDs, error) {
	var ids IAIDs
	err := d.ReadJSON(uplinkFile("iaid", uplink), iaidVersion, &ids)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return IAIDs{}, nil
	case err != nil:
		return IAIDs{}, err
	}
	return ids, nil
}

// SaveIAIDs makes ids those that were imported for an uplink.
func (d *Dir) SaveIAIDs(uplink string, ids IAIDs) error {
	return d.WriteJSON(uplinkFile("iaid", uplink), iaidVersion, ids)
}
