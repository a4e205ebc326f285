package isp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/sys/unix"

	"uplinkd/pd"
	"uplinkd/pd/wire"
)

// StormKind is what a Storm is made of.
type StormKind uint8

// The storms.
const (
	// ForgedDHCPv6 are Advertise, Reply and Reconfigure messages to port 546. Half of them have the transaction id and the
	// Client ID of the last message that the client has multicast, so that they are worth a closer look.
	ForgedDHCPv6 StormKind = iota
	// ForgedRAs are router advertisements of 256 routers, with other lifetimes each time.
	ForgedRAs
)

// Storm is somebody on the client's link who sends forged messages as fast as he is told to, from addresses that are not
// his. Nothing in them is to be believed or is a binding: what a Storm shows is what it costs to drop them.
type Storm struct {
	kind   StormKind
	fd     int
	target Target
	xid    uint32 // heard last
	client pd.DUID
	made   int
}

// Target is the interface that a Storm is sent to.
type Target struct {
	Hardware net.HardwareAddr
	Address  netip.Addr // link-local
}

// OpenStorm opens a packet socket on an interface in the network namespace of the calling thread.
func OpenStorm(name string, kind StormKind, to Target) (*Storm, error) {
	if len(to.Hardware) != 6 || !to.Address.Is6() {
		return nil, fmt.Errorf("storm on %s: the target %s, %s is no Ethernet interface with an IPv6 address", name, to.Hardware, to.Address)
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("storm on %s: %w", name, err)
	}
	proto := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_IPV6))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(proto))
	if err != nil {
		return nil, fmt.Errorf("storm on %s: open a packet socket: %w", name, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: i.Index}); err != nil {
		return nil, fmt.Errorf("storm on %s: bind a packet socket: %w", name, errors.Join(err, unix.Close(fd)))
	}
	return &Storm{kind: kind, fd: fd, target: to}, nil
}

// Close ends the storm's socket.
func (s *Storm) Close() error { return unix.Close(s.fd) }

// stormTick is how often a handful of messages is sent.
const stormTick = 5 * time.Millisecond

// Run sends perSecond messages a second until ctx is done, fewer when the machine is too slow for that, and returns how
// many it was.
func (s *Storm) Run(ctx context.Context, perSecond int) (sent int, took time.Duration, err error) {
	began := time.Now()
	ticks := time.NewTicker(stormTick)
	defer ticks.Stop()
	for last := began; ; {
		select {
		case <-ctx.Done():
			return sent, time.Since(began), nil
		case now := <-ticks.C:
			// What a late tick has missed is not made up for beyond a tenth of a second: that would be a burst, not a rate.
			due := int(min(now.Sub(last), 100*time.Millisecond).Seconds() * float64(perSecond))
			last = now
			s.listen()
			for range due {
				frame, err := s.frame()
				if err != nil {
					return sent, time.Since(began), err
				}
				switch err := unix.Send(s.fd, frame, 0); {
				case err == nil:
					sent++
				case !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN):
					return sent, time.Since(began), fmt.Errorf("storm: send a forged message: %w", err)
				}
			}
		}
	}
}

// listen takes the transaction id and the Client ID from what the client multicasts.
func (s *Storm) listen() {
	b := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(s.fd, b, 0)
		if err != nil {
			return
		}
		if n < payloadAt || b[20] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(b[udpAt+2:]) != serverPort {
			continue
		}
		if m, err := wire.Decode(b[payloadAt:n]); err == nil && m.ClientID != "" {
			s.client, s.xid = m.ClientID, m.XID
		}
	}
}

// Offsets in a frame: Ethernet, IPv6, and UDP or ICMPv6.
const (
	ipAt      = 14
	udpAt     = ipAt + 40
	payloadAt = udpAt + 8
)

func (s *Storm) frame() ([]byte, error) {
	s.made++
	// The kernel makes a neighbour entry for every router that it hears, has room for 1024 in all its namespaces
	// (net.ipv6.neigh.default.gc_thresh3), and cannot send anything to anybody when that is full: EINVAL.
	from := netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: 0x02, 15: byte(s.made)})
	if s.kind == ForgedRAs {
		ra := &ndp.RouterAdvertisement{CurrentHopLimit: 64, RouterLifetime: time.Duration(1+s.made%1800) * time.Second,
			RouterSelectionPreference: ndp.High}
		b, err := ndp.MarshalMessageChecksum(ra, from, allNodes)
		if err != nil {
			return nil, fmt.Errorf("storm: %w", err)
		}
		return packet(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, from, allNodes, unix.IPPROTO_ICMPV6, b), nil
	}
	b, err := s.message()
	if err != nil {
		return nil, fmt.Errorf("storm: %w", err)
	}
	udp := make([]byte, 8, 8+len(b))
	binary.BigEndian.PutUint16(udp, serverPort)
	binary.BigEndian.PutUint16(udp[2:], clientPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(b)))
	udp = append(udp, b...)
	binary.BigEndian.PutUint16(udp[6:], checksum(from, s.target.Address, unix.IPPROTO_UDP, udp))
	return packet(s.target.Hardware, from, s.target.Address, unix.IPPROTO_UDP, udp), nil
}

// message is a DHCPv6 message that no client may act on: it is no answer to anything, it is for another client, or nothing
// is in it.
func (s *Storm) message() ([]byte, error) {
	m := pd.Message{Type: []pd.MessageType{pd.Advertise, pd.Reply, pd.Reconfigure}[s.made%3], ServerID: "\x00\x03\x00\x01\x02\xba\xdb\xad\xba\xd0"}
	m.ClientID = "\x00\x03\x00\x01\x02\x00\x00\x00\x00\x01"
	switch s.made % 4 {
	case 0, 1: // a shot in the dark
		m.XID = rand.Uint32N(1 << 24)
	case 2:
		m.XID = s.xid
	case 3:
		m.XID = s.xid
		if s.client != "" {
			m.ClientID = s.client
		}
	}
	return wire.Encode(m)
}

// packet is payload in IPv6 in Ethernet.
func packet(hardware net.HardwareAddr, from, to netip.Addr, next byte, payload []byte) []byte {
	b := make([]byte, 0, udpAt+len(payload))
	b = append(b, hardware...)
	b = append(b, 0x02, 0xba, 0xdb, 0xad, 0xba, 0xd0, 0x86, 0xdd)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, next, 255)
	b = append(b, from.AsSlice()...)
	b = append(b, to.AsSlice()...)
	return append(b, payload...)
}

// checksum is that of RFC 1071 with the pseudo-header of RFC 8200 §8.1.
func checksum(from, to netip.Addr, next byte, payload []byte) uint16 {
	b := append(from.AsSlice(), to.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, 0, 0, 0, next)
	b = append(b, payload...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	var sum uint32
	for ; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	if sum = ^sum & 0xffff; sum == 0 {
		sum = 0xffff // RFC 8200 §8.1: 0 would mean that there is none
	}
	return uint16(sum)
}
