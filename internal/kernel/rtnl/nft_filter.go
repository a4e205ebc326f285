package rtnl

import (
	"context"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

// Constants of linux/netfilter.h and linux/netfilter/nf_tables.h that package unix lacks.
const (
	hookNum   = 1 // NFTA_HOOK_HOOKNUM
	localIn   = 1 // NF_INET_LOCAL_IN
	chainDrop = 0 // NF_DROP, in NFTA_CHAIN_POLICY
)

// Filtered reports whether somebody filters what comes in for this machine: whether an nft table of others has a chain of
// type filter at the input hook that drops what it does not know, or has any rule. What iptables-nft makes is among them. What
// the old iptables makes (ip6tables-legacy) is not: only setsockopt shows it.
//
// It asks for the generation of the ruleset, and for the chains only if that is another one.
func (k *Kernel) Filtered(ctx context.Context) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := &k.tables
	for range dumpAttempts {
		err := t.refreshFilter()
		switch {
		case err == nil:
			return t.filter.found, nil
		case errors.Is(err, errNoTables):
			return false, nil
		case !errors.Is(err, errInterrupted):
			return false, err
		case ctx.Err() != nil:
			return false, ctx.Err()
		}
	}
	return false, errInterrupted
}

// HasNFT returns an error that says what to do if there is no program to write nft tables with.
func HasNFT() error {
	_, err := new(Kernel).findNFT()
	return err
}

// filter is what is known of filters of others.
type filter struct {
	generation uint32 // of found; 0: not read
	found      bool
}

func (t *tables) refreshFilter() error {
	if err := t.usable(); err != nil {
		return err
	}
	generation, err := t.current()
	switch {
	case errors.Is(err, unix.EINVAL):
		return errNoTables
	case err != nil || generation == t.filter.generation:
		return err
	}
	found, err := t.findFilter()
	if err != nil {
		return err
	}
	if now, err := t.current(); err != nil {
		return err
	} else if now != generation {
		return errInterrupted
	}
	t.filter = filter{generation, found}
	return nil
}

// inputChain is a chain without a verdict of its own.
type inputChain struct {
	family      uint8
	table, name string
}

func (t *tables) findFilter() (found bool, err error) {
	open := map[inputChain]bool{} // those that let pass what no rule of theirs holds up
	err = t.dump(unix.NFT_MSG_GETCHAIN, unix.AF_UNSPEC, nil, func(family uint8, a attrs) error {
		c := inputChain{family, attrString(a[unix.NFTA_CHAIN_TABLE]), attrString(a[unix.NFTA_CHAIN_NAME])}
		if c.table == kernel.TableName || nftFamilies[family] != "inet" && nftFamilies[family] != "ip6" || attrString(a[unix.NFTA_CHAIN_TYPE]) != "filter" {
			return nil
		}
		hook := attrs{}
		if err := eachAttr(a[unix.NFTA_CHAIN_HOOK], func(typ uint16, data []byte) error { hook[typ] = data; return nil }); err != nil {
			return err
		}
		if number(hook[hookNum]) != localIn {
			return nil
		}
		if policy := a[unix.NFTA_CHAIN_POLICY]; len(policy) == 4 && number(policy) == chainDrop {
			found = true
		}
		open[c] = true
		return nil
	})
	if err != nil || found || len(open) == 0 {
		return found, err
	}
	for c := range open {
		var head encoder
		head.string(unix.NFTA_RULE_TABLE, c.table)
		head.string(unix.NFTA_RULE_CHAIN, c.name)
		err := t.dump(unix.NFT_MSG_GETRULE, c.family, head.buf, func(_ uint8, a attrs) error {
			found = found || attrString(a[unix.NFTA_RULE_TABLE]) == c.table && attrString(a[unix.NFTA_RULE_CHAIN]) == c.name
			return nil
		})
		if err != nil || found {
			return found, err
		}
	}
	return false, nil
}

// number is an attribute in network byte order; 0 if it has another length.
func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
