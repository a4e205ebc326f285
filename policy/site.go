package policy

import (
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// World is the snapshot of facts that planning starts from.
type World struct {
	Now       time.Time
	Links     map[string]kernel.Link // by name
	Uplinks   map[string]UplinkFacts // by uplink name; an absent one has not reported
	Borrowers []Borrower             // in any order; those that are over are left out of account
	ULA       netip.Prefix           // generated or configured; zero: none
	Secret    []byte                 // of this router, for opaque host parts (RFC 7217)
	Filtered  bool                   // there is a filter for what comes in
}

// UplinkFacts is what is known of one uplink.
type UplinkFacts struct {
	Reported    bool      // the DHCPv6 client has a lease, has asked in vain for a while, or has no link
	Delegations []Granted // sorted by prefix
	Addresses   []Leased  // by IA_NA, sorted
	Told        pd.Info   // by DHCPv6, besides bindings
	Heard       Heard     // in RAs
}

// Heard is what routers on an uplink advertise and what still holds of it; package radv has checked and bounded it.
type Heard struct {
	Routers        []Router // default routers, best first
	Managed, Other bool     // M and O flags of any router (RFC 4861 §4.2)
	DNS            []netip.Addr
	Search         []string
	PREF64         []PREF64
	CaptivePortal  string // URI (RFC 8910)
}

// PREF64 is a prefix that a NAT64 translates from (RFC 8781), of length 32, 40, 48, 56, 64 or 96.
type PREF64 struct {
	Prefix netip.Prefix      `json:"prefix"`
	Until  lifetime.Deadline `json:"until"`
}

// Told is what a provider tells besides prefixes, addresses and routers, by DHCPv6 and in RAs together. Where both tell the
// same thing, DHCPv6 comes first.
type Told struct {
	pd.Info
	PREF64 []PREF64 `json:"pref64,omitempty"`
}

// Granted is a prefix that a server delegated.
type Granted struct {
	Prefix                     netip.Prefix
	Exclude                    netip.Prefix // of Prefix, for the link to the provider (RFC 6603); zero: nothing
	PreferredUntil, ValidUntil lifetime.Deadline
	Unlisted                   bool // the server's last Reply grants others in its place and does not mention it
}

// Leased is an address that a server leased to the router itself (IA_NA). Nothing is on-link because of it.
type Leased struct {
	Address        netip.Addr        `json:"address"`
	PreferredUntil lifetime.Deadline `json:"preferred_until"`
	ValidUntil     lifetime.Deadline `json:"valid_until"`
}

// Router is a default router learnt from an RA on an uplink.
type Router struct {
	Address netip.Addr // link-local
	Until   lifetime.Deadline
}

// State is the renumbering state of a delegation while it is on the site. The states before and after, new and expired,
// are the events prefix.new and prefix.lost; what is left of an expired delegation is its stale announcement.
type State string

// A delegation goes through these in this order; every consumer follows.
const (
	Preferred  State = "preferred"
	Deprecated State = "deprecated" // preferred lifetime over: no new connections
)

// Site is the whole plan as a value.
type Site struct {
	Now         time.Time       `json:"now"`
	Uplinks     []Uplink        `json:"uplinks"`     // in the order of the config
	Downstreams []Downstream    `json:"downstreams"` // in the order of the config
	ULA         netip.Prefix    `json:"ula,omitzero"`
	Rules       config.RuleBase `json:"-"`
	AnyIPTable  uint32          `json:"-"` // of services by interface or mark
	OnLink      []netip.Prefix  `json:"-"` // on interfaces, whoever put them there: not for services by interface or mark; sorted
}

// Downstream is the downstream of that name, or the zero value.
func (s Site) Downstream(name string) Downstream {
	i := slices.IndexFunc(s.Downstreams, func(d Downstream) bool { return d.Name == name })
	if i < 0 {
		return Downstream{}
	}
	return s.Downstreams[i]
}

// Uplink is one way to the Internet.
type Uplink struct {
	Name         string            `json:"name"`
	Interface    string            `json:"interface"`
	Number       uint32            `json:"number"` // u: its table is TableBase+u; stable, from the ledger
	Table        uint32            `json:"table"`
	Metric       uint32            `json:"metric"`
	Up           bool              `json:"up"`                  // link up, with carrier and a default router
	Reason       string            `json:"reason"`              // why it is not up, in words: "no carrier"; "" when up
	Present      bool              `json:"present"`             // the interface exists
	Link         bool              `json:"link"`                // the interface exists and is administratively up
	PD           bool              `json:"pd"`                  // asks for prefixes
	Addresses    []netip.Addr      `json:"addresses,omitempty"` // the router's own on the uplink's interface, of any origin
	OnLink       []netip.Prefix    `json:"-"`                   // where the kernel believes neighbours on the uplink's link; sorted
	OnLinkMetric uint32            `json:"-"`                   // the best one of its routes to them
	Crowded      bool              `json:"-"`                   // there may be more of them than are looked at
	Leased       []Leased          `json:"leased,omitempty"`    // those of them that come from DHCPv6
	Loopback     []Internal        `json:"loopback,omitempty"`  // addresses on lo out of the delegations (RFC 7084 WAA-7), sorted
	Gateway      netip.Addr        `json:"gateway,omitzero"`
	GatewayUntil lifetime.Deadline `json:"gateway_until,omitzero"`
	Delegations  []Delegation      `json:"delegations"`         // sorted by prefix
	Withdrawn    []HeldRecord      `json:"withdrawn,omitempty"` // delegations taken back before their time, while they may still be routed here; sorted
	Told         Told              `json:"told,omitzero"`
	Config       string            `json:"config"` // "uplink.fiber (uplinkd.toml:1)"
}

// Delegation is one prefix on an uplink.
type Delegation struct {
	Prefix         netip.Prefix      `json:"prefix"`
	Exclude        netip.Prefix      `json:"exclude,omitzero"` // not for downstreams
	PreferredUntil lifetime.Deadline `json:"preferred_until"`
	ValidUntil     lifetime.Deadline `json:"valid_until"`
	State          State             `json:"state"`
}

// Internal is an address of the router itself out of a delegation, on no link.
type Internal struct {
	Delegation     netip.Prefix      `json:"delegation"`
	Address        netip.Prefix      `json:"address"` // a /128
	PreferredUntil lifetime.Deadline `json:"preferred_until"`
	ValidUntil     lifetime.Deadline `json:"valid_until"`
}

// Downstream is a use of delegations.
type Downstream struct {
	Name       string        `json:"name"`
	Interface  string        `json:"interface"`
	Kind       string        `json:"kind"`
	Link       bool          `json:"link"`                  // the interface exists and is administratively up; a service by subnet needs none
	Via        netip.Addr    `json:"via,omitzero"`          // of a transit: the inner router that all of it is routed to
	Subnets    []Subnet      `json:"subnets"`               // sorted
	Loans      []Loan        `json:"loans,omitempty"`       // sorted by prefix
	StaleLoans []LoanRecord  `json:"stale_loans,omitempty"` // lent before: to be told with lifetimes 0; sorted
	Stale      []StalePrefix `json:"stale,omitempty"`       // sorted
	Dead       []DeadSource  `json:"dead,omitempty"`        // sorted
	AnyIP      AnyIP         `json:"anyip,omitzero"`        // of a service
	Announce   Announcement  `json:"announce"`
	Config     string        `json:"config"`
}

// AnyIP is how packets find a service.
type AnyIP struct {
	Mode     string   `json:"mode"`           // "subnet", "interface" or "mark"
	Armed    bool     `json:"armed"`          // by interface or mark: the rule is wanted
	Mark     uint32   `json:"mark,omitempty"` // by mark
	Ports    []string `json:"ports,omitempty"`
	Nonlocal bool     `json:"nonlocal_bind,omitempty"`
}

// Subnet is what one downstream gets of one delegation.
type Subnet struct {
	Downstream     string            `json:"downstream"`
	Interface      string            `json:"interface"`      // of the downstream
	Kind           string            `json:"kind,omitempty"` // of the downstream; "" for access
	Uplink         string            `json:"uplink"`         // "": part of the ULA prefix
	Delegation     netip.Prefix      `json:"delegation"`
	ID             uint64            `json:"id"`
	Prefix         netip.Prefix      `json:"prefix"`
	Address        netip.Prefix      `json:"address,omitzero"` // the router's own, with the subnet's length; zero: none
	PreferredUntil lifetime.Deadline `json:"preferred_until"`
	ValidUntil     lifetime.Deadline `json:"valid_until"`
	State          State             `json:"state"`
}

// Announcement is what a downstream's router advertisements say, with deadlines; radv turns it into bytes.
type Announcement struct {
	Send           bool              `json:"send"`
	Router         bool              `json:"router"`          // be a default router (RFC 7084 G-4: only with a way out)
	RouterLifetime time.Duration     `json:"router_lifetime"` // while Router
	MinInterval    time.Duration     `json:"min_interval"`
	MaxInterval    time.Duration     `json:"max_interval"`
	MTU            uint32            `json:"mtu,omitempty"`
	Prefixes       []AnnouncedPrefix `json:"prefixes"` // current ones, then stale ones; each group sorted
	DNS            []netip.Addr      `json:"dns,omitempty"`
	Search         []string          `json:"search,omitempty"`
	PREF64         []PREF64          `json:"pref64,omitempty"`
	CaptivePortal  string            `json:"captive_portal,omitempty"`
	Preference     string            `json:"preference,omitempty"`     // RFC 4191 §2.2: "low", "high"; "" or "medium"
	Routes         []AnnouncedRoute  `json:"routes,omitempty"`         // sorted; what is stale among them has lifetime 0
	Other          bool              `json:"other,omitempty"`          // O flag: DHCPv6 has more to tell
	Resolvers      []pd.Resolver     `json:"resolvers,omitempty"`      // with encrypted protocols (RFC 9463)
	Managed        bool              `json:"managed,omitempty"`        // M flag: somebody leases addresses by DHCPv6
	NotOnLink      bool              `json:"not_on_link,omitempty"`    // no L flag of prefixes that are not stale
	NotAutonomous  bool              `json:"not_autonomous,omitempty"` // likewise no A flag
}

// AnnouncedPrefix is one Prefix Information option. Caps bound what is sent: min(cap, what is left of the deadline).
type AnnouncedPrefix struct {
	Prefix                     netip.Prefix `json:"prefix"`
	PreferredUntil, ValidUntil lifetime.Deadline
	PreferredCap, ValidCap     time.Duration
	Stale                      bool `json:"stale"` // lifetimes 0/0 (RFC 9096 §3.5), whatever the deadlines say
}

// Problem is a finding of planning.
type Problem struct {
	Path    string `json:"path"`    // of the config: "downstream.lan"
	Code    string `json:"code"`    // stable, for programs: "delegation-too-short"
	Message string `json:"message"` // for people: what, on which object, what to do

	uplink     string // of the delegation that it is about, while planning
	deprecated bool   // that delegation
}

// Ledger is what planning must remember across restarts. It is a value: Plan returns the next one. The engine keeps it
// on disk; "written before used" holds for Announced, the rest can be recomputed.
type Ledger struct {
	Uplinks   map[string]uint32            `json:"uplinks"`   // uplink name → number u
	Subnets   map[string]uint64            `json:"subnets"`   // downstream name → subnet id last used
	Had       map[string][]netip.Prefix    `json:"had"`       // downstream name → its subnets of all delegations
	Holds     map[string][]HeldRecord      `json:"held"`      // uplink name → delegations in use, which nobody else gets, and those withdrawn
	Loopback  map[string][]netip.Prefix    `json:"loopback"`  // uplink name → parts of delegations out of which lo has an address
	Announced map[string][]AnnouncedRecord `json:"announced"` // downstream name → prefixes that hosts may still use
	Loans     map[string][]LoanRecord      `json:"loans"`     // downstream name → prefixes that inner routers may still use
	Places    map[string][]Place           `json:"places"`    // downstream name → where its borrowers are in every delegation

	// Duplicates are opaque addresses (RFC 7217) by downstream name that somebody else on the link turned out to have: the next
	// one is tried for as long as these are remembered.
	Duplicates map[string][]netip.Addr `json:"duplicates,omitempty"`
}

// HeldRecord is a delegation of an uplink. While it is in use, Until is Forever; once it has been taken back before its time,
// it is the moment until which the provider may still route it here, for all that the router was told.
type HeldRecord struct {
	Prefix netip.Prefix      `json:"prefix"`
	Valid  lifetime.Deadline `json:"valid"` // as the lease said last
	Until  lifetime.Deadline `json:"until"`
}

// AnnouncedRecord is a prefix that was announced on a downstream. While it is current, Until is Forever; from the plan
// on in which it is not, Until is the moment by which no host can hold it any more. Until then it is announced with
// lifetimes 0 (RFC 9096 §3.5), also after a restart.
type AnnouncedRecord struct {
	Prefix    netip.Prefix      `json:"prefix"`
	Interface string            `json:"interface,omitempty"` // on which; "" from older versions: that of the downstream
	Valid     lifetime.Deadline `json:"valid,omitzero"`      // until when hosts were last told that it is, at most; zero: not known
	Until     lifetime.Deadline `json:"until"`
}

// toldValid is the Valid of a record of what is told to be valid until valid, and was until before: hosts keep to the longer
// one where it leaves them no more than two hours (RFC 4862 §5.5.3 e), and longest is less in every sensible config.
func toldValid(valid, before lifetime.Deadline, now time.Time, longest time.Duration) lifetime.Deadline {
	return lifetime.Max(valid, lifetime.Min(before, lifetime.Until(now.Add(longest))))
}

// heldUntil is the Until of a record of what is told no more from now on.
func heldUntil(valid lifetime.Deadline, now time.Time, longest time.Duration) lifetime.Deadline {
	until := lifetime.Until(now.Add(longest))
	if valid.IsZero() {
		return until
	}
	return lifetime.Min(valid, until)
}

// maxStale bounds the stale prefixes kept per downstream: an RA has to fit into 1280 octets beside the current ones.
const maxStale = 16

// Event is a semantic change of the site. Kind is one of the Event* constants.
type Event struct {
	Kind      string       `json:"event"`
	Uplink    string       `json:"uplink,omitempty"`
	Interface string       `json:"interface,omitempty"` // of the uplink
	Prefix    netip.Prefix `json:"prefix,omitzero"`     // the delegation
	OldPrefix netip.Prefix `json:"old_prefix,omitzero"` // prefix.changed: the one that is replaced
	Preferred uint32       `json:"preferred,omitempty"` // seconds left, 4294967295 for ever
	Valid     uint32       `json:"valid,omitempty"`     // seconds left
	Subnets   []Subnet     `json:"subnets,omitempty"`   // of the delegation, one per downstream
	Gateway   netip.Addr   `json:"gateway,omitzero"`
	Told      *Told        `json:"told,omitempty"` // by the uplink's provider, as of now; nil when it is not there any more
}

// Event kinds, in the order in which one change of the site reports them.
const (
	UplinkUp         = "uplink.up"
	UplinkInformed   = "uplink.informed"   // what the provider tells besides prefixes (Told) is another
	PrefixNew        = "prefix.new"        // a delegation is in use for the first time
	PrefixRestored   = "prefix.restored"   // a deprecated or lost one is preferred again
	PrefixChanged    = "prefix.changed"    // renumbering: Prefix came while OldPrefix was deprecated or lost; besides new and lost
	SubnetNew        = "subnet.new"        // a downstream has got a part of a delegation that was there before; Subnets has only that one
	SubnetLost       = "subnet.lost"       // and the other way round
	PrefixDeprecated = "prefix.deprecated" // its preferred lifetime is over
	PrefixLost       = "prefix.lost"       // its valid lifetime is over or it was withdrawn
	UplinkDown       = "uplink.down"
)
