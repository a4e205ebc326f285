// Package policy decides: Plan turns config, ledger and the world (facts at one instant) into a Site and problems,
// Compile turns a Site into kernel rows, Events compares two Sites. All of it is pure: time is an argument.
//
// It does not talk to the kernel, to servers or to files, and it never logs: what is wrong is returned as Problem.
package policy
