package server

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/pd/wire"
)

// FuzzAnswer sends octets through everything that a Server does with them but the socket. Whatever they are: no panic, an
// answer that the codec reads without fault, that is a right answer to the question, and that promises no more than was lent.
func FuzzAnswer(f *testing.F) {
	for _, c := range conversations {
		b, err := wire.Encode(c.ask)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint8(c.service.Mode), uint8(len(c.loans)))
	}
	for _, t := range []pd.MessageType{pd.Solicit, pd.Request, pd.Renew} {
		m := accepting(t, innerID)
		m.RapidCommit = true
		b, err := wire.Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint8(Delegating), uint8(3))
		f.Add(append(b, "\x00\x04\x00\x0c\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"...), uint8(Delegating), uint8(2)) // IA_TA
		f.Add(b[:len(b)-3], uint8(Delegating), uint8(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, mode, n uint8) {
		m, err := wire.Decode(b)
		if err != nil {
			return
		}
		r := responder{downstream: "lan", id: routerID, service: serving(Mode(mode % 3))}
		if r.refused(m) != "" {
			return
		}
		loans := lendAnything(t, r, m, int(n%5))
		reply := r.answer(begin, m, loans)
		if reply.Type == 0 {
			return
		}
		cs := newClients(nil, begin, noJitter)
		cs.agree(begin, m, inner, &reply)
		r.hasten(&reply)
		checkReply(t, m, loans, reply)
		if c := cs.byPeer[peer{m.ClientID, inner}]; (c != nil) != (reply.Auth != nil) {
			t.Fatalf("key %v in %s", c, wire.Text(reply))
		}
		encoded, err := wire.Encode(reply)
		if err != nil {
			t.Fatalf("%v: %s", err, wire.Text(reply))
		}
		again, err := wire.Decode(encoded)
		if err != nil || len(again.Faults) > 0 {
			t.Fatalf("%v, faults %q in %s", err, again.Faults, wire.Text(reply))
		}
	})
}

// lendAnything is a Lender with n loans for every IA: living ones, one that is over, one that is nonsense, one for somebody else.
func lendAnything(t *testing.T, r responder, m pd.Message, n int) []Loan {
	a, ok := r.ask(m, inner)
	if !ok {
		return nil
	}
	if !a.Client.Valid() || len(a.IAs) > maxIAs || a.Verb == "" {
		t.Fatalf("asks %+v", a)
	}
	loans := []Loan{loan(0xfffffff0, first, 100, 200)}
	for i, ia := range a.IAs {
		if slices.ContainsFunc(a.IAs[:i], func(o AskedIA) bool { return o.IAID == ia.IAID }) || ia.Length > 128 {
			t.Fatalf("asks %+v", a)
		}
		for _, p := range ia.Prefixes {
			if pd.Undelegable(p) != "" || p != p.Masked() {
				t.Fatalf("asks %+v", a)
			}
		}
		all := []Loan{loan(ia.IAID, first, 5000, 9000), stale(ia.IAID, old), loan(ia.IAID, second, 90, 30), {IAID: ia.IAID}}
		loans = append(loans, all[:min(n, len(all))]...)
	}
	return loans
}

// checkReply checks what must hold of every answer.
func checkReply(t *testing.T, m pd.Message, loans []Loan, reply pd.Message) {
	t.Helper()
	if reply.XID != m.XID || reply.ClientID != m.ClientID || reply.ServerID != routerID {
		t.Fatalf("%s\nis no answer to %s", wire.Text(reply), wire.Text(m))
	}
	if (reply.Type == pd.Advertise) != (m.Type == pd.Solicit && !reply.RapidCommit) || reply.RapidCommit && !m.RapidCommit {
		t.Fatalf("%s\nto %s", wire.Text(reply), wire.Text(m))
	}
	for _, ia := range reply.IAPDs {
		if ia.T1 > ia.T2 || living(ia) != (ia.T1 > 0) || len(ia.Prefixes) > 2*maxLoans {
			t.Fatalf("IA_PD %+v", ia)
		}
		if ia.Status.Code == pd.Success && len(ia.Prefixes) == 0 {
			t.Fatalf("IA_PD %d without prefix or reason", ia.IAID)
		}
		for _, p := range ia.Prefixes {
			if p.Valid > 0 && !promised(loans, ia.IAID, p, begin) || p.Preferred > p.Valid || p.Valid > validLimit || p.Preferred > preferredLimit {
				t.Fatalf("IA_PD %d: %+v", ia.IAID, p)
			}
		}
	}
}

// promised reports whether p is lent, and for so long.
func promised(loans []Loan, iaid uint32, p pd.IAPrefix, now time.Time) bool {
	return slices.ContainsFunc(loans, func(l Loan) bool {
		within := func(seconds uint32, d lifetime.Deadline) bool { return lifetime.After(now, seconds).Compare(d) <= 0 }
		return l.IAID == iaid && l.Prefix == p.Prefix && !l.Stale && within(p.Preferred, l.PreferredUntil) && within(p.Valid, l.ValidUntil)
	})
}

// TestDecodedHints wants what the codec makes of hints to come to the Lender.
func TestDecodedHints(t *testing.T) {
	m := message(pd.Solicit, pd.IAPD{IAID: 9, Prefixes: []pd.IAPrefix{{HintLen: 60}, {Prefix: netip.MustParsePrefix("2001:db8::/56")}}})
	b, err := wire.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := wire.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	a, ok := responder{id: routerID, service: told}.ask(decoded, inner)
	if !ok || len(a.IAs) != 1 || a.IAs[0].Length != 60 || len(a.IAs[0].Prefixes) != 1 || a.IAs[0].IAID != 9 || a.Via != inner || a.Client != innerID {
		t.Errorf("%+v, %v", a, ok)
	}
}
