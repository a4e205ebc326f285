// Package radv speaks router advertisements: a Sender announces a downstream's prefixes to the hosts on it (RFC 4861 §6.2,
// RFC 9096), a Listener learns an uplink's default routers, DNS servers, NAT64 prefixes and captive portal (RFC 4861 §6.3,
// RFC 4191, RFC 8106, RFC 8781, RFC 8910) and what the routers say about DHCPv6. Signs finds in that what suggests that the
// uplink is on another network (RFC 9915 §18.2.12).
//
// Build turns an announcement into a message and is pure. Sender and Listener are tasks: Run blocks until its context
// ends, Set and SetLink never block and the latest value wins. A task survives every change of its interface: it closes
// its socket when the interface cannot be used, and opens it again when it can.
//
// It does not decide what to announce (package policy does), does not touch addresses or routes, and does not replace
// the kernel's own accept_ra: both may listen. It never sets the M and O flags: there is no DHCPv6 server for hosts here.
//
// Times and rates that RFC 4861 §6.2.4 leaves open or that differ from its defaults:
//
//   - A change is announced at once, and repeated twice, 4 s apart. RFC 4861 asks for at most 16 s between the first three;
//     a host on Wi-Fi that lost the first multicast would keep using a dead prefix for that long.
//   - Advertisements are limited to one per 3 s (MIN_DELAY_BETWEEN_RAS) with a burst of three. The plain rule would make
//     the hosts of a prefix that changes a second after the start wait for two more seconds.
//   - Answers to solicitations keep the plain rule for multicast. Within 3 s of a multicast advertisement they are unicast
//     (RFC 4861 §6.2.6 allows it): a host whose link comes up together with ours misses the first advertisement.
//   - The Listener waits at most 100 ms before its first solicitation instead of 1 s, and goes on soliciting with growing
//     pauses after the third (RFC 7559) until a router answers.
package radv
