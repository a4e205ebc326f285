// Package wire translates between pd.Message and the octets of a DHCPv6 message (RFC 9915), for the client, for
// the server on downstreams and for the simulated provider alike. It is the only importer of github.com/insomniacslk/dhcp.
//
// Decode is the boundary to hostile input: what it returns is bounded in size, its prefixes, addresses, names and texts
// are validated, and what was dropped is listed in Message.Faults. One malformed option never costs the rest of the
// message. Encode is not a boundary: it writes what it is given as long as that fits the format, so that the simulated
// provider can misbehave.
//
// Text is how people read messages, in logs and traces.
//
// The library supplies option codes and the encoding. Its decoder is not used: one malformed option makes it refuse a whole
// message, it knows DUIDs of unknown structure only in part (RFC 9915 §11: opaque), it follows DNS compression pointers,
// which are forbidden here (§10) and let 64 kB unfold to gigabytes, and it turns prefix lengths above 128 into 0.
//
// This package is not a server or a client: it checks the parts of a message, not whether the message answers a question.
package wire

// Bounds of what one message may bring into the daemon and of the work that it makes, which must not grow with 64 kB of
// rubbish. Real Replies stay far below them.
const (
	maxMessage     = 65535 // octets; a UDP payload is never longer
	maxFaults      = 16
	maxFaultLen    = 160 // octets of one fault
	maxStatusText  = 200 // octets, promised by pd.Status
	maxLeaseParts  = 64  // IAs, prefixes and addresses in sum
	maxOptions     = 256 // on all levels in sum
	maxServers     = 16  // of DNS, SNTP, NTP each
	maxServersRead = 64  // in one option, unusable and repeated ones included
	maxSearch      = 32
	maxORO         = 128
	maxResolvers   = 8
	maxS46         = 8    // containers
	maxUnknown     = 32   // options
	maxRaw         = 4096 // octets of containers, and as many of unknown options
	maxAuthInfo    = 1024
	maxClasses     = 16     // entries of a class option, and Vendor Class options
	maxElapsed     = 0xffff // hundredths of a second (RFC 9915 §21.9)
	minMaxRT       = 60     // seconds (RFC 9915 §21.24)
	maxMaxRT       = 86400
	irtMinimum     = 600 // seconds (RFC 9915 §21.23)
	headerLen      = 4
	optionHeader   = 4
	iaHeader       = 12 // IAID, T1, T2
	iaprefixHeader = 25 // lifetimes, length, address
	iaaddrHeader   = 24 // address, lifetimes
	authHeader     = 11 // protocol, algorithm, RDM, replay detection
)
