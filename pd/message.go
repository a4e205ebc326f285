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
	OptDNSServers uint16 = 23
	OptDomainList uint16 = 24
	OptPDExclude  uint16 = 67
	OptSolMaxRT   uint16 = 82
	OptInfMaxRT   uint16 = 83
)

// Status is a Status Code option. Text comes from the network: the decoder has replaced everything but printable
// characters and cut it to 200 octets.
type Status struct {
	Code StatusCode
	Text string
}

// Message is a DHCPv6 message as the machine sees it: decoded, validated in its parts, without options it has no use for.
// Slices are never modified after decoding.
type Message struct {
	Type         MessageType
	XID          uint32        // 24 bits
	ClientID     DUID          // "" if absent
	ServerID     DUID          // "" if absent
	Elapsed      time.Duration // written saturated to 0xffff hundredths of a second
	Preference   uint8
	RapidCommit  bool
	Status       Status // message level
	IAPDs        []IAPD
	ORO          []uint16 // requested options
	SolMaxRT     uint32   // seconds; 0 if absent
	InfMaxRT     uint32   // seconds; 0 if absent
	DNS          []netip.Addr
	DomainSearch []string // validated host names, without trailing dot
	Faults       []string // what the decoder dropped and why, sanitised; for the log
}

// IAPD is an IA_PD option (RFC 9915 §21.21). T1 and T2 are seconds as on the wire.
type IAPD struct {
	IAID     uint32
	T1, T2   uint32
	Status   Status
	Prefixes []IAPrefix
}

// IAPrefix is an IA Prefix option (§21.22). Prefix is masked; on sending, an invalid Prefix with Bits > 0 is a length
// hint (`::/n`, RFC 8168). Lifetimes are seconds as on the wire, 0xffffffff meaning for ever; the decoder has dropped
// prefixes with preferred > valid, of length 0 or above 128, and Undelegable ones, and says so in Faults.
type IAPrefix struct {
	Prefix           netip.Prefix
	HintLen          uint8 // sending only: 0 or the wanted length when Prefix is invalid
	Preferred, Valid uint32
	Status           Status
}
