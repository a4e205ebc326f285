package rtnl

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Caps is what the running kernel can do, found out once by Open.
type Caps struct {
	Release    string `json:"release"`     // uname -r
	IFAProto   bool   `json:"ifa_proto"`   // addresses carry an owner mark (Linux 5.18); without it a ledger must say which are ours
	StrictDump bool   `json:"strict_dump"` // dumps of routes are filtered by the kernel (Linux 4.20); without it they are filtered here
	RcvBuf     int    `json:"rcvbuf"`      // bytes of receive buffer granted to the request socket
}

// Kernel reads and writes the rtnetlink objects, sysctls and nft tables of the network namespace it was opened in. (Sysctls
// and nft(8) follow the process: writing these takes a process in that same namespace.) Its methods may be called from any
// goroutine; Read, Links and Apply take turns.
type Kernel struct {
	caps    Caps
	options options

	mu      sync.Mutex
	conn    *conn
	values  values
	adopted map[addressKey]uint32 // addresses that the last Read took for ours without the mark, and when they were made

	duplicates duplicates
	onLink     onLink
	tables     tables
}

// options are the knobs that tests turn.
type options struct {
	requestBuffer int    // receive buffer of the request socket, bytes
	watchBuffer   int    // receive buffer of the watching socket, bytes
	batch         int    // most requests in one datagram; 0: as many as acknowledgements fit into the buffer
	noStrict      bool   // as if the kernel had no NETLINK_GET_STRICT_CHK
	noIFAProto    bool   // as if the kernel had no IFA_PROTO
	sysctls       string // where sysctls are: /proc/sys
	nft           string // the program that writes tables; "": nft, wherever it is
}

// Open opens the request socket and probes the kernel.
func Open() (*Kernel, error) {
	return open(options{requestBuffer: receiveBuffer, watchBuffer: receiveBuffer, sysctls: "/proc/sys"})
}

func open(o options) (*Kernel, error) {
	k := &Kernel{options: o, values: values{most: mostValues()}, tables: tables{first: make(chan struct{})}, adopted: map[addressKey]uint32{}}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("ask for the kernel's version: %w", err)
	}
	k.caps.Release = unix.ByteSliceToString(u.Release[:])
	k.caps.IFAProto = atLeast(k.caps.Release, 5, 18) && !o.noIFAProto
	if err := k.redial(); err != nil {
		return nil, err
	}
	return k, nil
}

// Close closes the request socket. A running Watch is ended by its context.
func (k *Kernel) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.values.close()
	if k.conn != nil {
		k.conn.close()
		k.conn = nil
	}
	k.tables.close()
}

// Caps returns what was found out about the kernel.
func (k *Kernel) Caps() Caps {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.caps
}

var errClosed = errors.New("the rtnetlink socket is closed")

// lock takes the socket for one call, and replaces one that fell out of step with the kernel.
func (k *Kernel) lock() error {
	k.mu.Lock()
	err := k.usable()
	if err != nil {
		k.mu.Unlock()
	}
	return err
}

func (k *Kernel) usable() error {
	switch {
	case k.conn == nil:
		return errClosed
	case k.conn.broken:
		return k.redial()
	}
	return nil
}

func (k *Kernel) redial() error {
	c, err := dial(k.options.requestBuffer, !k.options.noStrict)
	if err != nil {
		return err
	}
	if k.conn != nil {
		k.conn.close()
	}
	k.conn, k.caps.StrictDump, k.caps.RcvBuf = c, c.strict, c.rcvbuf
	return nil
}

// atLeast reports whether a kernel release ("6.1.0-13-amd64") is major.minor or later.
func atLeast(release string, major, minor int) bool {
	var x, y int
	n, _ := fmt.Sscanf(release, "%d.%d", &x, &y) // what follows the minor number is the distribution's
	return n == 2 && (x > major || (x == major && y >= minor))
}
