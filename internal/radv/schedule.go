package radv

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"uplinkd/internal/bucket"
)

// Constants of RFC 4861 §10, with their names there.
const (
	maxInitialAdvertisements = 3                      // MAX_INITIAL_RTR_ADVERTISEMENTS
	minDelayBetweenRAs       = 3 * time.Second        // MIN_DELAY_BETWEEN_RAS
	maxRADelay               = 500 * time.Millisecond // MAX_RA_DELAY_TIME
	initialInterval          = 4 * time.Second        // at most MAX_INITIAL_RTR_ADVERT_INTERVAL (16 s); see the package comment
	renumberingPeriod        = 30 * time.Second       // in which one change of prefixes need not wait; see the package comment
)

// Bounds of unicast answers; solicitations beyond them wait for the next multicast.
const (
	maxUnicast    = 8
	unicastPeriod = 250 * time.Millisecond
)

// schedule says when the next advertisement is due (RFC 4861 §6.2.4 and §6.2.6). It is pure.
type schedule struct {
	limit    bucket.Bucket // of multicast advertisements
	renumber bucket.Bucket // of those besides which a change of prefixes may need
	last     time.Time     // when the last one was sent
	urgent   bool          // a change waits to be announced
	prefixes bool          // and it is one of prefixes
	initial  int           // how many more go out at the initial pace
	next     time.Time     // of the next unsolicited one
	answer   time.Time     // when solicitations are answered by multicast; zero when none waits

	unicastLimit bucket.Bucket
	unicast      []unicastAnswer // those that do not wait for a multicast, by time
}

// unicastAnswer is an advertisement to one host.
type unicastAnswer struct {
	at time.Time
	to netip.Addr
}

func newSchedule() schedule {
	return schedule{
		limit:        bucket.New(maxInitialAdvertisements, minDelayBetweenRAs),
		renumber:     bucket.New(1, renumberingPeriod),
		unicastLimit: bucket.New(maxUnicast, unicastPeriod),
	}
}

// changed notes that there is something new to say, and whether it is about prefixes.
func (s *schedule) changed(prefixes bool) {
	s.urgent, s.prefixes = true, s.prefixes || prefixes
	s.initial = maxInitialAdvertisements
}

// solicited notes a valid solicitation at now. All that come until a multicast answer share it.
func (s *schedule) solicited(now time.Time, from netip.Addr) {
	allowed := s.last.Add(minDelayBetweenRAs)
	delay := rand.N(maxRADelay + 1)
	switch {
	case !allowed.After(now):
		if s.answer.IsZero() {
			s.answer = now.Add(delay)
		}
	case slices.ContainsFunc(s.unicast, func(u unicastAnswer) bool { return u.to == from }):
	case from.IsLinkLocalUnicast() && len(s.unicast) < maxUnicast && s.unicastLimit.Wait(now) == 0:
		s.unicastLimit.Take(now)
		s.unicast = append(s.unicast, unicastAnswer{now.Add(delay), from})
		slices.SortFunc(s.unicast, func(a, b unicastAnswer) int { return a.at.Compare(b.at) })
	case s.answer.IsZero():
		s.answer = allowed.Add(delay)
	}
}

// dueUnicast returns the hosts to be answered at now and forgets them.
func (s *schedule) dueUnicast(now time.Time) (hosts []netip.Addr) {
	for len(s.unicast) > 0 && !s.unicast[0].at.After(now) {
		hosts = append(hosts, s.unicast[0].to)
		s.unicast = s.unicast[1:]
	}
	return hosts
}

// wake returns when due or dueUnicast have something to send.
func (s *schedule) wake(now time.Time) time.Time {
	at := s.due(now)
	if len(s.unicast) > 0 && s.unicast[0].at.Before(at) {
		at = s.unicast[0].at
	}
	return at
}

// limitInterval makes the next unsolicited advertisement not later than the longest interval allows.
func (s *schedule) limitInterval(now time.Time, longest time.Duration) {
	if t := now.Add(longest); s.next.After(t) {
		s.next = t
	}
}

// due returns when the next multicast advertisement is to be sent; it is not after now when that is the moment.
func (s *schedule) due(now time.Time) time.Time {
	at := s.next
	switch {
	case s.urgent:
		at = now
	case !s.answer.IsZero() && s.answer.Before(at):
		at = s.answer
	}
	wait := s.limit.Wait(now)
	if s.prefixes {
		wait = min(wait, s.renumber.Wait(now))
	}
	if ready := now.Add(wait); ready.After(at) {
		return ready
	}
	return at
}

// sent notes that an advertisement was multicast at now, and chooses the time of the next.
func (s *schedule) sent(now time.Time, shortest, longest time.Duration) {
	if s.limit.Wait(now) > 0 {
		s.renumber.Take(now)
	} else {
		s.limit.Take(now)
	}
	s.last, s.urgent, s.prefixes, s.answer, s.unicast = now, false, false, time.Time{}, nil
	s.initial = max(0, s.initial-1)
	wait := shortest + rand.N(longest-shortest+1)
	if s.initial > 0 {
		wait = min(wait, initialInterval)
	}
	s.next = now.Add(wait)
}
