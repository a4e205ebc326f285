package policy

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// told joins what an uplink's provider tells by DHCPv6 with what its routers advertise and still holds at now.
func told(f UplinkFacts, now time.Time) Told {
	t := Told{Info: f.Told}
	t.DNS = appendNew(slices.Clip(t.DNS), f.Heard.DNS)
	t.DomainSearch = appendNew(slices.Clip(t.DomainSearch), f.Heard.Search)
	if t.CaptivePortal == "" {
		t.CaptivePortal = f.Heard.CaptivePortal
	}
	for _, p := range f.Heard.PREF64 {
		if !p.Until.Over(now) && !slices.ContainsFunc(t.PREF64, p.samePrefix) {
			t.PREF64 = append(t.PREF64, p)
		}
	}
	return t
}

func (p PREF64) samePrefix(o PREF64) bool { return p.Prefix == o.Prefix }

// SameMeaning reports whether a and b tell the same. Order is no difference, since providers deal out their servers in
// turn, and neither are deadlines.
func (t Told) SameMeaning(o Told) bool {
	option := func(a, b pd.Option) bool { return a.Code == b.Code && bytes.Equal(a.Data, b.Data) }
	return sameSet(t.DNS, o.DNS, equal) && sameSet(t.DomainSearch, o.DomainSearch, equal) && sameSet(t.NTP, o.NTP, equal) &&
		sameSet(t.NTPNames, o.NTPNames, equal) && sameSet(t.SNTP, o.SNTP, equal) && t.AFTR == o.AFTR && t.CaptivePortal == o.CaptivePortal &&
		sameSet(t.Resolvers, o.Resolvers, pd.Resolver.Equal) && sameSet(t.S46, o.S46, option) && sameSet(t.Unknown, o.Unknown, option) && sameSet(t.PREF64, o.PREF64, PREF64.samePrefix)
}

func equal[T comparable](a, b T) bool { return a == b }

// sameSet reports whether each of a is in b and the other way round. The lists are short: pd and radv bound them.
func sameSet[T any](a, b []T, same func(T, T) bool) bool {
	within := func(a, b []T) bool {
		return !slices.ContainsFunc(a, func(x T) bool { return !slices.ContainsFunc(b, func(y T) bool { return same(x, y) }) })
	}
	return within(a, b) && within(b, a)
}

// Fact is something that a provider tells, for people.
type Fact struct{ Name, Text string }

// Facts are what t tells, in a few words each; the first of many.
func (t Told) Facts() (facts []Fact) {
	const most = 8
	add := func(name string, words ...string) {
		words = slices.DeleteFunc(words, func(s string) bool { return s == "" })
		if more := len(words) - most; more > 0 {
			words = append(words[:most:most], fmt.Sprintf("and %d more", more))
		}
		if len(words) > 0 {
			facts = append(facts, Fact{name, strings.Join(words, ", ")})
		}
	}
	add("name servers", texts(t.DNS, netip.Addr.String)...)
	add("encrypted DNS", texts(t.Resolvers, pd.Resolver.String)...)
	add("search", slices.Clone(t.DomainSearch)...)
	add("NTP", slices.Concat(texts(t.NTP, netip.Addr.String), t.NTPNames)...)
	add("SNTP", texts(t.SNTP, netip.Addr.String)...)
	add("AFTR", t.AFTR)
	add("portal", t.CaptivePortal)
	add("NAT64", texts(t.PREF64, func(p PREF64) string { return p.Prefix.String() })...)
	add("options", texts(slices.Concat(t.S46, t.Unknown), func(o pd.Option) string { return fmt.Sprintf("%d (%d octets)", o.Code, len(o.Data)) })...)
	return facts
}

// Text is t in one line, for the log.
func (t Told) Text() string {
	if len(t.Facts()) == 0 {
		return "nothing"
	}
	return strings.Join(texts(t.Facts(), func(f Fact) string { return f.Name + " " + f.Text }), "; ")
}

func texts[T any](list []T, text func(T) string) []string {
	out := make([]string, len(list))
	for i, x := range list {
		out[i] = text(x)
	}
	return out
}

// passOn fills in what hosts of a downstream are told of the uplinks behind its subnets besides prefixes and DNS.
//
// A NAT64 prefix works only through its own uplink (RFC 8781), but a host uses it with whatever source address it has,
// and the source decides on the uplink. So a prefix is announced only if all
// uplinks that are up and number this downstream tell it: with one of them, its own; with several, what they have in
// common, such as 64:ff9b::/96. It holds until the first of them says no more.
//
// An RA has room for one captive portal (RFC 8910 §2.3): that of the uplink with the lowest metric, where hosts' first
// packets are as likely to go as anywhere.
func (a *Announcement) passOn(uplinks []Uplink) {
	for i, u := range uplinks {
		if i == 0 {
			a.PREF64 = slices.Clone(u.Told.PREF64)
			continue
		}
		a.PREF64 = common(a.PREF64, u.Told.PREF64)
	}
	slices.SortFunc(a.PREF64, func(x, y PREF64) int { return x.Prefix.Compare(y.Prefix) })
	byMetric := slices.Clone(uplinks)
	slices.SortStableFunc(byMetric, func(x, y Uplink) int { return cmp.Compare(x.Metric, y.Metric) })
	for _, u := range byMetric {
		if a.CaptivePortal == "" {
			a.CaptivePortal = u.Told.CaptivePortal
		}
	}
}

// common are the prefixes that are in both lists.
func common(list, other []PREF64) (both []PREF64) {
	for _, p := range list {
		if i := slices.IndexFunc(other, p.samePrefix); i >= 0 {
			both = append(both, PREF64{Prefix: p.Prefix, Until: lifetime.Min(p.Until, other[i].Until)})
		}
	}
	return both
}
