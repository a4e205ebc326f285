package main

import (
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"uplinkd/internal/config"
)

var runVerb = verb{
	name:    "run",
	summary: "be the daemon: obtain prefixes and keep the kernel in step",
	about: `Runs in the foreground until SIGTERM or SIGINT and logs to standard error. What it
has set up in the kernel stays when it ends, so that traffic keeps flowing; see
"uplinkd clean" for taking it away. SIGHUP reads the config again.

It needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE.`,
	failed:   "the daemon could not start or had to end",
	examples: []string{"uplinkd run", "uplinkd run --config ./uplinkd.toml --debug"},
}

func init() { runVerb.run = cmdRun }

func cmdRun(env *environment, args []string) int {
	// Before anything else, and to the very end: whoever sends SIGHUP wants the config to be read, not the daemon to die.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP)
	fs := env.flags("run")
	debugLog := fs.Bool("debug", false, "log more")
	if _, status, ok := env.parse(fs, args, 0, 0); !ok {
		return status
	}
	// The live heap is about 2 MB: collecting at half of Go's default growth costs nothing and keeps the RSS on a small
	// router down.
	debug.SetGCPercent(50)
	// One goroutine at a time is enough, and nothing that blocks in the kernel counts as one. With more, each fact that goes from
	// one goroutine to the next wakes a second thread that comes too late: a quarter of the time from a Reply to the address.
	runtime.GOMAXPROCS(1)
	load := func() (*config.Config, error) { return loadConfig(env.config) }
	if _, err := load(); err != nil {
		return env.failConfig(err)
	}
	d := daemon{file: env.config, load: load, log: newLog(*debugLog), system: newSupervisor(), hangup: hangup}
	if err := d.run(env.ctx); err != nil {
		return env.fail(err)
	}
	return exitOK
}
