package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// version is set by the Makefile: -ldflags "-X main.version=v1.2.3".
var version string

var versionVerb = verb{
	name: "version", summary: "versions of uplinkd, Go and the kernel",
	about:    "Prints the versions of this program, of Go and of the running kernel. The daemon's own is in uplinkd status.",
	examples: []string{"uplinkd version"},
	run:      cmdVersion,
}

func cmdVersion(env *environment, args []string) int {
	fs := bareFlags("version")
	env.jsonFlag(fs)
	if _, status, ok := env.parse(fs, args, 0, 0); !ok {
		return status
	}
	var u unix.Utsname
	_ = unix.Uname(&u) // fails only for a bad pointer
	v := struct {
		Uplinkd string `json:"uplinkd"`
		Go      string `json:"go"`
		Kernel  string `json:"kernel"`
	}{versionText(), runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH, unix.ByteSliceToString(u.Release[:])}
	if env.json {
		return env.printJSON(v)
	}
	fmt.Fprintf(env.stdout, "uplinkd %s\n%s\nkernel %s\n", printable(v.Uplinkd), v.Go, printable(v.Kernel))
	return exitOK
}

// versionText is the version of this program: the one set at link time, else what Go has recorded.
func versionText() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = "devel " + s.Value[:min(12, len(s.Value))]
		}
	}
	if v == "" {
		return "devel"
	}
	return v
}
