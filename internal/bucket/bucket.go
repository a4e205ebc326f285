// Package bucket is the token bucket that bounds how much work others can make for uplinkd. It has no clock of its own, does
// not wait, and is not safe for concurrent use.
package bucket

import "time"

// Bucket holds some tokens and gains one each period, until it is full. Make it with New.
type Bucket struct {
	size   int
	period time.Duration
	full   time.Time // when all tokens are there again
}

// New returns a full bucket.
func New(size int, period time.Duration) Bucket { return Bucket{size: size, period: period} }

// Wait is how long after now the next token will be there; 0 if there is one.
func (b Bucket) Wait(now time.Time) time.Duration {
	return max(0, b.full.Add(-time.Duration(b.size-1)*b.period).Sub(now))
}

// Take takes a token, also one that is not there yet at that time.
func (b *Bucket) Take(at time.Time) {
	if b.full.Before(at) {
		b.full = at
	}
	b.full = b.full.Add(b.period)
}

// Try takes a token if there is one.
func (b *Bucket) Try(now time.Time) bool {
	if b.Wait(now) > 0 {
		return false
	}
	b.Take(now)
	return true
}

// IsFull reports whether nothing has been taken of late.
func (b Bucket) IsFull(now time.Time) bool { return !b.full.After(now) }
