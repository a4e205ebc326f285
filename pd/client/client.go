// Package client drives one pd.Machine per uplink: it has the socket, the timers and the goroutine, and it notices when
// the system was suspended or its clock was set, which the machine cannot.
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
	"math/rand/v2"
	"net/netip"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/pd"
	"uplinkd/pd/trace"
)

// ErrStopped is what Release returns when Run has returned.
var ErrStopped = errors.New("DHCPv6 client has stopped")

// Config is what a Client needs.
type Config struct {
	Uplink      string
	Machine     pd.Config
	Saved       pd.Lease      // from before, the zero Lease if there is none
	Window      pd.Window     // likewise, of the client that was there before on this uplink: see Last
	ReportAfter time.Duration // see Update.Reported
	WaitingFor  string        // State until Begin, for people; "": nothing. With a lease from before nothing is waited for
	Logger      *slog.Logger
	Observe     func(Update)       // called by Run for every change, must not block
	Trace       func(trace.Packet) // called by Run for every message sent or received, must not block or keep Data; may be nil
	DSCP        uint8              // of what is sent, 0…63 (RFC 2474): some providers drop DHCPv6 without theirs
	Priority    int                // SO_PRIORITY of what is sent, which a VLAN maps to its 802.1p field; 0: as it comes
}

// Update is the state of a client after a change.
type Update struct {
	Lease pd.Lease
	Cause pd.Cause // of the change of lease that this update is about; "" if it is about something else
	// Reported becomes true for good when a server has confirmed or refused a lease, when none has answered, or when
	// ReportAfter is over: from then on nothing waits for this uplink any more.
	Reported bool
	State    string // for people
	Failure  string // why there is no lease, or none that is confirmed, for people; "" while all is well
	Note     string // why the lease lacks something that was asked for, for people; "" while it has all of it, or nothing
}

// Client is the DHCPv6 client of one uplink.
type Client struct {
	cfg        Config
	open       func(kernel.Link) (conn, error)
	newMachine func(saved pd.Lease, sent pd.Window, now time.Time, rnd *rand.Rand) machine
	clocks     func() (clocks, bool)
	links      chan kernel.Link // size 1: the latest wins
	begin      chan struct{}    // size 1
	renew      chan struct{}    // size 1
	suspect    chan string      // size 1
	conflicts  chan netip.Addr
	release    chan chan struct{}
	lease      pd.Lease      // see Last
	sent       pd.Window     // likewise
	stopped    chan struct{} // closed when Run returns
}

// machine is what the client needs of pd.Machine, whose methods say more.
type machine interface {
	Step(now time.Time, in pd.Input) []pd.Output
	Deadline() (t time.Time, ok bool)
	State() string
	Lease() pd.Lease
	Sent() pd.Window
	Awaits() (xids []uint32, reconfigure bool)
}

// maxConflicts is how many addresses Conflict may be told about at once: as many as a lease can hold.
const maxConflicts = 64

// New returns a client that does nothing before Run.
func New(cfg Config) *Client {
	if cfg.Trace == nil {
		cfg.Trace = func(trace.Packet) {}
	}
	return &Client{
		cfg:  cfg,
		open: func(l kernel.Link) (conn, error) { return openSocket(l, cfg.DSCP, cfg.Priority) },
		newMachine: func(saved pd.Lease, sent pd.Window, now time.Time, rnd *rand.Rand) machine {
			m := pd.NewMachine(cfg.Machine, saved, now, rnd)
			m.Follow(sent)
			return m
		},
		clocks:    readClocks,
		links:     make(chan kernel.Link, 1),
		begin:     make(chan struct{}, 1),
		renew:     make(chan struct{}, 1),
		suspect:   make(chan string, 1),
		conflicts: make(chan netip.Addr, maxConflicts),
		release:   make(chan chan struct{}),
		stopped:   make(chan struct{}),
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

// Begin ends the wait for Config.WaitingFor: from now on the client speaks, whatever happens to the link. It does not
// block.
func (c *Client) Begin() {
	select {
	case c.begin <- struct{}{}:
	default: // one is waiting already
	}
}

// Renew asks the server to confirm the lease now, or starts again after a Release, or starts without Begin. It does
// not block.
func (c *Client) Renew() {
	select {
	case c.renew <- struct{}{}:
	default: // one is waiting already
	}
}

// Suspect says that the network may have changed: the machine verifies what it holds, within limits. why is for the log.
// It does not block.
func (c *Client) Suspect(why string) {
	select {
	case c.suspect <- why:
	default: // one is waiting already
	}
}

// Conflict says that DAD has found a, which is an address of the lease, in use by another node: the machine declines it.
// It does not block.
func (c *Client) Conflict(a netip.Addr) {
	select {
	case c.conflicts <- a:
	default: // more than a lease can hold: not all of them are ours
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

// Last is what the client that follows this one on the same uplink needs to know, as Config.Saved and Config.Window, when
// Run has returned: the lease as it was held at the end, which may be newer than the one on disk, and what was sent lately,
// since the limit on that is the uplink's (RFC 9915 §14.1). Before that it is what the Config of c says.
func (c *Client) Last() (pd.Lease, pd.Window) {
	select {
	case <-c.stopped:
		return c.lease, c.sent
	default:
		return c.cfg.Saved, c.cfg.Window
	}
}

// Run is the client's life; it may be called once. It returns nil when ctx is cancelled, without a Release.
func (c *Client) Run(ctx context.Context) error {
	defer close(c.stopped)
	r := newRun(c)
	defer func() {
		r.closeSocket()
		c.lease, c.sent = r.machine.Lease(), r.machine.Sent()
	}()
	r.observe(r.update(r.machine.Lease(), ""))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		r.checkClocks()
		timer.Reset(time.Until(r.wake()))
		select {
		case <-ctx.Done():
			return nil
		case l := <-c.links:
			r.setLink(l)
		case in := <-r.received():
			r.receive(in)
		case <-c.begin:
			r.beginNow()
		case <-c.renew:
			r.askRenew()
		case why := <-c.suspect:
			r.doubt(why)
		case a := <-c.conflicts:
			r.conflict(a)
		case done := <-c.release:
			r.askRelease(done)
		case <-timer.C:
			r.tick()
		}
	}
}
