// Package kernel holds rows: the kernel objects that uplinkd wants or finds, as values with an identity, and the pure
// Diff between two states of them.
//
// Identity (Compare) mirrors the kernel's own, attributes (Equal) are what can change in place. A State is canonical:
// sorted, no two rows of one identity. A Plan is the ordered list of operations that turns one State into another.
// Every value has one text form in the syntax of ip(8), sysctl(8) and nft(8), which is the golden format of the tests, the
// output of `uplinkd plan`, the log and the bug report.
//
// This package is pure: no netlink, no clock, no files. The reader and the applier are in kernel/rtnl.
package kernel
