package radv

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

// Link-scoped groups of RFC 4291 §2.7.1.
var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
)

// socket is a conn on a raw ICMPv6 socket that sends with hop limit 255 from the link-local address of its link.
type socket struct {
	p       *ipv6.PacketConn
	ifIndex int
}

// openSocket returns a function that opens a socket which joins group and receives messages of one ICMPv6 type only.
func openSocket(group netip.Addr, receive ipv6.ICMPType) func(kernel.Link) (conn, error) {
	return open(group, receive, false)
}

// openFormer is openSocket for a link-local address that the link need not have.
func openFormer(group netip.Addr, receive ipv6.ICMPType) func(kernel.Link) (conn, error) {
	return open(group, receive, true)
}

func open(group netip.Addr, receive ipv6.ICMPType, anyAddress bool) func(kernel.Link) (conn, error) {
	return func(l kernel.Link) (conn, error) {
		s, err := listen(l, anyAddress)
		if err != nil {
			return nil, err
		}
		if err := s.configure(l, group, receive); err != nil {
			s.Close()
			return nil, err
		}
		return s, nil
	}
}

func listen(l kernel.Link, anyAddress bool) (*socket, error) {
	// The device is bound too: a socket with a link-local address alone would also get what other links send to a group.
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		if e := rc.Control(func(fd uintptr) {
			if err = unix.BindToDevice(int(fd), l.Name); err == nil && anyAddress {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
			}
		}); e != nil {
			return e
		}
		if err != nil {
			return fmt.Errorf("bind to dev %s: %w", l.Name, err)
		}
		return nil
	}}
	// The zone is the number: package net remembers names of interfaces for a minute, and an interface may be replaced sooner.
	address := l.LinkLocal.WithZone(strconv.Itoa(l.Index)).String()
	pc, err := lc.ListenPacket(context.Background(), "ip6:58", address)
	if err != nil {
		return nil, err
	}
	return &socket{p: ipv6.NewPacketConn(pc), ifIndex: l.Index}, nil
}

func (s *socket) configure(l kernel.Link, group netip.Addr, receive ipv6.ICMPType) error {
	ifi := &net.Interface{Index: l.Index, Name: l.Name}
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(receive)
	for _, step := range []struct {
		name string
		err  error
	}{
		{"set the ICMPv6 filter", s.p.SetICMPFilter(&filter)},
		{"ask for hop limits", s.p.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagInterface, true)},
		{"set hop limit 255", s.p.SetHopLimit(255)},
		{"set multicast hop limit 255", s.p.SetMulticastHopLimit(255)},
		{"switch multicast loopback off", s.p.SetMulticastLoopback(false)},
		{"set the multicast interface", s.p.SetMulticastInterface(ifi)},
		{"join group " + group.String(), s.p.JoinGroup(ifi, &net.IPAddr{IP: group.AsSlice()})},
	} {
		if step.err != nil {
			return fmt.Errorf("%s: %w", step.name, step.err)
		}
	}
	return nil
}

func (s *socket) Receive(b []byte) (int, netip.Addr, int, error) {
	for {
		n, cm, src, err := s.p.ReadFrom(b)
		if err != nil {
			return 0, netip.Addr{}, 0, err
		}
		ip, ok := src.(*net.IPAddr)
		if !ok || cm == nil || cm.IfIndex != s.ifIndex {
			continue
		}
		from, ok := netip.AddrFromSlice(ip.IP)
		if !ok {
			continue
		}
		return n, from, cm.HopLimit, nil
	}
}

func (s *socket) Send(b []byte, to netip.Addr) error {
	// Without a zone: the device is bound, and a zone would cost a dump of all interfaces every minute.
	_, err := s.p.WriteTo(b, nil, &net.IPAddr{IP: to.AsSlice()})
	return err
}

func (s *socket) Close() error { return s.p.Close() }
