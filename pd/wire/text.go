package wire

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"uplinkd/pd"
)

// maxText is the longest line of Text.
const maxText = 4096

// Text is a message in one line, for people: what it says in the words of the RFC, in a fixed order. It is printable and
// bounded. Secrets are left out: of authentication only the kind is shown.
func Text(m pd.Message) string {
	t := text{}
	t.add("%s xid 0x%06x", m.Type, m.XID)
	if m.ClientID != "" {
		t.add("client %s", m.ClientID)
	}
	if m.ServerID != "" {
		t.add("server %s", m.ServerID)
	}
	if fromClient(m.Type) || m.Elapsed != 0 {
		t.add("elapsed %s", m.Elapsed)
	}
	t.number("preference", uint32(m.Preference))
	t.flag("rapid-commit", m.RapidCommit)
	t.flag("reconfigure-accept", m.ReconfAccept)
	if m.ReconfMsg != 0 {
		t.add("reconfigure %s", m.ReconfMsg)
	}
	t.auth(m.Auth)
	t.status(m.Status)
	for _, ia := range m.IANAs {
		t.iana(ia)
	}
	for _, ia := range m.IAPDs {
		t.iapd(ia)
	}
	t.number("SOL_MAX_RT", m.SolMaxRT)
	t.number("INF_MAX_RT", m.InfMaxRT)
	if m.InfoRefresh != 0 {
		t.add("refresh %s", lifetime(m.InfoRefresh))
	}
	t.info(m.Info)
	t.requested(m.ORO)
	t.sent(m)
	for _, f := range m.Faults {
		t.add("fault %q", f)
	}
	return printable(strings.Join(t.words, " "), maxText)
}

// text collects the words of a line.
type text struct{ words []string }

func (t *text) add(format string, args ...any) {
	t.words = append(t.words, fmt.Sprintf(format, args...))
}

func (t *text) flag(name string, set bool) {
	if set {
		t.add("%s", name)
	}
}

func (t *text) number(name string, n uint32) {
	if n != 0 {
		t.add("%s %d", name, n)
	}
}

// lifetime is a number of seconds as ip-address(8) shows it.
func lifetime(seconds uint32) string {
	if seconds == 0xffffffff {
		return "forever"
	}
	return fmt.Sprint(seconds)
}

func (t *text) status(s pd.Status) {
	if s == (pd.Status{}) {
		return
	}
	name := s.Code.String()
	if name == "unknown" {
		name = fmt.Sprint(uint16(s.Code))
	}
	t.add("status %s", name)
	if s.Text != "" {
		t.add("%q", s.Text)
	}
}

// auth shows what kind of authentication there is, never the key or the digest (RFC 9915 §20.4).
func (t *text) auth(a *pd.Auth) {
	if a == nil {
		return
	}
	t.add("auth protocol %d algorithm %d rdm %d replay %d", a.Protocol, a.Algorithm, a.RDM, a.Replay)
	if a.Protocol == 3 && len(a.Info) > 0 {
		switch a.Info[0] {
		case 1:
			t.add("key")
		case 2:
			t.add("digest")
		}
	}
}

func (t *text) iana(ia pd.IANA) {
	t.add("IA_NA 0x%08x T1 %s T2 %s", ia.IAID, lifetime(ia.T1), lifetime(ia.T2))
	t.status(ia.Status)
	for _, a := range ia.Addresses {
		t.add("%s %s/%s", a.Address, lifetime(a.Preferred), lifetime(a.Valid))
		t.status(a.Status)
	}
}

func (t *text) iapd(ia pd.IAPD) {
	t.add("IA_PD 0x%08x T1 %s T2 %s", ia.IAID, lifetime(ia.T1), lifetime(ia.T2))
	t.status(ia.Status)
	for _, p := range ia.Prefixes {
		if p.Prefix.IsValid() {
			t.add("%s %s/%s", p.Prefix, lifetime(p.Preferred), lifetime(p.Valid))
		} else {
			t.add("hint ::/%d", p.HintLen)
		}
		if p.Exclude.IsValid() {
			t.add("exclude %s", p.Exclude)
		}
		t.status(p.Status)
	}
}

func (t *text) info(in pd.Info) {
	t.addrs("dns", in.DNS)
	t.list("search", in.DomainSearch)
	t.addrs("ntp", in.NTP)
	t.list("ntp", in.NTPNames)
	t.addrs("sntp", in.SNTP)
	if in.AFTR != "" {
		t.add("aftr %s", in.AFTR)
	}
	if in.CaptivePortal != "" {
		t.add("captive-portal %s", in.CaptivePortal)
	}
	for _, r := range in.Resolvers {
		t.add("encrypted-dns %s", r)
	}
	t.options(in.S46)
	t.options(in.Unknown)
}

func (t *text) addrs(name string, addrs []netip.Addr) {
	for _, a := range addrs {
		t.add("%s %s", name, a)
	}
}

func (t *text) list(name string, values []string) {
	for _, v := range values {
		t.add("%s %s", name, v)
	}
}

// options shows raw options in hexadecimal, the long ones cut.
func (t *text) options(options []pd.Option) {
	const shown = 64
	for _, o := range options {
		t.add("option %d", o.Code)
		if n := optionName(o.Code); n != fmt.Sprintf("option %d", o.Code) {
			t.add("(%s)", n)
		}
		t.add("%d octets", len(o.Data))
		if len(o.Data) > 0 {
			t.add("%x", o.Data[:min(len(o.Data), shown)])
		}
		t.flag("...", len(o.Data) > shown)
	}
}

func (t *text) requested(codes []uint16) {
	if len(codes) == 0 {
		return
	}
	names := make([]string, len(codes))
	for i, c := range codes {
		names[i] = optionName(c)
	}
	t.add("requests (%s)", strings.Join(names, ", "))
}

// sent shows what only clients send.
func (t *text) sent(m pd.Message) {
	for _, c := range m.UserClass {
		t.add("user-class %q", c)
	}
	for _, c := range m.VendorClass {
		t.add("vendor-class %d", c.Enterprise)
		for _, v := range c.Data {
			t.add("%q", v)
		}
	}
	t.options(m.Extra)
}

// printable returns s with every byte or rune that is not printable replaced by '?', without surrounding space and cut to
// limit octets. unicode.IsPrint leaves out control and format characters, so neither terminal escapes nor bidirectional
// overrides get through.
func printable(s string, limit int) string {
	// Cut before the loop, so that the work does not grow with the message; no rune gets longer by the replacement.
	if len(s) > limit+utf8.UTFMax {
		s = s[:limit+utf8.UTFMax]
	}
	var b strings.Builder
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			r = '?'
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}
