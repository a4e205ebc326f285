package rtnl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

const (
	nfgenmsg   = 4    // bytes of the header behind the netlink header: family, version 0, 16 bits in network byte order
	batchBegin = 0x10 // NFNL_MSG_BATCH_*: around the messages of a transaction
	batchEnd   = 0x11
)

// nftFamilies names NFPROTO_* as nft(8) does.
var nftFamilies = map[uint8]string{1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}

// errNoTables means that uplinkd cannot have a table: the kernel is built without nfnetlink or nf_tables, or a sandbox keeps
// them from it.
var errNoTables = errors.New("nf_tables is not available (CONFIG_NF_TABLES, SELinux)")

func nftFamily(name string) (uint8, error) {
	for code, n := range nftFamilies {
		if n == name {
			return code, nil
		}
	}
	return 0, fmt.Errorf("%w: a table of family %q", errUnsupported, name)
}

// tables reads and seals uplinkd's nft tables.
//
// The kernel gives its ruleset another number (generation) with every transaction of anybody. As long as the number is the
// same so are the tables, and asking for it is all that a reconcile costs.
type tables struct {
	conn       *conn
	none       bool   // there is no nf_tables, so no tables; a write asks again
	generation uint32 // of rows; 0: not read
	rows       []kernel.Table
	filter     filter

	first   chan struct{} // closed when there is a table for the first time
	noticed bool          // first is closed
}

// notice has Watch look at tables from now on.
func (t *tables) notice() {
	if !t.noticed {
		t.noticed = true
		close(t.first)
	}
}

func (t *tables) close() {
	if t.conn != nil {
		t.conn.close()
	}
	t.conn, t.generation, t.filter = nil, 0, filter{}
}

// usable opens the socket, also after one that fell out of step with the kernel.
func (t *tables) usable() error {
	if t.conn != nil && !t.conn.broken {
		return nil
	}
	t.close()
	c, err := dialTo(unix.NETLINK_NETFILTER, receiveBuffer)
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %w", errNoTables, err)
	case err != nil:
		return fmt.Errorf("open an nfnetlink socket: %w", err)
	}
	t.conn = c
	return nil
}

// read returns uplinkd's tables of all families. The first question to a kernel that has nf_tables as a module loads it.
func (t *tables) read(ctx context.Context) ([]kernel.Table, error) {
	if t.none {
		return nil, nil
	}
	for range dumpAttempts {
		err := t.refresh()
		switch {
		case err == nil:
			return slices.Clone(t.rows), nil
		case errors.Is(err, errNoTables):
			t.none = true
			return nil, nil
		case !errors.Is(err, errInterrupted):
			return nil, explain(err, kernel.Table{})
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
	}
	return nil, errInterrupted
}

// refresh reads the tables, unless nothing has changed since it last did. errInterrupted: something changed meanwhile.
func (t *tables) refresh() error {
	if err := t.usable(); err != nil {
		return err
	}
	generation, err := t.current()
	switch {
	case errors.Is(err, unix.EINVAL):
		return errNoTables // nothing listens behind nfnetlink
	case err != nil || generation == t.generation:
		return err
	}
	var rows []kernel.Table
	err = t.dump(unix.NFT_MSG_GETTABLE, unix.AF_UNSPEC, nil, func(family uint8, a attrs) error {
		if attrString(a[unix.NFTA_TABLE_NAME]) == kernel.TableName {
			rows = append(rows, kernel.Table{Family: nftFamilies[family]})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range rows {
		c, err := t.contents(rows[i].Family)
		if err != nil {
			return err
		}
		rows[i].Sum = c.writtenAs()
	}
	if now, err := t.current(); err != nil {
		return err
	} else if now != generation {
		return errInterrupted
	}
	t.generation, t.rows = generation, rows
	if len(rows) > 0 {
		t.notice()
	}
	return nil
}

// current asks for the generation of the ruleset.
func (t *tables) current() (generation uint32, err error) {
	const genID = 1 // NFTA_GEN_ID
	err = t.ask(unix.NFT_MSG_GETGEN, unix.NFT_MSG_NEWGEN, unix.NLM_F_ACK, unix.AF_UNSPEC, nil, func(_ uint8, a attrs) error {
		if len(a[genID]) != 4 {
			return fmt.Errorf("%w: generation of %d bytes", errMalformed, len(a[genID]))
		}
		generation = binary.BigEndian.Uint32(a[genID])
		return nil
	})
	return generation, err
}

// attrs are the attributes of one nf_tables object by type.
type attrs map[uint16][]byte

// dump asks for all objects of a kind. head is what follows the family: attributes that say which.
func (t *tables) dump(get uint16, family uint8, head []byte, each func(family uint8, a attrs) error) error {
	return t.ask(get, get-1, unix.NLM_F_DUMP, family, head, each)
}

func (t *tables) ask(get, want, flags uint16, family uint8, head []byte, each func(family uint8, a attrs) error) error {
	d := dumpReader{want: nftType(want), each: func(b []byte) error {
		if len(b) < nfgenmsg {
			return fmt.Errorf("%w: nf_tables object of %d bytes", errMalformed, len(b))
		}
		a := attrs{}
		err := eachAttr(b[nfgenmsg:], func(typ uint16, data []byte) error {
			a[typ] = data
			return nil
		})
		if err != nil {
			return err
		}
		return each(b[0], a)
	}}
	err := t.conn.ask(&d, nftType(get), flags, append([]byte{family, 0, 0, 0}, head...))
	if err == nil && d.interrupted || errors.Is(err, unix.ENOENT) { // a set that went away before its elements were read
		return errInterrupted
	}
	return err
}

func nftType(msg uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | msg }

// change carries out one message as a transaction of its own; generation, unless 0, is the only one of the ruleset on
// which the kernel may do so. A table may be deleted like this without the program nft, which may be gone by then.
func (t *tables) change(msg, flags uint16, family uint8, generation uint32, strings map[uint16]string) error {
	var e encoder
	// One sequence number for all three: the answer is an error for the first or the acknowledgement of the second.
	seq := t.conn.next()
	frame := func(typ uint16) {
		const genID = 1 // NFNL_BATCH_GENID
		start, head := e.begin(typ, 0, seq, nfgenmsg)
		binary.BigEndian.PutUint16(head[2:], unix.NFNL_SUBSYS_NFTABLES)
		if typ == batchBegin && generation != 0 {
			e.attr(genID, binary.BigEndian.AppendUint32(nil, generation))
		}
		e.end(start)
	}
	frame(batchBegin)
	start, head := e.begin(nftType(msg), flags|unix.NLM_F_ACK, seq, nfgenmsg)
	head[0] = family
	for typ, s := range strings {
		e.string(typ, s)
	}
	e.end(start)
	frame(batchEnd)
	answers, err := t.conn.transact(e.buf, seq, 1)
	if err == nil {
		err = answers[0].err
	}
	return err
}
