package pd

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"uplinkd/internal/lifetime"
)

var update = flag.Bool("update", false, "write what the machine does into testdata/*.txt (then read the difference)")

// TestConversations replays testdata/*.txt. Each file is the transcript of a conversation under virtual time: lines with
// "<" are what happens, lines with ">" and "=" are what the machine does and its new state. The test takes the former, has
// the machine produce the latter, and compares the whole.
//
// The source of randomness is the constant 0.5, so RAND is 0 (0.05 in a first Solicit) and delays are half their maximum.
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
}

var start = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

const ourID = DUID("\x00\x01\x00\x01us")

// serverID is the DUID of the server called name.
func serverID(name string) DUID { return DUID("\x00\x03\x00\x01" + name) }

// evenSource makes rand.Float64 return 0.5 and transaction ids differ.
type evenSource uint64

func (s *evenSource) Uint64() uint64 {
	*s++
	return uint64(*s)<<53 | 1<<52
}

// conversation is the state of one replay.
type conversation struct {
	t     *testing.T
	m     *Machine
	cfg   Config
	saved Lease
	state string
	last  Message        // sent
	names map[uint32]int // of transaction ids, in order of appearance
	text  strings.Builder
}

func replay(t *testing.T, script string) string {
	c := &conversation{t: t, names: map[uint32]int{}, cfg: Config{ClientID: ourID, IAID: 1}}
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		word := strings.Fields(line)
		switch {
		case line == "" || line[0] == '#':
			c.say("%s", line)
		case word[0] == "config":
			c.say("%s", line)
			c.configure(word[1:])
		case word[0] == "saved":
			c.say("%s", line)
			c.saved = c.lease(word[1:])
		case len(word) > 2 && word[1] == "<":
			c.happens(c.duration(word[0]), line, word[2:])
		case len(word) > 1 && (word[1] == ">" || word[1] == "="): // what the machine did
		default:
			t.Fatalf("cannot read line %q", line)
		}
	}
	return c.text.String()
}

func (c *conversation) say(format string, args ...any) { fmt.Fprintf(&c.text, format+"\n", args...) }

func (c *conversation) configure(words []string) {
	for _, w := range words {
		switch k, v, _ := strings.Cut(w, "="); k {
		case "length":
			c.cfg.Length = uint8(c.number(v))
		case "rapid":
			c.cfg.RapidCommit = true
		case "delay":
			c.cfg.Delay = true
		default:
			c.t.Fatalf("unknown word %q", w)
		}
	}
}

// happens runs the machine's timers up to at, then gives it the input.
func (c *conversation) happens(at time.Duration, line string, words []string) {
	if c.m == nil {
		c.m = NewMachine(c.cfg, c.saved, start, rand.New(new(evenSource)))
		c.state = c.m.State()
	}
	for {
		d, ok := c.m.Deadline()
		if !ok || d.After(start.Add(at)) {
			break
		}
		c.step(d.Sub(start), Input{Kind: InputTimer})
	}
	c.say("%s", line)
	switch words[0] {
	case "deadline":
		if d, ok := c.m.Deadline(); ok {
			c.say("%v > deadline %v", at, d.Sub(start))
		} else {
			c.say("%v > deadline none", at)
		}
	case "link":
		c.step(at, Input{Kind: map[string]InputKind{"up": InputLinkUp, "down": InputLinkDown}[words[1]]})
	case "renew":
		c.step(at, Input{Kind: InputRenew})
	case "release":
		c.step(at, Input{Kind: InputRelease})
	case "advertise", "reply":
		c.step(at, Input{Kind: InputMessage, Message: c.message(words)})
	default:
		c.t.Fatalf("unknown input %q", line)
	}
}

func (c *conversation) step(at time.Duration, in Input) {
	for _, o := range c.m.Step(start.Add(at), in) {
		switch o.Kind {
		case OutputSend:
			c.last = o.Message
			c.say("%v > %s", at, c.sent(o.Message))
		case OutputLease:
			c.say("%v > lease %s%s", at, o.Cause, leaseText(o.Lease))
			if diff := cmp.Diff(o.Lease, c.m.Lease(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
				cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
				cmp.Comparer(func(a, b lifetime.Deadline) bool { return a.Compare(b) == 0 })); diff != "" {
				c.t.Errorf("Lease() is not what was reported:\n%s", diff)
			}
		case OutputFailed:
			c.say("%v > failed %s", at, o.Text)
		case OutputDone:
			c.say("%v > done", at)
		}
	}
	if s := c.m.State(); s != c.state {
		c.state = s
		c.say("%v = %s", at, s)
	}
}

func (c *conversation) sent(msg Message) string {
	if msg.ClientID != ourID {
		c.t.Errorf("%v with client id %v", msg.Type, msg.ClientID)
	}
	if c.names[msg.XID] == 0 {
		c.names[msg.XID] = len(c.names) + 1
	}
	s := fmt.Sprintf("%v #%d", msg.Type, c.names[msg.XID])
	if msg.ServerID != "" {
		s += " to=" + string(msg.ServerID[4:])
	}
	s += fmt.Sprintf(" elapsed=%v", msg.Elapsed)
	if msg.RapidCommit {
		s += " rapid"
	}
	if msg.ORO != nil {
		s += " oro=" + strings.ReplaceAll(strings.Trim(fmt.Sprint(msg.ORO), "[]"), " ", ",")
	}
	for _, ia := range msg.IAPDs {
		s += fmt.Sprintf(" iapd=%d/%d/%d", ia.IAID, ia.T1, ia.T2)
		for _, p := range ia.Prefixes {
			if p.Preferred != 0 || p.Valid != 0 {
				c.t.Errorf("%v names %v with lifetimes", msg.Type, p.Prefix)
			}
			if p.Prefix.IsValid() {
				s += " " + p.Prefix.String()
			} else {
				s += fmt.Sprintf(" ::/%d", p.HintLen)
			}
		}
	}
	return s
}

func leaseText(l Lease) string {
	at := func(d lifetime.Deadline) string {
		if t, ok := d.Time(); ok && !d.IsZero() {
			return t.Sub(start).String()
		}
		return d.String()
	}
	s := ""
	if l.ServerID != "" {
		s += fmt.Sprintf(" from=%s t1=%s t2=%s", string(l.ServerID[4:]), at(l.T1), at(l.T2))
	}
	for _, p := range l.Prefixes {
		s += fmt.Sprintf(" %v %s/%s", p.Prefix, at(p.PreferredUntil), at(p.ValidUntil))
	}
	for _, a := range l.DNS {
		s += " dns=" + a.String()
	}
	for _, d := range l.DomainSearch {
		s += " search=" + d
	}
	if l.SolMaxRT != 0 {
		s += fmt.Sprintf(" solmax=%d", l.SolMaxRT)
	}
	return s
}

func (c *conversation) number(s string) uint32 {
	if s == "inf" {
		return lifetime.Infinity
	}
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		c.t.Fatal(err)
	}
	return uint32(n)
}

func (c *conversation) duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		c.t.Fatal(err)
	}
	return d
}

func (c *conversation) status(s string) Status {
	name, text, _ := strings.Cut(s, ":")
	for i, n := range statusNames {
		if n == name {
			return Status{Code: StatusCode(i), Text: strings.ReplaceAll(text, "_", " ")}
		}
	}
	return Status{Code: StatusCode(c.number(name)), Text: strings.ReplaceAll(text, "_", " ")}
}

// message reads "advertise" or "reply", then KEY=VALUE and prefixes as "2001:db8::/56=preferred/valid" with an optional
// "!Status" behind. What is not said answers the last message that was sent.
func (c *conversation) message(words []string) Message {
	msg := Message{Type: Reply, XID: c.last.XID, ClientID: ourID, ServerID: serverID("a")}
	if words[0] == "advertise" {
		msg.Type = Advertise
	}
	ia := IAPD{IAID: c.cfg.IAID}
	with := true
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		switch k {
		case "server":
			msg.ServerID = serverID(v)
		case "no-server-id":
			msg.ServerID = ""
		case "no-client-id":
			msg.ClientID = ""
		case "client-id":
			msg.ClientID = serverID(v)
		case "xid":
			msg.XID = c.last.XID ^ c.number(v)
		case "pref":
			msg.Preference = uint8(c.number(v))
		case "rapid":
			msg.RapidCommit = true
		case "status":
			msg.Status = c.status(v)
		case "iaid":
			ia.IAID = c.number(v)
		case "no-ia":
			with = false
		case "ia-status":
			ia.Status = c.status(v)
		case "t1":
			ia.T1 = c.number(v)
		case "t2":
			ia.T2 = c.number(v)
		case "solmax":
			msg.SolMaxRT = c.number(v)
		case "dns":
			msg.DNS = append(msg.DNS, netip.MustParseAddr(v))
		case "search":
			msg.DomainSearch = append(msg.DomainSearch, v)
		default:
			ia.Prefixes = append(ia.Prefixes, c.prefix(k, v))
		}
	}
	if with {
		msg.IAPDs = []IAPD{ia}
	}
	return msg
}

func (c *conversation) prefix(prefix, lifetimes string) IAPrefix {
	p := IAPrefix{Prefix: netip.MustParsePrefix(prefix)}
	lifetimes, status, refused := strings.Cut(lifetimes, "!")
	if refused {
		p.Status = c.status(status)
	}
	preferred, valid, _ := strings.Cut(lifetimes, "/")
	p.Preferred, p.Valid = c.number(preferred), c.number(valid)
	return p
}

// lease reads "received=-1h t1=… t2=… server=a" and prefixes as "2001:db8::/56=preferred/valid", all relative to the start.
func (c *conversation) lease(words []string) Lease {
	l := Lease{ServerID: serverID("a"), IAID: c.cfg.IAID}
	until := func(s string) lifetime.Deadline { return lifetime.Until(start.Add(c.duration(s))) }
	for _, w := range words {
		switch k, v, _ := strings.Cut(w, "="); k {
		case "received":
			l.Received = start.Add(c.duration(v))
		case "t1":
			l.T1 = until(v)
		case "t2":
			l.T2 = until(v)
		case "iaid":
			l.IAID = c.number(v)
		case "server":
			l.ServerID = serverID(v)
		case "solmax":
			l.SolMaxRT = c.number(v)
		default:
			preferred, valid, _ := strings.Cut(v, "/")
			l.Prefixes = append(l.Prefixes, LeasedPrefix{netip.MustParsePrefix(k), until(preferred), until(valid)})
		}
	}
	return l
}
