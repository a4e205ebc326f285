package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/internal/lifetime"
	"uplinkd/internal/netlab"
	"uplinkd/pd"
)

// renumbered has two networks with hosts. Hosts forget what is over after 20 s, so that a test can wait for it.
const renumbered = `
[uplink.fiber]
interface = "wan0"
dhcpv6.delay = false
dhcpv6.address = "never"
dhcpv6.report_after = "1s"

[downstream.lan]
interface = "lan0"
ra = { max_interval = "12s", min_interval = "9s", preferred_lifetime = "20s", valid_lifetime = "20s" }

[downstream.guest]
interface = "lan1"
ra = { max_interval = "12s", min_interval = "9s", preferred_lifetime = "20s", valid_lifetime = "20s" }
`

// over is how long it takes until nobody can have anything of an old prefix: its lease, then the lifetime last announced.
const over = 2 * time.Minute

// renumbering is a site with two networks, behind a provider that routes what is delegated now, and nothing else.
type renumbering struct {
	*site
	v     *simulated
	guest *netlab.NS
	inner *inner
}

func newRenumbering(t *testing.T, cfg isp.Config) *renumbering {
	t.Helper()
	r := &renumbering{site: newSite(t, false)}
	r.guest = r.lab.NS("guest")
	r.guest.Sysctl("net.ipv6.conf.all.accept_dad", "0")
	r.guest.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	r.lab.Veth(r.router, "lan1", r.guest, "eth0", "02:00:00:00:03:01", "02:00:00:00:03:02")
	r.router.LinkLocal("lan1")
	r.v = r.routed(cfg)
	r.echo()
	r.listen()
	r.inner = r.startInner()
	r.configure(fullSite)
	r.start()
	r.awaitHealthy()
	r.hostAddress(pool, "preferred", preferred)
	r.reach()
	_, held := r.held()
	r.usable(r.inner, held[0])
	r.serves(held[0])
	return r
}

// routed starts a provider that has a route to every prefix while it is delegated, and lets no packet in whose source it
// would not send answers to (BCP 38).
func (s *site) routed(cfg isp.Config) *simulated {
	s.t.Helper()
	netlab.NeedProgram(s.t, "nft", "nftables")
	s.isp.Run("nft", `add table ip6 bcp38; add chain ip6 bcp38 forward { type filter hook forward priority 0; };
		add rule ip6 bcp38 forward iifname "up0" ip6 saddr != fe80::/10 fib saddr . iif oif missing drop`)
	cfg.Interface, cfg.Pool, cfg.RapidCommit, cfg.Length = "up0", netip.MustParsePrefix(pool), true, 48
	cfg.RA.Interval = 4 * time.Second
	cfg.Route = func(prefix netip.Prefix, via netip.Addr, add bool) error {
		verb := "replace"
		if !add {
			verb = "del"
		}
		return s.isp.Command(context.Background(), "ip", "-6", "route", verb, prefix.String(), "via", via.String(), "dev", "up0").Run()
	}
	p, err := isp.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	serve(s.t, s.isp, p)
	return &simulated{Provider: p}
}

// cut and splice are the link between provider and router going down and up.
func (r *renumbering) cut() {
	r.t.Helper()
	r.isp.IP("link set up0 down")
	r.eventually("the client to see that the link is down", func() (bool, string) {
		c := r.uplink().Client
		return c.State == pd.StateNoLink, c.State
	})
}

func (r *renumbering) splice() {
	r.t.Helper()
	r.isp.IP("link set up0 up")
	r.isp.LinkLocal("up0")
	r.isp.IP("-6 address add 2001:db8:1:1::1/64 dev up0 nodad")
}

// move makes the provider delegate from the other pool.
func (r *renumbering) move(how func(netip.Prefix) error) {
	r.t.Helper()
	if err := how(netip.MustParsePrefix(newPool)); err != nil {
		r.t.Fatal(err)
	}
}

// flash takes the old prefix away at once, says so when asked, and delegates from the other pool.
func (r *renumbering) flash(p netip.Prefix) error { return r.v.Renumber(p, 0) }

// renumberMode is a way in which a site loses its prefix.
type renumberMode struct {
	name     string
	change   func(r *renumbering)
	returns  bool // the same prefix is there again afterwards
	lossless bool // not a packet may be lost
	unsaid   bool // nobody says that the old prefix is dead, and as long as its lease lasts it may not be
	short    bool // leases of seconds, for those that have to end
}

// lease is what the provider grants before. T1 is never reached: all that happens is what the test does.
func (m renumberMode) lease() isp.Config {
	if m.short {
		return offer{preferred: 9, valid: 12, t1: 1000, t2: 1000}.simulated()
	}
	return offer{preferred: 50, valid: 55, t1: 1000, t2: 1000}.simulated()
}

// renumberModes are the five of issue 4, some of them in two ways.
var renumberModes = []renumberMode{
	{name: "R1 graceful", lossless: true, change: func(r *renumbering) {
		r.move(func(p netip.Prefix) error { return r.v.Renumber(p, 8) })
		r.renew()
	}},
	{name: "R2 NoBinding", change: func(r *renumbering) {
		r.v.Forget()
		r.move(r.flash)
		r.renew()
	}},
	{name: "R3 flash, withdrawn", change: func(r *renumbering) {
		r.calm()
		r.cut()
		r.move(r.flash)
		r.splice()
	}},
	{name: "R3 flash, unknown", change: func(r *renumbering) {
		r.calm()
		r.cut()
		r.v.Forget()
		r.move(r.flash)
		r.splice()
	}},
	{name: "R4 silent", short: true, unsaid: true, change: func(r *renumbering) {
		r.move(r.v.Abandon)
		r.renew()
	}},
	{name: "R5 return, link", returns: true, change: func(r *renumbering) {
		r.calm()
		r.cut()
		r.splice()
	}},
	{name: "R5 return, expired", returns: true, short: true, change: func(r *renumbering) {
		r.v.Silence(true)
		r.awaitHeld(0, 0)
		r.v.Silence(false)
		r.renew()
	}},
}

// TestRenumberModes renumbers a site in every way, while a host sends a packet every 10 ms and has a TCP connection. The
// figures are in the log: lines that begin with "renumbering".
func TestRenumberModes(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	for _, m := range renumberModes {
		// Not t.Parallel: they mostly wait, and would take the places of tests that work.
		all.Go(func() { t.Run(m.name, func(t *testing.T) { testRenumberMode(t, m) }) })
	}
	all.Wait()
}

func testRenumberMode(t *testing.T, m renumberMode) {
	r := newRenumbering(t, m.lease())
	_, held := r.held()
	was := r.normal(held[0])
	stream, session := startStream(t, r.host, "eth0"), startSession(t, r.host)
	r.inner.stream = startStream(t, r.inner.leaf, "eth0")
	r.eventually("a steady stream", func() (bool, string) {
		n := stream.tally(time.Time{}, time.Now())
		return n.sent-n.lost >= 50, fmt.Sprint(n)
	})
	if !held[0].Contains(session.source) {
		t.Fatalf("the session's source is %s, want one of %s", session.source, held[0])
	}
	r.v.SetLifetimes(lifetime.Infinity, lifetime.Infinity, lifetime.Infinity, lifetime.Infinity)
	began := time.Now()
	m.change(r)
	r.follow(m, stream, session, held[0], was, began)
}

// calm waits until the router has its limit of advertisements (RFC 4861 §6.2.4) at its disposal again, as one has that has
// been running for a while: the last of the first three, which are 4 s apart, is 5 s ago.
func (r *renumbering) calm() {
	r.t.Helper()
	var count string
	var since time.Time
	r.eventually("no RA for a while", func() (bool, string) {
		fields := strings.Fields(r.host.Run("nstat", "-saz", "Icmp6InRouterAdvertisements"))
		if now := strings.Join(fields, " "); now != count {
			count, since = now, time.Now()
		}
		return time.Since(since) > 5*time.Second, count
	})
}

// follow watches a site after a renumbering that began at a moment, until nothing is left of the old prefix.
func (r *renumbering) follow(m renumberMode, stream *stream, session *session, old netip.Prefix, was string, began time.Time) {
	t := r.t
	t.Helper()
	replied, now := r.replied(m, old, began)
	isOld := func(a netip.Addr) bool { return old.Contains(a) && old != now }
	isNew := func(a netip.Addr) bool { return now.Contains(a) }
	var used, deprecated time.Time
	r.prefers(now)
	r.eventually("the host to use "+now.String(), func() (ok bool, text string) {
		used, ok = stream.usedSince(replied, isNew)
		return ok, stream.tally(began, time.Now()).text()
	})
	netlab.Eventually(t, over, "the old addresses to be deprecated at the host", func() (ok bool, text string) {
		deprecated, ok = stream.deprecatedSince(isOld)
		return ok, fmt.Sprint(addresses(r.host, "eth0"))
	})
	r.eventually("the guest to use "+now.String(), func() (bool, string) {
		list := addresses(r.guest, "eth0")
		return slices.ContainsFunc(list, func(a address) bool { return isNew(a.Local) && !a.Deprecated }), fmt.Sprint(list)
	})
	r.serves(now)
	r.usable(r.inner, now)
	if !m.returns { // hosts may send from it for a while yet, to be told that it is dead
		r.eventually("the old lease to be over", func() (bool, string) {
			_, held := r.held()
			return !slices.Contains(held, old), fmt.Sprint(held)
		})
	}
	sent := len(stream.sent())
	r.eventually("a second more of probes", func() (bool, string) {
		n := len(stream.sent()) - sent
		return n >= 100, fmt.Sprint(n)
	})
	stream.end()
	r.inner.stream.end()
	ended := time.Now()
	innerAll := r.inner.stream.tally(began, ended)
	innerUsed, _ := r.inner.stream.usedSince(replied, isNew)
	innerDeprecated, _ := r.inner.stream.deprecatedSince(isOld)
	if m.returns { // nothing is ever deprecated
		deprecated, innerDeprecated = used, innerUsed
	}
	all, after := stream.tally(began, ended), stream.tally(later(used, deprecated), ended)
	silent, err := r.sessionEnds(m, session)
	t.Logf("renumbering mode=%q lost=%d sent=%d gap_ms=%d used_ms=%d deprecated_ms=%d session=%q session_silent_ms=%d lost_after=%d inner_lost=%d "+
		"inner_used_ms=%d inner_deprecated_ms=%d why=%q", m.name,
		all.lost, all.sent, all.gap.Milliseconds(), used.Sub(replied).Milliseconds(), deprecated.Sub(replied).Milliseconds(), fmt.Sprint(err),
		silent.Milliseconds(), after.lost, innerAll.lost, innerUsed.Sub(replied).Milliseconds(),
		innerDeprecated.Sub(replied).Milliseconds(), all.text())
	if m.lossless && all.lost+innerAll.lost > 0 {
		t.Errorf("%d of %d packets lost, and %d of %d behind the inner router, although the old prefix is good until everybody has left it: %s%s",
			all.lost, all.sent, innerAll.lost, innerAll.sent, all.text(), innerAll.text())
	}
	if after.lost > 0 {
		t.Errorf("%d packets lost when the host had already changed to the new prefix: %s", after.lost, after.text())
	}
	r.nothingLeft(now, was)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sessionEnds waits for the end of a connection whose source has nothing behind it any more: by a reset, without which the
// program would hang until its own timeout. What comes back before the connection gives up goes on.
func (r *renumbering) sessionEnds(m renumberMode, session *session) (silent time.Duration, err error) {
	r.t.Helper()
	if m.unsaid {
		return session.outcome()
	}
	r.eventually("the session from the old prefix to be reset, or to go on", func() (bool, string) {
		silent, err = session.outcome()
		if err != nil && (m.returns || !errors.Is(err, syscall.ECONNRESET)) {
			r.t.Fatalf("the session ended with %v", err)
		}
		return err != nil || m.returns && silent < time.Second, fmt.Sprintf("silent for %s", silent)
	})
	return silent, err
}

// replied waits until the provider has delegated a prefix after a moment, and returns when the Reply was sent.
func (r *renumbering) replied(m renumberMode, old netip.Prefix, after time.Time) (at time.Time, now netip.Prefix) {
	r.t.Helper()
	r.eventually("a Reply", func() (bool, string) {
		for _, x := range r.v.Exchanges() {
			if x.Sent == 0 || x.Reply.Type != pd.Reply || x.At.Before(after) {
				continue
			}
			for _, p := range x.Reply.IAPDs[0].Prefixes {
				if p.Preferred > 0 && (p.Prefix == old) == m.returns {
					at, now = x.SentAt, p.Prefix
					return true, ""
				}
			}
		}
		return false, fmt.Sprint(r.v.Counts())
	})
	return at, now
}

// prefers waits until one prefix is preferred, and no other.
func (r *renumbering) prefers(want netip.Prefix) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("%s to be preferred alone", want), func() (bool, string) {
		var list []netip.Prefix
		all := r.uplink().Delegations
		for _, g := range all {
			if g.State == "preferred" {
				list = append(list, g.Prefix)
			}
		}
		return slices.Equal(list, []netip.Prefix{want}), fmt.Sprint(all)
	})
}

// normal is kernelText without lifetimes and with P for the prefix: the same for every prefix that is delegated alone.
func (s *site) normal(prefix netip.Prefix) string {
	s.t.Helper()
	return normalText(s.kernelText(), prefix)
}

func normalText(text string, prefixes ...netip.Prefix) string {
	text = running.ReplaceAllString(text, "_lft N")
	for i, p := range prefixes {
		text = strings.ReplaceAll(text, strings.TrimSuffix(p.Addr().String(), ":"), fmt.Sprintf("P%d:", i)) // 2001:db8:11ff: of a /48
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// nothingLeft waits until the kernel has for a prefix what a new daemon made for another one, and nothing else.
func (s *site) nothingLeft(prefix netip.Prefix, was string) {
	s.t.Helper()
	netlab.Eventually(s.t, over, "nothing to be left over", func() (bool, string) {
		now := s.normal(prefix)
		return now == was, fmt.Sprintf("got\n%s\nwant\n%s", now, was)
	})
}
