package rtnl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// errMalformed is returned for messages that do not hold what their lengths say. A dump with one is no dump: the state
// is unknown.
var errMalformed = errors.New("malformed netlink message")

var native = binary.NativeEndian

// message is one netlink message: the header fields in use, and the payload.
type message struct {
	typ, flags uint16
	seq        uint32
	body       []byte
}

// nextMessage cuts the first message off a datagram.
func nextMessage(b []byte) (m message, rest []byte, err error) {
	if len(b) < unix.NLMSG_HDRLEN {
		return message{}, nil, fmt.Errorf("%w: %d bytes where a header of %d is due", errMalformed, len(b), unix.NLMSG_HDRLEN)
	}
	n := native.Uint32(b)
	if n < unix.NLMSG_HDRLEN || uint64(n) > uint64(len(b)) {
		return message{}, nil, fmt.Errorf("%w: length %d of %d bytes", errMalformed, n, len(b))
	}
	m = message{typ: native.Uint16(b[4:]), flags: native.Uint16(b[6:]), seq: native.Uint32(b[8:]), body: b[unix.NLMSG_HDRLEN:n]}
	return m, b[min(align(int(n)), len(b)):], nil
}

// eachAttr calls f for each attribute of b, with the flag bits of its type cleared.
func eachAttr(b []byte, f func(typ uint16, data []byte) error) error {
	for len(b) >= unix.SizeofNlAttr {
		n := int(native.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			return fmt.Errorf("%w: attribute of length %d in %d bytes", errMalformed, n, len(b))
		}
		if err := f(native.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofNlAttr:n]); err != nil {
			return err
		}
		b = b[min(align(n), len(b)):]
	}
	return nil
}

func attrUint32(b []byte) (uint32, error) {
	if len(b) < 4 {
		return 0, fmt.Errorf("%w: number of %d bytes", errMalformed, len(b))
	}
	return native.Uint32(b), nil
}

func attrUint8(b []byte) (uint8, error) {
	if len(b) < 1 {
		return 0, fmt.Errorf("%w: empty number", errMalformed)
	}
	return b[0], nil
}

func attrAddr(b []byte) (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.Addr{}, fmt.Errorf("%w: address of %d bytes", errMalformed, len(b))
	}
	return a, nil
}

func attrString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// kernelError is the answer of the kernel to a request: an errno and, from most kernels since 4.12, a sentence.
type kernelError struct {
	errno unix.Errno
	text  string // extended ack (NLMSGERR_ATTR_MSG), may be empty
}

func (e *kernelError) Error() string {
	if e.text == "" {
		return e.errno.Error()
	}
	return e.errno.Error() + " (the kernel says: " + e.text + ")"
}

func (e *kernelError) Unwrap() error { return e.errno }

// parseAck reads an NLMSG_ERROR message: nil for an acknowledgement, a *kernelError for a refusal.
func parseAck(m message) error {
	if len(m.body) < unix.SizeofNlMsgerr {
		return fmt.Errorf("%w: acknowledgement of %d bytes", errMalformed, len(m.body))
	}
	code := int32(native.Uint32(m.body))
	if code == 0 {
		return nil
	}
	if code > 0 || code == -1<<31 {
		return fmt.Errorf("%w: error number %d", errMalformed, code)
	}
	ke := &kernelError{errno: unix.Errno(-code)}
	if m.flags&unix.NLM_F_ACK_TLVS == 0 {
		return ke
	}
	// The attributes follow the request's header, or (without NLM_F_CAPPED) the whole request.
	at := uint64(unix.SizeofNlMsgerr)
	if m.flags&unix.NLM_F_CAPPED == 0 {
		at = 4 + uint64(native.Uint32(m.body[4:]))
	}
	if at = (at + 3) &^ 3; at > uint64(len(m.body)) {
		return ke
	}
	_ = eachAttr(m.body[at:], func(typ uint16, data []byte) error { // the text is a courtesy: keep the errno if it is damaged
		if typ == unix.NLMSGERR_ATTR_MSG {
			ke.text = attrString(data)
		}
		return nil
	})
	return ke
}

// encoder builds requests one behind the other in one buffer.
type encoder struct{ buf []byte }

// begin starts a request with a zeroed payload header of size bytes, and returns where the request and that header start.
func (e *encoder) begin(typ, flags uint16, seq uint32, size int) (start int, head []byte) {
	start = len(e.buf)
	e.buf = native.AppendUint32(e.buf, 0)
	e.buf = native.AppendUint16(e.buf, typ)
	e.buf = native.AppendUint16(e.buf, unix.NLM_F_REQUEST|flags)
	e.buf = native.AppendUint32(e.buf, seq)
	e.buf = native.AppendUint32(e.buf, 0)
	e.buf = append(e.buf, make([]byte, align(size))...)
	return start, e.buf[start+unix.NLMSG_HDRLEN:]
}

// end completes the request that begins at start.
func (e *encoder) end(start int) { native.PutUint32(e.buf[start:], uint32(len(e.buf)-start)) }

func (e *encoder) attr(typ uint16, data []byte) {
	e.buf = native.AppendUint16(e.buf, uint16(unix.SizeofNlAttr+len(data)))
	e.buf = native.AppendUint16(e.buf, typ)
	e.buf = append(e.buf, data...)
	e.buf = append(e.buf, make([]byte, align(len(data))-len(data))...)
}

func (e *encoder) uint32(typ uint16, v uint32) {
	var b [4]byte
	native.PutUint32(b[:], v)
	e.attr(typ, b[:])
}

func (e *encoder) string(typ uint16, s string) { e.attr(typ, append([]byte(s), 0)) }

func (e *encoder) addr(typ uint16, a netip.Addr) { e.attr(typ, a.AsSlice()) }
