package ctl

import (
	"net/netip"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/policy"
)

// SchemaVersion is the version of all documents. It changes only when a field goes away or changes its meaning; new
// fields may come at any time.
const SchemaVersion = 1

// Lifetime is until when something holds.
type Lifetime struct {
	Seconds uint32 `json:"seconds"` // left at the time of the document; 4294967295: for ever
	Until   string `json:"until"`   // RFC 3339, "forever", or "over"
}

// lifetimeAt returns what is left of d at now.
func lifetimeAt(d lifetime.Deadline, now time.Time) Lifetime {
	return Lifetime{Seconds: d.Seconds(now), Until: d.String()}
}

// Health is the site in one word, for programs and for the colour of the headline.
type Health string

// The values of Health.
const (
	OK       Health = "ok"        // every uplink and every downstream works and nothing needs attention
	Degraded Health = "degraded"  // there is a prefix in use, and something needs attention
	NoPrefix Health = "no-prefix" // no uplink has a delegation that can be used for new connections
	Starting Health = "starting"  // the kernel has not followed yet
)

// Status is the answer to GET /v1/status: the whole site for people and programs.
type Status struct {
	SchemaVersion int          `json:"schema_version"`
	Time          time.Time    `json:"time"`
	Daemon        string       `json:"daemon"` // version of the daemon
	Health        Health       `json:"health"`
	Summary       string       `json:"summary"` // Health in words
	Uplinks       []Uplink     `json:"uplinks"`
	Downstreams   []Downstream `json:"downstreams"`
	ULA           netip.Prefix `json:"ula,omitzero"` // the local prefix beside the delegated ones
	Problems      []Problem    `json:"problems"`
	Hooks         []HookStatus `json:"hooks"`
	Rows          int          `json:"rows"`                 // kernel objects that uplinkd wants
	Waiting       int          `json:"waiting"`              // withdrawals that wait for uplinks to report
	Tables        []string     `json:"nft_tables,omitempty"` // of the rows, those of nft: "ip6 uplinkd"
	Counters      Counters     `json:"counters"`
}

// Site is the part of a Status that hooks get with an event: uplinks and downstreams after the change.
type Site struct {
	Uplinks     []Uplink     `json:"uplinks"`
	Downstreams []Downstream `json:"downstreams"`
	ULA         netip.Prefix `json:"ula,omitzero"`
}

// Uplink is one way to the Internet.
type Uplink struct {
	Name        string       `json:"name"`
	Interface   string       `json:"interface"`
	Up          bool         `json:"up"`
	Reason      string       `json:"reason,omitempty"` // why it is not up
	Table       uint32       `json:"table"`
	Metric      uint32       `json:"metric"`
	Gateway     netip.Addr   `json:"gateway,omitzero"`
	GatewayLeft *Lifetime    `json:"gateway_lifetime,omitempty"`
	Client      Client6      `json:"client,omitzero"`           // not in what hooks get
	Unasked     bool         `json:"no_prefix_asked,omitempty"` // dhcpv6.prefixes = []
	Delegations []Delegation `json:"delegations"`
	Withdrawn   []Withdrawn  `json:"withdrawn,omitempty"` // over before their time: taken back, or released
	Addresses   []Leased     `json:"addresses,omitempty"` // of the router itself, by DHCPv6
	Loopback    []Leased     `json:"loopback,omitempty"`  // of the router itself on lo, out of the delegations
	DNS         []netip.Addr `json:"dns,omitempty"`
	Search      []string     `json:"search,omitempty"`
	Told        policy.Told  `json:"told,omitzero"` // all that the provider tells by DHCPv6 and in RAs, also DNS and Search
	Config      string       `json:"config"`
}

// Withdrawn is a delegation that was over before its time: the provider has taken it back, or it was released. It may still be
// routed here: until its lease would have ended, what comes for it or has a source in it is refused.
type Withdrawn struct {
	Prefix netip.Prefix `json:"prefix"`
	Until  Lifetime     `json:"until"`
}

// Client6 is the DHCPv6 client of an uplink.
type Client6 struct {
	State    string     `json:"state"` // of the state machine, in words
	Since    *time.Time `json:"since,omitempty"`
	Failure  string     `json:"failure,omitempty"`   // why the last exchange failed; may hold text of the server
	Note     string     `json:"note,omitempty"`      // why the lease lacks something that was asked for; may hold text of the server
	ServerID string     `json:"server_id,omitempty"` // DUID
	IAID     uint32     `json:"iaid,omitempty"`      // of the first IA_PD
	Told     pd.Info    `json:"told,omitzero"`       // what the server says besides bindings; what routers say is not in it
	Received *time.Time `json:"received,omitempty"`  // when the lease was last granted or extended
	Cause    string     `json:"cause,omitempty"`     // what changed the lease last
	Renew    *Lifetime  `json:"renew,omitempty"`     // T1
	Rebind   *Lifetime  `json:"rebind,omitempty"`    // T2
}

// Leased is an address that the router itself has from the provider.
type Leased struct {
	Address   netip.Addr `json:"address"`
	Preferred Lifetime   `json:"preferred"`
	Valid     Lifetime   `json:"valid"`
}

// Delegation is one prefix on an uplink.
type Delegation struct {
	Prefix    netip.Prefix `json:"prefix"`
	State     string       `json:"state"` // preferred, deprecated
	Preferred Lifetime     `json:"preferred"`
	Valid     Lifetime     `json:"valid"`
}

// Downstream is a use of delegations.
type Downstream struct {
	Name      string       `json:"name"`
	Interface string       `json:"interface"`
	Kind      string       `json:"kind"`         // access, transit, service, reserve
	LinkUp    bool         `json:"link_up"`      // administratively; true where there is no interface
	Via       netip.Addr   `json:"via,omitzero"` // of a transit: the inner router that all of it is routed to
	Subnets   []Subnet     `json:"subnets"`
	Loans     []Loan       `json:"loans,omitempty"`        // what inner routers have
	Ended     []StaleLoan  `json:"ended_loans,omitempty"`  // what they had
	Old       []OldPrefix  `json:"old_prefixes,omitempty"` // what hosts may still use
	AnyIP     *AnyIP       `json:"anyip,omitempty"`        // of a service
	Announced Announcement `json:"announced"`
	Config    string       `json:"config"`
}

// Subnet is what one downstream gets of one delegation.
type Subnet struct {
	Downstream string       `json:"downstream"`
	Interface  string       `json:"interface"`
	Kind       string       `json:"kind"`
	Uplink     string       `json:"uplink"` // "": part of the ULA prefix
	Delegation netip.Prefix `json:"delegation"`
	ID         uint64       `json:"id"`
	Prefix     netip.Prefix `json:"prefix"`
	Address    netip.Prefix `json:"address,omitzero"` // the router's own; absent if it has none there
	State      string       `json:"state"`
	Preferred  Lifetime     `json:"preferred"`
	Valid      Lifetime     `json:"valid"`
}

// Announcement is what router advertisements on a downstream say.
type Announcement struct {
	Send      bool              `json:"send"`
	Router    bool              `json:"router"`
	Lifetime  uint32            `json:"router_lifetime"` // seconds; 0 unless Router
	Prefixes  []AnnouncedPrefix `json:"prefixes"`        // in use
	Stale     []netip.Prefix    `json:"stale"`           // hosts are told to stop using them
	DNS       []netip.Addr      `json:"dns,omitempty"`
	Search    []string          `json:"search,omitempty"`
	PREF64    []netip.Prefix    `json:"pref64,omitempty"`
	Resolvers []pd.Resolver     `json:"resolvers,omitempty"` // with encrypted protocols (RFC 9463)
	Portal    string            `json:"captive_portal,omitempty"`
	MTU       uint32            `json:"mtu,omitempty"`
	Prefer    string            `json:"preference,omitempty"` // RFC 4191: low, high
	Routes    []netip.Prefix    `json:"routes,omitempty"`     // reached through this router (RFC 4191)
	Other     bool              `json:"other,omitempty"`      // O flag: DHCPv6 has more to tell
	Managed   bool              `json:"managed,omitempty"`    // M flag: DHCPv6 leases addresses

	// Prefixes without L flag, or without A flag.
	NotOnLink     bool `json:"not_on_link,omitempty"`
	NotAutonomous bool `json:"not_autonomous,omitempty"`
}

// AnnouncedPrefix is a Prefix Information option with the seconds that it would carry now.
type AnnouncedPrefix struct {
	Prefix    netip.Prefix `json:"prefix"`
	Preferred uint32       `json:"preferred"`
	Valid     uint32       `json:"valid"`
}

// Problem is something that needs attention.
type Problem struct {
	Path    string `json:"path"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Advice  string `json:"advice,omitempty"` // what to do, where the message does not say it
}

// HookStatus is how a hook or action fares.
type HookStatus struct {
	Name     string     `json:"name"`
	OK       bool       `json:"ok"`                  // the last run succeeded, or there was none yet
	Runs     uint64     `json:"runs"`                // since the start of the daemon
	Failures uint64     `json:"failures"`            // of these
	Waiting  int        `json:"waiting"`             // events that it has not been told yet
	LastRun  *time.Time `json:"last_run,omitempty"`  // end of the last run
	Error    string     `json:"error,omitempty"`     // of the last run
	NextTry  *time.Time `json:"next_try,omitempty"`  // after a failure
	LastText string     `json:"last_text,omitempty"` // the end of what the last run printed
}

// Counters count since the start of the daemon.
type Counters struct {
	Reconciles   uint64  `json:"reconciles"`
	KernelWrites uint64  `json:"kernel_writes"`
	KernelErrors uint64  `json:"kernel_errors"`
	Events       uint64  `json:"events"`
	LastSeconds  float64 `json:"last_reconcile_seconds"`
	LastChange   Took    `json:"last_change"` // the last reconcile that wrote something
}

// Took is where the time of a reconcile went: all of it, and what of it were reading and writing the kernel.
type Took struct {
	Seconds      float64 `json:"seconds"`
	ReadSeconds  float64 `json:"read_seconds"`
	ApplySeconds float64 `json:"apply_seconds"`
}
