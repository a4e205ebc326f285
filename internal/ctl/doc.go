// Package ctl is the control socket: HTTP with JSON over a Unix socket, its documents as versioned types, and a client.
//
// It reads immutable snapshots and passes on requests; it decides nothing, holds no state of its own, and cannot block
// the engine however slow or numerous its clients are. It does not listen on the network.
package ctl
