package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel/rtnl"
)

var checkVerb = verb{
	name: "check", args: "[FILE]", summary: "is the configuration right?",
	about: `Reads the configuration (FILE, or the one of --config, and conf.d/*.toml beside it) and prints every mistake with file, line,
column and what to do. Nothing is changed and the daemon is not asked.

What is right but cannot work on this machine now, such as an interface that does not exist, is a warning; warnings do
not change the exit status.`,
	examples: []string{"uplinkd check", "uplinkd check ./uplinkd.toml && systemctl reload uplinkd"},
	run:      cmdCheck,
}

// checkDocument is what check --json prints.
type checkDocument struct {
	SchemaVersion int      `json:"schema_version"`
	OK            bool     `json:"ok"`
	Mistakes      []remark `json:"mistakes"`
	Warnings      []remark `json:"warnings"`
}

// remark is a mistake or a warning.
type remark struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Path    string `json:"path,omitempty"` // of the key or section
	Message string `json:"message"`
}

// remarkOn is what is said at a place in the configuration.
func remarkOn(e config.Error) remark {
	return remark{e.Pos.File, e.Pos.Line, e.Pos.Column, e.Path, e.Msg}
}

func cmdCheck(env *environment, args []string) int {
	fs := env.flags("check")
	env.jsonFlag(fs)
	rest, status, ok := env.parse(fs, args, 0, 1)
	if !ok {
		return status
	}
	if len(rest) == 1 {
		env.config = rest[0]
	}
	doc := checkDocument{SchemaVersion: 1, Mistakes: []remark{}, Warnings: []remark{}}
	cfg, err := loadConfig(env.config)
	var mistakes, warned config.Errors
	switch {
	case errors.As(err, &mistakes):
		for _, m := range mistakes {
			doc.Mistakes = append(doc.Mistakes, remarkOn(m))
		}
	case err != nil:
		return env.failConfig(err)
	default:
		doc.OK, warned = true, warnings(cfg, env.config)
		for _, w := range warned {
			doc.Warnings = append(doc.Warnings, remarkOn(w))
		}
	}
	switch {
	case env.json:
		env.printJSON(doc)
	case doc.OK:
		for _, w := range warned {
			fmt.Fprintln(env.stderr, "warning: "+printable(w.Error()))
		}
		fmt.Fprintf(env.stdout, "ok: %s, %s, %s\n", count(len(cfg.Uplinks), "uplink"), count(len(cfg.Downstreams), "downstream"), count(len(cfg.Hooks), "hook"))
	default:
		for _, m := range mistakes {
			fmt.Fprintln(env.stderr, printable(m.Error()))
		}
		fmt.Fprintf(env.stderr, "%s in the configuration\n", count(len(mistakes), "mistake"))
	}
	if !doc.OK {
		return exitUsage
	}
	return exitOK
}

// warnings are findings about this machine that the daemon would live with. What is about no section stands at the start
// of the main file.
func warnings(cfg *config.Config, file string) (out config.Errors) {
	warn := func(pos config.Position, path, format string, args ...any) {
		out = append(out, config.Error{Pos: pos, Path: path, Msg: fmt.Sprintf(format, args...)})
	}
	missing := func(path, name string, pos config.Position) {
		if _, err := net.InterfaceByName(name); err != nil {
			warn(pos, path, "there is no interface %s on this machine now; see: ip link", name)
		}
	}
	for _, u := range cfg.Uplinks {
		missing("uplink."+u.Name, u.Interface, u.Pos)
	}
	for _, d := range cfg.Downstreams {
		if d.Interface != "" {
			missing("downstream."+d.Name, d.Interface, d.Pos)
		}
		if len(cfg.Uplinks) > 1 && len(d.From) != 1 && d.Kind == config.Access {
			warn(d.Pos, "downstream."+d.Name, "it has subnets of several uplinks, and there is no failover yet: when an uplink fails, "+
				"hosts go on using its prefix until the lease ends; to have one uplink only: from = %q", cfg.Uplinks[0].Name)
		}
	}
	warnOfPrefixes(cfg, warn)
	warnOfSubnets(cfg, warn)
	warnOfNFT(cfg, warn)
	if len(cfg.Downstreams) == 0 {
		warn(config.Position{File: file, Line: 1, Column: 1}, "downstream",
			"none is configured: prefixes are obtained and routed, but nothing is numbered from them; add a section [downstream.NAME]")
	}
	for _, h := range cfg.Hooks {
		info, err := os.Stat(h.Run[0])
		switch {
		case errors.Is(err, fs.ErrNotExist):
			warn(h.Pos, "hook."+h.Name, "there is no file %s; put the program there or correct run", h.Run[0])
		case err != nil:
			warn(h.Pos, "hook."+h.Name, "%v; the daemon must be able to read it", err)
		case info.IsDir():
			warn(h.Pos, "hook."+h.Name, "%s is a directory; name the program in it", h.Run[0])
		case info.Mode()&0o111 == 0:
			warn(h.Pos, "hook."+h.Name, "%s is not executable: chmod +x %s", h.Run[0], h.Run[0])
		}
	}
	return out
}

// warnOfPrefixes finds downstreams for which no uplink asks for a prefix.
func warnOfPrefixes(cfg *config.Config, warn func(pos config.Position, path, format string, args ...any)) {
	for _, d := range cfg.Downstreams {
		if !d.HasSubnet() {
			continue
		}
		asks, first := false, ""
		for _, u := range cfg.Uplinks {
			if len(d.From) == 0 || slices.Contains(d.From, u.Name) {
				asks = asks || len(u.DHCPv6.Prefixes) > 0
				first = cmp.Or(first, u.Name)
			}
		}
		if !asks {
			warn(d.Pos, "downstream."+d.Name, "no uplink that it draws on asks for a prefix, so that it is never numbered; "+
				"remove dhcpv6.prefixes = [] from uplink.%s, or draw on another with from", first)
		}
	}
}

// warnOfSubnets finds networks whose hosts get no addresses, and subnet numbers that do not exist.
func warnOfSubnets(cfg *config.Config, warn func(pos config.Position, path, format string, args ...any)) {
	vlans := vlanIDs()
	for _, d := range cfg.Downstreams {
		if d.Kind == config.Access && d.Length != 64 {
			warn(d.Pos, "downstream."+d.Name, "no router advertisements are sent for subnets of length %d, since hosts could not make addresses of them (RFC 4862 §5.5.3): "+
				"hosts need addresses from elsewhere; remove length to have 64", d.Length)
		}
		if id, exists := vlans[d.Interface]; d.Subnet == config.VLANSubnet && exists && id == 0 {
			warn(d.Pos, "downstream."+d.Name, "interface %s is no VLAN interface, so subnet = \"vlan\" gives no subnet id; write a number, \"auto\" or \"hash\"", d.Interface)
		}
	}
}

// vlanIDs are the 802.1Q ids of this machine's interfaces, 0 for those that are no VLAN; empty if they cannot be read.
func vlanIDs() map[string]uint16 {
	kern, err := rtnl.Open()
	if err != nil {
		return nil
	}
	defer kern.Close()
	links, _ := kern.Links(context.Background())
	ids := map[string]uint16{}
	for _, l := range links {
		ids[l.Name] = l.VLAN
	}
	return ids
}

// warnOfNFT says what does not work without the program nft.
func warnOfNFT(cfg *config.Config, warn func(pos config.Position, path, format string, args ...any)) {
	err := rtnl.HasNFT()
	if err == nil {
		return
	}
	for _, d := range cfg.Downstreams {
		switch {
		case len(d.AnyIP.Ports) > 0:
			warn(d.Pos, "downstream."+d.Name, "nothing will be marked for anyip.ports: %v", err)
		case d.Kind == config.Access || d.Kind == config.Transit:
			warn(d.Pos, "downstream."+d.Name, "hosts that go on using a prefix that is gone will not be told: %v", err)
			return // once is enough
		}
	}
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
