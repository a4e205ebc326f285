// Command bench measures uplinkd as a whole program, next to its peers and to ip(8), and prints what docs/performance.md
// keeps: `make bench`.
//
// It is a room of its own because no package's Go benchmarks can show this: the figures that users feel start with a
// packet on a wire and end with an address in the kernel, and pass through every package and a process boundary. What a
// package can measure by itself is a Go benchmark there; this program runs those of internal/kernel/rtnl and prints
// medians.
//
// It asserts nothing about time: it prints, next to the aims. Times are of this machine at this moment; what counts are the
// ratios within one run, in which all take turns.
package main
