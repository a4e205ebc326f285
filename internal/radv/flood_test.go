package radv

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/netlab"
)

// solicits returns the frame of a router solicitation from any address to all routers. Unless it comes from the unspecified
// address it has the link-layer address of the sender, so that the kernel sends answers without asking.
func solicits(mac net.HardwareAddr, from netip.Addr) []byte {
	message := []byte{typeSolicitation, 0, 0, 0, 0, 0, 0, 0}
	if !from.IsUnspecified() {
		message = append(append(message, optionSourceLink, 1), mac...)
	}
	addresses := append(from.AsSlice(), allRouters.AsSlice()...)
	pseudo := append(append([]byte(nil), addresses...), 0, 0, 0, byte(len(message)), 0, 0, 0, unix.IPPROTO_ICMPV6)
	sum := uint32(0)
	for b := append(pseudo, message...); len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum))
	b := append([]byte{0x33, 0x33, 0, 0, 0, 2}, mac...)
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(message)), unix.IPPROTO_ICMPV6, 255)
	return append(append(b, addresses...), message...)
}

// floods sends 10,000 solicitations a second out of an interface of n, from 63 addresses and from none, until ctx ends. The
// channel then has their number. There are no more addresses, since the kernel makes neighbour entries for them, in a table
// that all namespaces of the machine share.
func floods(ctx context.Context, t *testing.T, n *netlab.NS, name string) <-chan int {
	t.Helper()
	var fd int
	var frames [64][]byte
	to := &unix.SockaddrLinklayer{Halen: 6, Addr: [8]byte{0x33, 0x33, 0, 0, 0, 2}}
	err := n.Do(func() error {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		to.Ifindex = ifi.Index
		frames[0] = solicits(ifi.HardwareAddr, netip.IPv6Unspecified())
		for i := range frames[1:] {
			frames[1+i] = solicits(ifi.HardwareAddr, netip.AddrFrom16([16]byte{0xfe, 0x80, 14: 1, 15: byte(i)}))
		}
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatalf("flood on %s: %v", name, err)
	}
	sent := make(chan int, 1)
	go func() {
		defer unix.Close(fd)
		number := 0
		defer func() { sent <- number }()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			for range 100 {
				number++
				if err := unix.Sendto(fd, frames[number%len(frames)], 0, to); err != nil {
					t.Errorf("flood: %v", err)
					return
				}
			}
			<-tick.C
		}
	}()
	return sent
}

// TestKernelFlood solicits 10,000 times a second. Advertisements stay few, none goes to the unspecified address, and a change is
// heard by the hosts all the same.
func TestKernelFlood(t *testing.T) {
	router, host := pair(t, "router", "host")
	heard := capturesOn(t, host, "eth0")
	begin := time.Now()
	s := sends(t, router, announce(begin, prefixA))
	first := heard.await("the sender")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	flood := floods(ctx, t, host, "eth0")
	multicast, unicast := 1, 0
	count := func() (last frame) {
		for f, ok := heard.next(); ok; f, ok = heard.next() {
			switch {
			case f.to() == allNodes:
				multicast++
			case f.to().IsLinkLocalUnicast():
				unicast++
			default:
				t.Errorf("an advertisement to %s", f.to())
			}
			last = f
			if multicast > 1 && len(f) != len(first) {
				break
			}
		}
		return last
	}
	netlab.Eventually(t, 30*time.Second, "answers to all hosts while there is a flood", func() (bool, string) {
		count()
		return multicast >= 3, "fewer than three"
	})
	s.Set(announce(begin, prefixA, prefixB))
	netlab.Eventually(t, 30*time.Second, "the news while there is a flood", func() (bool, string) {
		f := count()
		return f != nil && len(f) == len(first)+32, "the old advertisement"
	})
	cancel()
	number := <-flood
	count()
	elapsed := time.Since(begin)
	t.Logf("%d solicitations in %s: %d advertisements to all hosts, %d to single ones", number, elapsed, multicast, unicast)
	if most := maxInitialAdvertisements + int(elapsed/minDelayBetweenRAs) + 1 + int(elapsed/renumberingPeriod) + 1; multicast > most {
		t.Errorf("%d advertisements to all hosts in %s, want at most %d", multicast, elapsed, most)
	}
	if unicast == 0 {
		t.Error("no answer to a single host")
	}
	if most := maxUnicast + int(elapsed/unicastPeriod) + 1; unicast > most {
		t.Errorf("%d advertisements to single hosts in %s, want at most %d", unicast, elapsed, most)
	}
}
