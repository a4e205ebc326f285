// Package isp is a simulated provider for tests and the demo: it advertises itself as a router and delegates prefixes
// and leases addresses by DHCPv6 (RFC 9915) on one interface, well-behaved until it is told to misbehave.
//
// Storm is what somebody else on the same link may do to the client.
//
// It is not a server for real networks: it keeps bindings and keys in memory, does not repeat a Reconfigure that nobody
// acts on, knows no relays, and sets no routes itself; Config.Route does.
package isp
