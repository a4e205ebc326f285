package rtnl

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/internal/netlab"
)

// hints counts calls.
type hints struct {
	n  atomic.Int64
	ch chan struct{}
}

func newHints() *hints { return &hints{ch: make(chan struct{}, 1)} }

func (h *hints) hint() {
	h.n.Add(1)
	select {
	case h.ch <- struct{}{}:
	default:
	}
}

// quiet waits until no hint has come for a while.
func (h *hints) quiet() {
	for {
		select {
		case <-h.ch:
		case <-time.After(300 * time.Millisecond):
			return
		}
	}
}

// next waits for a hint.
func (h *hints) next(t *testing.T, what string) {
	t.Helper()
	select {
	case <-h.ch:
	case <-time.After(10 * time.Second):
		t.Fatalf("no hint: %s", what)
	}
}

// watching runs k.Watch for the length of a test and checks that it ends with the context, and without an error.
func watching(t *testing.T, k *Kernel, hint func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- k.Watch(ctx, hint) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Watch: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Watch did not end")
		}
	})
}

// quietly does f and waits until the kernel has ended what it does in the background, such as DAD.
func quietly(t testing.TB, k *Kernel, f func()) {
	ctx, cancel := context.WithCancel(context.Background())
	h, done := newHints(), make(chan error)
	go func() { done <- k.Watch(ctx, h.hint) }()
	f()
	h.quiet()
	cancel()
	<-done
}

// Every kind of change is seen, ours and those of others.
func TestWatch(t *testing.T) {
	k := lab(t, options{})
	settled(t, k, 0)
	h := newHints()
	watching(t, k, h.hint)
	h.next(t, "the watch stands")
	for _, change := range []string{
		"-6 address add 2001:db8:1::1/64 dev v0 nodad", "-4 address add 192.0.2.1/24 dev v0",
		"-6 route add 2001:db8:2::/64 dev v0 proto static", "-4 route add 198.51.100.0/24 dev v0 proto static",
		"-6 rule add pref 5 lookup 5", "-4 rule add pref 5 lookup 5",
		"link set v1 mtu 1400", "link set v1 down", "link del v0",
	} {
		h.quiet()
		ip(t, change)
		h.next(t, change)
	}
	h.quiet()
	do(k, kernel.Add, kernel.Rule{Family: kernel.IPv6, Priority: 6, Action: kernel.Unreachable})
	h.next(t, "a change by Apply")
}

// A watcher that is too slow for the notifications loses some (ENOBUFS), opens another socket and goes on.
func TestWatchOverflow(t *testing.T) {
	k := lab(t, options{watchBuffer: 1}) // the kernel raises 1 to its minimum, 2304 bytes
	settled(t, k, 0)
	h := newHints()
	slow := make(chan struct{})
	watching(t, k, func() { // as slow as can be: the first notification holds the reader until slow is closed
		h.hint()
		if h.n.Load() > 1 {
			<-slow
		}
	})
	h.next(t, "the watch stands")
	var want kernel.State
	for i := range 500 {
		want.Rules = append(want.Rules, kernel.Rule{Family: kernel.IPv6, Priority: 2000 + uint32(i), Action: kernel.Unicast, Table: 1001})
	}
	apply(t, k, kernel.State{}, want)
	before := h.n.Load()
	close(slow)
	// The error and the new socket give a hint each, and the reader may be held in the first of the two; fewer hints than
	// rules mean that notifications were lost.
	netlab.Eventually(t, 10*time.Second, "the watch to start again", func() (bool, string) {
		n := h.n.Load()
		return n >= before+1, fmt.Sprintf("%d hints after %d", n, before)
	})
	h.quiet()
	if n := h.n.Load(); n >= int64(len(want.Rules)) {
		t.Errorf("%d hints: the buffer did not overflow", n)
	}
	do(k, kernel.Delete, want.Rules[0])
	h.next(t, "a change after the overflow")
}

// An error of the socket is the watcher's business only: it does not surface, and does not end the watch.
func TestWatchReturnsSocketErrors(t *testing.T) {
	k := lab(t, options{watchBuffer: 1})
	overflow := func() {
		for i := range 300 {
			do(k, kernel.Add, kernel.Rule{Family: kernel.IPv6, Priority: 3000 + uint32(i), Action: kernel.Unreachable})
		}
	}
	calls := 0
	err := k.watch(context.Background(), func() {
		if calls++; calls == 1 { // the socket stands and is not read
			overflow()
		}
	})
	if !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("watch: %v", err)
	}
}

// A dump that another program's changes interrupt is made again; if it never succeeds, that is an error.
func TestInterruptedDump(t *testing.T) {
	k := lab(t, options{})
	other, err := open(k.options)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	row := func(i int) kernel.Address {
		return kernel.Address{Dev: "v0", Prefix: prefix(fmt.Sprintf("2001:db8:%x::1/64", i)), PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever()}
	}
	var many kernel.State
	for i := range 1000 { // more than one datagram
		many.Addresses = append(many.Addresses, row(i))
	}
	quietly(t, k, func() { apply(t, k, kernel.State{}, many) })
	for _, c := range []struct {
		disturb int // attempts that are disturbed
		want    error
	}{{0, nil}, {1, nil}, {dumpAttempts - 1, nil}, {dumpAttempts, errInterrupted}} {
		attempts := 0
		var last uint32
		rows, err := dump(context.Background(), k.conn, unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg), func(b []byte) (address, bool, error) {
			if k.conn.seq != last {
				last = k.conn.seq
				if attempts++; attempts <= c.disturb {
					do(other, kernel.Add, row(2000+attempts))
					do(other, kernel.Delete, row(2000+attempts))
				}
			}
			return decodeAddress(time.Now())(b)
		})
		if !errors.Is(err, c.want) || attempts != min(c.disturb+1, dumpAttempts) {
			t.Errorf("disturbed %d times: error %v after %d attempts", c.disturb, err, attempts)
		}
		if (err == nil) != (len(rows) > 1000) {
			t.Errorf("disturbed %d times: %d rows, %v", c.disturb, len(rows), err)
		}
	}
}
