package rtnl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// receiveBuffer is what the sockets ask for. Acknowledgements of a whole batch, and notifications while the engine is
	// busy, must fit. SO_RCVBUFFORCE needs CAP_NET_ADMIN in the first user namespace; else net.core.rmem_max caps it.
	receiveBuffer = 8 << 20
	// datagram is the largest answer expected: the kernel builds dumps in pieces of at most 32 KiB.
	datagram = 64 << 10
	// answerTimeout bounds the wait for an answer that the kernel in fact queues before the request returns.
	answerTimeout = 5 * time.Second
	// dumpAttempts is how often a dump is tried that changes interrupt (NLM_F_DUMP_INTR), and dumpPause the pause after the
	// first, five times as long after each of the others. Without pauses a dump that follows the addition of a thousand
	// addresses fails: DAD changes the table for some 50 ms.
	dumpAttempts = 4
	dumpPause    = 2 * time.Millisecond
)

// errInterrupted is a dump during which the table changed: it may lack rows or show them twice.
var errInterrupted = errors.New("the kernel's table kept changing while it was read; its state is unknown")

// errLost means that the socket overflowed (ENOBUFS): answers are missing.
var errLost = errors.New("the receive buffer overflowed: answers of the kernel were lost")

// conn is one netlink socket for requests. It is not safe for concurrent use.
//
// Go's poller does not know of the socket (as it would with nl.Subscribe): the kernel answers before a request returns, and
// each answer would wake the thread that waits for all the program's files, only to find nothing to do.
type conn struct {
	fd     int
	seq    uint32
	buf    []byte
	rcvbuf int  // what the kernel granted, in its own (doubled) account
	strict bool // NETLINK_GET_STRICT_CHK is on: dumps can be filtered in the kernel
	broken bool // out of step with the kernel: open another one
}

// dial opens an rtnetlink socket for requests. buffer is the wanted size of the receive buffer; strict asks for dumps that the kernel
// filters.
func dial(buffer int, strict bool) (*conn, error) {
	c, err := dialTo(unix.NETLINK_ROUTE, buffer)
	if err != nil {
		return nil, fmt.Errorf("open an rtnetlink socket: %w", err)
	}
	// Filtered dumps are a refinement that old kernels lack (before 4.20).
	c.strict = strict && unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1) == nil
	return c, nil
}

// dialTo opens a socket of a netlink protocol.
func dialTo(protocol, buffer int) (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, err
	}
	c := &conn{fd: fd, buf: make([]byte, datagram)}
	if err := c.setUp(buffer); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *conn) setUp(buffer int) error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer); err != nil {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer); err != nil {
			return fmt.Errorf("set the receive buffer: %w", err)
		}
	}
	var err error
	if c.rcvbuf, err = unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil {
		return fmt.Errorf("read the receive buffer size: %w", err)
	}
	// Refinements that old kernels lack: sentences in errors (4.12), short acknowledgements (4.3).
	_ = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return nil
}

func (c *conn) close() { _ = unix.Close(c.fd) }

func (c *conn) next() uint32 {
	c.seq++
	return c.seq
}

// send sends requests in one datagram. The kernel works through them in order before it returns.
func (c *conn) send(b []byte) error {
	for {
		err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if err := c.wait(unix.POLLOUT); err != nil {
				return err
			}
		default:
			return fmt.Errorf("send to the kernel: %w", err)
		}
	}
}

// receive returns the next datagram of the kernel. It is valid until the next call. Without wait it returns nil when
// nothing is queued.
func (c *conn) receive(wait bool) ([]byte, error) {
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN) && !wait:
			return nil, nil
		case errors.Is(err, unix.EAGAIN):
			if err := c.wait(unix.POLLIN); err != nil {
				return nil, err
			}
			continue
		case errors.Is(err, unix.ENOBUFS):
			return nil, errLost
		case err != nil:
			return nil, fmt.Errorf("receive from the kernel: %w", err)
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue // another process may write to this port; only the kernel is believed
		}
		if n > len(c.buf) {
			return nil, fmt.Errorf("%w: a datagram of %d bytes", errMalformed, n)
		}
		return c.buf[:n], nil
	}
}

func (c *conn) wait(events int16) error {
	p := []unix.PollFd{{Fd: int32(c.fd), Events: events}}
	n, err := unix.Poll(p, int(answerTimeout/time.Millisecond))
	switch {
	case errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("wait for the kernel: %w", err)
	case n == 0:
		return fmt.Errorf("the kernel did not answer within %v", answerTimeout)
	}
	return nil
}

// dump asks for all objects of a kind: get is RTM_GET..., body the payload of the request. decode makes a row of one
// object, or says that it is not wanted. A dump that fails, or that changes interrupt time after time, gives an error and
// no rows: half a dump taken for the truth would make the engine write everything again, or delete what it must keep.
func dump[R any](ctx context.Context, c *conn, get uint16, body []byte, decode func([]byte) (R, bool, error)) ([]R, error) {
	pause := dumpPause
	for i := range dumpAttempts {
		if i > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause *= 5
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var rows []R
		d := dumpReader{want: get - 2, each: func(b []byte) error { // RTM_NEWx is RTM_GETx - 2
			row, ok, err := decode(b)
			if ok && err == nil {
				rows = append(rows, row)
			}
			return err
		}}
		if err := c.ask(&d, get, unix.NLM_F_DUMP, body); err != nil {
			return nil, err
		}
		if !d.interrupted {
			return rows, nil
		}
	}
	return nil, errInterrupted
}

// ask sends one request, a dump (flags NLM_F_DUMP) or one that is acknowledged (NLM_F_ACK), and feeds d to the end of the
// answer.
func (c *conn) ask(d *dumpReader, typ, flags uint16, body []byte) error {
	d.seq = c.next()
	e := encoder{}
	start, head := e.begin(typ, flags, d.seq, len(body))
	copy(head, body)
	e.end(start)
	if err := c.send(e.buf); err != nil {
		c.broken = true
		return err
	}
	for !d.done {
		b, err := c.receive(true)
		if err != nil {
			c.broken = true
			return err
		}
		d.datagram(b)
	}
	return d.err
}

// answer is what the kernel said to one request.
type answer struct {
	here bool  // false: lost
	err  error // nil: done
}

// transact sends requests with the sequence numbers first, first+1, ... in one datagram and collects their answers. The
// kernel handles them in order and goes on after one that it refuses. When answers are lost it returns errLost and those
// that are left.
func (c *conn) transact(b []byte, first uint32, n int) ([]answer, error) {
	answers := make([]answer, n)
	if err := c.send(b); err != nil {
		c.broken = true
		return answers, err
	}
	lost := false
	for left := n; left > 0; {
		b, err := c.receive(!lost)
		switch {
		case errors.Is(err, errLost):
			lost = true
			continue
		case err != nil:
			c.broken = true
			return answers, err
		case b == nil:
			return answers, errLost
		}
		got, err := collect(b, first, answers)
		if err != nil {
			c.broken = true
			return answers, err
		}
		left -= got
	}
	return answers, nil
}

// collect files the acknowledgements in a datagram under their requests and counts the new ones.
func collect(b []byte, first uint32, answers []answer) (n int, err error) {
	for len(b) > 0 {
		var m message
		if m, b, err = nextMessage(b); err != nil {
			return n, err
		}
		i := m.seq - first
		if m.typ != unix.NLMSG_ERROR || i >= uint32(len(answers)) || answers[i].here {
			continue
		}
		answers[i] = answer{here: true, err: parseAck(m)}
		n++
	}
	return n, nil
}

// dumpReader takes a dump apart, datagram by datagram. It reads to the end also after an error, since a socket takes no
// further request while its dump goes on.
type dumpReader struct {
	seq         uint32
	want        uint16
	each        func([]byte) error
	done        bool
	interrupted bool
	err         error
}

func (d *dumpReader) datagram(b []byte) {
	for len(b) > 0 && !d.done {
		m, rest, err := nextMessage(b)
		if err != nil {
			d.fail(err)
			return
		}
		b = rest
		if m.seq != d.seq {
			continue // rest of an earlier request
		}
		d.interrupted = d.interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
		switch m.typ {
		case unix.NLMSG_DONE:
			d.finish(m)
		case unix.NLMSG_ERROR:
			d.done = true
			if err := parseAck(m); err != nil {
				d.fail(err)
			}
		case d.want:
			if d.err == nil {
				if err := d.each(m.body); err != nil {
					d.fail(err)
				}
			}
		}
	}
}

// finish reads NLMSG_DONE, whose payload is the result of the dump.
func (d *dumpReader) finish(m message) {
	d.done = true
	if len(m.body) < 4 {
		return
	}
	if code := int32(native.Uint32(m.body)); code < 0 && code != -1<<31 {
		d.fail(&kernelError{errno: unix.Errno(-code)})
	}
}

func (d *dumpReader) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}
