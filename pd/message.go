package pd

import (
	"net/netip"
	"time"
)

// MessageType is a DHCPv6 message type (RFC 9915 §7.3).
type MessageType uint8

// Message types between client and server.
const (
	Solicit            MessageType = 1
	Advertise          MessageType = 2
	Request            MessageType = 3
	Confirm            MessageType = 4
	Renew              MessageType = 5
	Rebind             MessageType = 6
	Reply              MessageType = 7
	Release            MessageType = 8
	Decline            MessageType = 9
	Reconfigure        MessageType = 10
	InformationRequest MessageType = 11
)

var messageNames = [...]string{1: "Solicit", "Advertise", "Request", "Confirm", "Renew", "Rebind", "Reply", "Release", "Decline",
	"Reconfigure", "Information-request"}

func (t MessageType) String() string {
	if int(t) < len(messageNames) && messageNames[t] != "" {
		return messageNames[t]
	}
	return "unknown"
}

// StatusCode is a DHCPv6 status (RFC 9915 §21.13); an absent option means Success.
type StatusCode uint16

// Status codes.
const (
	Success       StatusCode = 0
	UnspecFail    StatusCode = 1
	NoAddrsAvail  StatusCode = 2
	NoBinding     StatusCode = 3
	NotOnLink     StatusCode = 4
	UseMulticast  StatusCode = 5 // obsolete
	NoPrefixAvail StatusCode = 6
)

var statusNames = [...]string{"Success", "UnspecFail", "NoAddrsAvail", "NoBinding", "NotOnLink", "UseMulticast", "NoPrefixAvail"}

func (c StatusCode) String() string {
	if int(c) < len(statusNames) {
		return statusNames[c]
	}
	return "unknown"
}

// Option codes that clients name in an Option Request option.
const (
	OptDNSServers    uint16 = 23
	OptDomainList    uint16 = 24
	OptSNTPServers   uint16 = 31
	OptInfoRefresh   uint16 = 32
	OptNTPServer     uint16 = 56
	OptAFTRName      uint16 = 64
	OptPDExclude     uint16 = 67
	OptSolMaxRT      uint16 = 82
	OptInfMaxRT      uint16 = 83
	OptS46MapE       uint16 = 94
	OptS46MapT       uint16 = 95
	OptS46LW         uint16 = 96
	OptCaptivePortal uint16 = 103
	OptDNR           uint16 = 144
)

// Status is a Status Code option. Text comes from the network: the decoder has replaced everything but printable
// characters and cut it to 200 octets.
type Status struct {
	Code StatusCode
	Text string
}

// Message is a DHCPv6 message as the machine sees it: decoded and validated in its parts. Slices are never modified
// after decoding.
type Message struct {
	Type         MessageType
	XID          uint32        // 24 bits
	ClientID     DUID          // "" if absent
	ServerID     DUID          // "" if absent
	Elapsed      time.Duration // written saturated to 0xffff hundredths of a second
	Preference   uint8
	RapidCommit  bool
	ReconfAccept bool        // Reconfigure Accept (§21.20)
	ReconfMsg    MessageType // Reconfigure Message (§21.19): Renew, Rebind or InformationRequest; 0 if absent or another
	Auth         *Auth       // nil if absent or repeated (§20.2)
	Status       Status      // message level
	IAPDs        []IAPD
	IANAs        []IANA
	ORO          []uint16 // requested options
	SolMaxRT     uint32   // seconds; 0 if absent
	InfMaxRT     uint32   // seconds; 0 if absent
	InfoRefresh  uint32   // Information Refresh Time (§21.23) in seconds, 0xffffffff for ever; 0 if absent
	Info                  // what a server tells besides bindings
	UserClass    [][]byte // sending only (§21.15)
	VendorClass  []VendorClass
	Extra        []Option // sending only: options from the config, as they are
	Raw          []byte   // receiving only: the message as it arrived, for authentication
	Faults       []string // what the decoder dropped and why, sanitised; for the log
}

// Info is what a server tells besides bindings. All of it is hostile input: the decoder has validated names and addresses,
// bounded the lists and replaced what is not printable. It is part of messages and of leases.
type Info struct {
	DNS           []netip.Addr `json:"dns,omitempty"`
	DomainSearch  []string     `json:"domain_search,omitempty"`  // validated host names, without trailing dot
	NTP           []netip.Addr `json:"ntp,omitempty"`            // NTP Server option (RFC 5908), unicast addresses
	NTPNames      []string     `json:"ntp_names,omitempty"`      // and names
	SNTP          []netip.Addr `json:"sntp,omitempty"`           // SNTP Servers option (RFC 4075)
	AFTR          string       `json:"aftr,omitempty"`           // AFTR-Name (RFC 6334)
	CaptivePortal string       `json:"captive_portal,omitempty"` // URI (RFC 8910), http or https
	Resolvers     []Resolver   `json:"resolvers,omitempty"`      // with encrypted protocols (RFC 9463)
	S46           []Option     `json:"s46,omitempty"`            // MAP-E, MAP-T and LW4o6 containers (RFC 7598), raw
	Unknown       []Option     `json:"unknown,omitempty"`        // options that uplinkd has no word for, raw; bounded
}

// Option is an option as it is on the wire, without its header.
type Option struct {
	Code uint16 `json:"code"`
	Data []byte `json:"data"`
}

// VendorClass is a Vendor Class option (§21.16).
type VendorClass struct {
	Enterprise uint32
	Data       [][]byte
}

// Auth is an Authentication option (§21.11). Info starts with the RKAP type octet where Protocol is 3 (§20.4).
type Auth struct {
	Protocol, Algorithm, RDM uint8
	Replay                   uint64
	Info                     []byte
}

// IAPD is an IA_PD option (RFC 9915 §21.21). T1 and T2 are seconds as on the wire.
type IAPD struct {
	IAID     uint32
	T1, T2   uint32
	Status   Status
	Prefixes []IAPrefix
}

// IAPrefix is an IA Prefix option (§21.22). Prefix is masked; on sending, an invalid Prefix with HintLen > 0 is a length
// hint (`::/n`, RFC 8168). Lifetimes are seconds as on the wire, 0xffffffff meaning for ever; the decoder has dropped
// prefixes with preferred > valid, of length 0 or above 128, and Undelegable ones, and says so in Faults.
type IAPrefix struct {
	Prefix           netip.Prefix
	HintLen          uint8        // sending only: 0 or the wanted length when Prefix is invalid
	Exclude          netip.Prefix // Prefix Exclude (RFC 6603): longer than Prefix and inside it; invalid if absent
	Preferred, Valid uint32
	Status           Status
}

// IANA is an IA_NA option (§21.4).
type IANA struct {
	IAID      uint32
	T1, T2    uint32
	Status    Status
	Addresses []IAAddress
}

// IAAddress is an IA Address option (§21.6). The decoder has dropped those with preferred > valid and Undelegable ones.
type IAAddress struct {
	Address          netip.Addr
	Preferred, Valid uint32
	Status           Status
}
