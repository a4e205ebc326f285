// Package trace keeps the DHCPv6 messages that an uplink has sent and received lately, for people who want to know what
// was said: the ring of the last ones, a live view, a line of text and a pcapng file for tcpdump and Wireshark.
//
// It holds octets as they were on the wire, without judging them, and no more of them than it promises: whoever can send
// packets to the uplink can push the older ones out, and nothing else. The octets may contain a Reconfigure key
// (RFC 9915 §20.4), so they are for root's eyes; Packet.Text leaves keys out.
//
// It is not a capture of the link: what other programs send, and what the kernel drops, is not there.
package trace

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"uplinkd/pd/wire"
)

// Packet is one DHCPv6 message as it was on the wire.
type Packet struct {
	Seq    uint64 // set by the Ring, one more for each packet: a gap says that packets were lost to the reader
	At     time.Time
	Sent   bool           // by us; else received
	Local  netip.AddrPort // our end, or the group that the message was sent to
	Remote netip.AddrPort
	Data   []byte // never modified
}

// Text is the packet in one line, without its time: direction, other end, and the message as wire.Text shows it.
func (p Packet) Text() string {
	said := ""
	if m, err := wire.Decode(p.Data); err != nil {
		said = err.Error()
	} else {
		said = wire.Text(m)
	}
	if p.Sent {
		return fmt.Sprintf("sent to %s %s", p.Remote, said)
	}
	to := ""
	if p.Local.Addr().IsMulticast() {
		to = fmt.Sprintf(" to %s", p.Local.Addr())
	}
	return fmt.Sprintf("received from %s%s %s", p.Remote, to, said)
}

// String is Text behind the time.
func (p Packet) String() string {
	return strings.Join([]string{p.At.Format("2006-01-02T15:04:05.000Z07:00"), p.Text()}, " ")
}

// Bounds of a Ring.
const (
	maxPackets = 256
	maxOctets  = 256 << 10
	queue      = 64 // packets that a reader of the live view may be behind
)

// Ring holds the latest packets of one uplink: at most 256, and at most 256 kB. The zero value is ready. Its methods may be
// called from several goroutines.
type Ring struct {
	mu      sync.Mutex
	packets []Packet // oldest first
	octets  int
	seq     uint64
	readers map[chan Packet]struct{}
}

// Record takes in a packet. It does not block and keeps nothing of p.Data but a copy.
func (r *Ring) Record(p Packet) {
	p.Data = bytes.Clone(p.Data)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	p.Seq = r.seq
	r.packets = append(r.packets, p)
	r.octets += len(p.Data)
	for len(r.packets) > maxPackets || r.octets > maxOctets && len(r.packets) > 1 {
		r.octets -= len(r.packets[0].Data)
		r.packets[0] = Packet{} // lets go of Data, which append may carry along for a while
		r.packets = r.packets[1:]
	}
	for reader := range r.readers {
		select {
		case reader <- p:
		default: // too slow: Seq tells
		}
	}
}

// Packets are those in the ring, oldest first.
func (r *Ring) Packets() []Packet {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Packet(nil), r.packets...)
}

// Follow returns the packets in the ring and a channel with those that come after them, none of them twice. A reader that
// is too slow misses some, which Packet.Seq shows. stop closes the channel and has to be called; a second time is harmless.
func (r *Ring) Follow() (past []Packet, live <-chan Packet, stop func()) {
	reader := make(chan Packet, queue)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readers == nil {
		r.readers = make(map[chan Packet]struct{})
	}
	r.readers[reader] = struct{}{}
	return append([]Packet(nil), r.packets...), reader, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if _, ok := r.readers[reader]; ok {
			delete(r.readers, reader)
			close(reader)
		}
	}
}
