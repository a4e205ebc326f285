package radv

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/netlab"
)

// frame is a captured Ethernet frame with an ICMPv6 message.
type frame []byte

const etherHeader, ipHeader = 14, 40

func (f frame) to() netip.Addr { return netip.AddrFrom16([16]byte(f[etherHeader+24 : etherHeader+40])) }
func (f frame) icmpv6() []byte { return f[etherHeader+ipHeader:] }
func (f frame) advertisement() bool {
	return len(f) >= etherHeader+ipHeader+16 && f[etherHeader+6] == unix.IPPROTO_ICMPV6 && f.icmpv6()[0] == typeAdvertisement
}

// capture reads the frames that arrive at one interface.
type capture struct {
	t  *testing.T
	fd int
}

// capturesOn begins to capture on an interface of n.
func capturesOn(t *testing.T, n *netlab.NS, name string) *capture {
	t.Helper()
	c := &capture{t: t, fd: -1}
	err := n.Do(func() error {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		proto := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_IPV6))
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(proto)); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(c.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return err
		}
		if err := unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: ifi.Index}); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	})
	if err != nil {
		t.Fatalf("capture on %s: %v", name, err)
	}
	t.Cleanup(func() { _ = unix.Close(c.fd) })
	return c
}

// next returns the next router advertisement that comes within 100 ms after the frame before it.
func (c *capture) next() (frame, bool) {
	b := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(c.fd, b, 0)
		switch f := frame(b[:max(0, n)]); {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return nil, false
		case err != nil:
			c.t.Fatalf("capture: %v", err)
		case f.advertisement():
			return f, true
		}
	}
}

// await returns the first advertisement to all nodes that comes.
func (c *capture) await(from string) (found frame) {
	c.t.Helper()
	netlab.Eventually(c.t, 30*time.Second, "a router advertisement of "+from, func() (bool, string) {
		f, ok := c.next()
		found = f
		return ok && f.to() == allNodes, "none"
	})
	return found
}

// pcap writes a capture file with f alone, for tcpdump.
func pcap(t *testing.T, f frame) string {
	t.Helper()
	order := binary.LittleEndian
	b := order.AppendUint32(nil, 0xa1b2c3d4)
	b = order.AppendUint16(order.AppendUint16(b, 2), 4)
	b = order.AppendUint32(order.AppendUint32(b, 0), 0)
	b = order.AppendUint32(order.AppendUint32(b, 65535), 1) // Ethernet
	b = order.AppendUint32(order.AppendUint32(b, 0), 0)
	b = order.AppendUint32(order.AppendUint32(b, uint32(len(f))), uint32(len(f)))
	file := filepath.Join(t.TempDir(), "ra.pcap")
	if err := os.WriteFile(file, append(b, f...), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
