package server

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/pd"
)

// Config is what a Server needs.
type Config struct {
	Downstream string
	ServerID   pd.DUID // the router's DUID: a client and a server may share it (RFC 9915 §11)
	Lender     Lender
	Saved      []Client             // what Keep was given last, before a restart
	Keep       func([]Client)       // called by Run when they have changed; must not block; may be nil
	Observe    func(failure string) // called by Run with why the downstream cannot be served, "" when it can; likewise
	Logger     *slog.Logger
}

// Server is the DHCPv6 server of one downstream. Create it with New.
type Server struct {
	cfg    Config
	open   func(kernel.Link) (conn, error)
	jitter func() float64
	wake   chan struct{} // size 1: there is something in the mailbox

	mu   sync.Mutex // guards the mailbox
	mail mail
}

// mail is what Run has not looked at yet, and what it has seen last.
type mail struct {
	link    kernel.Link
	service Service
	changed bool
}

// New returns a Server that does nothing before Run, SetLink and Set.
func New(cfg Config) *Server {
	if cfg.Keep == nil {
		cfg.Keep = func([]Client) {}
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string) {}
	}
	return &Server{
		cfg:    cfg,
		open:   openSocket,
		jitter: func() float64 { return rand.Float64()/5 - 0.1 }, // RFC 9915 §15: RAND
		wake:   make(chan struct{}, 1),
	}
}

// SetLink says how the downstream's interface is now; the zero Link if there is none. It does not block.
func (s *Server) SetLink(l kernel.Link) { s.post(func(m *mail) { m.link = l }) }

// Set says what to serve from now on. It does not block. The Server keeps its slices: they must not be modified afterwards.
func (s *Server) Set(service Service) { s.post(func(m *mail) { m.service = service }) }

// Changed says that what the Lender lends to clients of this downstream has changed, as after a renumbering: those that
// accept Reconfigure messages are asked to renew until they do, at most recMaxRC times in nine minutes. The others ask by
// themselves (Service.Renew). The Lender must answer for the new state already. It does not block.
func (s *Server) Changed() { s.post(func(m *mail) { m.changed = true }) }

func (s *Server) post(change func(*mail)) {
	s.mu.Lock()
	change(&s.mail)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take returns the mailbox; what is news only once is news no longer.
func (s *Server) take() mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mail
	s.mail.changed = false
	return m
}

// Run serves until ctx ends, and then returns nil without a word to the clients: what they have outlives a restart. It may
// be called once. Failures of the socket are logged, observed and tried again.
func (s *Server) Run(ctx context.Context) error {
	r := newRun(s, time.Now())
	defer r.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(r.wakeAt(time.Now())))
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
			r.takeMail(time.Now())
		case a := <-r.arrivals():
			r.receive(ctx, a)
		case <-timer.C:
			r.tick(time.Now())
		}
		if kept, changed := r.clients.keep(); changed {
			s.cfg.Keep(kept)
		}
	}
}
