package rtnl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

// Read dumps what uplinkd owns, and the sysctls that scope names. After an error the state is unknown, which is never the
// same as empty.
func (k *Kernel) Read(ctx context.Context, scope kernel.Scope) (kernel.State, error) {
	if err := k.lock(); err != nil {
		return kernel.State{}, err
	}
	defer k.mu.Unlock()
	k.adopted = map[addressKey]uint32{}
	return k.read(ctx, scope)
}

func (k *Kernel) read(ctx context.Context, scope kernel.Scope) (s kernel.State, err error) {
	names := names{conn: k.conn}
	if s.Routes, err = k.readRoutes(ctx, &names); err != nil {
		return kernel.State{}, fmt.Errorf("read routes: %w", err)
	}
	if s.Rules, err = k.readRules(ctx); err != nil {
		return kernel.State{}, fmt.Errorf("read rules: %w", err)
	}
	if s.Addresses, err = k.readAddresses(ctx, &names, scope.Addresses); err != nil {
		return kernel.State{}, fmt.Errorf("read addresses: %w", err)
	}
	for _, name := range scope.Sysctls {
		v, err := k.readSysctl(name)
		if err != nil {
			return kernel.State{}, err
		}
		s.Sysctls = append(s.Sysctls, v)
	}
	if s.Tables, err = k.tables.read(ctx); err != nil {
		return kernel.State{}, fmt.Errorf("read nft tables: %w", err)
	}
	return s.Normalize(), nil
}

// dumpRoutes dumps the routes of one family with a protocol and in a table; 0 stands for all. With strict dumps the
// kernel leaves out the others, which matters on hosts with a full routing table.
func (k *Kernel) dumpRoutes(ctx context.Context, family, protocol uint8, table uint32) ([]found[kernel.Route], error) {
	e := encoder{buf: make([]byte, unix.SizeofRtMsg)}
	e.buf[0] = family
	if k.conn.strict {
		e.buf[5] = protocol
		if table != 0 {
			e.uint32(unix.RTA_TABLE, table)
		}
	}
	return dump(ctx, k.conn, unix.RTM_GETROUTE, e.buf, func(b []byte) (found[kernel.Route], bool, error) {
		if len(b) > 5 && (b[0] != family || (protocol != 0 && b[5] != protocol)) {
			return found[kernel.Route]{}, false, nil // cheap, for kernels that do not filter
		}
		f, ok, err := decodeRoute(b)
		return f, ok && (table == 0 || f.row.Table == table), err
	})
}

func (k *Kernel) readRoutes(ctx context.Context, names *names) ([]kernel.Route, error) {
	var rows []kernel.Route
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		dumped, err := k.dumpRoutes(ctx, family, kernel.Protocol, 0)
		if err != nil {
			return nil, err
		}
		rows = slices.Grow(rows, len(dumped))
		for _, f := range dumped {
			if f.index != 0 {
				if f.row.Dev, err = names.of(f.index); errors.Is(err, unix.ENODEV) {
					continue // the device went away since the dump, and its routes with it
				} else if err != nil {
					return nil, err
				}
			}
			rows = append(rows, f.row)
		}
	}
	return rows, nil
}

// dumpRules dumps the rules of all families and owners in the kernel's order.
func (k *Kernel) dumpRules(ctx context.Context) ([]found[kernel.Rule], error) {
	return dump(ctx, k.conn, unix.RTM_GETRULE, make([]byte, 12), decodeRule)
}

func (k *Kernel) readRules(ctx context.Context) ([]kernel.Rule, error) {
	dumped, err := k.dumpRules(ctx)
	if err != nil {
		return nil, err
	}
	var rows []kernel.Rule
	for _, f := range dumped {
		if f.proto == kernel.Protocol {
			rows = append(rows, f.row)
		}
	}
	return rows, nil
}

// dumpAddresses dumps the addresses of one family (AF_UNSPEC: all) and all owners.
func (k *Kernel) dumpAddresses(ctx context.Context, family uint8) ([]address, error) {
	body := make([]byte, unix.SizeofIfAddrmsg)
	body[0] = family
	return dump(ctx, k.conn, unix.RTM_GETADDR, body, decodeAddress(time.Now()))
}

// readAddresses returns the addresses with our mark, and those of the ledger: where the kernel has no marks, and where
// somebody has changed one, which puts his mark or none in the place of ours (RTM_NEWADDR writes it anew, also if it is left
// out). That it is still the same address tells the time when it was made; one deleted and made anew by somebody else is his.
func (k *Kernel) readAddresses(ctx context.Context, names *names, ledger []kernel.Address) ([]kernel.Address, error) {
	known := map[netip.Addr][]kernel.Address{}
	for _, a := range ledger {
		known[a.Prefix.Addr()] = append(known[a.Prefix.Addr()], a)
	}
	dumped, err := k.dumpAddresses(ctx, unix.AF_UNSPEC)
	if err != nil {
		return nil, err
	}
	var rows []kernel.Address
	for _, a := range dumped {
		marked := k.caps.IFAProto && a.proto == kernel.Protocol
		records := known[a.row.Prefix.Addr()]
		if !marked && len(records) == 0 {
			continue
		}
		if a.row.Dev, err = names.of(a.index); errors.Is(err, unix.ENODEV) {
			continue
		} else if err != nil {
			return nil, err
		}
		if !marked {
			if !slices.ContainsFunc(records, func(r kernel.Address) bool { return k.isRecord(r, a.row) }) {
				continue
			}
			if k.caps.IFAProto {
				a.row.Unmarked = true
				k.adopted[addressKey{a.index, a.row.Prefix.Addr()}] = a.row.Born
			}
		}
		rows = append(rows, a.row)
	}
	return rows, nil
}

// isRecord reports whether a, an address without our mark, is the one that the ledger has as r. Without a time a record counts
// only where the kernel has no marks.
func (k *Kernel) isRecord(r, a kernel.Address) bool {
	return r.Dev == a.Dev && (r.Born == a.Born && r.Born != 0 || r.Born == 0 && !k.caps.IFAProto)
}

// Links dumps the interfaces with their usable IPv6 addresses, sorted by name. An address that has failed duplicate address
// detection and is gone is among the duplicates once, if a Watch has seen it go.
func (k *Kernel) Links(ctx context.Context) ([]kernel.Link, error) {
	if err := k.lock(); err != nil {
		return nil, err
	}
	defer k.mu.Unlock()
	e := encoder{buf: make([]byte, unix.SizeofIfInfomsg)}
	e.uint32(unix.IFLA_EXT_MASK, 1<<3) // RTEXT_FILTER_SKIP_STATS: half the size
	noted := k.duplicates.list()       // before the dump: an address that has come since is not one of them
	links, err := dump(ctx, k.conn, unix.RTM_GETLINK, e.buf, decodeLink)
	if err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	addrs, err := k.dumpAddresses(ctx, unix.AF_INET6)
	if err != nil {
		return nil, fmt.Errorf("read addresses of links: %w", err)
	}
	at := make(map[uint32]*kernel.Link, len(links))
	for i := range links {
		at[uint32(links[i].Index)] = &links[i]
	}
	for _, a := range addrs {
		l := at[a.index]
		switch {
		case l == nil:
		case a.flags&unix.IFA_F_DADFAILED != 0:
			if addr := a.row.Prefix.Addr(); !addr.IsLinkLocalUnicast() {
				l.Duplicates = append(l.Duplicates, addr)
			}
		case a.flags&unix.IFA_F_TENTATIVE == 0:
			attach(l, a)
		}
	}
	for _, d := range noted {
		if l := at[d.index]; l != nil && !slices.Contains(l.Duplicates, d.address) {
			l.Duplicates = append(l.Duplicates, d.address)
		}
	}
	k.duplicates.forget(noted)
	if err := k.readOnLink(ctx, at, addrs); err != nil {
		return nil, fmt.Errorf("read on-link prefixes: %w", err)
	}
	for i := range links {
		l := &links[i]
		slices.SortFunc(l.OtherLinkLocal, netip.Addr.Compare)
		if len(l.OtherLinkLocal) > 0 { // the lowest counts, so that the fact does not depend on the order of the dump
			l.LinkLocal, l.OtherLinkLocal = l.OtherLinkLocal[0], l.OtherLinkLocal[1:]
		}
		slices.SortFunc(l.Globals, netip.Prefix.Compare)
		slices.SortFunc(l.Duplicates, netip.Addr.Compare)
	}
	slices.SortFunc(links, func(a, b kernel.Link) int { return cmp.Compare(a.Name, b.Name) })
	return links, nil
}

// attach adds a usable address to the facts about its link.
func attach(l *kernel.Link, a address) {
	addr := a.row.Prefix.Addr()
	switch {
	case addr.IsLinkLocalUnicast():
		l.OtherLinkLocal = append(l.OtherLinkLocal, addr)
	case a.scope == unix.RT_SCOPE_UNIVERSE:
		l.Globals = append(l.Globals, a.row.Prefix)
	}
}

// names finds the names of devices by index and remembers them for one dump.
type names struct {
	conn  *conn
	known map[uint32]string
}

// of returns the name of a device, or ENODEV.
func (n *names) of(index uint32) (string, error) {
	if name, ok := n.known[index]; ok {
		return name, nil
	}
	ifr, _ := unix.NewIfreq("") // fails only for long names
	ifr.SetUint32(index)
	if err := unix.IoctlIfreq(n.conn.fd, unix.SIOCGIFNAME, ifr); err != nil {
		return "", fmt.Errorf("find the name of device %d: %w", index, err)
	}
	if n.known == nil {
		n.known = map[uint32]string{}
	}
	n.known[index] = ifr.Name()
	return ifr.Name(), nil
}
