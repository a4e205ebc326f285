package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// flags returns the flag set of a verb that needs the configuration; those that ask the daemon add askFlags.
func (env *environment) flags(name string) *flag.FlagSet {
	fs := bareFlags(name)
	fs.StringVar(&env.config, "config", env.config, "the configuration is in `FILE`, and in conf.d/*.toml beside it")
	return fs
}

// bareFlags returns the flag set of a verb that works without a configuration.
func bareFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// askFlags adds how to find the daemon.
func (env *environment) askFlags(fs *flag.FlagSet) {
	fs.StringVar(&env.socket, "socket", env.socket, "the daemon answers on `SOCKET` (default: control.sock in the config's run_dir)")
}

// jsonFlag adds --json.
func (env *environment) jsonFlag(fs *flag.FlagSet) {
	fs.BoolVar(&env.json, "json", env.json, "print JSON for programs")
}

// parse reads the arguments of a verb. Flags may stand before, between and behind the others, of which there are at
// least lo and at most hi. When ok is false the verb is over with the given status.
func (env *environment) parse(fs *flag.FlagSet, args []string, lo, hi int) (rest []string, status int, ok bool) {
	for {
		after, err := leadingFlags(fs, args)
		if isHelp(err) {
			env.help(env.stdout, fs)
			return nil, exitOK, false
		}
		if err != nil {
			return nil, env.usage(fs.Name(), "%s", flagError(err)), false
		}
		if len(after) == 0 {
			break
		}
		if len(after) < len(args) && args[len(args)-len(after)-1] == "--" {
			rest = append(rest, after...)
			break
		}
		rest, args = append(rest, after[0]), after[1:]
	}
	switch {
	case len(rest) < lo:
		return nil, env.usage(fs.Name(), "too few arguments"), false
	case len(rest) > hi:
		return nil, env.usage(fs.Name(), "unexpected argument %q", rest[hi]), false
	}
	return rest, exitOK, true
}

// leadingFlags parses flags up to the first other argument and returns what is left.
func leadingFlags(fs *flag.FlagSet, args []string) ([]string, error) {
	err := fs.Parse(args)
	return fs.Args(), err
}

func isHelp(err error) bool { return errors.Is(err, flag.ErrHelp) }

// flagError spells flags the way the help does, with two dashes unless they are one letter.
func flagError(err error) string {
	text := strings.Replace(err.Error(), "flag provided but not defined: -", "there is no option --", 1)
	text = strings.Replace(text, "flag needs an argument: -", "an argument is missing behind --", 1)
	text = strings.Replace(text, " for flag -", " for --", 1)
	return oneLetter.ReplaceAllString(text, " -$1$2")
}

var oneLetter = regexp.MustCompile(` --(\w)($|:)`)

// help prints what a verb does.
func (env *environment) help(w io.Writer, fs *flag.FlagSet) {
	v := env.verb
	options := false
	fs.VisitAll(func(*flag.Flag) { options = true })
	usage := "uplinkd " + v.name
	if options {
		usage += " [options]"
	}
	fmt.Fprintf(w, "usage: %s\n\n", strings.TrimSpace(usage+" "+v.args))
	for i, paragraph := range strings.Split(v.about, "\n\n") {
		if i > 0 {
			fmt.Fprintln(w)
		}
		for _, line := range wrap(strings.Join(strings.Fields(paragraph), " "), 80) {
			fmt.Fprintln(w, line)
		}
	}
	if options {
		fmt.Fprint(w, "\nOptions:\n")
	}
	fs.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		name := "--" + f.Name
		if len(f.Name) == 1 {
			name = "-" + f.Name
		}
		if value != "" {
			name += " " + value
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" {
			text += " (default: " + f.DefValue + ")"
		}
		for i, line := range wrap(text, 60) {
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(w, "  %-29s %s\n", name, line)
		}
	})
	fmt.Fprintln(w, "\nExit status:\n  0  done")
	if v.failed != "" {
		fmt.Fprintln(w, "  1  "+v.failed)
	}
	fmt.Fprintln(w, "  2  mistake on the command line or in the configuration")
	if len(v.examples) > 0 {
		fmt.Fprintln(w, "\nExamples:")
		for _, e := range v.examples {
			fmt.Fprintln(w, "  "+e)
		}
	}
}

func cmdHelp(env *environment, args []string) int {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		env.overview(env.stdout)
		return exitOK
	}
	v, ok := findVerb(args[0])
	switch {
	case !ok:
		return env.unknownVerb(args[0])
	case v.name == "help":
		env.overview(env.stdout)
		return exitOK
	}
	return env.run(v, []string{"--help"})
}

// overview lists the verbs.
func (env *environment) overview(w io.Writer) {
	fmt.Fprint(w, "uplinkd gets IPv6 prefixes from providers and keeps everything that depends on them true.\n\n"+
		"usage: uplinkd [--config FILE] [--socket SOCKET] VERB [options]\n\n")
	for _, v := range verbs() {
		fmt.Fprintf(w, "  %-8s  %s\n", v.name, v.summary)
	}
	fmt.Fprint(w, "\nEvery verb has --help. Most have --json for programs.\n"+
		"Exit status: 0 done, 1 failed, 2 mistake on the command line or in the configuration.\n")
}
