// Package config turns TOML text into a typed, immutable Config with all defaults filled in, or into errors that name
// file, line, column and the fix. It reads no files and knows no kernel: callers hand it text.
package config

import (
	"fmt"
	"net/netip"
	"time"
)

// Config is the whole configuration. It is never modified after Parse.
type Config struct {
	StateDir    string       // leases, DUID, ledger; default /var/lib/uplinkd
	RunDir      string       // control socket; default /run/uplinkd
	TableBase   uint32       // routing table of uplink u is TableBase+u, that of services by interface or mark TableBase; default 1000
	RuleBase    RuleBase     // priorities of the routing rules
	ULA         ULA          // a local prefix beside the delegated ones
	Uplinks     []Uplink     // in the order of the file
	Downstreams []Downstream // in the order of the file
	Hooks       []Hook       // in the order of the file
}

// RuleBase holds the priorities of uplinkd's routing rules (ip-rule(8) "pref"); see facts on multihoming for who else
// uses which range. Each may be set in the config's [rules] section.
type RuleBase struct {
	AnyIP     uint32 // rules.anyip, default 500: iif INTERFACE or fwmark MARK lookup TableBase, for services by interface or mark
	Main      uint32 // rules.main, default 1000: from all lookup main suppress_prefixlength 0
	OIF       uint32 // rules.oif, default 9000: +u: oif UPLINK lookup TABLE
	From      uint32 // rules.from, default 10000: +u: from DELEGATION lookup TABLE
	Withdrawn uint32 // rules.withdrawn, default 12000: +u: from DELEGATION unreachable
	Strict    uint32 // rules.strict, default 19999: from 2000::/3 and fc00::/7 iif DOWNSTREAM unreachable
	OnLink    uint32 // rules.onlink, default 20000: to PREFIX ON AN UPLINK'S LINK lookup TABLE
}

// Position is where a section or key stands, for messages: "uplinkd.toml:3:1". Line and column count from 1.
type Position struct {
	File         string
	Line, Column int
}

// Uplink is a section [uplink.NAME].
type Uplink struct {
	Name      string
	Interface string
	Metric    uint32 // of its default routes; lower wins; default 1000, 1 … 4294967294: ahead of the kernel's RA routes (1024) and not equal to them, which main could not hold twice
	Profile   string // profile: name of a set of defaults for dhcpv6.*, made for one provider; "": none. Keys in the file win
	DHCPv6    DHCPv6
	Pos       Position
}

// DHCPv6 are the keys dhcpv6.* of an uplink.
type DHCPv6 struct {
	Prefixes    []PrefixWish  // dhcpv6.prefixes: an IA_PD each; default one without wishes; empty list: none
	Address     AddressMode   // dhcpv6.address, default "auto": the router's own address by IA_NA
	Information bool          // dhcpv6.information, default true: Information-request where servers grant no bindings
	RapidCommit bool          // dhcpv6.rapid_commit, default true: ask for the two-message exchange; servers that do not offer it ignore the wish
	Reconfigure bool          // dhcpv6.reconfigure, default true: accept authenticated Reconfigure messages (RFC 9915 §20.4)
	Release     bool          // dhcpv6.release, default false: Release on stop (RFC 9096 WPD-9: should not)
	Delay       bool          // dhcpv6.delay, default true: random delay of up to 1 s before the first Solicit (RFC 9915 §18.2.1, SHOULD)
	ReportAfter time.Duration // dhcpv6.report_after, default 15s: an uplink that has not answered by then no longer holds back the removal of what belongs to nobody
	Prefer      string        // dhcpv6.prefer: "preference" (default), "largest" or "hint": how to choose among servers
	Start       StartMode     // dhcpv6.start, default "link": when to begin
	DUID        string        // dhcpv6.duid, default "auto": the router's own, shared by all uplinks; "llt", "ll", "uuid", "en:32473": one of that kind for this uplink, made once and kept; "0x0003…": these octets
	IAID        *uint32       // dhcpv6.iaid: of the first IA_PD and of the IA_NA; nil: what was imported, else derived from the uplink's name
	Auth        []byte        // dhcpv6.auth: content of an Authentication option (§21.11) to send in every message; nil: none
	Request     []uint16      // dhcpv6.request: further option codes to ask for, 1 … 65535, not those that clients must not name (§21.7)
	Options     []RawOption   // dhcpv6.options: options to send as they are
	UserClass   [][]byte      // dhcpv6.user_class: strings, or "0x…" for octets
	VendorClass []VendorClass // dhcpv6.vendor_class
	DSCP        uint8         // dhcpv6.dscp, 0 … 63, default 0
	Priority    int           // dhcpv6.priority, 0 … 7, default 0: SO_PRIORITY, which a VLAN's egress-qos-map maps to 802.1p
}

// PrefixWish is an entry of dhcpv6.prefixes. dhcpv6.length = N is short for a list with the one entry {length = N}.
type PrefixWish struct {
	Length   uint8        // length: hint, 0 (none) or 1 … 64
	Prefix   netip.Prefix // prefix: hint; zero: the one held before
	Min, Max uint8        // min, max: lengths to accept, 0: any
	IAID     *uint32      // iaid; nil: as for DHCPv6.IAID, derived also from the place in the list
}

// StartMode says what must have been heard before DHCPv6 begins on an uplink (RFC 7084 WPD-4 leaves open what to do
// without RAs). It matters once per link: what has begun goes on.
type StartMode string

// The start modes.
const (
	StartLink StartMode = "link"  // nothing
	StartRA   StartMode = "ra"    // any router advertisement
	StartRAMO StartMode = "ra-mo" // one with the M or O flag, or a prefix with the P flag (RFC 9762)
)

// AddressMode says whether to ask for an IA_NA.
type AddressMode string

// The address modes.
const (
	AddressAuto   AddressMode = "auto"   // ask; do without if the server has none
	AddressAlways AddressMode = "always" // an offer without an address is not good enough
	AddressNever  AddressMode = "never"  // do not ask
)

// RawOption is an entry of dhcpv6.options: { code = 17, hex = "0000…" }. Options that the client sends itself are refused.
type RawOption struct {
	Code uint16
	Data []byte
}

// VendorClass is an entry of dhcpv6.vendor_class: { enterprise = 1038, data = ["sagem"] }.
type VendorClass struct {
	Enterprise uint32
	Data       [][]byte
}

// ULA is the key ula: "off" (default, the zero ULA), "auto" or a prefix of fd00::/8, /48 to /64 (RFC 4193).
type ULA struct {
	Auto   bool         // one generated at the first start and kept in the state directory
	Prefix netip.Prefix // as configured
}

// Kind is the use of a subnet.
type Kind string

// The kinds.
const (
	Access  Kind = "access"  // hosts sit on it: address, on-link route, RA
	Transit Kind = "transit" // routed to an inner router
	Service Kind = "service" // AnyIP: all of it is local
	Reserve Kind = "reserve" // kept unreachable
)

// Downstream is a section [downstream.NAME].
type Downstream struct {
	Name      string
	Interface string     // required for access, transit, a service by interface and one by mark with ports; "" else
	Kind      Kind       // default access
	From      []string   // uplink names; empty or "*" in the file: all uplinks. A single string is accepted too
	Subnet    int64      // explicit subnet id (5, 0x5), or AutoSubnet ("auto"), HashSubnet ("hash"), VLANSubnet ("vlan")
	Length    uint8      // prefix length of the subnet, default 64, 1 … 128; RA is only sent for 64
	Host      HostMode   // address: how the router's own address is made; HostFixed with a host part; HostNone for service and reserve
	Address   netip.Addr // address: host part with HostFixed, zero else; default of access ::1 (:: for length 128)
	Via       netip.Addr // via: of a transit, the inner router's link-local address; zero ("dhcpv6"): inner routers ask for parts of the subnet
	RA        RA         // access; of a transit without via only Enabled counts; the zero RA else
	DHCPv6    Server     // access, and transit without via; the zero Server else
	AnyIP     AnyIP      // service; the zero AnyIP else
	Pos       Position
}

// HasSubnet reports whether d wants a subnet of its own. A service by interface or mark takes what no other use has: its
// From, Subnet and Length cannot be set and mean nothing.
func (d Downstream) HasSubnet() bool {
	return d.Kind != Service || d.AnyIP.Mode == AnyIPSubnet
}

// What Downstream.Subnet is when it is no id.
const (
	AutoSubnet = -1 // the planner chooses the lowest free one and keeps it
	HashSubnet = -2 // from the downstream's name: the same on every router that has it; the next free one if it is taken
	VLANSubnet = -3 // the VLAN id of the interface; access and transit only
)

// HostMode is how a router's own address in a subnet is made.
type HostMode string

// The host modes.
const (
	HostFixed  HostMode = ""       // Downstream.Address
	HostEUI64  HostMode = "eui64"  // from the interface's MAC address (RFC 4291 appendix A); length 64 or shorter
	HostStable HostMode = "stable" // opaque, from a secret of the state directory (RFC 7217); length 64 or shorter
	HostNone   HostMode = "none"   // none: default of transit, not for access
)

// Server are the keys dhcpv6.* of a downstream: what its DHCPv6 server gives to hosts and inner routers. dhcpv6 = "off" is
// short for dhcpv6.enabled = false. An inner router gets Shortest … 64, and of a transit no more than its subnet.
type Server struct {
	Enabled  bool  // dhcpv6.enabled, default true
	Delegate bool  // dhcpv6.delegate, default true: prefixes for inner routers (RFC 9818); else stateless answers only
	Length   uint8 // dhcpv6.length, default 64: of what an inner router gets that names no length
	Shortest uint8 // dhcpv6.shortest: the largest that one may ask for; default of access 60 or Length, of transit its Downstream.Length
}

// AnyIPMode is which packets are a service's.
type AnyIPMode string

// The modes of a service.
const (
	AnyIPSubnet    AnyIPMode = "subnet"    // those to its subnet
	AnyIPInterface AnyIPMode = "interface" // what arrives on its interface for an address that no other use has
	AnyIPMark      AnyIPMode = "mark"      // likewise, on any interface, what has a mark; uplinkd sets it for the ports, if any are given
)

// AnyIP are the keys anyip.* of a service.
type AnyIP struct {
	Mode       AnyIPMode // anyip.mode, default "subnet"
	Mark       uint32    // anyip.mark: with mode "mark", default 0x40, no bit in those of two services; 0 with other modes
	Ports      []Port    // anyip.ports: ["tcp/80", "udp/53"]; with mode "mark": mark what arrives for these ports on Interface
	Nonlocal   bool      // anyip.nonlocal_bind, default false: sysctl net.ipv6.ip_nonlocal_bind, so that programs can bind to any address
	Unfiltered bool      // anyip.unfiltered, default false: with mode "interface": arm on an uplink's interface without an inbound filter, too
}

// Port is a transport protocol, "tcp" or "udp", and a port.
type Port struct {
	Protocol string
	Number   uint16
}

// String returns the port as in the file: "tcp/80".
func (p Port) String() string { return fmt.Sprintf("%s/%d", p.Protocol, p.Number) }

// RA are the keys ra.* of an access downstream; ra = "off" is short for ra.enabled = false. Names and defaults follow
// RFC 4861 §6.2.1 and RFC 9096.
type RA struct {
	Enabled           bool          // ra.enabled, default true
	MaxInterval       time.Duration // ra.max_interval: MaxRtrAdvInterval, default 600s, 4s … 1800s
	MinInterval       time.Duration // ra.min_interval: MinRtrAdvInterval, default max_interval/3, at least 3s, at most 0.75*max_interval
	RouterLifetime    time.Duration // ra.router_lifetime, default 1800s, 0 or max_interval … 9000s
	PreferredLifetime time.Duration // ra.preferred_lifetime: cap, default 2700s (RFC 9096 ND_PREFERRED_LIMIT)
	ValidLifetime     time.Duration // ra.valid_lifetime: cap, default 5400s (ND_VALID_LIMIT)
	DNS               []netip.Addr  // ra.dns: RDNSS to announce instead of the lease's; none ("auto"): the lease's
	MTU               uint32        // ra.mtu, 0: none; 1280 … 65535
	Preference        string        // ra.preference: "low", "medium" (default) or "high" (RFC 4191): among routers on the link
	Routes            bool          // ra.routes, default true: routes to the delegations and the ULA prefix (RFC 4191, RFC 7084 L-3)
	Autonomous        bool          // ra.autonomous, default true: AdvAutonomousFlag, the A flag of prefixes
	OnLink            bool          // ra.on_link, default true: AdvOnLinkFlag, their L flag
	Managed           bool          // ra.managed, default false: AdvManagedFlag, the M flag
}

// Hook is a section [hook.NAME].
type Hook struct {
	Name    string
	Run     []string      // run: path and arguments, a string is one path; no shell
	Dialect string        // dialect, default "uplinkd"; the only one yet
	On      []string      // on: event patterns such as "prefix.new", "prefix.*", "*"; default ["*"]
	Timeout time.Duration // timeout, default 30s, 100ms … 10m
	Pos     Position
}
