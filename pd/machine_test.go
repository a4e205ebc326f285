package pd

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/lifetime"
)

// TestRetransmissionTimes looks at RT with real jitter (RFC 9915 §15).
func TestRetransmissionTimes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	within := func(name string, rt time.Duration, want time.Duration) {
		if low, high := want*9/10, want*11/10; rt < low || rt > high {
			t.Errorf("%s: %v, want %v to %v", name, rt, low, high)
		}
	}
	spread := map[bool]int{}
	for range 1000 {
		if rt := (&exchange{timing: solicitTiming}).nextRT(rnd); rt <= solTimeout || rt > solTimeout*11/10 {
			t.Fatalf("first Solicit: %v, want more than 1s and at most 1.1s", rt)
		}
		rt := (&exchange{timing: requestTiming}).nextRT(rnd)
		within("first Request", rt, time.Second)
		spread[rt > time.Second]++
		// RT = 2*RTprev + RAND*RTprev: the jitter is a tenth of RTprev, not of RT.
		next := (&exchange{timing: requestTiming, sent: 1, rt: 4 * time.Second}).nextRT(rnd)
		if next < 7600*time.Millisecond || next > 8400*time.Millisecond {
			t.Fatalf("after 4s: %v, want 7.6s to 8.4s", next)
		}
		within("at MRT", (&exchange{timing: requestTiming, sent: 7, rt: 29 * time.Second}).nextRT(rnd), reqMaxRT)
		within("without MRT", (&exchange{timing: releaseTiming, sent: 1, rt: time.Second}).nextRT(rnd), 2*time.Second)
	}
	if spread[true] < 400 || spread[false] < 400 {
		t.Errorf("first Request: %v above and below 1s, want about as many", spread)
	}
}

// TestRenewTimes is about T1 and T2 that the server left open or got wrong.
func TestRenewTimes(t *testing.T) {
	const inf = lifetime.Infinity
	for _, c := range []struct {
		name               string
		t1, t2             uint32
		lifetimes          [][2]uint32 // preferred, valid
		want1, want2       time.Duration
		forever1, forever2 bool
	}{
		{"as the server says", 1000, 2000, [][2]uint32{{3000, 4000}}, 1000 * time.Second, 2000 * time.Second, false, false},
		{"both open", 0, 0, [][2]uint32{{3000, 4000}, {1000, 9000}}, 500 * time.Second, 800 * time.Second, false, false},
		{"T1 open", 0, 2000, [][2]uint32{{3000, 4000}}, 1500 * time.Second, 2000 * time.Second, false, false},
		{"T1 open, T2 early", 0, 800, [][2]uint32{{3000, 4000}}, 500 * time.Second, 800 * time.Second, false, false},
		{"T2 open", 1000, 0, [][2]uint32{{3000, 4000}}, 1000 * time.Second, 2400 * time.Second, false, false},
		{"T2 open, T1 late", 3000, 0, [][2]uint32{{3000, 4000}}, 3000 * time.Second, 3500 * time.Second, false, false},
		{"open, infinite", 0, 0, [][2]uint32{{inf, inf}}, 0, 0, true, true},
		{"infinite, infinite", inf, inf, [][2]uint32{{inf, inf}}, 0, 0, true, true},
		{"finite, infinite", 1000, 2000, [][2]uint32{{inf, inf}}, 1000 * time.Second, 2000 * time.Second, false, false},
		{"one of two infinite", 0, 0, [][2]uint32{{inf, inf}, {1000, inf}}, 500 * time.Second, 800 * time.Second, false, false},
		{"never, but it ends", inf, inf, [][2]uint32{{3000, 4000}}, 1500 * time.Second, 2400 * time.Second, false, false},
		{"after the end", 4000, 5000, [][2]uint32{{3000, 4000}}, 1500 * time.Second, 2400 * time.Second, false, false},
		{"T2 after the end", 2500, 5000, [][2]uint32{{3000, 4000}}, 1500 * time.Second, 2400 * time.Second, false, false},
		{"granted as deprecated", 0, 0, [][2]uint32{{0, 1000}}, 500 * time.Second, 800 * time.Second, false, false},
		{"one second", 0, 0, [][2]uint32{{1, 1}}, 500 * time.Millisecond, 800 * time.Millisecond, false, false},
		{"too soon", 1, 1, [][2]uint32{{3000, 4000}}, 10 * time.Second, 16 * time.Second, false, false},
		{"too soon, T2 is not", 1, 2000, [][2]uint32{{3000, 4000}}, 10 * time.Second, 2000 * time.Second, false, false},
		{"too soon, infinite", 1, 2, [][2]uint32{{inf, inf}}, 10 * time.Second, 16 * time.Second, false, false},
		{"too soon by the preferred lifetime", 0, 0, [][2]uint32{{1, 4000}}, 10 * time.Second, 16 * time.Second, false, false},
		{"too soon for a short lease", 1, 2, [][2]uint32{{20, 30}}, 5 * time.Second, 8 * time.Second, false, false},
		{"soon, as in the demo", 5, 10, [][2]uint32{{20, 30}}, 5 * time.Second, 10 * time.Second, false, false},
		{"soon, and over soon", 1, 2, [][2]uint32{{3, 5}}, 2 * time.Second, 3200 * time.Millisecond, false, false},
		{"as good as over", 0, 0, [][2]uint32{{0, 3}}, 1500 * time.Millisecond, 2400 * time.Millisecond, false, false},
		{"counted down past T1", 5, 8, [][2]uint32{{1, 4}}, 2 * time.Second, 3200 * time.Millisecond, false, false},
		{"a deprecated one beside", 1000, 2000, [][2]uint32{{0, 8}, {3000, 4000}}, 1000 * time.Second, 2000 * time.Second, false, false},
		{"a deprecated one beside, open", 0, 0, [][2]uint32{{3000, 4000}, {0, 300}}, 1500 * time.Second, 2400 * time.Second, false, false},
		{"a deprecated one beside, never", inf, inf, [][2]uint32{{0, 300}, {inf, inf}}, 0, 0, true, true},
		{"deprecated ones only", 1000, 2000, [][2]uint32{{0, 300}, {0, 600}}, 150 * time.Second, 240 * time.Second, false, false},
		{"huge", 0, 0, [][2]uint32{{inf - 1, inf - 1}}, seconds(inf-1) / 10 * 5, seconds(inf-1) / 10 * 8, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := verdict{t1: c.t1, t2: c.t2}
			for _, l := range c.lifetimes {
				v.granted = append(v.granted, IAPrefix{Preferred: l[0], Valid: l[1]})
			}
			t1, t2 := renewTimes(start, v)
			check := func(name string, got lifetime.Deadline, forever bool, want time.Duration) {
				if at, _ := got.Time(); got.IsForever() != forever || !forever && at.Sub(start) != want {
					t.Errorf("%s is %v, want %v (forever: %v)", name, got, want, forever)
				}
			}
			check("T1", t1, c.forever1, c.want1)
			check("T2", t2, c.forever2, c.want2)
		})
	}
}

// TestBounds floods a machine with Advertises and prefixes.
func TestBounds(t *testing.T) {
	m := NewMachine(Config{ClientID: ourID, PDs: []PDConfig{{IAID: 1}}}, Lease{}, start, rand.New(rand.NewPCG(1, 2)))
	sol := m.Step(start, Input{Kind: InputLinkUp})[0].Message
	answer := func(typ MessageType, xid uint32, server string, n int) Message {
		ia := IAPD{IAID: 1}
		for i := range n {
			p := netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i)}), 40)
			ia.Prefixes = append(ia.Prefixes, IAPrefix{Prefix: p, Preferred: 300, Valid: 400})
		}
		return Message{Type: typ, XID: xid, ClientID: ourID, ServerID: serverID(server), IAPDs: []IAPD{ia},
			Info: Info{DNS: make([]netip.Addr, 100), DomainSearch: make([]string, 100)}}
	}
	for i := range 100 {
		m.Step(start, Input{Kind: InputMessage, Message: answer(Advertise, sol.XID, fmt.Sprint(i), 100)})
	}
	if len(m.offers) != maxOffers || len(m.offers[0].bindings) != maxPrefixes || m.offers[0].server != serverID("0") {
		t.Fatalf("%d offers, best %+v", len(m.offers), m.offers[0])
	}
	req := m.Step(start.Add(2*time.Second), Input{Kind: InputTimer})[0].Message
	m.Step(start.Add(2*time.Second), Input{Kind: InputMessage, Message: answer(Reply, req.XID, "0", 100)})
	if l := m.Lease(); len(l.Prefixes) != maxPrefixes || len(l.DNS) != maxServers || len(l.DomainSearch) != maxDomains {
		t.Errorf("lease with %d prefixes, %d DNS servers, %d domains", len(l.Prefixes), len(l.DNS), len(l.DomainSearch))
	}
	// A server that adds prefixes with every Renew: the newly granted ones have precedence.
	ren := m.Step(start.Add(3*time.Second), Input{Kind: InputRenew})[0].Message
	more := answer(Reply, ren.XID, "0", 1)
	more.IAPDs[0].Prefixes[0].Prefix = netip.MustParsePrefix("2001:db9::/40")
	m.Step(start.Add(3*time.Second), Input{Kind: InputMessage, Message: more})
	l := m.Lease()
	if n := len(l.Prefixes); n != maxPrefixes || l.Prefixes[n-1].Prefix != more.IAPDs[0].Prefixes[0].Prefix {
		t.Errorf("after a Renew that adds one: %d prefixes, last %v", n, l.Prefixes[n-1])
	}
}

// TestTransactionIDs: 24 bits, and a new one for each exchange even from a source that repeats itself.
func TestTransactionIDs(t *testing.T) {
	m := NewMachine(Config{ClientID: ourID, PDs: []PDConfig{{IAID: 1}}}, Lease{}, start, rand.New(constantSource{}))
	seen := []uint32{}
	for i := range 4 {
		at := start.Add(time.Duration(i) * time.Minute)
		m.Step(at, Input{Kind: InputLinkDown})
		xid := m.Step(at, Input{Kind: InputLinkUp})[0].Message.XID
		if xid > 0xffffff || i > 0 && xid == seen[i-1] {
			t.Errorf("transaction id %x after %x", xid, seen)
		}
		seen = append(seen, xid)
	}
}

type constantSource struct{}

func (constantSource) Uint64() uint64 { return 1<<64 - 1 }

// TestRestored: what stands on disk is not trusted.
func TestRestored(t *testing.T) {
	until := func(s int) lifetime.Deadline { return lifetime.Until(start.Add(time.Duration(s) * time.Second)) }
	prefix := func(iaid uint32, p, exclude string, preferred, valid lifetime.Deadline) LeasedPrefix {
		l := LeasedPrefix{IAID: iaid, PreferredUntil: preferred, ValidUntil: valid}
		l.Prefix, _ = netip.ParsePrefix(p)
		l.Exclude, _ = netip.ParsePrefix(exclude)
		return l
	}
	address := func(iaid uint32, a string) LeasedAddress {
		return LeasedAddress{IAID: iaid, Address: netip.MustParseAddr(a), PreferredUntil: until(100), ValidUntil: until(200)}
	}
	saved := Lease{ServerID: serverID("a"), Received: start.Add(-time.Hour), SolMaxRT: 59, InfMaxRT: 86401,
		Prefixes: []LeasedPrefix{
			prefix(1, "2001:db8:2::/56", "2001:db8:3::/64", lifetime.Forever(), until(50)),
			prefix(1, "2001:db8:1::/56", "2001:db8:1:1::/64", until(100), until(200)),
			prefix(1, "2001:db8:1::/56", "", until(100), until(300)),
			prefix(1, "::/0", "", until(100), until(200)),
			prefix(1, "fe80::/64", "", until(100), until(200)),
			prefix(1, "2001:db8::1/56", "", until(100), until(200)),
			prefix(1, "", "", until(100), until(200)),
			prefix(1, "2001:db8:4::/65", "", until(100), until(200)), // not accepted any more
			prefix(3, "2001:db8:5::/56", "", until(100), until(200)), // not asked for any more
		},
		Addresses: []LeasedAddress{address(1, "2001:db8::7"), address(1, "fe80::7"), address(1, "::1"), address(1, "2001:db8::7"), address(2, "2001:db8::8")},
		Previous:  []netip.Prefix{netip.MustParsePrefix("2001:db8:6::/56"), netip.MustParsePrefix("::/0")},
		Reconf:    &ReconfKey{ServerID: serverID("a"), Key: reconfKey, Replay: 5}, IgnoresRebind: "x",
	}
	c := Config{ClientID: ourID, PDs: []PDConfig{{IAID: 1, Max: 64}, {IAID: 2}}, NA: &NAConfig{IAID: 1}, Reconfigure: true}
	m := NewMachine(c, saved, start, rand.New(rand.NewPCG(1, 2)))
	want := " from=a t1=over t2=over 2001:db8:1::/56 1m40s/3m20s^2001:db8:1:1::/64 2001:db8:2::/56 50s/50s 2001:db8::7 1m40s/3m20s key=a/5"
	if got := leaseText(m.Lease()); got != want {
		t.Errorf("lease%s\nwant %s", got, want)
	}
	for what, spoil := range map[string]func(*Lease){
		"of another server": func(l *Lease) { l.Reconf = &ReconfKey{ServerID: serverID("b"), Key: reconfKey} },
		"of 15 octets":      func(l *Lease) { l.Reconf = &ReconfKey{ServerID: serverID("a"), Key: reconfKey[1:]} },
		"of no server":      func(l *Lease) { l.ServerID = "x"; l.Reconf = &ReconfKey{ServerID: "x", Key: reconfKey} },
	} {
		spoilt := saved
		spoil(&spoilt)
		if m := NewMachine(c, spoilt, start, rand.New(rand.NewPCG(1, 2))); m.Lease().Reconf != nil {
			t.Errorf("a key %s is kept", what)
		}
	}
}

// TestImports keeps the package pure: no clock is read, no socket opened, no codec known.
func TestImports(t *testing.T) {
	pure := strings.Fields("bytes cmp crypto/hmac crypto/md5 encoding/binary encoding/hex fmt hash/fnv math/rand/v2 net/netip slices strings time uplinkd/internal/bucket uplinkd/internal/lifetime")
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			if path, _ := strconv.Unquote(i.Path.Value); !strings.Contains(" "+strings.Join(pure, " ")+" ", " "+path+" ") {
				t.Errorf("%s imports %s", name, path)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && (s.Sel.Name == "Now" || s.Sel.Name == "Since" || s.Sel.Name == "Sleep") {
				t.Errorf("%s reads a clock: %s", name, s.Sel.Name)
			}
			return true
		})
	}
}
