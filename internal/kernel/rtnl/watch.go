package rtnl

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// groups are the notifications to watch. Each is bit group-1 of the address to bind to. Neighbours are not among them:
// proxy neighbours change without one, so only the engine's periodic resync sees those.
var groups = []uint32{
	unix.RTNLGRP_LINK,
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
	unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE,
}

// Pauses before a watching socket is opened again.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Watch calls hint whenever links, addresses, routes, rules or uplinkd's tables may have changed, also by our own writes,
// until ctx ends; then it returns nil. hint must be quick, must not block, and is called from several goroutines. A hint says
// "read again", never what changed (what a dump cannot tell, addresses that are gone because they were duplicates, is kept
// for Links): it also comes once the watch stands, and after every error of a socket (ENOBUFS when notifications came faster
// than they were taken), upon which Watch opens another one.
func (k *Kernel) Watch(ctx context.Context, hint func()) error {
	var tables sync.WaitGroup
	tables.Go(func() {
		select { // those who have no table need not hear what others do with theirs
		case <-ctx.Done():
		case <-k.tables.first:
			keepWatching(ctx, hint, k.watchTables)
		}
	})
	keepWatching(ctx, hint, k.watch)
	tables.Wait()
	return nil
}

// keepWatching calls watch again and again: every error has the same remedy.
func keepWatching(ctx context.Context, hint func(), watch func(context.Context, func()) error) {
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		_ = watch(ctx, hint)
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		hint()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// watch reads one socket until it fails or ctx ends.
func (k *Kernel) watch(ctx context.Context, hint func()) error {
	f, err := subscribe(unix.NETLINK_ROUTE, groups, k.options.watchBuffer)
	if err != nil {
		return fmt.Errorf("watch the kernel's links, addresses, routes and rules: %w", err)
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	k.onLink.watched(true)
	defer k.onLink.watched(false)
	hint() // what changed before the socket stood
	b := make([]byte, 256)
	for { // a datagram that is longer than b is cut off: only addresses are looked at to the end, and they are shorter
		n, err := f.Read(b)
		if err != nil {
			return fmt.Errorf("receive notifications of the kernel: %w", err)
		}
		k.duplicates.note(b[:n])
		k.onLink.note(b[:n])
		hint()
	}
}

// subscribe opens a socket for notifications as a file, so that closing it ends a read. (nl.Subscribe keeps its file to
// itself, and its Receive copies 64 KiB per notification, which a router with a full routing table would feel.)
func subscribe(protocol int, groups []uint32, buffer int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	if err == nil {
		sa := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
		for _, g := range groups {
			sa.Groups |= 1 << (g - 1)
		}
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
