// Package server is the DHCPv6 server on one downstream's link: it delegates prefixes to inner routers (RFC 9915, RFC 9818)
// and tells hosts and routers about DNS and the like.
//
// It has the socket, the codec and the protocol. What an inner router gets is decided elsewhere, by the Lender: a Server
// keeps no bindings, and nothing at all about a client but the key for its Reconfigure messages, of a bounded number of
// clients. So it has nothing to lose in a restart that Config.Keep has not been given.
//
// A task like those of package radv: Run blocks until its context ends, Set, SetLink and Changed never block and the latest
// value wins. It survives every change of its interface.
//
// It leases no addresses: an IA_NA is answered with NoAddrsAvail, an IA_TA not at all, and a Confirm never, since it asks
// what only a server of addresses knows (RFC 9915 §18.3.3). Messages of relays and messages sent to a unicast address are
// dropped. It does not route, persist or log what it lends; the Lender does.
package server
