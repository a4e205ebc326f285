package wire

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"uplinkd/pd"
)

// FuzzDecode looks for octets that break the promises of Decode: no panic, nothing unprintable, nothing unbounded, and
// a message that Encode can write and that reads back as the same.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	b, err := Encode(reply)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("\x01\x00\x00\x01" + opt(1, "abc") + opt(8, "\x00\x00") + iapd(0, 0, iaprefix(0, 0, 56, "::"))))
	f.Add([]byte("\x07\x00\x00\x01" + serverID + iapd(2, 1) + opt(13, "\x00\x06\x1b[2J") + opt(24, "\x01a\xc0\x00\x00") + "\x00"))
	f.Add([]byte("\x07\x00\x00\x01" + iana(1, 2, iaaddr(1, 2, "2001:db8::7", opt(13, "\x00\x04"))) +
		iapd(0, 0, iaprefix(1, 2, 59, "2001:db8:dead:bee0::", opt(67, "\x40\x78"))) +
		opt(11, "\x03\x01\x00", strings.Repeat("\x00", 8), "\x02", strings.Repeat("d", 16)) + opt(19, "\x05") + opt(20) +
		opt(31, strings.Repeat("\x20", 16)) + opt(32, u32(0)) + opt(56, "\x00\x03\x00\x03\x01a\x00") + opt(64, "\x01a\x00") +
		opt(94, "map") + opt(103, "http://a/") + opt(144, "\x00\x01\x00\x03\x01a\x00\x00\x10\x20", strings.Repeat("\x01", 15), "\x00\x01\x00\x01x") + opt(17, "vendor")))
	f.Add([]byte("\x0b\x00\x00\x01" + opt(15, "\x00\x01a") + opt(16, u32(32473), "\x00\x00")))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		m, err := Decode(b)
		if !bytes.Equal(before, b) {
			t.Fatal("input changed")
		}
		if err != nil {
			checkPrintable(t, err.Error(), maxFaultLen)
			return
		}
		checkTexts(t, m)
		again, err := Encode(m)
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		m2, err := Decode(again)
		if err != nil {
			t.Fatalf("decode what was encoded: %v\n%s", err, hex.Dump(again))
		}
		if len(m2.Faults) > 0 {
			t.Fatalf("faults in what was encoded: %q", m2.Faults)
		}
		m.Faults = nil
		checkPrintable(t, Text(m), maxText)
		if d := cmp.Diff(m, m2, equate, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
}

func checkTexts(t *testing.T, m pd.Message) {
	t.Helper()
	if len(m.Faults) > maxFaults || len(m.DNS) > maxServers || len(m.DomainSearch) > maxSearch || len(m.ORO) > maxORO {
		t.Fatalf("unbounded: %+v", m)
	}
	if len(m.NTP) > maxServers || len(m.NTPNames) > maxServers || len(m.SNTP) > maxServers || len(m.S46) > maxS46 ||
		size(m.S46) > maxRaw || len(m.Unknown) > maxUnknown || size(m.Unknown) > maxRaw ||
		len(m.UserClass) > maxClasses || len(m.VendorClass) > maxClasses || len(m.CaptivePortal) > pd.MaxURI {
		t.Fatalf("unbounded: %+v", m)
	}
	for _, s := range slices.Concat(m.DomainSearch, m.NTPNames, []string{m.AFTR}) {
		checkPrintable(t, s, maxNameLen)
	}
	checkPrintable(t, m.CaptivePortal, pd.MaxURI)
	if len(m.Resolvers) > maxResolvers {
		t.Fatalf("unbounded: %+v", m)
	}
	for _, r := range m.Resolvers {
		checkPrintable(t, r.Name, maxNameLen)
		if err := r.Check(); err != nil || len(r.Addresses) > maxServers {
			t.Fatalf("resolver %+v: %v", r, err)
		}
	}
	for _, s := range m.Faults {
		checkPrintable(t, s, maxFaultLen)
	}
	checkPrintable(t, m.Status.Text, maxStatusText)
	for _, ia := range m.IAPDs {
		checkPrintable(t, ia.Status.Text, maxStatusText)
		for _, p := range ia.Prefixes {
			checkPrintable(t, p.Status.Text, maxStatusText)
			if p.HintLen == 0 && (!p.Prefix.IsValid() || p.Prefix != p.Prefix.Masked() || p.Preferred > p.Valid) {
				t.Fatalf("prefix %+v", p)
			}
			if p.Exclude.IsValid() && (p.Exclude.Bits() <= p.Prefix.Bits() || !p.Prefix.Contains(p.Exclude.Addr())) {
				t.Fatalf("prefix %+v", p)
			}
		}
	}
	for _, ia := range m.IANAs {
		checkPrintable(t, ia.Status.Text, maxStatusText)
		for _, a := range ia.Addresses {
			checkPrintable(t, a.Status.Text, maxStatusText)
			if !a.Address.Is6() || a.Address.IsMulticast() || a.Address.IsLinkLocalUnicast() || a.Preferred > a.Valid {
				t.Fatalf("address %+v", a)
			}
		}
	}
}

func size(options []pd.Option) (n int) {
	for _, o := range options {
		n += len(o.Data)
	}
	return n
}

func checkPrintable(t *testing.T, s string, limit int) {
	t.Helper()
	if len(s) > limit || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Fatalf("%q: %d octets, want at most %d printable ones", s, len(s), limit)
	}
}
