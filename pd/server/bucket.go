package server

import "time"

// bucket is a token bucket: it holds size tokens and gains one each period. The zero time fills it.
type bucket struct {
	size   int
	period time.Duration
	fullAt time.Time // when all tokens are there again
}

// wait is how long after now the next token will be there; 0 if there is one.
func (b *bucket) wait(now time.Time) time.Duration {
	return max(0, max(0, b.fullAt.Sub(now))-time.Duration(b.size-1)*b.period)
}

// take takes a token, also one that is not there yet.
func (b *bucket) take(now time.Time) {
	if b.fullAt.Before(now) {
		b.fullAt = now
	}
	b.fullAt = b.fullAt.Add(b.period)
}

// try takes a token if there is one.
func (b *bucket) try(now time.Time) bool {
	if b.wait(now) > 0 {
		return false
	}
	b.take(now)
	return true
}
