package pd

import (
	"net/netip"
	"time"

	"uplinkd/internal/lifetime"
)

// Lease is what a server has granted on one uplink, with deadlines. It is a value: Machine returns a new one on every
// change, its slices are never modified. It is what pd/store keeps on disk.
type Lease struct {
	ServerID     DUID              `json:"server_id"`
	IAID         uint32            `json:"iaid"`
	Received     time.Time         `json:"received"` // of the last Reply that granted or extended
	T1           lifetime.Deadline `json:"t1"`       // Renew from here on
	T2           lifetime.Deadline `json:"t2"`       // Rebind from here on
	Prefixes     []LeasedPrefix    `json:"prefixes"` // sorted by prefix; none with a valid lifetime that was over when the lease was made
	DNS          []netip.Addr      `json:"dns,omitempty"`
	DomainSearch []string          `json:"domain_search,omitempty"`
	SolMaxRT     uint32            `json:"sol_max_rt,omitempty"` // seconds, 60…86400 (N-60); 0: default. Kept when prefixes are gone
}

// LeasedPrefix is one delegated prefix of a lease.
type LeasedPrefix struct {
	Prefix         netip.Prefix      `json:"prefix"`
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

// At returns l as it stands at now: prefixes whose valid lifetime is over are gone.
func (l Lease) At(now time.Time) Lease {
	left := make([]LeasedPrefix, 0, len(l.Prefixes))
	for _, p := range l.Prefixes {
		if !p.ValidUntil.Over(now) {
			left = append(left, p)
		}
	}
	l.Prefixes = left
	return l
}
