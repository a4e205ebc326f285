package rtnl

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

// watchTables reads one socket until it fails or ctx ends, and hints at changes of uplinkd's tables only: some programs
// change theirs many times a second.
func (k *Kernel) watchTables(ctx context.Context, hint func()) error {
	f, err := subscribe(unix.NETLINK_NETFILTER, []uint32{unix.NFNLGRP_NFTABLES}, k.options.watchBuffer)
	if err != nil {
		return fmt.Errorf("watch nft tables: %w", err)
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	hint() // what changed before the socket stood
	b := make([]byte, datagram)
	for {
		n, err := f.Read(b)
		if err != nil {
			return fmt.Errorf("receive notifications of nft: %w", err)
		}
		if aboutTables(b[:n]) {
			hint()
		}
	}
}

// aboutTables reports whether a datagram of notifications has one about a table of uplinkd, or is damaged.
func aboutTables(b []byte) (about bool) {
	for len(b) > 0 && !about {
		m, rest, err := nextMessage(b)
		if err != nil || m.typ>>8 == unix.NFNL_SUBSYS_NFTABLES && len(m.body) < nfgenmsg {
			return true
		}
		b = rest
		if m.typ>>8 != unix.NFNL_SUBSYS_NFTABLES || m.typ == nftType(unix.NFT_MSG_NEWGEN) {
			continue
		}
		err = eachAttr(m.body[nfgenmsg:], func(typ uint16, data []byte) error {
			about = about || typ == unix.NFTA_TABLE_NAME && attrString(data) == kernel.TableName // the same number in all kinds of objects
			return nil
		})
		about = about || err != nil
	}
	return about
}
