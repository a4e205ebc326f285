package pd

import "net/netip"

// Config is what a Machine needs to know of its uplink. It never changes in the life of a Machine.
type Config struct {
	ClientID    DUID
	PDs         []PDConfig // IA_PDs to ask for; none: no delegation is wanted
	NA          *NAConfig  // IA_NA to ask for; nil: none
	Stateless   bool       // without bindings to ask for, or while servers grant none: Information-request (§18.2.6)
	RapidCommit bool       // ask for the two-message exchange
	Reconfigure bool       // send Reconfigure Accept (§21.20)
	Delay       bool       // random delay of 0 … 1 s before the first Solicit or Rebind on a link (RFC 9915 §18.2.1). Confirm and Information-request always have it
	Prefer      Preference // how to choose among servers
	ORO         []uint16   // options to ask for besides those that the machine asks for itself
	UserClass   [][]byte   // sent in every message that may have it
	VendorClass []VendorClass
	Extra       []Option // raw options from the config, likewise; never one of those the machine sends itself
}

// PDConfig is one IA_PD.
type PDConfig struct {
	IAID     uint32       // stable for the uplink and the place in the config; unique
	Length   uint8        // prefix length hint, 0: none
	Prefix   netip.Prefix // prefix hint; invalid: the one held before, if any
	Min, Max uint8        // accepted lengths; 0: any. What lies outside is as if it had not been offered, and reported
}

// NAConfig is the IA_NA.
type NAConfig struct {
	IAID     uint32
	Required bool // without an address no offer is good enough; else an IA_NA failure never costs the prefix
}

// Preference is how to choose among Advertises that arrive in the first RT (§18.2.9 allows a client to prefer the better set
// of bindings to the higher preference). Whichever it is, an Advertise without a prefix comes after those with one, when a
// prefix is wanted.
type Preference string

// The preferences.
const (
	PreferPreference Preference = ""        // highest preference option, then most IAs served, then shortest prefix
	PreferShortest   Preference = "largest" // the largest delegation, then preference; 255 does not end the wait
	PreferHint       Preference = "hint"    // what was held before or is hinted at, then preference; 255 ends the wait only with that
)

// wanted are the IAs to ask for.
func (c Config) wanted() []ia {
	ias := make([]ia, 0, len(c.PDs)+1)
	for _, p := range c.PDs {
		ias = append(ias, ia{id: p.IAID})
	}
	if c.NA != nil {
		ias = append(ias, ia{na: true, id: c.NA.IAID})
	}
	return ias
}

// accepts reports whether a prefix of that length is good enough for i.
func (c Config) accepts(i ia, bits int) bool {
	if i.na {
		return true
	}
	for _, p := range c.PDs {
		if p.IAID == i.id {
			return bits >= int(p.Min) && (p.Max == 0 || bits <= int(p.Max))
		}
	}
	return false
}
