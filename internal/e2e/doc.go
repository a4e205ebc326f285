// Package e2e holds the tests of the whole program: the real binary, started as a user starts it, in network namespaces
// between a provider and a LAN host. The providers are other people's servers (Kea, ISC dhcpd, radvd) or, where the
// provider has to misbehave or to be counted, package isp.
//
// It has a room of its own because such tests belong to no package. It holds no code of the program, and nothing imports
// it. What one package can show by itself is tested there: these tests look only at what a user sees, which is the kernel,
// the host's connectivity, the control socket, the log and the state directory.
//
// They need what package netlab needs, and say which Debian package is missing. UPLINKD_BINARY names a program to test
// instead of the one built from this tree.
package e2e
