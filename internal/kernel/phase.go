package kernel

// Phase orders a plan. Adding runs upwards, withdrawing downwards; what only makes an object less attractive
// (deprecating an address) happens before anything is removed. This list is the documentation of make before break.
type Phase uint8

// The phases. Later kinds of rows get their place here: proxy neighbours before PhaseTable, AllowedIPs after it.
const (
	PhaseSysctl    Phase = iota + 1 // forwarding and RA handling
	PhaseAggregate                  // unreachable aggregate per delegation (RFC 7084 WPD-5), end of each uplink table
	PhaseRoute                      // next hops in uplink tables, on-link routes of downstreams
	PhaseRule                       // source rules: only now that their tables are filled
	PhaseAddress                    // hosts see the prefix only after it is routed
	PhaseTable                      // nft tables, each in one transaction
)

func (p Phase) String() string {
	switch p {
	case PhaseSysctl:
		return "sysctl"
	case PhaseAggregate:
		return "aggregate"
	case PhaseRoute:
		return "route"
	case PhaseRule:
		return "rule"
	case PhaseAddress:
		return "address"
	case PhaseTable:
		return "nft"
	}
	return "?"
}
