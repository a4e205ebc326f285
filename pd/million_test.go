package pd_test

import (
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"uplinkd/pd"
	"uplinkd/pd/wire"
)

var hostile = flag.Int("hostile", 40_000, "how many messages TestHostileMillion sends")

// TestHostileMillion sends messages that are valid but for a few changes to decoders and machines, which go through all
// their states meanwhile, and compares what they have on the heap after a tenth of the messages with what they have after
// all. The figures for a million: go test ./pd -run TestHostileMillion -v -hostile 1000000
func TestHostileMillion(t *testing.T) {
	a := newAttack()
	t.Logf("at the start: %s", residentSize())
	for range *hostile / 10 {
		a.message(t)
	}
	early := heap()
	t.Logf("after %d messages: heap %d kB, %s", *hostile/10, early>>10, residentSize())
	for n := *hostile / 10; n < *hostile; n++ {
		if n == *hostile/2 {
			t.Logf("after %d messages: %s", n, residentSize())
		}
		a.message(t)
	}
	late := heap()
	t.Logf("after %d messages: heap %d kB, %s; %d decoded, %d acted on, %d leases, %d messages sent", *hostile, late>>10, residentSize(),
		a.decoded, a.acted, a.leases, a.sends)
	if late > early+256<<10 {
		t.Errorf("the heap has grown from %d to %d octets", early, late)
	}
	if a.decoded < *hostile/2 || a.acted < *hostile/20 || a.leases < *hostile/200 || a.decoded == *hostile {
		t.Errorf("too tame or too wild: of %d messages %d were decoded, %d acted on, %d changed the lease", *hostile, a.decoded, a.acted, a.leases)
	}
	runtime.KeepAlive(a)
}

// heap is what is reachable.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what finalizers and pools have kept
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// residentSize is the memory that the kernel counts for this process.
func residentSize() string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "VmRSS:") {
			return strings.Join(strings.Fields(line), " ")
		}
	}
	return "VmRSS unknown"
}

// attack is a machine under attack, and its attacker, who knows its transaction ids.
type attack struct {
	rnd                           *rand.Rand
	m                             *pd.Machine
	now                           time.Time
	asked, info                   pd.Message // sent last
	decoded, acted, leases, sends int
	buffer                        []byte
}

const attackedID = pd.DUID("\x00\x03\x00\x01\x02\x00\x00\x00\x01\x01")

func newAttack() *attack {
	a := &attack{rnd: rand.New(rand.NewPCG(1, 2)), now: time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)}
	a.m = pd.NewMachine(pd.Config{ClientID: attackedID, PDs: []pd.PDConfig{{IAID: 1, Length: 56}, {IAID: 2}}, NA: &pd.NAConfig{IAID: 1},
		Stateless: true, RapidCommit: true, Reconfigure: true}, pd.Lease{}, a.now, a.rnd)
	a.step(pd.Input{Kind: pd.InputLinkUp})
	return a
}

func (a *attack) step(in pd.Input) {
	for _, o := range a.m.Step(a.now, in) {
		switch {
		case o.Kind == pd.OutputLease:
			a.leases++
		case o.Kind == pd.OutputSend && o.Message.Type == pd.InformationRequest:
			a.info = o.Message
			a.sends++
		case o.Kind == pd.OutputSend:
			a.asked = o.Message
			a.sends++
		}
	}
}

// message has some time pass, or the link fail, and sends one message.
func (a *attack) message(t *testing.T) {
	switch n := a.rnd.IntN(400); {
	case n < 40:
		if d, ok := a.m.Deadline(); ok {
			a.now = d
		}
		a.step(pd.Input{Kind: pd.InputTimer})
	case n == 40:
		a.step(pd.Input{Kind: pd.InputLinkDown})
		a.step(pd.Input{Kind: pd.InputLinkUp})
	case n == 41:
		a.step(pd.Input{Kind: pd.InputSuspect})
	case n == 42 && a.rnd.IntN(10) == 0:
		a.step(pd.Input{Kind: pd.InputRelease})
		a.step(pd.Input{Kind: pd.InputLinkUp})
	case n == 43:
		for _, l := range a.m.Lease().Addresses {
			a.step(pd.Input{Kind: pd.InputConflict, Address: l.Address})
		}
	}
	b, err := wire.Encode(a.valid())
	if err != nil {
		t.Fatal(err)
	}
	msg, err := wire.Decode(a.changed(b))
	if err != nil {
		return
	}
	a.decoded++
	before := a.leases + a.sends
	a.now = a.now.Add(time.Millisecond)
	a.step(pd.Input{Kind: pd.InputMessage, Message: msg, Unicast: a.rnd.IntN(8) > 0})
	if a.leases+a.sends > before {
		a.acted++
	}
}

// valid is a message as a server sends it, with something of everything.
func (a *attack) valid() pd.Message {
	one := func(n int) bool { return a.rnd.IntN(n) == 0 }
	m := pd.Message{Type: pd.Reply, XID: a.asked.XID, ClientID: attackedID, ServerID: a.server(), RapidCommit: one(2), Preference: uint8(a.rnd.UintN(256)),
		ReconfAccept: one(2)}
	switch {
	case a.asked.Type == pd.Solicit && !one(3):
		m.Type = pd.Advertise
	case one(10):
		m.XID = a.info.XID
	case one(20):
		m.Type, m.XID, m.ReconfMsg = pd.Reconfigure, 0, []pd.MessageType{pd.Renew, pd.Rebind, pd.InformationRequest}[a.rnd.IntN(3)]
	}
	if a.asked.ServerID != "" && !one(4) {
		m.ServerID = a.asked.ServerID
	}
	seconds := func() uint32 { return []uint32{0, 1, 10, 100, 1000, 5000, 1 << 31, 1<<32 - 1}[a.rnd.IntN(8)] }
	for i := range a.rnd.IntN(4) {
		ia := pd.IAPD{IAID: uint32(1 + i%2), T1: seconds(), Status: a.status()}
		ia.T2 = ia.T1 + ia.T1/2
		for range a.rnd.IntN(4) {
			valid := seconds()
			p := pd.IAPrefix{Prefix: netip.PrefixFrom(a.address(), 40+8*a.rnd.IntN(4)).Masked(), Valid: valid, Preferred: valid / 2, Status: a.status()}
			if one(2) {
				p.Exclude = netip.PrefixFrom(p.Prefix.Addr(), 64+a.rnd.IntN(65))
				if p.Exclude.Bits() <= p.Prefix.Bits() {
					p.Exclude = netip.Prefix{}
				}
			}
			ia.Prefixes = append(ia.Prefixes, p)
		}
		m.IAPDs = append(m.IAPDs, ia)
	}
	if one(2) {
		valid := seconds()
		m.IANAs = []pd.IANA{{IAID: 1, Status: a.status(), Addresses: []pd.IAAddress{{Address: a.address(), Valid: valid, Preferred: valid / 2}}}}
	}
	m.Status = a.status()
	if one(2) {
		m.SolMaxRT, m.InfMaxRT, m.InfoRefresh = 60+uint32(a.rnd.UintN(9000)), 60+uint32(a.rnd.UintN(9000)), seconds()
	}
	if one(3) {
		m.Auth = &pd.Auth{Protocol: 3, Algorithm: 1, Replay: a.rnd.Uint64(), Info: append([]byte{byte(1 + a.rnd.IntN(2))}, a.octets(16)...)}
	}
	m.Info = a.told()
	return m
}

func (a *attack) told() (in pd.Info) {
	for range a.rnd.IntN(4) {
		in.DNS = append(in.DNS, a.address())
		in.NTP = append(in.NTP, a.address())
		in.SNTP = append(in.SNTP, a.address())
		in.DomainSearch = append(in.DomainSearch, "lan.example")
		in.NTPNames = append(in.NTPNames, "ntp.example")
		in.Unknown = append(in.Unknown, pd.Option{Code: uint16(1000 + a.rnd.IntN(60000)), Data: a.octets(a.rnd.IntN(60))})
		in.S46 = append(in.S46, pd.Option{Code: pd.OptS46MapE, Data: a.octets(a.rnd.IntN(60))})
		in.AFTR, in.CaptivePortal = "aftr.example", "https://portal.example/"
	}
	if a.rnd.IntN(100) == 0 { // as long as a datagram can be
		in.Unknown = append(in.Unknown, pd.Option{Code: 999, Data: a.octets(60_000)})
	}
	return in
}

// server is one of a crowd that never ends, but for a few.
func (a *attack) server() pd.DUID {
	if a.rnd.IntN(2) == 0 {
		return pd.DUID("\x00\x03\x00\x01" + string(rune('a'+a.rnd.IntN(3))))
	}
	return pd.DUID(a.octets(3 + a.rnd.IntN(128)))
}

func (a *attack) status() (s pd.Status) {
	if a.rnd.IntN(4) == 0 {
		s = pd.Status{Code: pd.StatusCode(a.rnd.IntN(8)), Text: string(a.octets(a.rnd.IntN(40)))}
	}
	return s
}

func (a *attack) address() netip.Addr {
	b := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	copy(b[4:], a.octets(12))
	return netip.AddrFrom16(b)
}

func (a *attack) octets(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(a.rnd.Uint32())
	}
	return b
}

// changed is b with up to four changes, in a buffer that is used again.
func (a *attack) changed(b []byte) []byte {
	a.buffer = append(a.buffer[:0], b...)
	b = a.buffer
	for range a.rnd.IntN(5) {
		if len(b) == 0 {
			return b
		}
		at := a.rnd.IntN(len(b))
		switch a.rnd.IntN(7) {
		case 0:
			b[at] ^= 1 << a.rnd.IntN(8)
		case 1:
			b[at] = []byte{0, 1, 0x1b, 0x7f, 0x80, 0xff}[a.rnd.IntN(6)]
		case 2:
			if a.rnd.IntN(4) == 0 {
				b = b[:at]
			}
		case 3: // a length, a code or a lifetime
			if at+4 <= len(b) {
				binary.BigEndian.PutUint32(b[at:], a.rnd.Uint32()>>a.rnd.IntN(32))
			}
		case 4: // again what was there
			b = append(b, b[at:min(len(b), at+a.rnd.IntN(200))]...)
		case 5:
			copy(b[at:], a.octets(min(len(b)-at, a.rnd.IntN(30))))
		case 6: // elsewhere
			copy(b[at:], b[a.rnd.IntN(len(b)):])
		}
	}
	return b
}
