package server

import (
	"context"
	"net/netip"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// Lender decides which prefixes an inner router gets. The daemon's engine implements it.
//
// Lend is called by Server.Run, one call at a time for each downstream; while it lasts the downstream's other clients wait,
// and ctx ends after lendTimeout. After an error the client gets no answer and asks again. Memory and the number of
// prefixes that one client or one link may hold are the Lender's to bound: a client can invent as many DUIDs as it likes.
//
// The loans that it returns are those of the IAs asked for, best first. An IA without a living loan is answered with
// NoPrefixAvail if the client wanted something new, and with NoBinding if it wanted to keep what it named. A prefix of the
// site that the client names and that is not lent to it (any more) should come back as Stale: that the client hears of it
// is what ends its use (RFC 9096 §3.5). Once there is a loan for an IA, what else the client names there counts as Stale.
type Lender interface {
	Lend(ctx context.Context, a Ask) ([]Loan, error)
}

// Verb is what a client wants.
type Verb string

// The verbs.
const (
	// Offer (Solicit): say what Bind would lend. Nothing is bound, and nothing need be kept for the client.
	Offer Verb = "offer"
	// Bind (Request, or Solicit with Rapid Commit): lend. A client that has loans already gets the same ones.
	Bind Verb = "bind"
	// Extend (Renew): the client is one of this server. One that is unknown, after a loss of state, may be lent to as with
	// Bind, preferably what it names (RFC 9915 §18.3.4).
	Extend Verb = "extend"
	// Rebind (Rebind): like Extend, but asked of all servers on the link. One that is unknown and names no prefix of this
	// site is another server's: nothing is to be lent to it, then it gets no answer.
	Rebind Verb = "rebind"
	// Release (Release): end the loans that are named. The loans returned are those that have ended.
	Release Verb = "release"
)

// Ask is a question of an inner router.
type Ask struct {
	Downstream string
	Client     pd.DUID    // opaque, unauthenticated
	Via        netip.Addr // its link-local address, the next hop to what it is lent; without zone
	Verb       Verb
	IAs        []AskedIA // at most maxIAs, each IAID once
}

// AskedIA is an IA_PD of a client.
type AskedIA struct {
	IAID     uint32
	Length   uint8          // prefix length that the client would like, 0: none said (RFC 8168)
	Prefixes []netip.Prefix // named by the client: its own, those it was offered, or on Offer a wish. Masked and delegable
}

// Loan is a prefix for an IA. One IA may have several: one per delegation of the site.
type Loan struct {
	IAID           uint32
	Prefix         netip.Prefix
	PreferredUntil lifetime.Deadline // over: the client should not use it for anything new
	ValidUntil     lifetime.Deadline // never later than that of the delegation it is part of (RFC 9915 §6.3)
	Stale          bool              // was lent and is not any more, or never was: told with lifetimes 0
}
