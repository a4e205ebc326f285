package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// alone is the name of the abstract socket that marks a network namespace as taken. Abstract names belong to the network
// namespace and vanish with the process (unix(7)): the lock of the state directory does not tell that two daemons with
// two directories share one kernel, where each removes the rows of the other.
const alone = "@uplinkd"

// takeNamespace makes this process the only uplinkd that writes to the kernel of its network namespace, until release or
// its end. Nobody talks on the socket. Abstract names have no permissions: a process that holds this one and cannot
// configure the network is no uplinkd, so it keeps nobody out and is only worth the warning.
func takeNamespace() (release func(), warning string, err error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: alone, Net: "unix"})
	switch {
	case err == nil:
		return func() { l.Close() }, "", nil
	case errors.Is(err, unix.EADDRINUSE):
		who, impostor := holder()
		if impostor {
			return func() {}, fmt.Sprintf("the abstract socket %s, which keeps a second uplinkd out, is held by something else%s", alone, who), nil
		}
		return nil, "", fmt.Errorf("another uplinkd%s manages this network namespace (abstract socket %s); stop that one first: systemctl stop uplinkd",
			who, alone)
	}
	return nil, "", fmt.Errorf("take the abstract socket %s, which keeps a second uplinkd out of this network namespace: %w", alone, err)
}

// holder says who has taken the namespace, as SO_PEERCRED of a connection tells, and whether that process cannot be an
// uplinkd. Who cannot be looked at may be one.
func holder() (who string, impostor bool) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: alone, Net: "unix"})
	if err != nil {
		return "", false
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return "", false
	}
	var peer *unix.Ucred
	if rerr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); rerr != nil || err != nil {
		return "", false
	}
	return fmt.Sprintf(" (process %d of user %d)", peer.Pid, peer.Uid), lacksNetAdmin(peer.Pid)
}

// lacksNetAdmin reports whether a process is known to have no CAP_NET_ADMIN.
func lacksNetAdmin(pid int32) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if set, ok := strings.CutPrefix(line, "CapEff:"); ok {
			effective, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			return err == nil && effective&(1<<unix.CAP_NET_ADMIN) == 0
		}
	}
	return false
}
