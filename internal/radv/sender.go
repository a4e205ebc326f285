package radv

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"

	"uplinkd/internal/kernel"
	"uplinkd/policy"
)

// Sender announces one downstream on its link. Create it with NewSender.
type Sender struct {
	log  *slog.Logger
	wake chan struct{} // size 1: there is something in the mailbox

	mu     sync.Mutex // guards the mailbox
	mail   announced
	posted bool // since Run last looked
	final  bool

	// What follows belongs to Run.
	port       port[netip.Addr]
	said       announced // what is announced
	gone       leftovers
	schedule   schedule
	router     bool // hosts were told to use this router as default router
	source     former
	openFormer func(kernel.Link) (conn, error) // opens a socket for sending from an address that the link has no more
	omitted    []string                        // what the log says has found no room
}

// announced is an announcement and the link it is for.
type announced struct {
	announcement policy.Announcement
	link         kernel.Link
}

// NewSender returns a Sender for the downstream of that name. It says nothing before SetLink and Set.
func NewSender(name string, log *slog.Logger) *Sender {
	log = log.With("downstream", name)
	return &Sender{
		log:        log,
		wake:       make(chan struct{}, 1),
		schedule:   newSchedule(),
		openFormer: openFormer(allRouters, ipv6.ICMPTypeRouterSolicitation),
		port: port[netip.Addr]{
			open:  openSocket(allRouters, ipv6.ICMPTypeRouterSolicitation),
			parse: parseSolicitation,
			log:   log,
		},
	}
}

// SetLink says what the downstream's interface is now. It does not block; the latest value wins.
func (s *Sender) SetLink(l kernel.Link) { s.post(func() { s.mail.link = l }) }

// Set says what to announce from now on. It does not block; the latest value wins. The Sender keeps a's slices: they must
// not be modified afterwards. An announcement that tells hosts something new is sent at once; one that differs only as
// time passes is not.
func (s *Sender) Set(a policy.Announcement) { s.post(func() { s.mail.announcement = a }) }

// Final makes Run, when its context ends, withdraw everything from the hosts: router, prefixes and DNS servers. Without
// it the end of Run is silent, since the kernel goes on routing while the daemon is restarted.
func (s *Sender) Final() { s.post(func() { s.final = true }) }

func (s *Sender) post(change func()) {
	s.mu.Lock()
	change()
	s.posted = true
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run announces until ctx ends, and then returns nil. Failures of the socket are logged and tried again.
func (s *Sender) Run(ctx context.Context) error {
	defer s.port.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		s.takeMail(now)
		s.port.want(s.said.announcement.Send, now)
		s.sendDue(now)
		timer.Reset(s.nextWake(now).Sub(now))
		select {
		case <-ctx.Done():
			s.takeMail(time.Now()) // the last word may have come in the same moment
			s.sendDue(time.Now())
			s.end()
			return nil
		case <-s.wake:
		case <-timer.C:
		case from := <-s.port.in:
			s.schedule.solicited(time.Now(), from)
		case err := <-s.port.failed:
			s.port.fail(err, time.Now())
		}
	}
}

// takeMail takes over what Set and SetLink left.
func (s *Sender) takeMail(now time.Time) {
	s.mu.Lock()
	next, posted := s.mail, s.posted
	s.posted = false
	s.mu.Unlock()
	if !posted {
		return
	}
	before, after := s.said.announcement, next.announcement
	if before.Send && !after.Send && next.link.IsUsable() { // a link that is renamed or made anew ends nothing for its hosts
		s.farewell(false, now)
	}
	restarted := s.port.setLink(next.link)
	was, is := Build(before, s.said.link, now), Build(after, next.link, now)
	if restarted || before.Send != after.Send || !sameMeaning(was, is) {
		s.schedule.changed(!samePrefixes(was, is))
	}
	if before.Send {
		s.gone.replace(before, after, now)
	}
	_, longest := intervals(after)
	s.schedule.limitInterval(now, longest)
	s.said = next
}

// sendDue sends what is due: the advertisement to all nodes, which answers everybody, or answers to single hosts.
func (s *Sender) sendDue(now time.Time) {
	if s.port.conn == nil || s.schedule.wake(now).After(now) {
		return
	}
	a := s.said.announcement
	ra, omitted := build(a, s.gone, s.said.link, now)
	s.complain(omitted)
	if s.schedule.due(now).After(now) {
		for _, host := range s.schedule.dueUnicast(now) {
			s.send(ra, host, now)
		}
		return
	}
	if s.send(ra, allNodes, now) {
		s.router = ra.RouterLifetime > 0
		if address := s.source.moved(s.said.link, s.router); address.IsValid() {
			s.leave(address, ra, now)
		}
	}
	// A message that cannot be built is counted as sent: trying again at once would be a loop.
	if s.port.conn != nil {
		shortest, longest := intervals(a)
		s.schedule.sent(now, shortest, longest)
	}
}

func (s *Sender) send(ra *ndp.RouterAdvertisement, to netip.Addr, now time.Time) bool {
	b, err := ndp.MarshalMessage(ra)
	if err != nil {
		s.log.Error("router advertisement cannot be built", "interface", s.said.link.Name, "err", err)
		return false
	}
	return s.port.send(b, to, now)
}

// complain says in the log what has found no room in the advertisement, once.
func (s *Sender) complain(omitted []string) {
	if slices.Equal(omitted, s.omitted) {
		return
	}
	s.omitted = omitted
	if len(omitted) == 0 {
		s.log.Info("everything fits into the router advertisement again", "interface", s.said.link.Name)
		return
	}
	s.log.Warn("the router advertisement is full: hosts do not hear of everything", "interface", s.said.link.Name, "mtu", s.said.link.MTU,
		"number", len(omitted), "first", omitted[0])
}

// nextWake returns when there is something to do again.
func (s *Sender) nextWake(now time.Time) time.Time {
	if s.port.conn != nil {
		return s.schedule.wake(now)
	}
	if t := s.port.retry(); s.said.announcement.Send && !t.IsZero() {
		return t
	}
	return now.Add(time.Hour) // only mail brings work
}

// farewell tells hosts that this router is not a default router any more, if they think it is, and with everything set
// withdraws its prefixes and servers too.
func (s *Sender) farewell(everything bool, now time.Time) {
	if s.port.conn == nil || !s.router && !everything {
		return
	}
	ra, _ := build(s.said.announcement, s.gone, s.said.link, now)
	withdraw(ra, everything)
	s.send(ra, allNodes, now)
	s.schedule.limit.Take(now)
	s.router = false
}

// end is the end of Run.
func (s *Sender) end() {
	s.mu.Lock()
	final := s.final
	s.mu.Unlock()
	if final {
		s.farewell(true, time.Now())
	}
}
