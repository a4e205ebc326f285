package pd

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// listener is a machine that holds a lease of server a and its key, replay value 7.
func listener(t *testing.T) *Machine {
	t.Helper()
	c := Config{ClientID: ourID, PDs: []PDConfig{{IAID: 1}}, Reconfigure: true}
	m := NewMachine(c, Lease{}, start, rand.New(rand.NewPCG(1, 2)))
	ia := []IAPD{{IAID: 1, T1: 1000, T2: 2000, Prefixes: []IAPrefix{{Prefix: netip.MustParsePrefix("2001:db8::/56"), Preferred: 3000, Valid: 4000}}}}
	answer := func(typ MessageType) []Output {
		msg := Message{Type: typ, XID: m.x.xid, ClientID: ourID, ServerID: serverID("a"), IAPDs: ia, Preference: 255,
			Auth: &Auth{Protocol: 3, Algorithm: 1, Replay: 7, Info: append([]byte{1}, reconfKey...)}}
		return m.Step(start, Input{Kind: InputMessage, Message: msg})
	}
	m.Step(start, Input{Kind: InputLinkUp})
	answer(Advertise)
	answer(Reply)
	if m.State() != "bound" || m.Lease().Reconf == nil {
		t.Fatalf("%s with key %v", m.State(), m.Lease().Reconf)
	}
	return m
}

var genuineReconfigure = signed(Message{Type: Reconfigure, ClientID: ourID, ServerID: serverID("a"), ReconfMsg: Renew}, 8, reconfKey)

// TestReconfigureDamaged changes, cuts and lengthens a genuine Reconfigure: nothing but the original is acted on.
func TestReconfigureDamaged(t *testing.T) {
	acted := func(msg Message) bool {
		m := listener(t)
		m.Step(start.Add(time.Minute), Input{Kind: InputMessage, Message: msg, Unicast: true})
		return m.State() != "bound" || m.Lease().Reconf.Replay != 7
	}
	if !acted(genuineReconfigure) {
		t.Fatal("the genuine one is not acted on")
	}
	with := func(raw []byte) Message {
		msg := genuineReconfigure
		msg.Raw = raw
		return msg
	}
	raw := genuineReconfigure.Raw
	for i := range raw {
		for bit := range 8 {
			changed := bytes.Clone(raw)
			changed[i] ^= 1 << bit
			if acted(with(changed)) {
				t.Errorf("acted on with bit %d of octet %d changed", bit, i)
			}
		}
		if acted(with(raw[:i])) {
			t.Errorf("acted on when cut to %d octets", i)
		}
	}
	at, _ := authOption(raw)
	for name, longer := range map[string][]byte{
		"an octet more":                     append(bytes.Clone(raw), 0),
		"a second Authentication option":    append(bytes.Clone(raw), raw[at-4:at+28]...),
		"an option of 65535 octets":         append(bytes.Clone(raw), 0, 99, 0xff, 0xff),
		"the option inside another one":     append([]byte{10, 0, 0, 0, 0, 99, 0, byte(len(raw))}, raw...),
		"an Authentication option in front": append(append(bytes.Clone(raw[:4]), 0, 11, 0, 0), raw[4:]...),
	} {
		if acted(with(longer)) {
			t.Errorf("acted on with %s", name)
		}
	}
	other := genuineReconfigure
	other.Auth = &Auth{Protocol: 3, Algorithm: 1, Replay: 9, Info: genuineReconfigure.Auth.Info}
	if acted(other) {
		t.Error("acted on although the decoder has read another replay value than the one that is authenticated")
	}
}

// TestReconfigureDigest compares with a digest computed by openssl dgst -md5 -mac hmac.
func TestReconfigureDigest(t *testing.T) {
	raw := genuineReconfigure.Raw
	at, ok := authOption(raw)
	if want := "718e0750093d9c1da4ce9f7dc67c9688"; !ok || hex.EncodeToString(raw[at+12:at+28]) != want {
		t.Errorf("digest of %x is %x, want %s", raw, raw[at+12:at+28], want)
	}
}
