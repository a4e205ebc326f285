package radv

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/ndp"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/internal/netlab"
	"uplinkd/policy"
)

func TestMain(m *testing.M) { netlab.TestMain(m) }

var (
	start   = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	lan     = kernel.Link{Name: "lan0", Index: 3, Up: true, Carrier: true, MTU: 1500, MAC: "02:00:00:00:01:01", LinkLocal: netip.MustParseAddr("fe80::1")}
	quiet   = slog.New(slog.NewTextHandler(io.Discard, nil))
	prefixA = netip.MustParsePrefix("2001:db8:a::/64")
	prefixB = netip.MustParsePrefix("2001:db8:b::/64")
)

// announce returns what a home router says; prefixes are valid for two hours from now on.
func announce(now time.Time, prefixes ...netip.Prefix) policy.Announcement {
	a := policy.Announcement{
		Send: true, Router: true, RouterLifetime: 30 * time.Minute,
		MinInterval: 200 * time.Second, MaxInterval: 600 * time.Second,
	}
	for _, p := range prefixes {
		a.Prefixes = append(a.Prefixes, policy.AnnouncedPrefix{
			Prefix: p, PreferredUntil: lifetime.Until(now.Add(time.Hour)), ValidUntil: lifetime.Until(now.Add(2 * time.Hour)),
			PreferredCap: 45 * time.Minute, ValidCap: 90 * time.Minute,
		})
	}
	return a
}

// text is the canonical form of an advertisement, one line per field or option.
func text(ra *ndp.RouterAdvertisement) string {
	var b strings.Builder
	fmt.Fprintf(&b, "router %s hoplimit %d managed %t other %t", ra.RouterLifetime, ra.CurrentHopLimit, ra.ManagedConfiguration, ra.OtherConfiguration)
	if ra.RouterSelectionPreference != ndp.Medium {
		fmt.Fprintf(&b, " preference %s", strings.ToLower(ra.RouterSelectionPreference.String()))
	}
	b.WriteByte('\n')
	for _, o := range ra.Options {
		switch o := o.(type) {
		case *ndp.LinkLayerAddress:
			fmt.Fprintf(&b, "lladdr %s\n", o.Addr)
		case *ndp.MTU:
			fmt.Fprintf(&b, "mtu %d\n", o.MTU)
		case *ndp.PrefixInformation:
			fmt.Fprintf(&b, "prefix %s/%d onlink %t auto %t valid %s preferred %s\n",
				o.Prefix, o.PrefixLength, o.OnLink, o.AutonomousAddressConfiguration, o.ValidLifetime, o.PreferredLifetime)
		case *ndp.RouteInformation:
			fmt.Fprintf(&b, "route %s/%d preference %s lifetime %s\n", o.Prefix, o.PrefixLength, strings.ToLower(o.Preference.String()), o.RouteLifetime)
		case *ndp.RecursiveDNSServer:
			fmt.Fprintf(&b, "rdnss %v lifetime %s\n", o.Servers, o.Lifetime)
		case *ndp.DNSSearchList:
			fmt.Fprintf(&b, "dnssl %v lifetime %s\n", o.DomainNames, o.Lifetime)
		case *ndp.PREF64:
			fmt.Fprintf(&b, "pref64 %s lifetime %s\n", o.Prefix, o.Lifetime)
		case *ndp.RawOption:
			fmt.Fprintf(&b, "option %d lifetime %s %q\n", o.Type, lifetimeOf(o), o.Value)
		case *ndp.CaptivePortal:
			fmt.Fprintf(&b, "portal %s\n", o.URI)
		default:
			fmt.Fprintf(&b, "%T\n", o)
		}
	}
	return b.String()
}

// wire is a link for tests: it hands out conns and records what they send. It works in synctest bubbles.
type wire struct {
	mu    sync.Mutex
	sent  []sentMessage
	opens []time.Time
	conn  *fakeConn
	fail  error // of open
	dead  error // of Send
}

type sentMessage struct {
	at   time.Time
	to   netip.Addr
	data []byte
}

type fakeConn struct {
	w    *wire
	in   chan packet
	done chan struct{}
	fail chan error
}

func (w *wire) open(kernel.Link) (conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opens = append(w.opens, time.Now())
	if w.fail != nil {
		return nil, w.fail
	}
	w.conn = &fakeConn{w: w, in: make(chan packet), done: make(chan struct{}), fail: make(chan error, 1)}
	return w.conn, nil
}

// set changes how the wire behaves.
func (w *wire) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// current returns the open conn.
func (w *wire) current() *fakeConn {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conn
}

// take returns what was sent since the last call.
func (w *wire) take() []sentMessage {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.sent
	w.sent = nil
	return out
}

// sentSince returns what was sent at or after t, and leaves it to take.
func (w *wire) sentSince(t time.Time) (out []sentMessage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.sent {
		if !m.at.Before(t) {
			out = append(out, m)
		}
	}
	return out
}

func (w *wire) opened() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.opens)
}

func (c *fakeConn) Receive(b []byte) (int, netip.Addr, int, error) {
	select {
	case p := <-c.in:
		return copy(b, p.data), p.from, p.hopLimit, nil
	case err := <-c.fail:
		return 0, netip.Addr{}, 0, err
	case <-c.done:
		return 0, netip.Addr{}, 0, errors.New("closed")
	}
}

func (c *fakeConn) Send(b []byte, to netip.Addr) error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.w.dead != nil {
		return c.w.dead
	}
	c.w.sent = append(c.w.sent, sentMessage{time.Now(), to, append([]byte(nil), b...)})
	return nil
}

func (c *fakeConn) Close() error { close(c.done); return nil }

// pass lets time go by in a bubble, and what is due at its end happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// decode reads a message with the ndp library, which shares no code with the way it is checked on receipt here.
func decode(t *testing.T, m sentMessage) *ndp.RouterAdvertisement {
	t.Helper()
	msg, err := ndp.ParseMessage(m.data)
	if err != nil {
		t.Fatalf("sent message: %v", err)
	}
	ra, ok := msg.(*ndp.RouterAdvertisement)
	if !ok {
		t.Fatalf("sent a %T", msg)
	}
	return ra
}
