package udp

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

// TestHints is about errors that root does not meet. What goes wrong on a real interface is tested with client and server.
func TestHints(t *testing.T) {
	priority := Option{"SO_PRIORITY", unix.SOL_SOCKET, unix.SO_PRIORITY, 7}
	for _, c := range []struct {
		err  error
		want string
	}{
		{unix.EACCES, "listen on udp [::]:546 dev wan0: permission denied: run as root or with CAP_NET_BIND_SERVICE"},
		{optionError(priority, unix.EPERM), "listen on udp [::]:546 dev wan0: socket priority above 6 needs CAP_NET_ADMIN: SO_PRIORITY 7"},
	} {
		err := bindError(kernel.Link{Name: "wan0"}, ClientPort, &net.OpError{Op: "listen", Err: c.err})
		if err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

func TestDestination(t *testing.T) {
	info := func(index int, dst string) []byte {
		cm := ipv6.ControlMessage{IfIndex: index, Src: net.ParseIP(dst)} // Marshal puts Src where Parse finds Dst
		return cm.Marshal()
	}
	for _, c := range []struct {
		name string
		oob  []byte
		want netip.Addr
	}{
		{"unicast", info(4, "fe80::1"), netip.MustParseAddr("fe80::1")},
		{"multicast", info(4, "ff02::1"), netip.MustParseAddr("ff02::1")},
		{"another interface", info(5, "fe80::1"), netip.Addr{}},
		{"nothing", nil, netip.Addr{}},
		{"cut short", info(4, "fe80::1")[:unix.SizeofCmsghdr+4], netip.Addr{}},
	} {
		if got, ok := Destination(c.oob, 4); got != c.want || ok != c.want.IsValid() {
			t.Errorf("%s: %s, %v, want %s", c.name, got, ok, c.want)
		}
	}
}
