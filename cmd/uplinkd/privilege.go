package main

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// needed are the capabilities without which the daemon can do nothing: rtnetlink, ICMPv6 sockets, and port 546.
var needed = []struct {
	number int
	name   string
}{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
	{unix.CAP_NET_RAW, "CAP_NET_RAW"},
	{unix.CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE"},
}

// privileged returns an error that names the capabilities that this process lacks. Without the check the daemon would
// start, and fail at every single object, for ever.
func privileged() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil // a sandbox may forbid asking; what is missing shows soon enough
	}
	var missing []string
	for _, c := range needed {
		if data[c.number/32].Effective&(1<<(c.number%32)) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return errors.New("no privilege: this process lacks " + strings.Join(missing, ", ") + "; run it as root or through the systemd unit")
}
