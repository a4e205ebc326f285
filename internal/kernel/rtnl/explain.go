package rtnl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

// explained is an error of the kernel in words that say what to do. errors.Is still finds the errno.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.err }

// gone reports whether a deletion failed because there is nothing to delete.
func gone(err error) bool {
	for _, e := range []error{unix.ESRCH, unix.ENOENT, unix.EADDRNOTAVAIL, unix.ENODEV, unix.ENXIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// explain adds the remedy to a refusal where there is one.
func explain(err error, row kernel.Row) error {
	switch dev := device(row); {
	case errors.Is(err, unix.EPERM):
		return &explained{err.Error() + ": needs CAP_NET_ADMIN; run as root or through the systemd unit", err}
	case errors.Is(err, unix.ENODEV) && dev != "":
		return &explained{"there is no device " + dev + " (any more)", err}
	case errors.Is(err, unix.EACCES) && dev != "":
		return &explained{fmt.Sprintf("%v: is IPv6 switched off on %s (sysctl net.ipv6.conf.%s.disable_ipv6)?", err, dev, sysctlPart(dev)), err}
	case errors.Is(err, unix.ENETDOWN) && dev != "":
		return &explained{fmt.Sprintf("%v: is %s down (ip link set %s up)?", err, dev, dev), err}
	}
	return err
}

func device(row kernel.Row) string {
	switch r := row.(type) {
	case kernel.Route:
		return r.Dev
	case kernel.Address:
		return r.Dev
	}
	return ""
}

// foreign is the error for an object that exists although uplinkd did not read it as its own.
func foreign(err error, row kernel.Row, proto uint8, known bool) error {
	if known && proto == kernel.Protocol {
		return &explained{"exists already with uplinkd's own mark: it appeared since the kernel was read; the next reconcile settles it", err}
	}
	other := "address"
	names := addressProtocols
	if _, ok := row.(kernel.Route); ok {
		other, names = "metric or table", routeProtocols
	}
	owner := "owner unknown"
	if known {
		owner = "proto " + names(proto)
	}
	return &explained{fmt.Sprintf("exists already and belongs to somebody else (%s); remove it or choose another %s", owner, other), err}
}

// routeProtocols names RTPROT_*, the marks of routes, as ip(8) does.
func routeProtocols(p uint8) string {
	switch p {
	case unix.RTPROT_UNSPEC:
		return "unspec"
	case unix.RTPROT_REDIRECT:
		return "redirect"
	case unix.RTPROT_KERNEL:
		return "kernel"
	case unix.RTPROT_BOOT:
		return "boot"
	case unix.RTPROT_STATIC:
		return "static"
	case unix.RTPROT_RA:
		return "ra"
	case unix.RTPROT_DHCP:
		return "dhcp"
	case unix.RTPROT_BIRD:
		return "bird"
	case unix.RTPROT_ZEBRA:
		return "zebra"
	}
	return fmt.Sprint(p)
}

// addressProtocols names IFAPROT_*, the marks of addresses; most programs set none.
func addressProtocols(p uint8) string {
	switch p {
	case 0:
		return "unspec"
	case 1:
		return "kernel_lo"
	case 2:
		return "kernel_ra"
	case 3:
		return "kernel_ll"
	}
	return fmt.Sprint(p)
}

// owners finds the owners of objects that stand in the way, with one dump of addresses and one of each table of routes.
type owners struct {
	addresses map[addressKey]marked
	routes    map[routeKey]uint8
	tables    map[tableKey]bool // tables in routes
}

type tableKey struct {
	family uint8
	table  uint32
}

type routeKey struct {
	table  uint32
	dst    netip.Prefix
	metric uint32
}

// of returns the owner's mark of the object with the identity of row. It is a courtesy for an error text: if the dump
// fails, the owner is not known.
func (o *owners) of(ctx context.Context, k *Kernel, row kernel.Row) (proto uint8, known bool) {
	switch r := row.(type) {
	case kernel.Rule:
		return kernel.Protocol, true // the mark is part of a rule's identity: equal rules of two owners stand side by side
	case kernel.Route:
		return o.ofRoute(ctx, k, r)
	case kernel.Address:
		return o.ofAddress(ctx, k, r)
	}
	return 0, false
}

func (o *owners) ofRoute(ctx context.Context, k *Kernel, r kernel.Route) (proto uint8, known bool) {
	table := tableKey{family(r.Dst.Addr()), r.Table}
	if !o.tables[table] {
		if o.tables == nil {
			o.tables, o.routes = map[tableKey]bool{}, map[routeKey]uint8{}
		}
		o.tables[table] = true
		dumped, _ := k.dumpRoutes(ctx, table.family, 0, r.Table)
		for _, f := range dumped {
			o.routes[routeKey{f.row.Table, f.row.Dst, f.row.Metric}] = f.proto
		}
	}
	proto, known = o.routes[routeKey{r.Table, r.Dst.Masked(), r.Metric}]
	return proto, known
}

func (o *owners) ofAddress(ctx context.Context, k *Kernel, r kernel.Address) (proto uint8, known bool) {
	if o.addresses == nil {
		o.addresses, _ = k.marks(ctx)
		if o.addresses == nil {
			o.addresses = map[addressKey]marked{}
		}
	}
	ifr, err := unix.NewIfreq(r.Dev)
	if err == nil {
		err = unix.IoctlIfreq(k.conn.fd, unix.SIOCGIFINDEX, ifr)
	}
	if err != nil {
		return 0, false
	}
	m, known := o.addresses[addressKey{ifr.Uint32(), r.Prefix.Addr()}]
	return m.proto, known
}
