package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"uplinkd/internal/netlab"
)

// notification is one message that the kernel has sent to everybody: an object came, changed or went.
type notification struct {
	Gone   bool
	Kind   string // address, route, rule, netconf
	Proto  uint8  // owner mark
	Prefix netip.Prefix
	Table  uint32
	Type   uint8  // of a route or a rule
	Born   uint32 // of an address: creation time, 1/100 s since boot
	Text   string
}

// notifications is a subscription of its own, independent of the program under test. The kernel queues a notification
// before it answers the request that caused it, so all that was done so far is always there to be read.
type notifications struct {
	t  *testing.T
	fd int
}

// groups are all rtnetlink groups in which writing an object of uplinkd's can show. The IPv4 ones are here because
// uplinkd has no business there.
var groups = []int{unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF}

func subscribe(t *testing.T, ns *netlab.NS) *notifications {
	t.Helper()
	n := &notifications{t: t}
	err := ns.Do(func() (err error) {
		n.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(n.fd) })
		// Without an address of its own the socket has the kernel's, 0, and is spared what the kernel says itself.
		if err := unix.Bind(n.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return fmt.Errorf("bind an rtnetlink socket: %w", err)
		}
		// In a user namespace the default has to do. take fails if it does not.
		_ = unix.SetsockoptInt(n.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
		for _, g := range groups {
			if err := unix.SetsockoptInt(n.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
				return fmt.Errorf("join rtnetlink group %d: %w", g, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// take returns what has happened since the last call, in the kernel's order.
func (n *notifications) take() (list []notification) {
	n.t.Helper()
	buf := make([]byte, 64<<10)
	for {
		size, _, err := unix.Recvfrom(n.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return list
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			n.t.Fatalf("receive notifications: %v", err)
		}
		for b := buf[:size]; len(b) >= unix.NLMSG_HDRLEN; {
			length := int(binary.NativeEndian.Uint32(b))
			if length < unix.NLMSG_HDRLEN || length > len(b) {
				n.t.Fatalf("a notification that says it is %d of %d octets long", length, len(b))
			}
			if m, ok := parse(binary.NativeEndian.Uint16(b[4:]), b[unix.NLMSG_HDRLEN:length]); ok {
				list = append(list, m)
			}
			b = b[min(len(b), (length+3)&^3):]
		}
	}
}

// await returns as soon as there are so many notifications, or there has been none for a while.
func (n *notifications) await(count int) {
	n.t.Helper()
	for count > 0 {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(n.fd), Events: unix.POLLIN}}, 20)
		if ready == 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		count -= len(n.take())
	}
}

// about returns those notifications of objects inside prefix: addresses, routes to it, rules from or to it.
func about(list []notification, prefix netip.Prefix) (found []notification) {
	for _, m := range list {
		if m.Prefix.IsValid() && prefix.Overlaps(m.Prefix) && m.Prefix.Bits() >= prefix.Bits() {
			found = append(found, m)
		}
	}
	return found
}

func gone(list []notification) []notification {
	return slices.DeleteFunc(slices.Clone(list), func(m notification) bool { return !m.Gone })
}

func show(list []notification) string {
	var b strings.Builder
	for _, m := range list {
		b.WriteString(m.Text + "\n")
	}
	return b.String()
}

// parse decodes what these tests look at.
func parse(kind uint16, b []byte) (m notification, ok bool) {
	switch kind {
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		m = parseAddress(b)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		m = parseRoute(b)
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		m = parseRule(b)
	case unix.RTM_NEWNETCONF, unix.RTM_DELNETCONF:
		m = notification{Kind: "netconf", Text: fmt.Sprintf("netconf % x", b)}
	default:
		return m, false
	}
	switch kind {
	case unix.RTM_DELADDR, unix.RTM_DELROUTE, unix.RTM_DELRULE, unix.RTM_DELNETCONF:
		m.Gone = true
		m.Text = "deleted " + m.Text
	}
	return m, true
}

// Constants of linux/fib_rules.h and linux/if_addr.h that x/sys/unix lacks.
const (
	ifaProto    = 11
	fraDst      = 1
	fraSrc      = 2
	fraPriority = 6
	fraTable    = 15
	fraProtocol = 21
)

func parseAddress(b []byte) notification {
	a := attributes(b, unix.SizeofIfAddrmsg)
	m := notification{Kind: "address", Prefix: prefixOf(a[unix.IFA_ADDRESS], b[1]), Proto: first(a[ifaProto])}
	if local := a[unix.IFA_LOCAL]; local != nil {
		m.Prefix = prefixOf(local, b[1])
	}
	lifetimes := ""
	if c := a[unix.IFA_CACHEINFO]; len(c) >= 16 {
		m.Born = binary.NativeEndian.Uint32(c[8:])
		lifetimes = fmt.Sprintf(" preferred_lft %d valid_lft %d", binary.NativeEndian.Uint32(c), binary.NativeEndian.Uint32(c[4:]))
	}
	m.Text = fmt.Sprintf("address %s dev %d proto %d%s", m.Prefix, binary.NativeEndian.Uint32(b[4:]), m.Proto, lifetimes)
	return m
}

func parseRoute(b []byte) notification {
	a := attributes(b, unix.SizeofRtMsg)
	m := notification{Kind: "route", Prefix: prefixOf(a[unix.RTA_DST], b[1]), Proto: b[5], Type: b[7], Table: uint32(b[4])}
	if t := a[unix.RTA_TABLE]; len(t) == 4 {
		m.Table = binary.NativeEndian.Uint32(t)
	}
	m.Text = fmt.Sprintf("route %s table %d type %d proto %d", m.Prefix, m.Table, m.Type, m.Proto)
	return m
}

func parseRule(b []byte) notification {
	a := attributes(b, 12)
	direction, prefix := "from", prefixOf(a[fraSrc], b[2])
	if a[fraDst] != nil {
		direction, prefix = "to", prefixOf(a[fraDst], b[1])
	}
	m := notification{Kind: "rule", Prefix: prefix, Proto: first(a[fraProtocol]), Type: b[7], Table: uint32(b[4])}
	if t := a[fraTable]; len(t) == 4 {
		m.Table = binary.NativeEndian.Uint32(t)
	}
	m.Text = fmt.Sprintf("rule pref %v %s %s table %d action %d protocol %d", a[fraPriority], direction, m.Prefix, m.Table, m.Type, m.Proto)
	return m
}

// attributes collects the attributes behind a header of the given size.
func attributes(b []byte, header int) map[uint16][]byte {
	found := map[uint16][]byte{}
	for b = b[min(header, len(b)):]; len(b) >= 4; {
		length := int(binary.NativeEndian.Uint16(b))
		if length < 4 || length > len(b) {
			break
		}
		found[binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = b[4:length]
		b = b[min(len(b), (length+3)&^3):]
	}
	return found
}

func first(b []byte) uint8 {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

// prefixOf is invalid where there is no address: "all", "default".
func prefixOf(b []byte, bits uint8) netip.Prefix {
	addr, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(addr, int(bits))
}
