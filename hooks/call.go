package hooks

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"uplinkd/internal/config"
	"uplinkd/policy"
)

// Item is an event on its way to the hooks. Site is what JSON shows as "site"; it must not change after Submit.
type Item struct {
	Seq   uint64
	At    time.Time
	Event policy.Event
	Site  any
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
		env = append(env, v.name+"="+v.value)
	}
	stdin, err := document(i)
	if err != nil {
		return Call{}, fmt.Errorf("hook.%s: write %s as JSON: %w", h.Name, i.Event.Kind, err)
	}
	return Call{Argv: append(append([]string(nil), h.Run...), i.Event.Kind), Env: env, Stdin: stdin}, nil
}

type variable struct{ name, value string }

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
	var subnets []string
	for _, s := range e.Subnets {
		subnets = append(subnets, s.Downstream+"="+s.Prefix.String())
	}
	return []variable{
		{"UPLINKD_EVENT", e.Kind},
		{"UPLINKD_UPLINK", e.Uplink},
		{"UPLINKD_INTERFACE", e.Interface},
		{"UPLINKD_PREFIX", prefixText(e.Prefix)},
		{"UPLINKD_OLD_PREFIX", prefixText(e.OldPrefix)},
		{"UPLINKD_PREFERRED", preferred}, // seconds, 4294967295 for ever
		{"UPLINKD_VALID", valid},
		{"UPLINKD_GATEWAY", gateway},
		{"UPLINKD_SUBNETS", strings.Join(subnets, " ")}, // "lan=2001:db8:0:1::/64 guest=2001:db8:0:2::/64"
		{"UPLINKD_SEQ", strconv.FormatUint(i.Seq, 10)},
		{"UPLINKD_TIME", i.At.UTC().Format(time.RFC3339)},
	}
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
