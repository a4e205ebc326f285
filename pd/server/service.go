package server

import (
	"cmp"
	"slices"

	"uplinkd/pd"
)

// Mode is how much a Server does.
type Mode uint8

// The modes. A downstream that is to delegate no more goes on as Stateless until what was lent is over: so its clients hear
// of it.
const (
	Off        Mode = iota // no socket
	Stateless              // Information-requests; the Lender is asked only about what was lent before
	Delegating             // prefixes, and all that Stateless does
)

// Service is what a downstream offers. The zero Service offers nothing.
type Service struct {
	Mode Mode

	// Info is told to those who ask for it (Option Request). AFTR, S46 and Unknown are not passed on: they are between the
	// provider and its customer's border router.
	pd.Info

	// MaxValid bounds the lifetimes of what is lent, in seconds (RFC 9096 §3.4, also for what is leased on the LAN). It is how
	// long an inner router that does not reach this one may go on using a prefix that is gone. 0: 5400.
	MaxValid uint32

	// Renew is after how many seconds at most (T1) an inner router that accepts no Reconfigure has to ask again: that is how
	// long it takes to hear of a renumbering. 0: 120.
	Renew uint32
}

// Limits of lifetimes (RFC 9096 §3.4: ND_PREFERRED_LIMIT and ND_VALID_LIMIT).
const (
	preferredLimit = 2700
	validLimit     = 5400
	irtMinimum     = 600 // RFC 9915 §7.6
	renewLimit     = 120
)

// limits are the bounds of lifetimes, in seconds.
func (s Service) limits() (preferred, valid uint32) {
	valid = cmp.Or(s.MaxValid, validLimit)
	return min(preferredLimit, valid), valid
}

// renew is Renew or its default.
func (s Service) renew() uint32 { return cmp.Or(s.Renew, renewLimit) }

// refresh is the Information Refresh Time to tell.
func (s Service) refresh() uint32 {
	preferred, _ := s.limits()
	return max(preferred, irtMinimum)
}

// told is what of s.Info is asked for by the option codes of oro.
func (s Service) told(oro []uint16) (in pd.Info) {
	asked := func(code uint16) bool { return slices.Contains(oro, code) }
	if asked(pd.OptDNSServers) {
		in.DNS = s.DNS
	}
	if asked(pd.OptDomainList) {
		in.DomainSearch = s.DomainSearch
	}
	if asked(pd.OptSNTPServers) {
		in.SNTP = s.SNTP
	}
	if asked(pd.OptNTPServer) {
		in.NTP, in.NTPNames = s.NTP, s.NTPNames
	}
	if asked(pd.OptCaptivePortal) {
		in.CaptivePortal = s.CaptivePortal
	}
	if asked(pd.OptDNR) {
		in.Resolvers = s.Resolvers
	}
	return in
}
