// Package lifetime holds the one representation of "until when" in uplinkd: an absolute deadline in which "for ever" is a
// value of its own. Durations exist only on the wire and in kernel messages; they are converted here, at the boundary.
//
// It is not a clock: every function that compares takes now. Deadlines made from time.Now keep Go's monotonic reading, so
// a step of the wall clock (NTP on a router without a battery-backed clock) does not move them; their text form is wall time.
package lifetime

import (
	"fmt"
	"math"
	"time"
)

// Infinity is the number of seconds that DHCPv6 (RFC 9915 §7.7), RFC 4861 and the kernel use for "for ever".
const Infinity = math.MaxUint32

// Deadline is the instant until which something holds. The zero value is a deadline that is already over.
type Deadline struct {
	at      time.Time
	forever bool
}

// Forever returns the deadline that never comes.
func Forever() Deadline { return Deadline{forever: true} }

// Until returns the deadline at t.
func Until(t time.Time) Deadline { return Deadline{at: t} }

// After returns the deadline that lies seconds after now; Infinity gives Forever and 0 the zero Deadline.
func After(now time.Time, seconds uint32) Deadline {
	switch seconds {
	case 0:
		return Deadline{}
	case Infinity:
		return Forever()
	}
	return Deadline{at: now.Add(time.Duration(seconds) * time.Second)}
}

// IsForever reports whether d never comes.
func (d Deadline) IsForever() bool { return d.forever }

// IsZero reports whether d is the zero value.
func (d Deadline) IsZero() bool { return !d.forever && d.at.IsZero() }

// Time returns the instant of d; ok is false for Forever.
func (d Deadline) Time() (t time.Time, ok bool) { return d.at, !d.forever }

// Over reports whether d has passed at now.
func (d Deadline) Over(now time.Time) bool { return !d.forever && !d.at.After(now) }

// Seconds returns what is left of d at now in whole seconds, rounded to nearest and at least 1 while d is not over:
// Infinity for Forever, 0 when over, at most Infinity-1 otherwise.
func (d Deadline) Seconds(now time.Time) uint32 {
	if d.forever {
		return Infinity
	}
	left := d.at.Sub(now)
	if left <= 0 {
		return 0
	}
	s := int64(left.Round(time.Second) / time.Second)
	return uint32(max(1, min(s, Infinity-1)))
}

// Compare orders deadlines by time, Forever last: -1, 0 or +1.
func (d Deadline) Compare(o Deadline) int {
	switch {
	case d.forever && o.forever:
		return 0
	case d.forever:
		return 1
	case o.forever:
		return -1
	}
	return d.at.Compare(o.at)
}

// Within reports whether d and o differ by at most tolerance. Forever is within nothing but Forever. Two deadlines that
// are both over at now are equal.
func (d Deadline) Within(o Deadline, tolerance time.Duration, now time.Time) bool {
	if d.forever || o.forever {
		return d.forever == o.forever
	}
	if d.Over(now) || o.Over(now) {
		return d.Over(now) == o.Over(now)
	}
	return d.at.Sub(o.at).Abs() <= tolerance
}

// Min returns the earlier of d and o.
func Min(d, o Deadline) Deadline {
	if d.Compare(o) <= 0 {
		return d
	}
	return o
}

// Max returns the later of d and o.
func Max(d, o Deadline) Deadline {
	if d.Compare(o) >= 0 {
		return d
	}
	return o
}

// String returns "forever", "over" for the zero value, or RFC 3339 in UTC with seconds.
func (d Deadline) String() string {
	switch {
	case d.forever:
		return "forever"
	case d.at.IsZero():
		return "over"
	}
	return d.at.UTC().Format(time.RFC3339)
}

// Text returns what is left of d at now in the syntax of ip-address(8): "forever" or seconds.
func (d Deadline) Text(now time.Time) string {
	if d.forever {
		return "forever"
	}
	return fmt.Sprintf("%d", d.Seconds(now))
}

// MarshalText writes the form of String with nanoseconds.
func (d Deadline) MarshalText() ([]byte, error) {
	if d.forever || d.at.IsZero() {
		return []byte(d.String()), nil
	}
	return []byte(d.at.UTC().Format(time.RFC3339Nano)), nil
}

// UnmarshalText reads what MarshalText wrote.
func (d *Deadline) UnmarshalText(b []byte) error {
	switch string(b) {
	case "forever":
		*d = Forever()
		return nil
	case "over", "":
		*d = Deadline{}
		return nil
	}
	t, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return fmt.Errorf("deadline %q: %w", b, err)
	}
	*d = Until(t)
	return nil
}
