package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DHCPv6 messages that the race looks for (RFC 9915 §7.3).
const (
	solicit = 1
	renew   = 5
	reply   = 7
)

// seen is a DHCPv6 message on the wire.
type seen struct {
	at  time.Time // when the kernel had it, not when somebody read it
	typ byte
}

// wire listens to DHCPv6 on one interface, on a packet socket. The kernel notes the times, so it is read after the
// measurement: a reader that wakes for every packet would take a processor from the program that is measured.
type wire struct{ fd int }

// openWire has to be called in the interface's namespace.
func openWire(dev string) (*wire, error) {
	i, err := net.InterfaceByName(dev)
	if err != nil {
		return nil, err
	}
	// A socket for IPv6 alone would not see what leaves.
	proto := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(proto))
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: i.Index}))
	if err != nil {
		return nil, fmt.Errorf("listen to dev %s: %w", dev, errors.Join(err, unix.Close(fd)))
	}
	return &wire{fd}, nil
}

// drain returns the messages since the last call.
func (w *wire) drain() (messages []seen) {
	b, oob := make([]byte, 2048), make([]byte, 128)
	for {
		n, oobn, _, _, err := unix.Recvmsg(w.fd, b, oob, 0)
		if err != nil {
			return messages
		}
		const ip, udp = 40, 8
		if n <= ip+udp || b[0]>>4 != 6 || b[6] != unix.IPPROTO_UDP {
			continue
		}
		from, to := binary.BigEndian.Uint16(b[ip:]), binary.BigEndian.Uint16(b[ip+2:])
		if at, ok := timestamp(oob[:oobn]); ok && (to == 547 || to == 546 || from == 547) {
			messages = append(messages, seen{at, b[ip+udp]})
		}
	}
}

func timestamp(oob []byte) (time.Time, bool) {
	controls, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Time{}, false
	}
	for _, c := range controls {
		if c.Header.Level == unix.SOL_SOCKET && c.Header.Type == unix.SO_TIMESTAMPNS && len(c.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			return time.Unix((*unix.Timespec)(unsafe.Pointer(&c.Data[0])).Unix()), true
		}
	}
	return time.Time{}, false
}

// first returns the time of the first message of a type.
func first(messages []seen, typ byte) (time.Time, bool) {
	for _, m := range messages {
		if m.typ == typ {
			return m.at, true
		}
	}
	return time.Time{}, false
}
