package policy

import (
	"net/netip"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// Borrower is an inner router's wish for a prefix: one IA_PD of one DHCPv6 client on a downstream. It is a fact of
// planning, and the engine keeps it over restarts.
type Borrower struct {
	Downstream string            `json:"downstream"`
	Client     pd.DUID           `json:"client"`
	IAID       uint32            `json:"iaid"`
	Via        netip.Addr        `json:"via"`               // its link-local address
	Length     uint8             `json:"length"`            // wanted; the planner may give a smaller prefix
	Named      []netip.Prefix    `json:"named,omitempty"`   // by the client: what it has or would like
	Offered    bool              `json:"offered,omitempty"` // it has only been offered something: no route yet
	Until      lifetime.Deadline `json:"until"`             // forgotten then: the end of what it was told last, or of the offer
}

// Loan is what a Borrower gets of one delegation.
type Loan struct {
	Downstream     string            `json:"downstream"`
	Interface      string            `json:"interface"`
	Client         pd.DUID           `json:"client"`
	IAID           uint32            `json:"iaid"`
	Via            netip.Addr        `json:"via"`
	Uplink         string            `json:"uplink,omitempty"` // "": part of the ULA prefix
	Delegation     netip.Prefix      `json:"delegation"`
	Prefix         netip.Prefix      `json:"prefix"`
	PreferredUntil lifetime.Deadline `json:"preferred_until"`
	ValidUntil     lifetime.Deadline `json:"valid_until"`
	State          State             `json:"state"`
	Until          lifetime.Deadline `json:"until"`             // when the inner router, which was told no more, has it at most, or the offer
	Offered        bool              `json:"offered,omitempty"` // no route yet
}

// LoanRecord is a prefix that was lent. While it is current, Until is Forever; from then on it is the moment by which the
// inner router cannot hold it any more. Until then the router is told of it with lifetimes 0 (RFC 9096 §3.5).
type LoanRecord struct {
	Client pd.DUID           `json:"client"`
	IAID   uint32            `json:"iaid"`
	Prefix netip.Prefix      `json:"prefix"`
	Valid  lifetime.Deadline `json:"valid,omitzero"` // until when the inner router was last told that it is, at most; zero: not known
	Until  lifetime.Deadline `json:"until"`
}

// Place is where a borrower's prefixes are: subnet ID of the given length, counted from the start of each delegation, or of
// the transit's subnet of it. It stays for as long as the borrower is there and does not ask for another length.
type Place struct {
	Client pd.DUID `json:"client"`
	IAID   uint32  `json:"iaid"`
	Length uint8   `json:"length"`
	ID     uint64  `json:"id"`

	Prefixes []netip.Prefix `json:"prefixes"` // that it has been lent or offered now: where there was no room at ID, others; sorted
}

// StalePrefix is a prefix that a downstream has no longer while its hosts may still use addresses of it, and that nobody
// else has been given. It stays routed to them, so that what they are told about it finds them.
type StalePrefix struct {
	Prefix netip.Prefix `json:"prefix"`
	Via    netip.Addr   `json:"via,omitzero"` // the inner router that it was lent to; zero: on-link
}

// DeadSource is a prefix that is not routed to this router any more while hosts behind an interface may still use it as a
// source. Who does is told (RFC 7084 L-14): ICMPv6 unreachable, code 5, and a reset for TCP, which takes the former for
// a passing trouble and would hang until its own timeout.
type DeadSource struct {
	Interface string       `json:"interface"`
	Prefix    netip.Prefix `json:"prefix"`
}

// AnnouncedRoute is a Route Information option (RFC 4191 §2.3): what hosts reach through this router whether it is a
// default router or not (RFC 7084 L-3).
type AnnouncedRoute struct {
	Prefix netip.Prefix      `json:"prefix"`
	Until  lifetime.Deadline `json:"until"`
}
