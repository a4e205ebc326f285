package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"uplinkd/internal/config"
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
	SchemaVersion int            `json:"schema_version"`
	OK            bool           `json:"ok"`
	Mistakes      []checkMistake `json:"mistakes"`
	Warnings      []string       `json:"warnings"`
}

type checkMistake struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Path    string `json:"path,omitempty"` // of the key
	Message string `json:"message"`
}

func cmdCheck(env *environment, args []string) int {
	fs := env.flags("check")
	asJSON := jsonFlag(fs)
	rest, status, ok := env.parse(fs, args, 0, 1)
	if !ok {
		return status
	}
	if len(rest) == 1 {
		env.config = rest[0]
	}
	doc := checkDocument{SchemaVersion: 1, Mistakes: []checkMistake{}, Warnings: []string{}}
	cfg, err := loadConfig(env.config)
	var mistakes config.Errors
	switch {
	case errors.As(err, &mistakes):
		for _, m := range mistakes {
			doc.Mistakes = append(doc.Mistakes, checkMistake{m.Pos.File, m.Pos.Line, m.Pos.Column, m.Path, m.Msg})
		}
	case err != nil:
		return env.failConfig(err)
	default:
		doc.OK, doc.Warnings = true, warnings(cfg)
	}
	switch {
	case *asJSON:
		env.printJSON(doc)
	case doc.OK:
		for _, w := range doc.Warnings {
			fmt.Fprintln(env.stderr, "warning: "+printable(w))
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

// warnings are findings about this machine that the daemon would live with.
func warnings(cfg *config.Config) []string {
	out := []string{}
	missing := func(path, name string, pos config.Position) {
		if _, err := net.InterfaceByName(name); err != nil {
			out = append(out, fmt.Sprintf("%v: %s: there is no interface %s on this machine now; see: ip link", pos, path, name))
		}
	}
	for _, u := range cfg.Uplinks {
		missing("uplink."+u.Name, u.Interface, u.Pos)
	}
	for _, d := range cfg.Downstreams {
		missing("downstream."+d.Name, d.Interface, d.Pos)
		if len(cfg.Uplinks) > 1 && len(d.From) != 1 {
			out = append(out, fmt.Sprintf("%v: downstream.%s: it has subnets of several uplinks, and there is no failover yet: when an uplink fails, "+
				"hosts go on using its prefix until the lease ends; to have one uplink only: from = %q", d.Pos, d.Name, cfg.Uplinks[0].Name))
		}
	}
	if len(cfg.Downstreams) == 0 {
		out = append(out, "no downstream is configured: prefixes are obtained and routed, but nothing is numbered from them; add a section [downstream.NAME]")
	}
	for _, h := range cfg.Hooks {
		info, err := os.Stat(h.Run[0])
		switch {
		case err != nil:
			out = append(out, fmt.Sprintf("%v: hook.%s: %v", h.Pos, h.Name, err))
		case info.IsDir() || info.Mode()&0o111 == 0:
			out = append(out, fmt.Sprintf("%v: hook.%s: %s is not executable; chmod +x", h.Pos, h.Name, h.Run[0]))
		}
	}
	return out
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
