package pd

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"uplinkd/internal/lifetime"
)

// TestMachineWalk drives machines with random inputs, hostile ones included, and looks at the invariants after each step.
func TestMachineWalk(t *testing.T) {
	reached := map[string]bool{}
	rapid.Check(t, func(t *rapid.T) {
		w := newWalk(t, func(what string, n int) int { return rapid.IntRange(0, n-1).Draw(t, what) })
		for range 60 {
			w.step()
			reached[w.m.State()] = true
		}
	})
	for _, s := range stateNames {
		if !reached[s] {
			t.Errorf("no walk came to %q: the inputs are too tame", s)
		}
	}
}

// maxChoices bounds a walk. The fuzzer makes each interesting input as short as it can, in time that grows with the square
// of its length and that it does not count as runs: with 20 kB it did little else.
const maxChoices = 768

// FuzzMachine is the same walk with its choices read from the fuzzer's bytes.
func FuzzMachine(f *testing.F) {
	for seed := range uint64(4) {
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
	last  Message
	sends []time.Time
}

const (
	maxOutputs = 6 // in one step: an expiry, a failure of each exchange that ends, a lease, a send
	walkIAID   = 5
)

var (
	walkLifetimes = []uint32{3000, 100, 30, 10, 2, 1, 0, lifetime.Infinity, lifetime.Infinity - 1, 4000}
	walkPrefixes  = []netip.Prefix{
		netip.MustParsePrefix("2001:db8:1::/56"), netip.MustParsePrefix("2001:db8:2::/48"), netip.MustParsePrefix("2001:db8:1::/60"),
		{}, netip.MustParsePrefix("::/0"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/64"),
		netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("2001:db8::7/56"), netip.MustParsePrefix("::ffff:10.0.0.0/104"),
		netip.MustParsePrefix("2000::/3"), netip.MustParsePrefix("2002:c000:200::/48"), netip.MustParsePrefix("64:ff9b::/96"),
	}
	walkStatus = []StatusCode{Success, Success, Success, Success, NoBinding, NoPrefixAvail, UnspecFail, NoAddrsAvail, NotOnLink, 4711}
	walkSteps  = []time.Duration{0, time.Millisecond, 500 * time.Millisecond, 2 * time.Second, time.Minute, time.Hour,
		24 * 365 * time.Hour, -time.Hour}
)

func newWalk(t interface{ Fatalf(string, ...any) }, pick func(string, int) int) *walk {
	w := &walk{t: t, pick: pick, now: start}
	w.cfg = Config{ClientID: ourID, IAID: walkIAID, Length: uint8(pick("length", 256)), RapidCommit: pick("rapid", 2) == 1,
		Delay: pick("delay", 2) == 1}
	saved := Lease{}
	if pick("saved", 2) == 1 {
		saved = w.saved()
	}
	w.m = NewMachine(w.cfg, saved, start, rand.New(rand.NewPCG(1, uint64(pick("seed", 256)))))
	w.check()
	return w
}

// saved is what may stand on a disk.
func (w *walk) saved() Lease {
	at := func() lifetime.Deadline {
		switch w.pick("deadline", 4) {
		case 0:
			return lifetime.Forever()
		case 1:
			return lifetime.Deadline{}
		}
		return lifetime.Until(start.Add(time.Duration(w.pick("offset", 4000)-500) * time.Second))
	}
	l := Lease{ServerID: serverID("a"), IAID: walkIAID, T1: at(), T2: at(), SolMaxRT: uint32(w.pick("solmax", 200))}
	l.Received = start.Add(time.Duration(w.pick("received", 7)-3) * time.Hour)
	if w.pick("server", 4) == 0 {
		l.ServerID = ""
	}
	for range w.pick("prefixes", 40) {
		l.Prefixes = append(l.Prefixes, LeasedPrefix{w.prefix(), at(), at()})
	}
	return l
}

func (w *walk) prefix() netip.Prefix {
	if w.pick("prefix kind", 2) == 0 {
		return walkPrefixes[w.pick("prefix", len(walkPrefixes))]
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(w.pick("net", 64))}), 56)
}

func (w *walk) step() {
	in := Input{Kind: InputTimer}
	switch w.pick("input", 16) {
	case 0, 1, 2, 3, 4, 5, 6:
		in = Input{Kind: InputMessage, Message: w.message()}
	case 7, 8, 9:
		in.Kind = InputLinkUp
	case 10:
		in.Kind = []InputKind{InputLinkDown, InputRenew, InputRelease, 99}[w.pick("rare", 4)]
	case 11:
		in.Kind = InputRenew
	}
	now := w.now.Add(walkSteps[w.pick("time", len(walkSteps))])
	if d, ok := w.m.Deadline(); ok && w.pick("to deadline", 2) == 1 {
		now = d
	}
	held := w.m.Lease().Prefixes
	out := w.m.Step(now, in)
	if now.After(w.now) {
		w.now = now
	}
	if len(out) > maxOutputs {
		w.t.Fatalf("%d outputs in one step: %+v", len(out), out)
	}
	w.carryOut(in, out, held)
	w.check()
}

// carryOut looks at what the machine does upon in. held is what it had before.
func (w *walk) carryOut(in Input, out []Output, held []LeasedPrefix) {
	reported := false
	for _, o := range out {
		switch o.Kind {
		case OutputSend:
			w.sent(o.Message)
		case OutputLease:
			reported = true
			if in.Kind == InputMessage && w.last.ServerID != "" && o.Cause != CauseExpired && in.Message.ServerID != w.last.ServerID {
				w.t.Fatalf("asked server %v, believed server %v", w.last.ServerID, in.Message.ServerID)
			}
		case OutputFailed:
			if len(o.Text) > 20000 {
				w.t.Fatalf("failure text of %d octets", len(o.Text))
			}
		}
	}
	if !reported && !slices.Equal(held, w.m.Lease().Prefixes) {
		w.t.Fatalf("lease changed unreported from %v to %v", held, w.m.Lease().Prefixes)
	}
}

func (w *walk) sent(msg Message) {
	w.last = msg
	w.sends = append(w.sends, w.now)
	if n := len(w.sends); n > 20 && w.now.Sub(w.sends[n-21]) < 20*time.Second {
		w.t.Fatalf("21 messages in %v", w.now.Sub(w.sends[n-21]))
	}
	if len(msg.IAPDs) != 1 || msg.IAPDs[0].IAID != walkIAID || len(msg.IAPDs[0].Prefixes) > maxPrefixes || msg.Elapsed < 0 {
		w.t.Fatalf("sent %+v", msg)
	}
	for _, p := range msg.IAPDs[0].Prefixes {
		if !p.Prefix.IsValid() && p.HintLen == 0 || p.Prefix.IsValid() && !delegable(p.Prefix) {
			w.t.Fatalf("sent a hint %+v", p)
		}
	}
	if msg.Type == Renew && len(msg.IAPDs[0].Prefixes) == 0 {
		w.t.Fatalf("Renew of nothing")
	}
}

// check looks at what has to hold after every step.
func (w *walk) check() {
	if d, ok := w.m.Deadline(); ok && !d.After(w.now) {
		w.t.Fatalf("deadline %v is not after %v in state %q", d, w.now, w.m.State())
	}
	if xid, ok := w.m.Awaits(); ok && xid != w.last.XID {
		w.t.Fatalf("awaits an answer to %06x, but sent %06x last", xid, w.last.XID)
	}
	l := w.m.Lease()
	if len(l.Prefixes) > maxPrefixes || len(w.m.offers) > maxOffers || len(w.m.x.refusals) > maxOffers {
		w.t.Fatalf("not bounded: %d prefixes, %d offers, %d refusals", len(l.Prefixes), len(w.m.offers), len(w.m.x.refusals))
	}
	if l.SolMaxRT != 0 && (l.SolMaxRT < 60 || l.SolMaxRT > 86400) {
		w.t.Fatalf("SOL_MAX_RT %d", l.SolMaxRT)
	}
	for i, p := range l.Prefixes {
		if p.PreferredUntil.Compare(p.ValidUntil) > 0 || p.ValidUntil.Over(w.now) || !delegable(p.Prefix) {
			w.t.Fatalf("prefix %+v in the lease at %v", p, w.now)
		}
		if i > 0 && l.Prefixes[i-1].Prefix.Compare(p.Prefix) >= 0 {
			w.t.Fatalf("prefixes not sorted or repeated: %v", l.Prefixes)
		}
	}
	if len(l.Prefixes) == 0 && (l.ServerID != "" || !l.T1.IsZero() || !l.T2.IsZero()) {
		w.t.Fatalf("remains of a lease: %+v", l)
	}
	if s := w.m.State(); len(l.Prefixes) == 0 && s != "waiting for link" && s != "soliciting" && s != "requesting" && s != "releasing" {
		w.t.Fatalf("%q without a lease", s)
	}
}

// message is mostly an answer to the last message sent, with anything in it.
func (w *walk) message() Message {
	msg := Message{
		Type:     []MessageType{Reply, Advertise, Reply, Reconfigure, Solicit}[min(w.pick("type", 12)/2, 4)],
		XID:      w.last.XID,
		ClientID: ourID,
		ServerID: serverID(string(rune('a' + w.pick("server", 26)))),
	}
	if w.last.ServerID != "" && w.pick("asked", 4) > 0 {
		msg.ServerID = w.last.ServerID
	}
	if w.m.State() == "soliciting" && msg.Type == Reply {
		msg.Type, msg.RapidCommit = []MessageType{Advertise, Reply}[w.pick("rapid reply", 2)], w.pick("rapid option", 2) == 1
	}
	switch w.pick("foreign", 20) {
	case 0:
		msg.XID++
	case 1:
		msg.ClientID = "somebody else"
	case 2:
		msg.ServerID = ""
	}
	msg.Preference = []uint8{0, 1, 255}[w.pick("preference", 3)]
	msg.SolMaxRT = []uint32{0, 59, 60, 3600, 86400, 86401, lifetime.Infinity}[w.pick("solmax", 7)]
	if w.pick("status", 4) == 0 {
		msg.Status.Code = walkStatus[w.pick("code", len(walkStatus))]
	}
	for range w.pick("ias", 8) / 3 {
		msg.IAPDs = append(msg.IAPDs, w.ia())
	}
	return msg
}

func (w *walk) ia() IAPD {
	life := func() uint32 { return walkLifetimes[w.pick("lifetime", len(walkLifetimes))] }
	ia := IAPD{IAID: walkIAID}
	if w.pick("iaid", 8) == 0 {
		ia.IAID++
	}
	if w.pick("times", 3) == 0 {
		ia.T1, ia.T2 = life(), life()
	}
	ia.Status = Status{Code: walkStatus[w.pick("ia status", len(walkStatus))], Text: "why"}
	n := w.pick("n", 4)
	if n == 3 {
		n = 40
	}
	for range n {
		p := IAPrefix{Prefix: w.prefix(), Preferred: life(), Valid: life(), HintLen: 7}
		if w.pick("prefix status", 6) == 0 {
			p.Status.Code = walkStatus[w.pick("code", len(walkStatus))]
		}
		ia.Prefixes = append(ia.Prefixes, p)
	}
	return ia
}
