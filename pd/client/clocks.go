package client

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// maxJump is how far two clocks may drift apart between two looks at them before that means something. NTP slews by
// 0.5 ms a second.
const maxJump = 10 * time.Second

// clocks are two clocks as seen from CLOCK_MONOTONIC, by which Go's timers and deadlines go and which stands still while
// the system is suspended.
type clocks struct {
	boot time.Duration // CLOCK_BOOTTIME, ahead by all the time that was slept
	wall time.Duration // CLOCK_REALTIME
}

// readClocks reads the clocks; ok is false if the kernel does not have them.
func readClocks() (c clocks, ok bool) {
	var mono, boot, wall unix.Timespec
	for _, read := range []struct {
		clock int32
		to    *unix.Timespec
	}{{unix.CLOCK_MONOTONIC, &mono}, {unix.CLOCK_BOOTTIME, &boot}, {unix.CLOCK_REALTIME, &wall}} {
		if err := unix.ClockGettime(read.clock, read.to); err != nil {
			return clocks{}, false
		}
	}
	return clocks{time.Duration(boot.Nano() - mono.Nano()), time.Duration(wall.Nano() - mono.Nano())}, true
}

// checkClocks finds out whether the system was suspended or its clock was set since the last call.
func (r *run) checkClocks() {
	c, ok := r.clocks()
	if !ok {
		return
	}
	slept := c.boot - r.clock.boot
	stepped := c.wall - r.clock.wall - slept
	r.clock = c
	switch {
	case slept > maxJump:
		r.resume(slept)
	case stepped.Abs() > maxJump:
		r.doubt("the clock was set by " + stepped.Round(time.Second).String())
	}
}

// resume is for when the system was suspended. The machine cannot know that its deadlines are late by the time slept, so
// another one takes over from it with deadlines put right; for that one the link comes up, and it verifies what is left of
// the lease (RFC 9915 §18.2.12). A Release that is under way, or over, stays as it is.
func (r *run) resume(slept time.Duration) {
	r.log.Info("the system was suspended", "seconds", math.Round(slept.Seconds()))
	if r.released || len(r.waiting) > 0 {
		return
	}
	now := time.Now()
	before := r.machine.Lease()
	r.machine = r.newMachine(earlier(before, now, slept), r.machine.Sent(), now, r.rnd)
	after := r.machine.Lease()
	cause := pd.CauseNoted
	if len(after.Prefixes) < len(before.Prefixes) || len(after.Addresses) < len(before.Addresses) {
		cause = pd.CauseExpired
	}
	r.leased(pd.Output{Lease: after, Cause: cause})
	r.linkUp()
}

// earlier is l with all times nearer by d. They are made anew from now: their monotonic reading is what is wrong, the time
// on the wall was right all along.
func earlier(l pd.Lease, now time.Time, d time.Duration) pd.Lease {
	put := func(deadline *lifetime.Deadline) {
		if t, finite := deadline.Time(); finite && !deadline.IsZero() {
			*deadline = lifetime.Until(now.Add(t.Sub(now) - d))
		}
	}
	if !l.Received.IsZero() {
		l.Received = now.Add(l.Received.Sub(now) - d)
	}
	put(&l.T1)
	put(&l.T2)
	put(&l.InfoUntil)
	l.Prefixes = append([]pd.LeasedPrefix(nil), l.Prefixes...)
	for i := range l.Prefixes {
		put(&l.Prefixes[i].PreferredUntil)
		put(&l.Prefixes[i].ValidUntil)
	}
	l.Addresses = append([]pd.LeasedAddress(nil), l.Addresses...)
	for i := range l.Addresses {
		put(&l.Addresses[i].PreferredUntil)
		put(&l.Addresses[i].ValidUntil)
	}
	return l
}
