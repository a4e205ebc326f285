// Package pd is the DHCPv6 client for prefix delegation: its words (DUID, message, lease) and Machine, the client state
// machine of RFC 9915 as a pure function of what arrived and what time it is.
//
// It opens no socket, reads no clock and knows no packet format: pd/wire is the codec, pd/client the driver with socket
// and timers, pd/store keeps leases and the DUID on disk.
package pd
