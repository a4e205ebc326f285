package isp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// Config is what a Provider is like when it behaves. Zero fields have the defaults named here. Lifetimes are seconds as
// on the wire, lifetime.Infinity meaning for ever.
type Config struct {
	Interface string       // in the namespace in which Open is called
	ServerID  pd.DUID      // default 00:02:00:00:7e:d9:00:00:00:01
	Pool      netip.Prefix // delegated prefixes come from here, e.g. 2001:db8:1100::/40; zero: none are delegated
	Length    int          // of delegated prefixes; default 56
	Exclude   int          // of the first sub-prefix of each that clients that know RFC 6603 are told not to use; 0: none

	// Addresses of the link between provider and clients, e.g. 2001:db8:1:1::/64: IA_NAs get one of them, but none of the
	// first 4096, which are left to routers and servers. Zero: none are leased.
	Addresses netip.Prefix

	Preferred, Valid uint32 // default 3000 and 4000
	T1, T2           uint32 // default 0.5 and 0.8 of Preferred

	DNS          []netip.Addr // told when asked for, and in RAs
	DomainSearch []string     // told when asked for, as are the next three
	InfoRefresh  uint32       // Information Refresh Time, in Replies to Information-requests
	SolMaxRT     uint32
	InfMaxRT     uint32
	Preference   uint8
	RapidCommit  bool // agree to the two-message exchange with clients that ask for it

	RA RA

	// Route is told to set (add, or replace) and to delete the route to a delegated prefix through the client's link-local
	// address on Interface. It is called in order, while the Provider is locked: it must not call the Provider.
	Route func(prefix netip.Prefix, via netip.Addr, add bool) error

	// Log takes one line of text for every event, if not nil.
	Log func(format string, args ...any)
}

// RA is what the provider's Router Advertisements say. Everything else in them is up to Provider.InterceptRA.
type RA struct {
	Interval       time.Duration // default 10 s
	RouterLifetime time.Duration // default 3 Intervals
	Prefixes       []RAPrefix
	Unmanaged      bool             // do not set the flags that promise DHCPv6 (M and O)
	Hardware       net.HardwareAddr // source link-layer address; default: that of the interface
	PREF64         []netip.Prefix   // of a NAT64 (RFC 8781), as long as RouterLifetime
	CaptivePortal  string           // URI (RFC 8910)
}

// RAPrefix is a prefix on the link between provider and client, e.g. for a provider that delegates nothing.
type RAPrefix struct {
	Prefix             netip.Prefix
	OnLink, Autonomous bool
	PreferPD           bool // P flag (RFC 9762)
	Preferred, Valid   uint32
}

// defaultServerID is a DUID-EN with the enterprise number for documentation (RFC 5612).
const defaultServerID pd.DUID = "\x00\x02\x00\x00\x7e\xd9\x00\x00\x00\x01"

func (c Config) withDefaults() (Config, error) {
	if c.Interface == "" {
		return c, errors.New("provider: no interface")
	}
	if c.ServerID == "" {
		c.ServerID = defaultServerID
	}
	if !c.ServerID.Valid() {
		return c, fmt.Errorf("provider: server DUID %s: %d octets, want 3 to 130", c.ServerID, len(c.ServerID))
	}
	if c.Length == 0 {
		c.Length = 56
	}
	if err := c.checkPools(); err != nil {
		return c, err
	}
	c.Pool, c.Addresses = c.Pool.Masked(), c.Addresses.Masked()
	setDefault(&c.Preferred, 3000)
	setDefault(&c.Valid, max(4000, c.Preferred))
	if c.Preferred > c.Valid {
		return c, fmt.Errorf("provider: preferred lifetime %d is longer than valid lifetime %d", c.Preferred, c.Valid)
	}
	setDefault(&c.T1, fraction(c.Preferred, 5))
	setDefault(&c.T2, fraction(c.Preferred, 8))
	c.RA = c.RA.withDefaults()
	if c.Route == nil {
		c.Route = func(netip.Prefix, netip.Addr, bool) error { return nil }
	}
	if c.Log == nil {
		c.Log = func(string, ...any) {}
	}
	return c, nil
}

func (r RA) withDefaults() RA {
	if r.Interval <= 0 {
		r.Interval = 10 * time.Second
	}
	if r.RouterLifetime <= 0 {
		r.RouterLifetime = 3 * r.Interval
	}
	return r
}

func setDefault(v *uint32, to uint32) {
	if *v == 0 {
		*v = to
	}
}

// fraction is tenths/10 of a lifetime.
func fraction(seconds, tenths uint32) uint32 {
	if seconds == lifetime.Infinity {
		return lifetime.Infinity
	}
	return uint32(uint64(seconds) * uint64(tenths) / 10)
}

// maxPoolBits bounds a pool to prefixes that can be counted in 32 bits.
const maxPoolBits = 32

// ownAddresses is how many of Config.Addresses are not leased.
const ownAddresses = 4096

func (c Config) checkPools() error {
	if !c.Pool.IsValid() && !c.Addresses.IsValid() {
		return errors.New("provider: neither a pool of prefixes nor addresses")
	}
	if c.Pool.IsValid() {
		if err := checkPool(c.Pool, c.Length); err != nil {
			return err
		}
	}
	if c.Exclude != 0 && (c.Exclude <= c.Length || c.Exclude > 128) {
		return fmt.Errorf("provider: cannot exclude a /%d of a delegated /%d", c.Exclude, c.Length)
	}
	if a := c.Addresses; a.IsValid() && (!a.Addr().Is6() || a.Addr().Is4In6() || a.Bits() > 112) {
		return fmt.Errorf("provider: addresses %s: want an IPv6 prefix of at most 112 bits", a)
	}
	return nil
}

func checkPool(pool netip.Prefix, length int) error {
	if !pool.IsValid() || !pool.Addr().Is6() || pool.Addr().Is4In6() {
		return fmt.Errorf("provider: pool %s is not an IPv6 prefix", pool)
	}
	if bits := length - pool.Bits(); bits < 0 || bits > maxPoolBits || length > 128 {
		return fmt.Errorf("provider: cannot delegate /%d from %s: want a length from %d to %d",
			length, pool, pool.Bits(), min(128, pool.Bits()+maxPoolBits))
	}
	return nil
}
