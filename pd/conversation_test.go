package pd

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
	rnd   *rand.Rand
	cfg   Config
	saved Lease
	state string
	last  Message        // sent
	names map[uint32]int // of transaction ids, in order of appearance
	xids  map[int]uint32 // the other way round
	text  strings.Builder
}

func replay(t *testing.T, script string) string {
	c := &conversation{t: t, rnd: rand.New(new(evenSource)), names: map[uint32]int{}, xids: map[int]uint32{}, cfg: Config{ClientID: ourID, PDs: []PDConfig{{IAID: 1}}}}
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

func (c *conversation) boot(at time.Duration) {
	c.m = NewMachine(c.cfg, c.saved, start.Add(at), c.rnd)
	c.state = c.m.State()
}

// happens runs the machine's timers up to at, then gives it the input.
func (c *conversation) happens(at time.Duration, line string, words []string) {
	if c.m == nil {
		c.boot(0)
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
	case "restart": // of the daemon: what is on disk stays; the config may be another
		b, err := json.Marshal(c.m.Lease())
		c.saved = Lease{}
		if err = errors.Join(err, json.Unmarshal(b, &c.saved)); err != nil {
			c.t.Fatal(err)
		}
		c.configure(words[1:])
		c.boot(at)
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
	case "suspect":
		c.step(at, Input{Kind: InputSuspect})
	case "conflict":
		c.step(at, Input{Kind: InputConflict, Address: netip.MustParseAddr(words[1])})
	case "message": // of a type that servers do not send to clients
		in := Input{Kind: InputMessage, Message: c.message(append([]string{"reply"}, words[2:]...))}
		in.Message.Type = MessageType(c.number(words[1]))
		c.step(at, in)
	case "advertise", "reply":
		c.step(at, Input{Kind: InputMessage, Message: c.message(words)})
	case "reconfigure":
		c.step(at, c.reconfigure(words[1:]))
	default:
		c.t.Fatalf("unknown input %q", line)
	}
}

func (c *conversation) step(at time.Duration, in Input) {
	out := c.m.Step(start.Add(at), in)
	for n, o := range out {
		switch o.Kind {
		case OutputSend:
			c.last = o.Message
			c.say("%v > %s", at, c.sent(o.Message))
		case OutputLease:
			c.say("%v > lease %s%s", at, o.Cause, leaseText(o.Lease))
			later := slices.ContainsFunc(out[n+1:], func(o Output) bool { return o.Kind == OutputLease })
			if got, want := leaseText(c.m.Lease()), leaseText(o.Lease); !later && got != want {
				c.t.Errorf("Lease() is%s\nand was reported as%s", got, want)
			}
		case OutputFailed:
			c.say("%v > failed %s", at, o.Text)
		case OutputNote:
			c.say("%v > note %s", at, o.Text)
		case OutputDone:
			c.say("%v > done", at)
		}
	}
	if s := c.m.State(); s != c.state {
		c.state = s
		c.say("%v = %s", at, s)
	}
}
