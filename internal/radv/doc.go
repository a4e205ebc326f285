// Package radv speaks router advertisements: a Sender announces a downstream's prefixes, routes, DNS servers (plain and
// encrypted) and names to the hosts on it (RFC 4861 §6.2, RFC 4191, RFC 8106, RFC 8781, RFC 8910, RFC 9096, RFC 9463), a
// Listener learns an uplink's default routers, prefixes, DNS servers, NAT64 prefixes and captive portal (RFC 4861 §6.3) and
// what the routers say about DHCPv6. Signs finds in that what suggests that the uplink is on another network (RFC 9915
// §18.2.12).
//
// Build turns an announcement into a message and is pure. Sender and Listener are tasks: Run blocks until its context
// ends, Set and SetLink never block and the latest value wins. A task survives every change of its interface: it closes
// its socket when the interface cannot be used, and opens it again when it can.
//
// It does not decide what to announce (package policy does), does not touch addresses or routes, and does not replace
// the kernel's own accept_ra: both may listen. It does not send several messages where one is full: what is left out is in
// the log.
//
// A Sender that ends says nothing: the kernel goes on routing while the daemon is restarted, and a router lifetime of 0
// would take the hosts off the net for that time. After Final, for a downstream that the config does not have any more, it
// withdraws all it has said. Where advertisements are switched off, it says that this router is no default router, and
// leaves the rest to whoever takes over.
//
// Times and rates that RFC 4861 §6.2.4 leaves open or that differ from its defaults:
//
//   - A change is announced at once, and repeated twice, 4 s apart. RFC 4861 asks for at most 16 s between the first three;
//     a host on Wi-Fi that lost the first multicast would keep using a dead prefix for that long.
//   - Changes, and only changes, may come in a burst of three; over any time T there are at most T/3s + 3 advertisements
//     to all nodes, instead of the T/3s + 1 of the plain rule (MIN_DELAY_BETWEEN_RAS). RFC 7084 wants some changes
//     announced immediately (G-5, L-13), and by the plain rule the hosts of a prefix that changes a second after the start
//     would wait for two more seconds. No change waits for longer than 3 s, whatever came before, and one change of
//     prefixes in 30 s does not wait at all: a link that goes down and comes up with another prefix has spent the burst.
//   - Answers to solicitations keep the plain rule for multicast. Within 3 s of a multicast advertisement they are unicast
//     (RFC 4861 §6.2.6 allows it): a host whose link comes up together with ours misses the first advertisement.
//   - The Listener waits at most 100 ms before its first solicitation instead of 1 s, and goes on soliciting with growing
//     pauses after the third (RFC 7559) until a router answers.
package radv
