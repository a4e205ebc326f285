// Package isp is a simulated provider for tests and the demo: it advertises itself as a router and delegates prefixes by
// DHCPv6 (RFC 9915) on one interface, well-behaved until it is told to misbehave.
//
// It is not a server for real networks: it delegates prefixes only (no addresses), keeps bindings in memory, knows no
// relays, and sets no routes itself; Config.Route does.
package isp
