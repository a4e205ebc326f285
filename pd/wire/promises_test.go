package wire

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"uplinkd/pd"
)

// nested is inner in so many IA_PDs and IA Prefix options, one in the other.
func nested(depth int, inner string) string {
	for i := range depth {
		switch i % 4 {
		case 0:
			inner = iapd(0, 0, inner)
		case 1:
			inner = iaprefix(1, 1, 56, "2001:db8:200::", inner)
		case 2:
			inner = iana(0, 0, inner)
		case 3:
			inner = iaaddr(1, 1, "2001:db8::9", inner)
		}
	}
	return inner
}

// TestNothingCostsTheRest has each kind of hostile content that is known to have broken other clients before and behind a
// good IA_PD, which survives it. Nothing of what is decoded is unprintable or unbounded.
func TestNothingCostsTheRest(t *testing.T) {
	huge := strings.Repeat("x", 65000-len(good))
	for name, options := range map[string][]string{
		"oversized DUIDs":       {opt(1, strings.Repeat("x", 131)), opt(2, strings.Repeat("\x1b", 255)), opt(1, huge), opt(2, huge)},
		"undersized DUIDs":      {opt(1), opt(2, "ab")},
		"nesting":               {nested(2, ""), nested(3, good), nested(64, good), nested(255, opt(13, "\x00\x06")), nested(2000, "\x00")},
		"nested beyond the end": {opt(25, strings.Repeat("\x00", 12), "\x00\x1a\xff\xff", strings.Repeat("\x00\x19\xff\xff", 200))},
		"64 kB in one option": {opt(999, huge), opt(13, "\x00\x00", huge), opt(24, huge), opt(11, huge), opt(23, huge), opt(25, strings.Repeat("\x00", 12), huge),
			opt(56, huge), opt(64, huge), opt(94, huge), opt(103, huge), opt(6, huge)},
		"64 kB in two options": {opt(999, huge[:30000]) + opt(998, huge[:30000]), opt(25, huge[:30000]) + opt(25, huge[:30000])},
	} {
		t.Run(name, func(t *testing.T) {
			for _, o := range options {
				for _, b := range []string{good + o, o + good} {
					m := decodeHostile(t, b)
					if !holdsGood(m) {
						t.Errorf("the good IA_PD beside %d octets beginning with %.20x did not survive; faults %q", len(o), o, m.Faults)
					}
				}
			}
		})
	}
}

// decodeHostile decodes a Reply with these options, and looks at what can be told without knowing them.
func decodeHostile(t *testing.T, options string) pd.Message {
	t.Helper()
	b := []byte("\x07\x00\x00\x01" + options)
	before := bytes.Clone(b)
	m, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, before) {
		t.Error("the input has changed")
	}
	checkTexts(t, m)
	checkPrintable(t, Text(m), maxText)
	return m
}

func holdsGood(m pd.Message) bool {
	for _, ia := range m.IAPDs {
		if want := reply.IAPDs[0]; ia.IAID == want.IAID && ia.T1 == want.T1 && len(ia.Prefixes) == 1 && ia.Prefixes[0] == want.Prefixes[0] {
			return true
		}
	}
	return false
}

// TestPrefixLengths has every length that an octet can say.
func TestPrefixLengths(t *testing.T) {
	for bits := range 256 {
		m := decodeHostile(t, iapd(7, 8, iaprefix(3, 4, byte(bits), "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"))+good)
		var got netip.Prefix
		if p := m.IAPDs[0].Prefixes; len(p) == 1 {
			got = p[0].Prefix
		}
		want := netip.Prefix{}
		if bits >= 29 && bits <= 128 { // up to 28 no provider delegates
			want = netip.PrefixFrom(netip.MustParseAddr("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"), bits).Masked()
		}
		if got != want || (len(m.Faults) == 1) == want.IsValid() || !holdsGood(m) {
			t.Errorf("length %d: %s, want %s; faults %q", bits, got, want, m.Faults)
		}
		if want.IsValid() || bits == 0 {
			continue
		}
		if wrong := fmt.Sprintf("/%d dropped", bits); !strings.Contains(m.Faults[0], wrong) {
			t.Errorf("length %d: fault %q", bits, m.Faults[0])
		}
	}
}

// TestNeverDelegated has multicast, link-local and other ranges that nobody can delegate or lease, in every length.
func TestNeverDelegated(t *testing.T) {
	for _, a := range []string{"ff02::", "ff05::1:3", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe80::", "fe80::1", "febf:ffff::", "::", "::1", "::ffff:192.0.2.1"} {
		for bits := 1; bits <= 128; bits++ {
			m := decodeHostile(t, iapd(7, 8, iaprefix(3, 4, byte(bits), a))+good)
			if n := len(m.IAPDs[0].Prefixes); n > 0 || len(m.Faults) != 1 || !holdsGood(m) {
				t.Errorf("%s/%d: %d prefixes, faults %q", a, bits, n, m.Faults)
			}
		}
		if m := decodeHostile(t, iana(7, 8, iaaddr(3, 4, a))+good); len(m.IANAs[0].Addresses) > 0 || len(m.Faults) != 1 || !holdsGood(m) {
			t.Errorf("%s: leased %v, faults %q", a, m.IANAs, m.Faults)
		}
	}
}

// dangerous is what must not get from a text option to a terminal, a log line, a file or a shell.
var dangerous = map[string]string{
	"NUL":                    "\x00",
	"newline":                "\n",
	"carriage return":        "\r",
	"escape sequence":        "\x1b[2J",
	"8-bit escape sequence":  "\x9b2J",
	"bell":                   "\a",
	"delete":                 "\x7f",
	"C1 control":             "\u0085",
	"bidirectional override": "\u202e",
	"line separator":         "\u2028",
	"zero-width space":       "\u200b",
	"cut UTF-8":              "\xe2\x80",
}

// TestTexts puts what is dangerous at the begin, in the middle and at the end of every option that has a text.
func TestTexts(t *testing.T) {
	label := func(s string) string { return string([]byte{byte(len(s))}) + s }
	status := func(s string) string { return opt(13, "\x00\x06", s) }
	for option, with := range map[string]func(text string) string{
		"domain search list":         func(s string) string { return opt(24, label(s), label("example"), "\x00") },
		"second of two names":        func(s string) string { return opt(24, label("ok"), "\x00", label("a"), label(s), "\x00") },
		"AFTR name":                  func(s string) string { return opt(64, label(s), label("example"), "\x00") },
		"captive portal":             func(s string) string { return opt(103, "http://"+s) },
		"captive portal, scheme":     func(s string) string { return opt(103, s+"http://a") },
		"NTP name":                   func(s string) string { return opt(56, opt(3, label(s), "\x00")) },
		"status of the message":      status,
		"status of an IA_PD":         func(s string) string { return iapd(0, 0, status(s)) },
		"status of a prefix":         func(s string) string { return iapd(0, 0, iaprefix(1, 1, 56, "2001:db8::", status(s))) },
		"status of an IA_NA":         func(s string) string { return iana(0, 0, status(s)) },
		"status of an address":       func(s string) string { return iana(0, 0, iaaddr(1, 1, "2001:db8::7", status(s))) },
		"user class of nobody":       func(s string) string { return opt(15, "\x00"+label(s)) },
		"option of another protocol": func(s string) string { return opt(17, s) },
	} {
		for what, bad := range dangerous {
			t.Run(option+"/"+what, func(t *testing.T) {
				for _, text := range []string{bad, bad + "abc", "ab" + bad + "c", "abc" + bad} {
					m := decodeHostile(t, with(text)+good)
					if !holdsGood(m) {
						t.Errorf("%q: the good IA_PD did not survive", text)
					}
					// decodeHostile has looked at all texts, which are whole or not there. The end of a C string is no harm.
					for _, got := range append(append(m.DomainSearch, m.NTPNames...), m.AFTR, m.CaptivePortal) {
						if got != "" && got != "ok" && got != "http://abc" {
							t.Errorf("%q: kept %q", text, got)
						}
					}
				}
			})
		}
	}
}
