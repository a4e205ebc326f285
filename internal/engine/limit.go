package engine

import (
	"time"

	"uplinkd/internal/bucket"
)

// limiter is a token bucket per object: burst repairs at once, then one per rate. It keeps two programs from fighting at
// full speed over one object, and costs nothing while nobody does.
type limiter struct {
	rate  time.Duration
	burst int
	keys  map[string]bucket.Bucket
	room  int // with more keys than these it is swept
}

func newLimiter(rate time.Duration, burst int) limiter {
	return limiter{rate: rate, burst: burst, keys: map[string]bucket.Bucket{}}
}

// take reports whether the object may be written now, and counts it.
func (l *limiter) take(key string, now time.Time) bool {
	b, known := l.keys[key]
	if !known {
		b = bucket.New(l.burst, l.rate)
	}
	if !b.Try(now) {
		return false
	}
	if len(l.keys) > max(1024, l.room) {
		l.sweep(now)
		l.room = 2 * len(l.keys) // not again for each of thousands of keys that are all in use
	}
	l.keys[key] = b
	return true
}

// sweep drops the buckets that are full again.
func (l *limiter) sweep(now time.Time) {
	for k, b := range l.keys {
		if b.IsFull(now) {
			delete(l.keys, k)
		}
	}
}

// forget starts over: after a reload the user may have ended the fight.
func (l *limiter) forget() { clear(l.keys) }
