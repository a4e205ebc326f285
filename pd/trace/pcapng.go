package trace

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
)

// Block types, options and values of pcapng (draft-ietf-opsawg-pcapng).
const (
	sectionHeader  = 0x0a0d0d0a
	interfaceBlock = 1
	enhancedPacket = 6
	byteOrderMagic = 0x1a2b3c4d
	linktypeIPv6   = 229 // packets begin with the IPv6 header

	optUserAppl    = 4 // of a section
	optName        = 2 // of an interface
	optResolution  = 9
	nanoseconds    = 9 // 10^-9 s
	optPacketFlags = 2
	inbound        = 1
	outbound       = 2
)

const (
	ipv6Header = 40
	udpHeader  = 8
	udp        = 17
	maxData    = 0xffff - udpHeader // what the payload length of an IPv6 header can say
)

// Writer writes packets as a pcapng file with one interface. Link-layer headers are unknown here, so the packets begin with
// an IPv6 header, which is made up from the addresses, as is the UDP header.
type Writer struct{ w io.Writer }

// NewWriter begins a file on w for packets of the interface called name.
func NewWriter(w io.Writer, name string) (*Writer, error) {
	section := binary.LittleEndian.AppendUint32(nil, byteOrderMagic)
	section = binary.LittleEndian.AppendUint16(section, 1) // version 1.0
	section = binary.LittleEndian.AppendUint16(section, 0)
	section = binary.LittleEndian.AppendUint64(section, 0xffffffffffffffff) // length unknown: more may come
	section = appendOption(section, optUserAppl, []byte("uplinkd"))
	section = appendOption(section, 0, nil)

	link := binary.LittleEndian.AppendUint16(nil, linktypeIPv6)
	link = binary.LittleEndian.AppendUint16(link, 0) // reserved
	link = binary.LittleEndian.AppendUint32(link, 0) // packets are never cut
	link = appendOption(link, optName, []byte(name))
	link = appendOption(link, optResolution, []byte{nanoseconds})
	link = appendOption(link, 0, nil)

	if _, err := w.Write(append(block(sectionHeader, section), block(interfaceBlock, link)...)); err != nil {
		return nil, fmt.Errorf("write pcapng header: %w", err)
	}
	return &Writer{w}, nil
}

// Write writes one packet.
func (w *Writer) Write(p Packet) error {
	ip, err := datagram(p)
	if err != nil {
		return fmt.Errorf("write packet %d to pcapng: %w", p.Seq, err)
	}
	at := uint64(p.At.UnixNano())
	b := binary.LittleEndian.AppendUint32(nil, 0) // interface 0
	b = binary.LittleEndian.AppendUint32(b, uint32(at>>32))
	b = binary.LittleEndian.AppendUint32(b, uint32(at))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(ip)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(ip)))
	b = pad(b, ip)
	flags := uint32(inbound)
	if p.Sent {
		flags = outbound
	}
	b = appendOption(b, optPacketFlags, binary.LittleEndian.AppendUint32(nil, flags))
	b = appendOption(b, 0, nil)
	if _, err := w.w.Write(block(enhancedPacket, b)); err != nil {
		return fmt.Errorf("write packet %d to pcapng: %w", p.Seq, err)
	}
	return nil
}

// block puts type and length around a body, whose length is a multiple of 4.
func block(kind uint32, body []byte) []byte {
	n := uint32(len(body) + 12)
	b := binary.LittleEndian.AppendUint32(nil, kind)
	b = binary.LittleEndian.AppendUint32(b, n)
	return binary.LittleEndian.AppendUint32(append(b, body...), n)
}

// pad appends data and zeros up to a multiple of 4.
func pad(b, data []byte) []byte {
	b = append(b, data...)
	return append(b, make([]byte, (4-len(data)%4)%4)...)
}

// appendOption appends an option; code 0 ends a list of them.
func appendOption(b []byte, code uint16, value []byte) []byte {
	value = value[:min(len(value), 0xffff)]
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return pad(b, value)
}

// datagram is the IPv6 packet that carried p.
func datagram(p Packet) ([]byte, error) {
	from, to := p.Remote, p.Local
	if p.Sent {
		from, to = to, from
	}
	for _, a := range []netip.AddrPort{from, to} {
		if !a.Addr().Is6() {
			return nil, fmt.Errorf("%s is not an IPv6 address", a.Addr())
		}
	}
	if len(p.Data) > maxData {
		return nil, fmt.Errorf("%d octets, want at most %d", len(p.Data), maxData)
	}
	src, dst, n := from.Addr().As16(), to.Addr().As16(), uint16(udpHeader+len(p.Data))
	b := make([]byte, 0, ipv6Header+int(n))
	b = append(b, 6<<4, 0, 0, 0) // version; traffic class and flow label are not known
	b = binary.BigEndian.AppendUint16(b, n)
	b = append(b, udp, 64) // hop limit: not known either
	b = append(append(b, src[:]...), dst[:]...)
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, n)
	b = append(b, 0, 0) // checksum
	b = append(b, p.Data...)
	binary.BigEndian.PutUint16(b[ipv6Header+6:], checksum(b))
	return b, nil
}

// checksum is that of UDP over IPv6 (RFC 8200 §8.1) of a packet whose checksum field is 0.
func checksum(b []byte) uint16 {
	// The pseudo-header is both addresses, the length of what is behind the IPv6 header, and the protocol.
	sum := uint64(len(b)-ipv6Header) + udp
	for covered := b[8:]; len(covered) > 0; {
		if len(covered) == 1 {
			sum += uint64(covered[0]) << 8
			break
		}
		sum += uint64(binary.BigEndian.Uint16(covered))
		covered = covered[2:]
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if sum == 0xffff { // its complement would be 0, which means "no checksum"
		return 0xffff
	}
	return ^uint16(sum)
}
