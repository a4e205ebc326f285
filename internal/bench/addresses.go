package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// arrival is a new global address.
type arrival struct {
	at   time.Time
	addr netip.Addr
}

// watchAddresses reports the global IPv6 addresses that come to dev, from an rtnetlink socket of its own and a thread that
// does nothing but wait on it. With root's rights that thread goes before all others: it shall show when the kernel has an
// address, not when a busy machine lets somebody look. It has to be called in the interface's namespace.
func watchAddresses(dev string) (<-chan arrival, error) {
	i, err := net.InterfaceByName(dev)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open an rtnetlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_IPV6_IFADDR - 1)}); err != nil {
		return nil, fmt.Errorf("watch addresses: %w", err)
	}
	arrivals := make(chan arrival, 64)
	go func() {
		runtime.LockOSThread()
		_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
		for b := make([]byte, 8192); ; {
			n, _, err := unix.Recvfrom(fd, b, 0)
			at := time.Now()
			if err != nil {
				continue
			}
			if addr, ok := newAddress(b[:n], uint32(i.Index)); ok {
				arrivals <- arrival{at, addr}
			}
		}
	}()
	return arrivals, nil
}

// newAddress decodes a notification of a new global address on the device with this index. The kernel sends one message
// per datagram, IFA_ADDRESS first for addresses without a peer.
func newAddress(b []byte, index uint32) (netip.Addr, bool) {
	const head = unix.SizeofNlMsghdr + unix.SizeofIfAddrmsg
	if len(b) < head+20 || binary.NativeEndian.Uint16(b[4:]) != unix.RTM_NEWADDR {
		return netip.Addr{}, false
	}
	msg := b[unix.SizeofNlMsghdr:]
	if msg[3] != unix.RT_SCOPE_UNIVERSE || binary.NativeEndian.Uint32(msg[4:]) != index || binary.NativeEndian.Uint16(b[head+2:]) != unix.IFA_ADDRESS {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(b[head+4:])), true
}

func forgetArrivals(arrivals <-chan arrival) {
	for len(arrivals) > 0 {
		<-arrivals
	}
}

// floor is what nobody can beat: how long a bare RTM_NEWADDR takes until another socket has read of it. It has to be
// called in the interface's namespace.
func floor(dev string, arrivals <-chan arrival, n int) (sample, error) {
	i, err := net.InterfaceByName(dev)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open an rtnetlink socket: %w", err)
	}
	defer unix.Close(fd)
	var times sample
	answer := make([]byte, 4096)
	for range n {
		for _, typ := range []uint16{unix.RTM_NEWADDR, unix.RTM_DELADDR} {
			b := addressRequest(typ, netip.MustParseAddr("2001:db8:f1::1"), uint32(i.Index))
			forgetArrivals(arrivals) // the kernel tells of an address twice
			began := time.Now()
			if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
				return nil, fmt.Errorf("write an address: %w", err)
			}
			if typ == unix.RTM_NEWADDR {
				select {
				case a := <-arrivals:
					times.addTime(a.at.Sub(began))
				case <-time.After(time.Second):
					return nil, fmt.Errorf("no notification of 2001:db8:f1::1 dev %s", dev)
				}
			}
			if _, _, err := unix.Recvfrom(fd, answer, 0); err != nil {
				return nil, fmt.Errorf("read the answer to an address request: %w", err)
			}
		}
		time.Sleep(5 * time.Millisecond) // the reader sleeps, as it does while a client works
	}
	return times, nil
}

func addressRequest(typ uint16, addr netip.Addr, index uint32) []byte {
	const size = unix.SizeofNlMsghdr + unix.SizeofIfAddrmsg + 20
	ne := binary.NativeEndian
	b := ne.AppendUint32(nil, size)
	b = ne.AppendUint16(b, typ)
	b = ne.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE)
	b = append(b, make([]byte, 8)...) // sequence number, port
	b = append(b, unix.AF_INET6, 64, 0, unix.RT_SCOPE_UNIVERSE)
	b = ne.AppendUint32(b, index)
	b = ne.AppendUint16(b, 20)
	b = ne.AppendUint16(b, unix.IFA_LOCAL)
	return append(b, addr.AsSlice()...)
}
