// Command uplinkd obtains delegated IPv6 prefixes and keeps everything that depends on them true. This package is the
// command line: verbs, wiring, signals, and the text that people see. What is decided is decided in policy and
// internal/engine.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"uplinkd/internal/config"
	"uplinkd/internal/ctl"
)

// Exit statuses of all verbs.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // usage or config
)

// defaultConfig is where the configuration is unless --config tells otherwise.
const defaultConfig = "/etc/uplinkd/uplinkd.toml"

// verb is one entry of the command line.
type verb struct {
	name     string
	args     string // what follows the name, for the usage line
	summary  string // one line for the list of verbs
	about    string // for --help, below the summary
	failed   string // what exit status 1 means; "": it does not occur
	examples []string
	run      func(env *environment, args []string) int
}

// verbs lists the command line in the order of its help.
func verbs() []verb {
	return []verb{
		runVerb, checkVerb, planVerb, statusVerb, watchVerb, traceVerb, explainVerb, renewVerb, releaseVerb, cleanVerb, importVerb,
		profilesVerb, hooksVerb, demoVerb, versionVerb, {name: "help", args: "[VERB]", summary: "show this list, or what VERB does", run: cmdHelp},
	}
}

// environment is what a verb gets from the process it runs in.
type environment struct {
	ctx            context.Context // ends with SIGINT or SIGTERM
	stdout, stderr io.Writer
	color          bool   // stdout takes colours
	config         string // --config
	socket         string // --socket; "" for the one of the config
	json           bool   // --json
	verb           verb   // the one that runs
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	env := &environment{ctx: ctx, stdout: os.Stdout, stderr: os.Stderr, color: colorful(os.Stdout), config: defaultConfig}
	code := env.main(os.Args[1:])
	stop()
	os.Exit(code)
}

// colorful reports whether escape sequences for colours are welcome in f (see no-color.org).
func colorful(f *os.File) bool {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	return isTerminal(f)
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// main runs the verb that args name.
func (env *environment) main(args []string) int {
	fs := env.flags("")
	env.askFlags(fs)
	version := fs.Bool("version", false, "")
	rest, err := leadingFlags(fs, args)
	switch {
	case isHelp(err):
		return cmdHelp(env, nil)
	case err != nil:
		return env.usage("", "%s", flagError(err))
	case *version:
		return env.run(versionVerb, nil)
	case len(rest) == 0:
		env.overview(env.stderr)
		return exitUsage
	}
	v, ok := findVerb(rest[0])
	if !ok {
		return env.unknownVerb(rest[0])
	}
	return env.run(v, rest[1:])
}

func (env *environment) run(v verb, args []string) int {
	env.verb = v
	return v.run(env, args)
}

func findVerb(name string) (verb, bool) {
	for _, v := range verbs() {
		if v.name == name {
			return v, true
		}
	}
	return verb{}, false
}

func (env *environment) unknownVerb(name string) int {
	var names []string
	for _, v := range verbs() {
		names = append(names, v.name)
	}
	hint := "the verbs are " + strings.Join(names, ", ")
	if near, ok := config.Closest(name, names); ok {
		hint = "did you mean \"" + near + "\"?"
	}
	return env.usage("", "there is no verb %q; %s", printable(name), hint)
}

// usage reports a mistake on the command line.
func (env *environment) usage(verb, format string, args ...any) int {
	name := strings.TrimSpace("uplinkd " + verb)
	fmt.Fprintf(env.stderr, "%s: %s\nsee: %s --help\n", name, printable(fmt.Sprintf(format, args...)), name)
	return exitUsage
}

// failure is what --json prints in place of the document of a verb that failed.
type failure struct {
	SchemaVersion int    `json:"schema_version"`
	Error         string `json:"error"`
}

// fail reports why a verb failed, a line per line of err; with --json also to those who read only that.
func (env *environment) fail(err error) int {
	if env.json {
		if b, jerr := json.Marshal(failure{ctl.SchemaVersion, err.Error()}); jerr == nil {
			fmt.Fprintf(env.stdout, "%s\n", safeJSON(b))
		}
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(env.stderr, "uplinkd: "+printable(strings.TrimSuffix(line, "\n")))
	}
	return exitFailed
}
