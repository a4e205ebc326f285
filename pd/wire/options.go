package wire

import (
	"fmt"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"uplinkd/pd"
)

// names are the options that this package reads, as faults, errors and Text call them.
var names = map[dhcpv6.OptionCode]string{
	dhcpv6.OptionClientID:               "Client Identifier",
	dhcpv6.OptionServerID:               "Server Identifier",
	dhcpv6.OptionIANA:                   "IA_NA",
	dhcpv6.OptionIAAddr:                 "IAADDR",
	dhcpv6.OptionORO:                    "Option Request",
	dhcpv6.OptionPreference:             "Preference",
	dhcpv6.OptionElapsedTime:            "Elapsed Time",
	dhcpv6.OptionAuth:                   "Authentication",
	dhcpv6.OptionStatusCode:             "Status Code",
	dhcpv6.OptionRapidCommit:            "Rapid Commit",
	dhcpv6.OptionUserClass:              "User Class",
	dhcpv6.OptionVendorClass:            "Vendor Class",
	dhcpv6.OptionReconfMessage:          "Reconfigure Message",
	dhcpv6.OptionReconfAccept:           "Reconfigure Accept",
	dhcpv6.OptionDNSRecursiveNameServer: "DNS Servers",
	dhcpv6.OptionDomainSearchList:       "Domain Search List",
	dhcpv6.OptionIAPD:                   "IA_PD",
	dhcpv6.OptionIAPrefix:               "IAPREFIX",
	dhcpv6.OptionSNTPServerList:         "SNTP Servers",
	dhcpv6.OptionInformationRefreshTime: "Information Refresh Time",
	dhcpv6.OptionNTPServer:              "NTP Server",
	dhcpv6.OptionAFTRName:               "AFTR-Name",
	dhcpv6.OptionPDExclude:              "Prefix Exclude",
	dhcpv6.OptionSolMaxRT:               "SOL_MAX_RT",
	dhcpv6.OptionInfMaxRT:               "INF_MAX_RT",
	dhcpv6.OptionS46ContMapE:            "MAP-E container",
	dhcpv6.OptionS46ContMapT:            "MAP-T container",
	dhcpv6.OptionS46ContLW:              "LW4o6 container",
	dhcpv6.OptionCaptivePortal:          "Captive Portal",
	dhcpv6.OptionV6DNR:                  "Encrypted DNS",
}

// repeatable are those of names that may be in a message more than once; all others only once where they belong
// (RFC 9915 §21). A server sends one NTP Server option per time source (RFC 5908 §4).
var repeatable = map[dhcpv6.OptionCode]bool{
	dhcpv6.OptionIANA:        true,
	dhcpv6.OptionIAPD:        true,
	dhcpv6.OptionVendorClass: true, // one per enterprise number (§21.16)
	dhcpv6.OptionNTPServer:   true,
	dhcpv6.OptionV6DNR:       true, // one per resolver
	dhcpv6.OptionS46ContMapE: true,
	dhcpv6.OptionS46ContMapT: true,
	dhcpv6.OptionS46ContLW:   true,
	dhcpv6.OptionAuth:        true, // d.auth sees to it that two are none (§20.2)
}

func name(code dhcpv6.OptionCode) string {
	if n := names[code]; n != "" {
		return n
	}
	return fmt.Sprintf("option %d", uint16(code))
}

// optionName is the name of an option for people, "option N" for one without.
func optionName(code uint16) string {
	c := dhcpv6.OptionCode(code)
	if s := c.String(); names[c] == "" && !strings.HasPrefix(s, "unknown") {
		return s
	}
	return name(c)
}

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
