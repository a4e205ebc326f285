package hooks

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"uplinkd/internal/config"
	"uplinkd/pd"
	"uplinkd/policy"
)

// Item is an event on its way to the hooks. Site is what JSON shows as "site"; it must not change after Submit.
type Item struct {
	Seq   uint64
	At    time.Time
	Event policy.Event
	Site  any
	Test  bool // invented by somebody who tries a hook: the program is asked to change nothing
}

// Call is one execution of a program, complete: nothing is added from the daemon's surroundings.
type Call struct {
	Argv  []string
	Env   []string
	Stdin []byte
}

// Match reports whether an event is one of those that pattern means: "*", a group such as "prefix.*", or its name.
func Match(pattern, event string) bool {
	if group, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(event, group)
	}
	return pattern == event
}

func wants(h config.Hook, event string) bool {
	for _, pattern := range h.On {
		if Match(pattern, event) {
			return true
		}
	}
	return false
}

// fixedEnv is what programs find besides UPLINKD_*. The daemon's own environment holds NOTIFY_SOCKET, WATCHDOG_* and
// LISTEN_*, with which a child could speak to systemd in the daemon's name.
var fixedEnv = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/",
	"LANG=C.UTF-8",
}

// Native returns the call that tells hook h of an event in the dialect "uplinkd".
func Native(h config.Hook, i Item) (Call, error) {
	variables := environment(i)
	env := append([]string(nil), fixedEnv...)
	for _, v := range variables {
		// What comes from the network was checked when it came in; this is the last door before a shell script.
		if !clean(v.value) {
			return Call{}, fmt.Errorf("hook.%s: %s: %s=%q contains a control character; the program is not called", h.Name, printable(i.Event.Kind), v.name, v.value)
		}
		if v.words >= 0 && len(strings.Fields(v.value)) != v.words || len(v.value) > maxValue {
			return Call{}, fmt.Errorf("hook.%s: %s: %s=%.100q is not a list of %d words, or longer than %d octets; the program is not called",
				h.Name, printable(i.Event.Kind), v.name, v.value, v.words, maxValue)
		}
		env = append(env, v.name+"="+v.value)
	}
	stdin, err := document(i)
	if err != nil {
		return Call{}, fmt.Errorf("hook.%s: write %s as JSON: %w", h.Name, i.Event.Kind, err)
	}
	return Call{Argv: append(append([]string(nil), h.Run...), i.Event.Kind), Env: env, Stdin: stdin}, nil
}

// maxValue bounds a variable: a server's options come to 4 kB (pd/wire), which are 8 kB in hexadecimal.
const maxValue = 16 << 10

type variable struct {
	name, value string
	words       int // that value must consist of, so that a script can take it apart at the spaces; -1: it is no list
}

func text(name, value string) variable { return variable{name, value, -1} }

// list is a variable of words with a space in between.
func list[T any](name string, values []T, word func(T) string) variable {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = word(v)
	}
	return variable{name, strings.Join(words, " "), len(words)}
}

// environment returns all UPLINKD_* variables.
func environment(i Item) []variable {
	e := i.Event
	preferred, valid := "", ""
	if e.Prefix.IsValid() {
		preferred, valid = strconv.FormatUint(uint64(e.Preferred), 10), strconv.FormatUint(uint64(e.Valid), 10)
	}
	gateway := ""
	if e.Gateway.IsValid() {
		gateway = e.Gateway.String()
	}
	test := ""
	if i.Test {
		test = "1"
	}
	told := policy.Told{}
	if e.Told != nil {
		told = *e.Told
	}
	return append([]variable{
		text("UPLINKD_EVENT", e.Kind),
		text("UPLINKD_UPLINK", e.Uplink),
		text("UPLINKD_INTERFACE", e.Interface),
		text("UPLINKD_PREFIX", prefixText(e.Prefix)),
		text("UPLINKD_OLD_PREFIX", prefixText(e.OldPrefix)),
		text("UPLINKD_PREFERRED", preferred), // seconds, 4294967295 for ever
		text("UPLINKD_VALID", valid),
		text("UPLINKD_GATEWAY", gateway),
		list("UPLINKD_SUBNETS", e.Subnets, func(s policy.Subnet) string { return s.Downstream + "=" + s.Prefix.String() }),
		text("UPLINKD_SEQ", strconv.FormatUint(i.Seq, 10)),
		text("UPLINKD_TIME", i.At.UTC().Format(time.RFC3339)),
		text("UPLINKD_TEST", test),
	}, facts(told)...)
}

// facts are the variables for what a provider tells besides prefixes. Those of options without a word of ours are only
// there if the option is; a code that came several times has a word for each.
func facts(t policy.Told) []variable {
	itself := func(s string) string { return s }
	ntp := list("UPLINKD_NTP", t.NTP, netip.Addr.String)
	names := list("", t.NTPNames, itself)
	ntp.value, ntp.words = strings.TrimSpace(ntp.value+" "+names.value), ntp.words+names.words
	all := []variable{
		list("UPLINKD_DNS", t.DNS, netip.Addr.String),
		list("UPLINKD_DOMAIN_SEARCH", t.DomainSearch, itself),
		ntp,
		list("UPLINKD_SNTP", t.SNTP, netip.Addr.String),
		list("UPLINKD_AFTR", oneOrNone(t.AFTR), itself),
		list("UPLINKD_CAPTIVE_PORTAL", oneOrNone(t.CaptivePortal), itself),
		list("UPLINKD_ENCRYPTED_DNS", t.Resolvers, pd.Resolver.String),
		list("UPLINKD_PREF64", t.PREF64, func(p policy.PREF64) string { return p.Prefix.String() }),
	}
	raw := map[uint16][]pd.Option{}
	for _, o := range slices.Concat(t.S46, t.Unknown) {
		raw[o.Code] = append(raw[o.Code], o)
	}
	for _, code := range slices.Sorted(maps.Keys(raw)) {
		all = append(all, list(fmt.Sprintf("UPLINKD_OPTION_%d", code), raw[code], func(o pd.Option) string {
			if len(o.Data) == 0 {
				return "-" // there, and empty
			}
			return hex.EncodeToString(o.Data)
		}))
	}
	return all
}

func oneOrNone(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// document returns the JSON object for standard input, with a final newline for programs that read lines.
func document(i Item) ([]byte, error) {
	b, err := json.Marshal(struct {
		Version int    `json:"version"`
		Seq     uint64 `json:"seq"`
		Time    string `json:"time"`
		policy.Event
		Site any `json:"site,omitempty"`
	}{1, i.Seq, i.At.UTC().Format(time.RFC3339), i.Event, i.Site})
	return append(b, '\n'), err
}

func clean(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// printable replaces what must not reach a log or a terminal: control characters, text direction marks, broken UTF-8.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return utf8.RuneError
	}, s)
}
