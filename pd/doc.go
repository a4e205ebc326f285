// Package pd is the DHCPv6 client for delegated prefixes, addresses and stateless configuration: its words (DUID, message,
// lease) and Machine, the client state machine of RFC 9915 as a pure function of what arrived and what time it is.
//
// It opens no socket, reads no clock and knows no packet format (but for the digest of a Reconfigure, which covers the
// message as it arrived): pd/wire is the codec, pd/client the driver with socket and timers, pd/store keeps leases and the
// DUID on disk. Duplicate address detection is the kernel's; its result comes in as InputConflict.
//
// The transcripts in testdata show what it does; docs/conformance.md says which rule each of them is about.
package pd
