package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"uplinkd/hooks"
	"uplinkd/internal/config"
	"uplinkd/internal/engine"
	"uplinkd/pd"
	"uplinkd/policy"
)

var hooksVerb = verb{
	name: "hooks", args: "test NAME", summary: "try a hook with an invented event",
	about: `Runs the hook NAME of the configuration once, as the daemon would, with an invented event, and shows what it was given
(environment and standard input), what it printed and how it ended. The site in the invented event is what uplinkd would
make of the invented prefix. The daemon is not asked.

The hook has UPLINKD_TEST=1 in its environment, which is empty in earnest. A hook that heeds it only says what it would do, as
the examples that come with uplinkd do. One that does not does everything, with an invented prefix.

The hook runs with the rights of the one who calls this. With the systemd unit the daemon is not root but a user of its own
(DynamicUser), so a hook that works for root may fail there. To try it with such a user:
systemd-run --pipe --wait -p DynamicUser=yes uplinkd hooks test NAME`,
	failed: "the hook failed, or does not want such events",
	examples: []string{"uplinkd hooks test ddns", "uplinkd hooks test ddns --event prefix.changed --prefix 2001:db8:200::/56",
		"uplinkd hooks test ddns --event uplink.down"},
	run: cmdHooks,
}

func cmdHooks(env *environment, args []string) int {
	fs := env.flags("hooks")
	var inv invention
	event := policy.PrefixNew
	inv.flags(fs)
	fs.StringVar(&event, "event", event, "invent an `EVENT` of this kind")
	rest, status, ok := env.parse(fs, args, 2, 2)
	switch {
	case !ok:
		return status
	case rest[0] != "test":
		return env.usage("hooks", "there is no %q; did you mean \"test\"?", rest[0])
	}
	cfg, err := loadConfig(env.config)
	if err != nil {
		return env.failConfig(err)
	}
	hook, err := findHook(cfg, rest[1])
	if err == nil {
		err = checkEvent(event)
	}
	if err == nil {
		err = inv.choose(cfg)
	}
	if err != nil {
		return env.usage("hooks", "%v", err)
	}
	if !slices.ContainsFunc(hook.On, func(pattern string) bool { return hooks.Match(pattern, event) }) {
		return env.fail(fmt.Errorf("hook.%s is not called for %s: on = %s (%v)", hook.Name, event, strings.Join(hook.On, ", "), hook.Pos))
	}
	call, err := hooks.Native(hook, inv.item(cfg, event, time.Now()))
	if err != nil {
		return env.fail(err)
	}
	return env.tryHook(hook, call)
}

func findHook(cfg *config.Config, name string) (config.Hook, error) {
	var names []string
	for _, h := range cfg.Hooks {
		if h.Name == name {
			return h, nil
		}
		names = append(names, h.Name)
	}
	if len(names) == 0 {
		return config.Hook{}, errors.New("the configuration has no hooks; add a section [hook.NAME] with run = \"/path\"")
	}
	hint := "there is: " + strings.Join(names, ", ")
	if near, ok := config.Closest(name, names); ok {
		hint = "did you mean " + near + "?"
	}
	return config.Hook{}, fmt.Errorf("no hook %q in the configuration; %s", name, hint)
}

func checkEvent(kind string) error {
	known := slices.DeleteFunc(config.EventPatterns(), func(p string) bool { return strings.HasSuffix(p, "*") })
	if slices.Contains(known, kind) {
		return nil
	}
	return fmt.Errorf("there is no event %q; events are %s", kind, strings.Join(known, ", "))
}

// item is an event of the given kind about the invention, as the engine would report it.
func (i *invention) item(cfg *config.Config, kind string, now time.Time) hooks.Item {
	if len(i.prefixes) == 0 {
		i.prefixes = prefixList{netip.MustParsePrefix("2001:db8:100::/56")}
	}
	site, _ := i.site(cfg, now)
	e := policy.Event{Kind: kind}
	for _, found := range policy.Events(policy.Site{}, site, nil) {
		wanted := policy.PrefixNew
		if strings.HasPrefix(kind, "uplink.") {
			wanted = policy.UplinkUp
		}
		if found.Kind == wanted && found.Uplink == i.uplink {
			e = found
			e.Kind = kind
			break
		}
	}
	switch kind {
	case policy.PrefixChanged:
		e.OldPrefix = netip.MustParsePrefix("2001:db8:dead::/56")
	case policy.UplinkInformed:
		server := netip.MustParseAddr("2001:db8:ffff::53")
		e.Told = &policy.Told{Info: pd.Info{DNS: []netip.Addr{server}, DomainSearch: []string{"example.net"}, NTP: []netip.Addr{server},
			AFTR: "aftr.example.net", CaptivePortal: "https://portal.example.net/api",
			Resolvers: []pd.Resolver{{Priority: 1, Name: "dot.example.net", Addresses: []netip.Addr{server}, Params: []byte("\x00\x01\x00\x04\x03dot")}},
			Unknown:   []pd.Option{{Code: 17, Data: []byte{0, 0, 4, 14}}}},
			PREF64: []policy.PREF64{{Prefix: netip.MustParsePrefix("64:ff9b::/96"), Until: until(now, 30*time.Minute)}}}
	case policy.PrefixDeprecated:
		e.Preferred = 0
	case policy.PrefixLost:
		e.Preferred, e.Valid = 0, 0
		after := *i
		after.prefixes = nil
		site, _ = after.site(cfg, now)
	case policy.UplinkDown:
		e.Gateway = netip.Addr{}
		after := *i
		after.gateway = netip.Addr{}
		site, _ = after.site(cfg, now)
	}
	item := hookItems([]engine.Item{{Seq: 1, Time: now, Event: e}}, site)[0]
	item.Test = true
	return item
}

// tryHook carries out a call and shows it.
func (env *environment) tryHook(hook config.Hook, call hooks.Call) int {
	p := env.page()
	show := func(heading string, lines []string) {
		p.put(bold, heading)
		p.newline()
		for _, l := range lines {
			p.put(plain, "  "+l)
			p.newline()
		}
	}
	show("runs", []string{strings.Join(call.Argv, " ")})
	show("environment", call.Env)
	show("standard input", []string{strings.TrimSpace(string(call.Stdin))})
	ctx, cancel := context.WithTimeoutCause(env.ctx, hook.Timeout, fmt.Errorf("not finished after %v (timeout)", hook.Timeout))
	defer cancel()
	out := call.Run(ctx)
	if len(out.Output) == 0 {
		out.Output = []string{"(nothing)"}
	}
	show("printed", out.Output)
	if out.Err != nil {
		p.put(red, "failed")
		p.newline()
		return env.fail(out.Err)
	}
	p.put(green, fmt.Sprintf("ok, after %v", out.Duration.Round(time.Millisecond)))
	p.newline()
	return exitOK
}
