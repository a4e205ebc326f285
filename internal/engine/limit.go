package engine

import "time"

// limiter is a token bucket per object: burst repairs at once, then one per rate. It keeps two programs from fighting at
// full speed over one object, and costs nothing while nobody does.
type limiter struct {
	rate  time.Duration
	burst int
	keys  map[string]bucket
	room  int // with more keys than these it is swept
}

type bucket struct {
	full time.Time // when the bucket is full again
}

// take reports whether the object may be written now, and counts it.
func (l *limiter) take(key string, now time.Time) bool {
	full := l.keys[key].full
	if full.Before(now) {
		full = now
	}
	full = full.Add(l.rate)
	if full.Sub(now) > time.Duration(l.burst)*l.rate {
		return false
	}
	if len(l.keys) > max(1024, l.room) {
		l.sweep(now)
		l.room = 2 * len(l.keys) // not again for each of thousands of keys that are all in use
	}
	l.keys[key] = bucket{full}
	return true
}

// sweep drops the buckets that are full again.
func (l *limiter) sweep(now time.Time) {
	for k, b := range l.keys {
		if b.full.Before(now) {
			delete(l.keys, k)
		}
	}
}

// forget starts over: after a reload the user may have ended the fight.
func (l *limiter) forget() { clear(l.keys) }
