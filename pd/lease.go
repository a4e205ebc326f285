package pd

import (
	"net/netip"
	"time"

	"uplinkd/internal/lifetime"
)

// Lease is what servers have granted and told on one uplink, with deadlines. It is a value: Machine returns a new one on
// every change, its slices are never modified. It is what pd/store keeps on disk.
type Lease struct {
	ServerID  DUID              `json:"server_id"`
	Received  time.Time         `json:"received"`            // of the last Reply that granted or extended
	T1        lifetime.Deadline `json:"t1"`                  // Renew from here on: the earliest of all IAs
	T2        lifetime.Deadline `json:"t2"`                  // Rebind from here on
	Prefixes  []LeasedPrefix    `json:"prefixes"`            // sorted by prefix; none whose valid lifetime was over when the lease was made
	Addresses []LeasedAddress   `json:"addresses,omitempty"` // of IA_NA, sorted
	Info
	InfoUntil lifetime.Deadline `json:"info_until,omitzero"`  // Information Refresh Time (§21.23), for stateless clients
	SolMaxRT  uint32            `json:"sol_max_rt,omitempty"` // seconds, 60…86400 (N-60); 0: default. Kept when bindings are gone
	InfMaxRT  uint32            `json:"inf_max_rt,omitempty"`
	Previous  []netip.Prefix    `json:"previous,omitempty"` // held last, when Prefixes is empty: the hint of the next Solicit
	Reconf    *ReconfKey        `json:"reconf,omitempty"`   // Reconfigure Key Authentication Protocol (§20.4)

	// IgnoresRebind is the server that has left Rebind or Confirm unanswered and a Renew after it not
	// (https://github.com/NetworkConfiguration/dhcpcd/issues/35). Kept when bindings are gone.
	IgnoresRebind DUID `json:"ignores_rebind,omitempty"`
}

// ReconfKey is what a server has given for authenticating its Reconfigure messages, and the replay value seen last from
// it (§20.3). It is secret: state files are readable by root only, and it is never shown.
type ReconfKey struct {
	ServerID DUID   `json:"server_id"`
	Key      []byte `json:"key"` // 16 octets
	Replay   uint64 `json:"replay"`
}

// LeasedPrefix is one delegated prefix of a lease.
type LeasedPrefix struct {
	IAID           uint32            `json:"iaid"`
	Prefix         netip.Prefix      `json:"prefix"`
	Exclude        netip.Prefix      `json:"exclude,omitzero"` // RFC 6603
	PreferredUntil lifetime.Deadline `json:"preferred_until"`
	ValidUntil     lifetime.Deadline `json:"valid_until"`

	// Unlisted is set when a Reply grants other prefixes of the same IA and not this one. It is kept until it ends
	// (§18.2.10.1) or is granted again, but the server has turned to the others.
	Unlisted bool `json:"unlisted,omitempty"`
}

// LeasedAddress is one address of an IA_NA. It is a /128: nothing is on-link because of it (§18.2.10.1).
type LeasedAddress struct {
	IAID           uint32            `json:"iaid"`
	Address        netip.Addr        `json:"address"`
	PreferredUntil lifetime.Deadline `json:"preferred_until"`
	ValidUntil     lifetime.Deadline `json:"valid_until"`
}

// ValidUntil is the latest end of any prefix; the zero Deadline without prefixes.
func (l Lease) ValidUntil() (d lifetime.Deadline) {
	for _, p := range l.Prefixes {
		d = lifetime.Max(d, p.ValidUntil)
	}
	return d
}

// Held reports whether l has a prefix or an address.
func (l Lease) Held() bool { return len(l.Prefixes)+len(l.Addresses) > 0 }

// At returns l as it stands at now: prefixes and addresses whose valid lifetime is over are gone.
func (l Lease) At(now time.Time) Lease {
	prefixes := make([]LeasedPrefix, 0, len(l.Prefixes))
	for _, p := range l.Prefixes {
		if !p.ValidUntil.Over(now) {
			prefixes = append(prefixes, p)
		}
	}
	var addresses []LeasedAddress
	for _, a := range l.Addresses {
		if !a.ValidUntil.Over(now) {
			addresses = append(addresses, a)
		}
	}
	l.Prefixes, l.Addresses = prefixes, addresses
	return l
}
