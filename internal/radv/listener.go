package radv

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"

	"uplinkd/internal/bucket"
	"uplinkd/internal/kernel"
)

// Times of solicitation: RFC 4861 §10, and RFC 7559 for what comes after the third.
const (
	firstSolicitation    = 100 * time.Millisecond // at most; MAX_RTR_SOLICITATION_DELAY is 1 s, see the package comment
	solicitationInterval = 4 * time.Second        // RTR_SOLICITATION_INTERVAL
	maxSolicitations     = 3                      // MAX_RTR_SOLICITATIONS: from then on the interval doubles
	longestSolicitation  = time.Hour              // MRT of RFC 7559 §2
)

// Rates at which facts are passed on: a forged flood of routers must not keep the daemon planning.
const (
	changesBurst  = 10
	changesPeriod = time.Second
	refreshPeriod = 5 * time.Second
	refreshMargin = 10 * time.Second // a refresh does not wait when a published deadline is as close as this
)

// Listener learns what routers advertise on one uplink. Create it with NewListener.
type Listener struct {
	observe func(Facts)
	log     *slog.Logger
	wake    chan struct{} // size 1: the link has changed

	mu   sync.Mutex // guards mail
	mail kernel.Link

	// What follows belongs to Run.
	port      port[advertisement]
	link      kernel.Link
	table     table
	published Facts
	changes   bucket.Bucket
	lastFacts time.Time
	solicit   solicitation
}

// solicitation is the state of asking for routers; at is zero when nothing is to be asked.
type solicitation struct {
	at       time.Time
	sent     int
	interval time.Duration
}

// NewListener returns a Listener for the named uplink. It calls observe from Run's goroutine with every change of the
// facts; observe must not block and must not modify the slices.
func NewListener(uplink string, observe func(Facts), log *slog.Logger) *Listener {
	log = log.With("uplink", uplink)
	return &Listener{
		observe: observe,
		log:     log,
		wake:    make(chan struct{}, 1),
		changes: bucket.New(changesBurst, changesPeriod),
		port: port[advertisement]{
			open:  openSocket(allNodes, ipv6.ICMPTypeRouterAdvertisement),
			parse: func(p packet) (advertisement, error) { return parseAdvertisement(p, time.Now()) },
			log:   log,
		},
	}
}

// SetLink says what the uplink's interface is now. It does not block; the latest value wins.
func (l *Listener) SetLink(link kernel.Link) {
	l.mu.Lock()
	l.mail = link
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run listens until ctx ends, and then returns nil. Failures of the socket are logged and tried again.
func (l *Listener) Run(ctx context.Context) error {
	defer l.port.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		l.takeMail()
		if l.port.want(true, now) {
			l.startSolicitation(now)
		}
		if l.table.expire(now) && !l.haveRouter() && l.port.conn != nil {
			l.startSolicitation(now)
		}
		l.sendSolicitation(now)
		publishAt := l.publish(now)
		timer.Reset(l.nextWake(now, publishAt).Sub(now))
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-timer.C:
		case a := <-l.port.in:
			if l.own(a.from) {
				continue
			}
			l.table.hear(a)
			if !a.routerUntil.IsZero() {
				l.solicit = solicitation{}
			}
		case err := <-l.port.failed:
			l.port.fail(err, time.Now())
		}
	}
}

// takeMail takes over what SetLink left. What routers said outlives a loss of carrier, until its lifetimes are over. An
// interface that is gone, or has a new index, is another link.
func (l *Listener) takeMail() {
	l.mu.Lock()
	link := l.mail
	l.mu.Unlock()
	if link.Index != l.link.Index && l.link.Index != 0 {
		l.table = table{}
	}
	l.link = link
	l.port.setLink(link)
}

// own reports whether an address is one of this interface. Advertisements from there are forged, or another daemon's on
// this machine; the kernel refuses a default route to itself. An address of another interface may well be the router's:
// fe80::1 is popular.
func (l *Listener) own(from netip.Addr) bool {
	return from == l.link.LinkLocal || slices.Contains(l.link.OtherLinkLocal, from)
}

func (l *Listener) haveRouter() bool {
	for _, h := range l.table.routers {
		if h.isRouter() {
			return true
		}
	}
	return false
}

// publish passes the facts on if they are news and their time has come. Otherwise it returns when that will be; zero
// when there is no news.
func (l *Listener) publish(now time.Time) time.Time {
	facts := l.table.facts()
	facts.Interface = l.link.Index
	at := now.Add(l.changes.Wait(now))
	switch facts.compare(l.published) {
	case nothing:
		return time.Time{}
	case refreshed:
		if next := l.lastFacts.Add(refreshPeriod); next.After(at) && !l.published.nearEnd(now) {
			at = next
		}
	}
	if at.After(now) {
		return at
	}
	l.changes.Take(now)
	l.published, l.lastFacts = facts, now
	l.observe(facts)
	return time.Time{}
}

// nearEnd reports whether one of the deadlines in f is about to pass.
func (f Facts) nearEnd(now time.Time) bool {
	soon := now.Add(refreshMargin)
	for _, r := range f.Routers {
		if r.Until.Over(soon) {
			return true
		}
	}
	for _, p := range f.PREF64 {
		if p.Until.Over(soon) {
			return true
		}
	}
	for _, p := range f.Prefixes {
		if p.ValidUntil.Over(soon) || !p.PreferredUntil.IsZero() && p.PreferredUntil.Over(soon) {
			return true
		}
	}
	return false
}

// startSolicitation begins to ask for routers.
func (l *Listener) startSolicitation(now time.Time) {
	l.solicit = solicitation{at: now.Add(rand.N(firstSolicitation + 1)), interval: solicitationInterval}
}

// sendSolicitation asks for routers if it is time (RFC 4861 §6.3.7).
func (l *Listener) sendSolicitation(now time.Time) {
	q := &l.solicit
	if q.at.IsZero() || q.at.After(now) || l.port.conn == nil {
		return
	}
	rs := &ndp.RouterSolicitation{}
	if mac, err := net.ParseMAC(l.link.MAC); err == nil && len(mac) == 6 {
		rs.Options = []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: mac}}
	}
	b, err := ndp.MarshalMessage(rs)
	if err != nil {
		l.log.Error("router solicitation cannot be built", "interface", l.link.Name, "err", err)
		return
	}
	if !l.port.send(b, allRouters, now) {
		return // opening the socket again starts over
	}
	if q.sent++; q.sent >= maxSolicitations {
		q.interval = min(2*q.interval, longestSolicitation)
	}
	q.at = now.Add(q.interval)
}

// nextWake returns when there is something to do again.
func (l *Listener) nextWake(now, publishAt time.Time) time.Time {
	at := now.Add(time.Hour)
	if t, ok := l.table.next().Time(); ok && t.Before(at) {
		at = t
	}
	for _, t := range []time.Time{publishAt, l.port.retry()} {
		if !t.IsZero() && t.Before(at) {
			at = t
		}
	}
	if t := l.solicit.at; l.port.conn != nil && !t.IsZero() && t.Before(at) {
		at = t
	}
	return at
}
