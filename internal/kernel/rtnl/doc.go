// Package rtnl is the only reader and the only writer of the kernel's addresses, routes, rules and sysctls, and of
// uplinkd's own nft tables.
//
// Kernel.Read dumps what uplinkd owns (protocol number 200, see kernel.Protocol) as a kernel.State. Kernel.Apply carries
// out a kernel.Plan and says what came of each operation. Kernel.Links dumps interfaces. Kernel.Watch turns the kernel's
// notifications into hints that something changed; it never says what, since only dumps are facts.
//
// It speaks rtnetlink with sockets, encoders and decoders of its own and the constants of
// github.com/vishvananda/netlink/nl. The route, address and rule functions of that module (v1.3.1) are not used: they
// neither write nor read IFA_PROTO, lose the action of rules, write the lifetime 0/0 (which the kernel takes as "for
// ever") and return partial dumps.
//
// Tables are read over nfnetlink and written by the program nft(8), whose text is the only documented way to describe one.
// The program is run when a table has to be written, and never otherwise.
//
// It decides nothing: which rows are wanted and in which order they are written is the business of package policy and of
// kernel.Diff. It does not touch nft tables of others, neighbours or WireGuard, it does not retry failed operations, and it does not
// create or configure interfaces.
package rtnl
