package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// hookScript keeps what it is given, one pair of files per call; the name of a complete pair ends in .done.
const hookScript = `#!/bin/sh
file=%s/$UPLINKD_SEQ-$1
env >"$file.env"
cat >"$file.json"
mv "$file.env" "$file.env.done"
`

// call is one call of the hook.
type call struct {
	event string
	env   map[string]string
	JSON  struct {
		Version   int          `json:"version"`
		Event     string       `json:"event"`
		Prefix    netip.Prefix `json:"prefix"`
		OldPrefix netip.Prefix `json:"old_prefix"`
		Subnets   []struct{ Prefix netip.Prefix }
		Site      struct {
			Downstreams []struct {
				Subnets []struct{ Prefix netip.Prefix }
			}
		}
	}
}

// TestHooks runs a user's script for what happens to a prefix, and not again for a restart that changes nothing.
func TestHooks(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v := s.simulate(forever)
	dir := filepath.Join(s.dir, "calls")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	script := s.write("hook", fmt.Sprintf(hookScript, dir))
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	s.configure(prompt + fmt.Sprintf("\n[hook.keep]\nrun = %q\non = [\"prefix.*\"]\n", script))
	s.start()
	s.awaitHealthy()
	first := s.hookCall("prefix.new")
	g := s.delegation(pool).Prefix
	subnet := netip.PrefixFrom(g.Addr(), 64)
	s.wantEnv(first, map[string]string{"UPLINKD_PREFIX": g.String(), "UPLINKD_UPLINK": "fiber", "UPLINKD_INTERFACE": "wan0",
		"UPLINKD_SUBNETS": "lan=" + subnet.String(), "UPLINKD_VALID": "4294967295", "UPLINKD_OLD_PREFIX": ""})
	if j := first.JSON; j.Version != 1 || j.Prefix != g || len(j.Subnets) != 1 || j.Subnets[0].Prefix != subnet ||
		len(j.Site.Downstreams) != 1 || len(j.Site.Downstreams[0].Subnets) != 1 {
		t.Errorf("prefix.new as JSON: %+v", j)
	}

	if err := v.Renumber(netip.MustParsePrefix(newPool), 0); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := s.run("renew", "fiber"); status != 0 {
		t.Fatalf("renew: %s", stderr)
	}
	changed, lost := s.hookCall("prefix.changed"), s.hookCall("prefix.lost")
	now := s.delegation(newPool).Prefix
	s.wantEnv(changed, map[string]string{"UPLINKD_PREFIX": now.String(), "UPLINKD_OLD_PREFIX": g.String()})
	s.wantEnv(lost, map[string]string{"UPLINKD_PREFIX": g.String(), "UPLINKD_SUBNETS": "lan=" + subnet.String()})
	if changed.JSON.OldPrefix != g {
		t.Errorf("prefix.changed as JSON: %+v", changed.JSON)
	}

	names := s.hookCalls()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		s.end(sig)
		s.start()
		s.awaitHealthy()
		s.reconciles(1)
		s.hangup()
		if again := s.hookCalls(); !slices.Equal(again, names) {
			t.Errorf("after %v and a restart with nothing changed the hook was called again: %v, before: %v", sig, again, names)
		}
	}
}

// hookCalls are the names of all calls so far.
func (s *site) hookCalls() (names []string) {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, "calls", "*"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range found {
		names = append(names, filepath.Base(f))
	}
	return names
}

// hookCall waits for the call for an event.
func (s *site) hookCall(event string) call {
	s.t.Helper()
	var base string
	s.eventually("the hook to be called for "+event, func() (bool, string) {
		found, _ := filepath.Glob(filepath.Join(s.dir, "calls", "*-"+event+".env.done")) // the pattern is a good one
		if len(found) == 1 {
			base = strings.TrimSuffix(found[0], ".env.done")
		}
		return len(found) == 1, fmt.Sprint(s.hookCalls())
	})
	c := call{event: event, env: map[string]string{}}
	env, err := os.ReadFile(base + ".env.done")
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(env)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		c.env[name] = value
	}
	doc, err := os.ReadFile(base + ".json")
	if err == nil {
		err = json.Unmarshal(doc, &c.JSON)
	}
	if err != nil || c.JSON.Event != event {
		s.t.Errorf("JSON of %s: %v\n%s", event, err, doc)
	}
	return c
}

// wantEnv checks the environment of a call, and that nothing of the daemon's own came along.
func (s *site) wantEnv(c call, want map[string]string) {
	s.t.Helper()
	want["UPLINKD_EVENT"] = c.event
	for name, value := range want {
		if got, set := c.env[name]; got != value || !set {
			s.t.Errorf("%s: %s=%q, want %q", c.event, name, got, value)
		}
	}
	// The daemon's environment has more, among it variables of this test and of the lab.
	for name := range c.env {
		if !slices.Contains(hookVariables, name) {
			s.t.Errorf("%s: %s is none of the variables of a hook", c.event, name)
		}
	}
}

// hookVariables are those that a hook is promised, and those that the shell sets.
var hookVariables = strings.Fields(`UPLINKD_EVENT UPLINKD_UPLINK UPLINKD_INTERFACE UPLINKD_PREFIX UPLINKD_OLD_PREFIX
	UPLINKD_PREFERRED UPLINKD_VALID UPLINKD_GATEWAY UPLINKD_SUBNETS UPLINKD_SEQ UPLINKD_TIME UPLINKD_TEST UPLINKD_DNS
	UPLINKD_DOMAIN_SEARCH UPLINKD_NTP UPLINKD_SNTP UPLINKD_AFTR UPLINKD_CAPTIVE_PORTAL UPLINKD_ENCRYPTED_DNS UPLINKD_PREF64 PATH HOME LANG
	PWD OLDPWD SHLVL _`)
