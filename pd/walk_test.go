package pd

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"uplinkd/internal/lifetime"
)

// TestMachineWalk drives machines with random inputs, hostile ones included, and looks at the invariants after each step.
func TestMachineWalk(t *testing.T) {
	reached, sent := map[string]bool{}, map[MessageType]bool{}
	rapid.Check(t, func(t *rapid.T) {
		w := newWalk(t, func(what string, n int) int { return rapid.IntRange(0, n-1).Draw(t, what) })
		for range 60 {
			w.step()
			reached[w.m.State()] = true
			sent[w.last.Type] = true
		}
	})
	for _, s := range append(stateNames[:], informing) {
		if !reached[s] {
			t.Errorf("no walk came to %q: the inputs are too tame", s)
		}
	}
	for _, typ := range []MessageType{Solicit, Request, Confirm, Renew, Rebind, Release, Decline, InformationRequest} {
		if !sent[typ] {
			t.Errorf("no walk sent a %v: the inputs are too tame", typ)
		}
	}
}

// maxChoices bounds a walk. The fuzzer makes each interesting input as short as it can, in time that grows with the square
// of its length and that it does not count as runs: with 20 kB it did little else.
const maxChoices = 768

// FuzzMachine is the same walk with its choices, time among them, read from the fuzzer's bytes.
func FuzzMachine(f *testing.F) {
	for seed := range uint64(8) {
		rnd, b := rand.New(rand.NewPCG(seed, 0)), make([]byte, 512)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > maxChoices {
			return
		}
		w := newWalk(t, func(_ string, n int) int {
			if len(b) == 0 {
				return 0
			}
			v := int(b[0]) % n
			b = b[1:]
			return v
		})
		for len(b) > 0 { // each step takes some
			w.step()
		}
	})
}

// walk is one random walk. pick chooses one of n.
type walk struct {
	t     interface{ Fatalf(string, ...any) }
	pick  func(what string, n int) int
	cfg   Config
	m     *Machine
	now   time.Time // as the machine sees it
	last  Message   // sent
	asked Message   // likewise, other than an Information-request
	info  uint32    // transaction id of the last Information-request
	sends []time.Time
	notes []time.Time // of dropped Reconfigures
	given bool        // back: InputRelease was the last thing that could bring about a Release
}

const maxOutputs = 8 // in one step: an expiry, a failure of each exchange that ends, notes, a lease or two, two sends

var (
	walkLifetimes = []uint32{3000, 100, 30, 10, 2, 1, 0, lifetime.Infinity, lifetime.Infinity - 1, 4000}
	walkPrefixes  = []netip.Prefix{
		netip.MustParsePrefix("2001:db8:1::/56"), netip.MustParsePrefix("2001:db8:2::/48"), netip.MustParsePrefix("2001:db8:1::/60"),
		{}, netip.MustParsePrefix("::/0"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/64"),
		netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("2001:db8::7/56"), netip.MustParsePrefix("::ffff:10.0.0.0/104"),
		netip.MustParsePrefix("2000::/3"), netip.MustParsePrefix("2002:c000:200::/48"), netip.MustParsePrefix("64:ff9b::/96"),
	}
	walkAddresses = []netip.Addr{
		{}, netip.IPv6Unspecified(), netip.MustParseAddr("::1"), netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("ff02::1"),
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1"),
	}
	walkStatus = []StatusCode{Success, Success, Success, Success, NoBinding, NoPrefixAvail, UnspecFail, NoAddrsAvail, NotOnLink, 4711}
	walkSteps  = []time.Duration{0, time.Millisecond, 500 * time.Millisecond, 2 * time.Second, time.Minute, time.Hour,
		24 * 365 * time.Hour, -time.Hour}
)

func newWalk(t interface{ Fatalf(string, ...any) }, pick func(string, int) int) *walk {
	w := &walk{t: t, pick: pick, now: start}
	yes := func(what string) bool { return pick(what, 2) == 1 }
	w.cfg = Config{ClientID: ourID, RapidCommit: yes("rapid"), Delay: yes("delay"), Stateless: yes("stateless"), Reconfigure: yes("reconfigure"),
		Prefer: []Preference{PreferPreference, PreferShortest, PreferHint}[pick("prefer", 3)], ORO: []uint16{OptInfoRefresh, 0, 25, OptNTPServer}}
	for n := range []int{1, 3, 0, 1}[pick("pds", 4)] {
		w.cfg.PDs = append(w.cfg.PDs, PDConfig{IAID: uint32(5 + n), Length: uint8(pick("length", 256)), Min: uint8(40 * pick("min", 2)),
			Prefix: walkPrefixes[pick("wish", len(walkPrefixes))]})
	}
	if yes("na") {
		w.cfg.NA = &NAConfig{IAID: 5, Required: pick("required", 4) == 0}
	}
	saved := Lease{}
	if yes("saved") {
		saved = w.saved()
	}
	w.m = NewMachine(w.cfg, saved, start, rand.New(rand.NewPCG(1, uint64(pick("seed", 256)))))
	w.check()
	return w
}

func (w *walk) step() {
	in := w.input()
	now := w.now.Add(walkSteps[w.pick("time", len(walkSteps))])
	d, ok := w.m.Deadline()
	if ok && w.pick("to deadline", 2) == 1 {
		now = d
	}
	held, waiting := w.m.Lease(), w.m.x.waiting != nil
	stranger := in.Kind == InputMessage && held.ServerID != "" && in.Message.ServerID != held.ServerID &&
		(w.m.state == confirming || w.m.state == rebinding) && (!ok || d.After(now))
	w.given = in.Kind == InputRelease || w.given && w.m.State() == stateNames[releasing]
	out := w.m.Step(now, in)
	if now.After(w.now) {
		w.now = now
	}
	if len(out) > maxOutputs {
		w.t.Fatalf("%d outputs in one step: %+v", len(out), out)
	}
	w.carryOut(in, out, held)
	if in.Kind == InputSuspect && !waiting && held.At(w.now).Held() && !w.m.Lease().Held() {
		w.t.Fatalf("a suspicion has lost the lease %v", held)
	}
	if stranger && !reflect.DeepEqual(held.bindings(), w.m.Lease().bindings()) {
		w.t.Fatalf("a Reply of a stranger counts at once, against %v: %+v", held, in.Message)
	}
	w.check()
}

// carryOut looks at what the machine does upon in. held is what it had before.
func (w *walk) carryOut(in Input, out []Output, held Lease) {
	reported := false
	for _, o := range out {
		switch o.Kind {
		case OutputSend:
			w.sent(o.Message)
		case OutputLease:
			reported = true
			w.believed(in, o)
		case OutputFailed, OutputNote:
			if len(o.Text) > 20000 || o.Text == "" {
				w.t.Fatalf("text of %d octets", len(o.Text))
			}
			w.noted(o.Text)
		}
	}
	if !reported && fmt.Sprint(held) != fmt.Sprint(w.m.Lease()) {
		w.t.Fatalf("lease changed unreported from %v to %v", held, w.m.Lease())
	}
}

// believed: only the server that was asked, if it was a certain one, has a say in bindings.
func (w *walk) believed(in Input, o Output) {
	switch o.Cause {
	case CauseBound, CauseRenewed, CauseRebound:
		if asked := w.asked.ServerID; in.Kind == InputMessage && asked != "" && in.Message.ServerID != asked {
			w.t.Fatalf("asked server %v, believed server %v", asked, in.Message.ServerID)
		}
	}
}

func (w *walk) noted(text string) {
	const dropped = "Reconfigure: dropped"
	if len(text) < len(dropped) || text[:len(dropped)] != dropped {
		return
	}
	if n := len(w.notes); n > 0 && w.now.Sub(w.notes[n-1]) < time.Minute {
		w.t.Fatalf("two notes about dropped Reconfigures in a minute")
	}
	w.notes = append(w.notes, w.now)
}

// sent looks at a message.
func (w *walk) sent(msg Message) {
	w.last = msg
	if msg.Type == InformationRequest {
		w.info = msg.XID
	} else {
		w.asked = msg
	}
	w.sends = append(w.sends, w.now)
	if n := len(w.sends); n > 20 && w.now.Sub(w.sends[n-21]) < 20*time.Second {
		w.t.Fatalf("21 messages in %v", w.now.Sub(w.sends[n-21]))
	}
	if len(msg.IAPDs) > len(w.cfg.PDs) || len(msg.IANAs) > 1 || msg.Elapsed < 0 || msg.ClientID != ourID || len(msg.Raw) > 0 || msg.Auth != nil {
		w.t.Fatalf("sent %+v", msg)
	}
	leases := 0
	for _, o := range msg.IAPDs {
		if len(o.Prefixes) > maxPrefixes {
			w.t.Fatalf("sent %+v", msg)
		}
		for _, p := range o.Prefixes {
			if !p.Prefix.IsValid() && (p.HintLen == 0 || p.HintLen > 128) || p.Prefix.IsValid() && !delegable(p.Prefix) {
				w.t.Fatalf("sent a hint %+v", p)
			}
			if p.Prefix.IsValid() {
				leases++
			}
		}
	}
	for _, o := range msg.IANAs {
		for _, a := range o.Addresses {
			if leases++; !delegable(host(a.Address)) {
				w.t.Fatalf("sent address %v", a.Address)
			}
		}
	}
	w.fitting(msg, leases)
}

// fitting looks at what may stand in which message (RFC 9915 §18.2, §21.7, §21.23).
func (w *walk) fitting(msg Message, leases int) {
	toServer, verifies := false, false
	switch msg.Type {
	case Decline, Confirm:
		toServer, verifies = msg.Type == Decline, true
		if len(msg.IAPDs) > 0 {
			w.t.Fatalf("%v with an IA_PD", msg.Type)
		}
		if msg.Type == Confirm && len(w.m.Lease().Prefixes) > 0 {
			w.t.Fatalf("Confirm while holding %v", w.m.Lease().Prefixes)
		}
	case Request:
		toServer = true
	case Renew, Release:
		toServer, verifies = true, true
		if msg.Type == Release && !w.given { // §6.3, RFC 9096 WPD-9
			w.t.Fatalf("Release that nobody has asked for")
		}
	case Rebind:
		verifies = true
	}
	if verifies && leases == 0 {
		w.t.Fatalf("%v about nothing", msg.Type)
	}
	if msg.Type != InformationRequest && toServer != (msg.ServerID != "") {
		w.t.Fatalf("%v to server %q", msg.Type, msg.ServerID)
	}
	wishes := msg.Type != Confirm && msg.Type != Decline && msg.Type != Release
	if wishes != (len(msg.ORO) > 0) || !wishes && msg.ReconfAccept {
		w.t.Fatalf("%v with options %v, Reconfigure Accept %v", msg.Type, msg.ORO, msg.ReconfAccept)
	}
	for _, c := range msg.ORO {
		if c == 0 || c == 25 || c == OptInfoRefresh && msg.Type != InformationRequest {
			w.t.Fatalf("%v asks for option %d", msg.Type, c)
		}
	}
}

// check looks at what has to hold after every step.
func (w *walk) check() {
	if d, ok := w.m.Deadline(); ok && !d.After(w.now) {
		w.t.Fatalf("deadline %v is not after %v in state %q", d, w.now, w.m.State())
	}
	xids, _ := w.m.Awaits()
	for _, xid := range xids {
		if xid != w.asked.XID && xid != w.info {
			w.t.Fatalf("awaits an answer to %06x, but sent %06x and %06x last", xid, w.asked.XID, w.info)
		}
	}
	if len(w.m.offers) > maxOffers || len(w.m.x.refusals) > maxOffers || len(w.m.inf.refusals) > maxOffers || len(w.m.previous) > 200 {
		w.t.Fatalf("not bounded: %d offers, %d and %d refusals, %d hints", len(w.m.offers), len(w.m.x.refusals), len(w.m.inf.refusals), len(w.m.previous))
	}
	l := w.m.Lease()
	w.checkLease(l)
	if k := l.Reconf; k != nil && (!w.cfg.Reconfigure || len(k.Key) != 16 || k.ServerID != l.ServerID) {
		w.t.Fatalf("key %+v in a lease of %v", k, l.ServerID)
	}
	if l.IgnoresRebind != "" && !l.IgnoresRebind.Valid() {
		w.t.Fatalf("server %x ignores Rebind", string(l.IgnoresRebind))
	}
	for _, s := range []uint32{l.SolMaxRT, l.InfMaxRT} {
		if s != 0 && (s < 60 || s > 86400) {
			w.t.Fatalf("SOL_MAX_RT %d, INF_MAX_RT %d", l.SolMaxRT, l.InfMaxRT)
		}
	}
	if l.Held() {
		return
	}
	if l.InfoUntil.IsZero() && (l.ServerID != "" || l.Reconf != nil) || !l.T1.IsZero() || !l.T2.IsZero() {
		w.t.Fatalf("remains of a lease: %+v", l)
	}
	switch s := w.m.State(); s {
	case "bound", "renewing", "rebinding", "confirming stored lease":
		w.t.Fatalf("%q without a lease", s)
	}
}

func (w *walk) checkLease(l Lease) {
	if len(l.Prefixes) > 32 || len(l.Addresses) > 16 || len(l.DNS) > maxServers || len(l.Unknown) > maxOptions || len(l.Previous) > 200 {
		w.t.Fatalf("not bounded: %d prefixes, %d addresses, %d DNS servers", len(l.Prefixes), len(l.Addresses), len(l.DNS))
	}
	if len(l.Previous) > 0 && len(l.Prefixes) > 0 {
		w.t.Fatalf("holds %v and remembers %v", l.Prefixes, l.Previous)
	}
	for i, p := range l.Prefixes {
		if p.PreferredUntil.Compare(p.ValidUntil) > 0 || p.ValidUntil.Over(w.now) || !delegable(p.Prefix) ||
			!w.cfg.accepts(ia{id: p.IAID}, p.Prefix.Bits()) {
			w.t.Fatalf("prefix %+v in the lease at %v", p, w.now)
		}
		if p.Exclude.IsValid() && (p.Exclude.Bits() <= p.Prefix.Bits() || !p.Prefix.Contains(p.Exclude.Addr())) {
			w.t.Fatalf("%v excludes %v", p.Prefix, p.Exclude)
		}
		if i > 0 && l.Prefixes[i-1].Prefix.Compare(p.Prefix) >= 0 {
			w.t.Fatalf("prefixes not sorted or repeated: %v", l.Prefixes)
		}
	}
	for i, a := range l.Addresses {
		if a.PreferredUntil.Compare(a.ValidUntil) > 0 || a.ValidUntil.Over(w.now) || !delegable(host(a.Address)) || w.cfg.NA == nil || a.IAID != w.cfg.NA.IAID {
			w.t.Fatalf("address %+v in the lease at %v", a, w.now)
		}
		if i > 0 && l.Addresses[i-1].Address.Compare(a.Address) >= 0 {
			w.t.Fatalf("addresses not sorted or repeated: %v", l.Addresses)
		}
	}
}
