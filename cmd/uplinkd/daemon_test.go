package main

import (
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"uplinkd/hooks"
	"uplinkd/internal/config"
	"uplinkd/internal/ctl"
	"uplinkd/internal/engine"
)

// TestDaemonTells runs the daemon beside a damaged state file and a config that goes bad: status names both until they
// are put right, and the log has a line for the start, for each mistake and for the stop.
func TestDaemonTells(t *testing.T) {
	ns, file := router(t)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(path string, text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	state := filepath.Join(filepath.Dir(file), "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(state, "lease-fiber.json"), []byte("{"))
	daemon := ns.Start(ns.Command(t.Context(), "uplinkd", "run", "--config", file))
	client := ctl.Dial(filepath.Join(filepath.Dir(file), "run", ctl.SocketName))
	problem := func(code string) (text string) {
		s, err := client.Status(t.Context())
		if err != nil {
			return "nobody answers"
		}
		for _, p := range s.Problems {
			if p.Code == code {
				text = p.Path + ": " + p.Message
			}
		}
		return text
	}
	become := func(code, pattern string) {
		t.Helper()
		if !soon(func() bool { return matches(pattern, problem(code)) }) {
			t.Fatalf("problem %s: %q, want %q; log:\n%s", code, problem(code), pattern, daemon.Output())
		}
	}
	kept := filepath.Join(state, "lease-fiber.json.corrupt-1")
	become("state-damaged", "^state_dir: "+regexp.QuoteMeta(filepath.Join(state, "lease-fiber.json"))+" was damaged, .* look at "+regexp.QuoteMeta(kept)+" ")
	become("config-not-loaded", "")

	write(file, append(good, "colour = 1\nshape = 2\n"...))
	hup := func() {
		t.Helper()
		if err := daemon.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hup()
	become("config-not-loaded", `^config: .*uplinkd\.toml:8:1: downstream\.lan\.colour: unknown key.* \(and 1 more mistake\); the configuration of [0-9]{2}:[0-9]{2} stays in force$`)
	write(file, good)
	hup()
	become("config-not-loaded", "")
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	become("state-damaged", "")
	if err := daemon.Stop(); err != nil {
		t.Error(err)
	}
	for _, line := range []string{
		`msg="uplinkd starts" version=\S.* config=` + regexp.QuoteMeta(file) + ` uplinks=fiber stored_leases=0`,
		`msg="config not loaded; the configuration of [0-9:]+ stays in force"`,
		`msg="config not loaded" err="?[^\\\n]*:8:1: downstream.lan.colour: [^\n]*`,
		`msg="config not loaded" err="?[^\\\n]*:9:1: downstream.lan.shape: [^\n]*`,
		`msg="uplinkd stops; the kernel is left as it is, `,
	} {
		if found := regexp.MustCompile(line).FindAllString(daemon.Output(), -1); len(found) != 1 {
			t.Errorf("the log has %d lines like %s:\n%s", len(found), line, daemon.Output())
		}
	}
}

func TestWhen(t *testing.T) {
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.Local)
	for text, loaded := range map[string]time.Time{"01:57": noon.Add(-10*time.Hour - 3*time.Minute), "2026-11-21 23:00": noon.Add(-13 * time.Hour)} {
		if got := when(loaded, noon); got != text {
			t.Errorf("%v: %s, want %s", loaded, got, text)
		}
	}
}

// TestHookTestTellsWhatTheDaemonTells compares the JSON of `hooks test` with that of the daemon: the same keys everywhere.
func TestHookTestTellsWhatTheDaemonTells(t *testing.T) {
	cfg, err := config.Parse(config.File{Name: "uplinkd.toml", Data: []byte(smallConfig)})
	if err != nil {
		t.Fatal(err)
	}
	document := func(i hooks.Item) (keys []string) {
		t.Helper()
		call, err := hooks.Native(config.Hook{Name: "x", Run: []string{"/bin/true"}}, i)
		if err != nil {
			t.Fatal(err)
		}
		var doc any
		if err := json.Unmarshal(call.Stdin, &doc); err != nil {
			t.Fatal(err)
		}
		all := map[string]bool{}
		keysOf(doc, "", all)
		return slices.Sorted(maps.Keys(all))
	}
	var inv invention
	inv.uplink, inv.gateway, inv.valid, inv.preferred = "fiber", scenes()["ok"].facts["fiber"].Heard.Routers[0].Address, 2*time.Hour, time.Hour
	tested := inv.item(cfg, "prefix.new", night)

	// What the daemon makes of the same site, on its own way to the hooks.
	site, _ := inv.site(cfg, night)
	var submitted []hooks.Item
	d := daemon{log: slog.New(slog.DiscardHandler), submit: func(items []hooks.Item) { submitted = items }}
	d.tellHooks([]engine.Item{{Seq: 1, Time: night, Event: tested.Event}}, site)
	got, want := document(tested), document(submitted[0])
	if !slices.Equal(got, want) || !slices.Contains(want, ".site.uplinks.delegations.preferred.seconds") {
		t.Errorf("hooks test:\n%s\ndaemon:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// keysOf collects the paths of all keys in a JSON document.
func keysOf(v any, path string, keys map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			keys[path+"."+k] = true
			keysOf(inner, path+"."+k, keys)
		}
	case []any:
		for _, inner := range v {
			keysOf(inner, path, keys)
		}
	}
}
