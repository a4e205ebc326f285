package rtnl

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxDuplicates bounds the duplicates that wait for Links.
const maxDuplicates = 64

// duplicate is an address that the kernel has removed because another host on the link has it.
type duplicate struct {
	index   uint32
	address netip.Addr
}

// duplicates are those that Links has not told yet. The kernel keeps an address that fails duplicate address detection only
// if its valid lifetime is infinite (addrconf_dad_stop in net/ipv6/addrconf.c). Any other is deleted, so that no dump has
// it; its notification alone tells, by its flags. Should it be lost, the address is missing, is added again, and fails again.
type duplicates struct {
	mu   sync.Mutex
	gone []duplicate
}

// note looks whether a notification is that of a removed duplicate.
func (d *duplicates) note(b []byte) {
	const failed = unix.IFA_F_DADFAILED
	if len(b) < unix.NLMSG_HDRLEN+unix.SizeofIfAddrmsg || native.Uint16(b[4:]) != unix.RTM_DELADDR || b[unix.NLMSG_HDRLEN] != unix.AF_INET6 ||
		b[unix.NLMSG_HDRLEN+2]&failed == 0 {
		return
	}
	n := int(native.Uint32(b))
	if n < unix.NLMSG_HDRLEN || n > len(b) {
		return
	}
	a, ok, err := decodeAddress(time.Now())(b[unix.NLMSG_HDRLEN:n])
	found := duplicate{a.index, a.row.Prefix.Addr()}
	_, ends := a.row.ValidUntil.Time()
	if err != nil || !ok || !ends || found.address.IsLinkLocalUnicast() { // one without end was in the dumps until somebody removed it
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.gone) < maxDuplicates && !slices.Contains(d.gone, found) {
		d.gone = append(d.gone, found)
	}
}

func (d *duplicates) list() []duplicate {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.gone)
}

// forget takes out those that have been told.
func (d *duplicates) forget(told []duplicate) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone = slices.DeleteFunc(d.gone, func(g duplicate) bool { return slices.Contains(told, g) })
}
