// Package wire translates between pd.Message and the octets of a DHCPv6 message (RFC 9915), for the client and for the
// simulated provider alike. It is the only importer of github.com/insomniacslk/dhcp.
//
// Decode is the boundary to hostile input: what it returns is bounded in size, its prefixes, addresses, names and texts
// are validated, and what was dropped is listed in Message.Faults. One malformed option never costs the rest of the
// message. Encode is not a boundary: it writes what it is given as long as that fits the format, so that the simulated
// provider can misbehave.
//
// The library supplies option codes and the encoding. Its decoder is not used: one malformed option makes it refuse a whole
// message, it knows DUIDs of unknown structure only in part (RFC 9915 §11: opaque), it follows DNS compression pointers,
// which are forbidden here (§10) and let 64 kB unfold to gigabytes, and it turns prefix lengths above 128 into 0.
//
// This package is not a server or a client: it checks the parts of a message, not whether the message answers a question.
package wire

import (
	"fmt"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"uplinkd/pd"
)

// Bounds of what one message may bring into the daemon and of the work that it makes, which must not grow with 64 kB of
// rubbish. Real Replies stay far below them.
const (
	maxMessage     = 65535 // octets; a UDP payload is never longer
	maxFaults      = 16
	maxFaultLen    = 160 // octets of one fault
	maxStatusText  = 200 // octets, promised by pd.Status
	maxLeaseParts  = 64  // IA_PDs and prefixes in sum
	maxOptions     = 256 // on all levels in sum
	maxDNS         = 16
	maxDNSRead     = 64 // unusable and repeated ones included
	maxSearch      = 32
	maxORO         = 128
	maxElapsed     = 0xffff // hundredths of a second (RFC 9915 §21.9)
	minMaxRT       = 60     // seconds (RFC 9915 §21.24)
	maxMaxRT       = 86400
	headerLen      = 4
	optionHeader   = 4
	iapdHeader     = 12 // IAID, T1, T2
	iaprefixHeader = 25 // lifetimes, length, address
)

// fromClient reports whether clients send messages of type t.
func fromClient(t pd.MessageType) bool {
	switch t {
	case pd.Advertise, pd.Reply, pd.Reconfigure:
		return false
	}
	return true
}

// known reports whether t is a message between client and server; relay messages and leasequery are not.
func known(t pd.MessageType) bool { return t >= pd.Solicit && t <= pd.InformationRequest }

// names are the options that this package reads, as faults and errors call them. Each may be there only once where it
// belongs, but for IA_PD and IAPREFIX (RFC 9915 §21).
var names = map[dhcpv6.OptionCode]string{
	dhcpv6.OptionClientID:               "Client Identifier",
	dhcpv6.OptionServerID:               "Server Identifier",
	dhcpv6.OptionIAPD:                   "IA_PD",
	dhcpv6.OptionIAPrefix:               "IAPREFIX",
	dhcpv6.OptionORO:                    "Option Request",
	dhcpv6.OptionPreference:             "Preference",
	dhcpv6.OptionElapsedTime:            "Elapsed Time",
	dhcpv6.OptionStatusCode:             "Status Code",
	dhcpv6.OptionRapidCommit:            "Rapid Commit",
	dhcpv6.OptionDNSRecursiveNameServer: "DNS Servers",
	dhcpv6.OptionDomainSearchList:       "Domain Search List",
	dhcpv6.OptionSolMaxRT:               "SOL_MAX_RT",
	dhcpv6.OptionInfMaxRT:               "INF_MAX_RT",
}

func name(code dhcpv6.OptionCode) string {
	if n := names[code]; n != "" {
		return n
	}
	return fmt.Sprintf("option %d", uint16(code))
}
