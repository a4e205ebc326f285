package main

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/ctl"
	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/policy"
)

var planVerb = verb{
	name: "plan", summary: "what is programmed, or would be for an invented prefix",
	about: `With --prefix: what uplinkd would do if a provider delegated PREFIX, without a daemon and without root. The output is a shell
script from an empty kernel, in the order in which uplinkd works, with the reason of each step as a comment. The
interfaces of the configuration are taken to exist, to be up and to have carrier.

Without --prefix: asks the daemon what it keeps in the kernel, why, and what it is waiting to remove. This is a shell script too:
it keeps a network running without the daemon, until the leases end (see the examples).`,
	failed: "the daemon cannot be asked, or the invented prefix serves no downstream",
	examples: []string{"uplinkd plan --prefix 2001:db8::/56", "uplinkd plan --prefix 2001:db8::/60 --lifetime 1h/30m --gateway fe80::1", "uplinkd plan",
		"uplinkd plan >plan.sh; systemctl stop uplinkd; uplinkd clean; sh plan.sh"},
	run: cmdPlan,
}

// invention is the delegation that plan --prefix imagines.
type invention struct {
	prefixes         prefixList
	uplink           string
	gateway          netip.Addr
	own              own // this router's, or what stands for it
	standIn          bool
	valid, preferred time.Duration // lifetime.Infinity seconds: for ever
}

// prefixList collects repeated --prefix flags.
type prefixList []netip.Prefix

func (l *prefixList) String() string { return join(*l) }

func (l *prefixList) Set(s string) error {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || !p.Addr().Is6() || p.Addr().Is4In6():
		return errors.New("want an IPv6 prefix such as 2001:db8::/56")
	case p != p.Masked():
		return fmt.Errorf("has bits behind the /%d; did you mean %s?", p.Bits(), p.Masked())
	case p.Bits() == 0 || p.Addr().IsMulticast() || p.Addr().IsLinkLocalUnicast() || p.Addr().IsLoopback():
		return errors.New("no provider delegates this; want a prefix such as 2001:db8::/56")
	}
	*l = append(*l, p)
	return nil
}

func (i *invention) flags(fs *flag.FlagSet) {
	i.gateway, i.valid, i.preferred = netip.MustParseAddr("fe80::1"), 2*time.Hour, time.Hour
	fs.Var(&i.prefixes, "prefix", "invent a delegation of `PREFIX`; may be repeated")
	fs.StringVar(&i.uplink, "uplink", "", "the invented delegation is on `UPLINK`; needed if there are several")
	fs.Func("gateway", "the provider's router is `ADDRESS` (default: fe80::1)", func(s string) (err error) {
		i.gateway, err = netip.ParseAddr(s)
		if err != nil || !i.gateway.IsLinkLocalUnicast() || !i.gateway.Is6() || i.gateway.Zone() != "" {
			return errors.New("want a link-local address such as fe80::1")
		}
		return nil
	})
	fs.Func("lifetime", "invented `VALID/PREFERRED` lifetimes, such as 1h/30m or forever (default: 2h/1h)", i.setLifetimes)
}

const forever = lifetime.Infinity * time.Second

func (i *invention) setLifetimes(s string) error {
	valid, preferred, two := strings.Cut(s, "/")
	var err1, err2 error
	i.valid, err1 = parseLifetime(valid)
	if i.preferred = i.valid; two {
		i.preferred, err2 = parseLifetime(preferred)
	}
	if errors.Join(err1, err2) != nil || i.preferred > i.valid {
		return errors.New("want VALID/PREFERRED with PREFERRED not longer than VALID, such as 1h/30m or forever")
	}
	return nil
}

func parseLifetime(s string) (time.Duration, error) {
	if s == "forever" {
		return forever, nil
	}
	d, err := time.ParseDuration(s)
	if err == nil && (d < 0 || d >= forever || d%time.Second != 0) {
		err = errors.New("out of range")
	}
	return d, err
}

func cmdPlan(env *environment, args []string) int {
	fs := env.flags("plan")
	env.askFlags(fs)
	env.jsonFlag(fs)
	var inv invention
	inv.flags(fs)
	if _, status, ok := env.parse(fs, args, 0, 0); !ok {
		return status
	}
	if len(inv.prefixes) > 0 {
		return env.planInvented(inv)
	}
	given := ""
	fs.Visit(func(f *flag.Flag) {
		if f.Name == "uplink" || f.Name == "gateway" || f.Name == "lifetime" {
			given = f.Name
		}
	})
	if given != "" {
		return env.usage("plan", "--%s makes sense with --prefix only", given)
	}
	p, err := env.client().Plan(env.ctx)
	switch {
	case err != nil:
		return env.fail(fmt.Errorf("%w\nwithout a daemon: uplinkd plan --prefix 2001:db8::/56", err))
	case env.json:
		return env.printJSON(p)
	}
	env.page().plan(p)
	return exitOK
}

func (env *environment) planInvented(inv invention) int {
	cfg, err := loadConfig(env.config)
	if err != nil {
		return env.failConfig(err)
	}
	if err := inv.choose(cfg); err != nil {
		return env.usage("plan", "%v", err)
	}
	now := time.Now()
	inv.own, inv.standIn = savedOwn(cfg)
	site, problems := inv.site(cfg, now)
	p := ctl.InventedPlan(site, problems, now)
	if env.json {
		env.printJSON(p)
	} else {
		env.page().script(p, inv, env.config)
	}
	if len(cfg.Downstreams) > 0 && !inv.serves(site) {
		return exitFailed
	}
	return exitOK
}

// serves reports whether a downstream has a part of the invention.
func (i *invention) serves(s policy.Site) bool {
	return slices.ContainsFunc(s.Downstreams, func(d policy.Downstream) bool {
		return d.AnyIP.Armed || slices.ContainsFunc(d.Subnets, func(n policy.Subnet) bool { return slices.Contains(i.prefixes, n.Delegation) })
	})
}

// choose settles which uplink gets the prefix.
func (i *invention) choose(cfg *config.Config) error {
	var names []string
	for _, u := range cfg.Uplinks {
		names = append(names, u.Name)
	}
	switch {
	case i.uplink == "" && len(names) == 1:
		i.uplink = names[0]
	case i.uplink == "":
		return fmt.Errorf("which uplink gets it? --uplink is one of %s", strings.Join(names, ", "))
	case !slices.Contains(names, i.uplink):
		hint := "there is: " + strings.Join(names, ", ")
		if near, ok := config.Closest(i.uplink, names); ok {
			hint = "did you mean " + near + "?"
		}
		return fmt.Errorf("no uplink %q in the configuration; %s", i.uplink, hint)
	}
	return nil
}

// site is what planning makes of the invention.
func (i *invention) site(cfg *config.Config, now time.Time) (policy.Site, []policy.Problem) {
	w := policy.World{Now: now, Links: map[string]kernel.Link{}, Uplinks: map[string]policy.UplinkFacts{}}
	if w.ULA, w.Secret = cfg.ULA.Prefix, i.own.secret; cfg.ULA.Auto {
		w.ULA = i.own.ula
	}
	add := func(name string) {
		if name != "" {
			index := len(w.Links) + 1
			w.Links[name] = kernel.Link{Name: name, Index: index, Up: true, Carrier: true, MTU: 1500, MAC: fmt.Sprintf("02:00:00:00:%02x:%02x", index>>8, index&0xff),
				VLAN: vlanOf(name)}
		}
	}
	add(policy.Loopback)
	for _, u := range cfg.Uplinks {
		add(u.Interface)
		w.Uplinks[u.Name] = policy.UplinkFacts{Reported: true}
	}
	for _, d := range cfg.Downstreams {
		add(d.Interface)
	}
	facts := policy.UplinkFacts{Reported: true}
	if i.gateway.IsValid() {
		facts.Heard.Routers = []policy.Router{{Address: i.gateway, Until: until(now, 30*time.Minute)}}
	}
	for _, p := range i.prefixes {
		facts.Delegations = append(facts.Delegations, policy.Granted{Prefix: p, PreferredUntil: until(now, i.preferred), ValidUntil: until(now, i.valid)})
	}
	w.Uplinks[i.uplink] = facts
	site, problems, _ := policy.Plan(cfg, w, policy.Ledger{})
	return site, problems
}

// vlanOf is the VLAN id of an invented interface, by the usual form of its name: lan0.20.
func vlanOf(name string) uint16 {
	_, id, _ := strings.Cut(name, ".")
	n, err := strconv.ParseUint(id, 10, 12)
	if err != nil {
		return 0
	}
	return uint16(n)
}

func until(now time.Time, d time.Duration) lifetime.Deadline {
	if d == forever {
		return lifetime.Forever()
	}
	return lifetime.Until(now.Add(d))
}
