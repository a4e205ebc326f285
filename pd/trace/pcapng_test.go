package trace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"uplinkd/internal/netlab"
)

// file returns a pcapng file with these packets.
func file(t interface{ Fatal(...any) }, packets ...Packet) []byte {
	var b bytes.Buffer
	w, err := NewWriter(&b, "wan0")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		if err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// captured is what the parser reads of an Enhanced Packet Block.
type captured struct {
	nanoseconds uint64
	flags       uint32
	ip          []byte
}

// parse reads a file as the draft says, with nothing of the writer but the numbers in it.
func parse(b []byte) (name string, packets []captured, err error) {
	le := binary.LittleEndian
	var kinds []uint32
	for len(b) > 0 {
		if len(b) < 12 {
			return "", nil, errors.New("stray octets")
		}
		kind, n := le.Uint32(b), int(le.Uint32(b[4:]))
		if n%4 != 0 || n < 12 || n > len(b) || le.Uint32(b[n-4:]) != uint32(n) {
			return "", nil, errors.New("lengths of a block do not agree")
		}
		body := b[8 : n-4]
		b = b[n:]
		kinds = append(kinds, kind)
		switch kind {
		case 0x0a0d0d0a:
			if le.Uint32(body) != 0x1a2b3c4d || le.Uint16(body[4:]) != 1 || le.Uint16(body[6:]) != 0 || le.Uint64(body[8:]) != 1<<64-1 {
				return "", nil, errors.New("section header")
			}
			if _, err := options(body[16:]); err != nil {
				return "", nil, err
			}
		case 1:
			o, err := options(body[8:])
			if err != nil || le.Uint16(body) != 229 || string(o[9]) != "\x09" {
				return "", nil, errors.Join(err, errors.New("interface description"))
			}
			name = string(o[2])
		case 6:
			size := int(le.Uint32(body[12:]))
			if le.Uint32(body) != 0 || int(le.Uint32(body[16:])) != size || 20+size > len(body) {
				return "", nil, errors.New("enhanced packet")
			}
			o, err := options(body[20+(size+3)/4*4:])
			if err != nil || len(o[2]) != 4 {
				return "", nil, errors.Join(err, errors.New("flags of a packet"))
			}
			at := uint64(le.Uint32(body[4:]))<<32 | uint64(le.Uint32(body[8:]))
			packets = append(packets, captured{at, le.Uint32(o[2]), body[20 : 20+size]})
		}
	}
	if len(kinds) < 2 || kinds[0] != 0x0a0d0d0a || kinds[1] != 1 {
		return "", nil, errors.New("the file does not begin with section and interface")
	}
	return name, packets, nil
}

func options(b []byte) (map[uint16][]byte, error) {
	o := map[uint16][]byte{}
	for len(b) >= 4 {
		code, n := binary.LittleEndian.Uint16(b), int(binary.LittleEndian.Uint16(b[2:]))
		padded := 4 + (n+3)/4*4
		if code == 0 {
			if n != 0 || len(b) != 4 {
				return nil, errors.New("end of options")
			}
			return o, nil
		}
		if padded > len(b) {
			return nil, errors.New("option too long")
		}
		o[code] = b[4 : 4+n]
		b = b[padded:]
	}
	return nil, errors.New("options without end")
}

// verify adds up everything that UDP's checksum covers, as a receiver does: the sum is 0xffff if all is well.
func verify(ip []byte) bool {
	b := bytes.Clone(ip[8:])
	b = append(b, ip[40+4:40+6]...) // the length once more, and the protocol
	if len(b)%2 != 0 {
		b = append(b[:len(b)-2], 0, ip[40+4], ip[40+5])
	}
	b = append(b, 0, ip[6])
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
		sum = sum&0xffff + sum>>16
	}
	return sum == 0xffff
}

func TestPcapng(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "data")
		p := received(string(data))
		p.Sent = rapid.Bool().Draw(t, "sent")
		p.Remote = netip.AddrPortFrom(netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "remote"))), rapid.Uint16().Draw(t, "port"))
		name, packets, err := parse(file(t, p, sent(solicit)))
		if err != nil || name != "wan0" || len(packets) != 2 {
			t.Fatalf("interface %q, %d packets, %v", name, len(packets), err)
		}
		ip := packets[0].ip
		src, dst, flags := p.Remote, p.Local, uint32(1)
		if p.Sent {
			src, dst, flags = p.Local, p.Remote, 2
		}
		be := binary.BigEndian
		switch {
		case packets[0].nanoseconds != uint64(at.UnixNano()), packets[0].flags != flags:
			t.Fatalf("%+v", packets[0])
		case len(ip) != 48+len(data), ip[0] != 0x60, int(be.Uint16(ip[4:])) != 8+len(data), ip[6] != 17:
			t.Fatalf("IPv6 header %x", ip[:40])
		case netip.AddrFrom16([16]byte(ip[8:24])) != src.Addr(), netip.AddrFrom16([16]byte(ip[24:40])) != dst.Addr():
			t.Fatalf("addresses %x", ip[:40])
		case be.Uint16(ip[40:]) != src.Port(), be.Uint16(ip[42:]) != dst.Port(), int(be.Uint16(ip[44:])) != 8+len(data):
			t.Fatalf("UDP header %x", ip[40:48])
		case be.Uint16(ip[46:]) == 0 || !verify(ip):
			t.Fatalf("checksum %x", ip[46:48])
		case !bytes.Equal(ip[48:], data):
			t.Fatalf("data %x", ip[48:])
		}
	})
}

// A checksum that comes out as 0 is written as 0xffff: 0 means that there is none, which IPv6 does not allow.
func TestChecksumIsNeverZero(t *testing.T) {
	ip, err := datagram(received("\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	c := binary.BigEndian.Uint16(ip[46:])
	ip, err = datagram(received(string([]byte{byte(c >> 8), byte(c)}))) // now everything adds up to 0xffff
	if err != nil {
		t.Fatal(err)
	}
	if got := binary.BigEndian.Uint16(ip[46:]); got != 0xffff || !verify(ip) {
		t.Errorf("checksum %#04x, want 0xffff", got)
	}
}

func TestWriterErrors(t *testing.T) {
	if _, err := NewWriter(broken{}, "wan0"); err == nil || err.Error() != "write pcapng header: disk full" {
		t.Errorf("%v", err)
	}
	w, err := NewWriter(&bytes.Buffer{}, "wan0")
	if err != nil {
		t.Fatal(err)
	}
	mapped, long := sent(solicit), sent(strings.Repeat("x", 65528))
	mapped.Seq, mapped.Remote = 7, netip.MustParseAddrPort("192.0.2.1:547")
	for _, c := range []struct {
		p    Packet
		want string
	}{
		{mapped, "write packet 7 to pcapng: 192.0.2.1 is not an IPv6 address"},
		{long, "write packet 0 to pcapng: 65528 octets, want at most 65527"},
		{sent(strings.Repeat("x", 65527)), ""},
	} {
		if err := w.Write(c.p); (err != nil || c.want != "") && (err == nil || err.Error() != c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	w.w = broken{}
	if err := w.Write(sent(solicit)); err == nil || err.Error() != "write packet 0 to pcapng: disk full" {
		t.Errorf("%v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// TestTcpdump has a program read the file that knows pcapng, IPv6, UDP and DHCPv6 from elsewhere.
func TestTcpdump(t *testing.T) {
	netlab.NeedProgram(t, "tcpdump", "tcpdump")
	global := received(reply)
	global.Remote = netip.MustParseAddrPort("[2001:db8::547]:30000") // a server with another port
	cmd := exec.CommandContext(t.Context(), "tcpdump", "-r", "-", "-n", "-tttt", "-vv", "--nano")
	cmd.Env = append(os.Environ(), "TZ=UTC")
	cmd.Stdin = bytes.NewReader(file(t, sent(solicit), received(reply), global, received("\x07")))
	cmd.WaitDelay = 10 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	text := string(out)
	for _, want := range []string{
		"2026-03-01 12:00:00.123456789 IP6",
		"fe80::1.546 > ff02::1:2.547: [udp sum ok] dhcp6 solicit (xid=1 (elapsed-time 0))",
		"fe80::2.547 > fe80::1.546: [udp sum ok] dhcp6 reply (xid=1 (server-ID",
		"2001:db8::547.30000 > fe80::1.546: [udp sum ok]",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if n := strings.Count(text, "[udp sum ok]"); n != 4 || strings.Contains(text, "bad udp cksum") {
		t.Errorf("%d good checksums, want 4:\n%s", n, text)
	}
}
