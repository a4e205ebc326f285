package main

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// alone is the name of the abstract socket that marks a network namespace as taken. Abstract names belong to the network
// namespace and vanish with the process (unix(7)): the lock of the state directory does not tell that two daemons with
// two directories share one kernel, where each removes the rows of the other.
const alone = "@uplinkd"

// takeNamespace makes this process the only uplinkd that writes to the kernel of its network namespace, until release or
// its end. Nobody talks on the socket.
func takeNamespace() (release func(), err error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: alone, Net: "unix"})
	switch {
	case err == nil:
		return func() { l.Close() }, nil
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("another uplinkd%s manages this network namespace (abstract socket %s); stop that one first: systemctl stop uplinkd",
			holder(), alone)
	}
	return nil, fmt.Errorf("take the abstract socket %s, which keeps a second uplinkd out of this network namespace: %w", alone, err)
}

// holder says who has taken the namespace: SO_PEERCRED of a connection tells who listens.
func holder() string {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: alone, Net: "unix"})
	if err != nil {
		return ""
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return ""
	}
	var peer *unix.Ucred
	if rerr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); rerr != nil || err != nil {
		return ""
	}
	return fmt.Sprintf(" (process %d of user %d)", peer.Pid, peer.Uid)
}
