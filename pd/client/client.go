// Package client drives one pd.Machine per uplink: it has the socket, the timers and the goroutine.
//
// It decides nothing about the protocol (pd.Machine does), writes no files and touches nothing in the kernel but its
// socket. What it learns goes to Config.Observe on the shortest way: packet, Decode, Step, Observe. Keeping the lease on
// disk is the observer's business.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/pd"
)

// ErrStopped is what Release returns when Run has returned.
var ErrStopped = errors.New("DHCPv6 client has stopped")

// Config is what a Client needs.
type Config struct {
	Uplink      string
	Machine     pd.Config
	Saved       pd.Lease      // from before, the zero Lease if there is none
	ReportAfter time.Duration // see Update.Reported
	Logger      *slog.Logger
	Observe     func(Update) // called by Run for every change, must not block
}

// Update is the state of a client after a change.
type Update struct {
	Uplink   string
	Lease    pd.Lease
	HasLease bool     // Lease has prefixes
	Cause    pd.Cause // of the change of lease that this update is about; "" if it is about something else
	// Reported becomes true for good when a server has confirmed or refused a lease, when none has answered, or when
	// ReportAfter is over: from then on nothing waits for this uplink any more.
	Reported bool
	State    string    // for people
	Failure  string    // why there is no lease, or none that is confirmed, for people; "" while all is well
	Received time.Time // when the packet that caused the change was read; zero if none did
}

// Client is the DHCPv6 client of one uplink.
type Client struct {
	cfg     Config
	open    func(kernel.Link) (conn, error)
	links   chan kernel.Link // size 1: the latest wins
	renew   chan struct{}    // size 1
	release chan chan struct{}
	stopped chan struct{} // closed when Run returns
}

// New returns a client that does nothing before Run.
func New(cfg Config) *Client {
	return &Client{
		cfg:     cfg,
		open:    openSocket,
		links:   make(chan kernel.Link, 1),
		renew:   make(chan struct{}, 1),
		release: make(chan chan struct{}),
		stopped: make(chan struct{}),
	}
}

// SetLink tells the client how the uplink's interface is now; the zero Link if there is none. It does not block.
func (c *Client) SetLink(l kernel.Link) {
	for {
		select {
		case c.links <- l:
			return
		default:
		}
		select {
		case <-c.links: // not taken yet, and out of date
		default:
		}
	}
}

// Renew asks the server to confirm the lease now, or starts again after a Release. It does not block.
func (c *Client) Renew() {
	select {
	case c.renew <- struct{}{}:
	default: // one is waiting already
	}
}

// Release gives the lease back: Observe hears of an empty lease at once, the server is told, and then the client is
// silent until Renew. It returns when the server has answered or the client has given up; with an error if ctx or Run
// ended before that.
func (c *Client) Release(ctx context.Context) error {
	done := make(chan struct{})
	var err error
	select {
	case c.release <- done:
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-c.stopped:
			err = ErrStopped
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-c.stopped:
		err = ErrStopped
	}
	return fmt.Errorf("release the lease of uplink %s: %w", c.cfg.Uplink, err)
}

// Run is the client's life; it may be called once. It returns nil when ctx is cancelled, without a Release.
func (c *Client) Run(ctx context.Context) error {
	defer close(c.stopped)
	r := newRun(c)
	defer r.closeSocket()
	r.observe(r.update(r.machine.Lease(), "", time.Time{}))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(r.wake()))
		select {
		case <-ctx.Done():
			return nil
		case l := <-c.links:
			r.setLink(l)
		case in := <-r.received():
			r.receive(in)
		case <-c.renew:
			r.askRenew()
		case done := <-c.release:
			r.askRelease(done)
		case <-timer.C:
			r.tick()
		}
	}
}
