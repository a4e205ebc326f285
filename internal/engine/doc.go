// Package engine is the one goroutine that decides. It keeps the world (config, links, leases, routers) as facts, and on
// every change runs the same level-triggered step: plan, compile, read the kernel, diff, apply, compare the sites,
// publish. Others send facts and read snapshots; nobody else writes.
//
// It knows no sockets, no files and no netlink: kernel, store and consumers are given to it.
package engine
