package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"uplinkd/hooks"
	"uplinkd/internal/config"
	"uplinkd/internal/ctl"
	"uplinkd/internal/lifetime"
	"uplinkd/internal/netlab"
	"uplinkd/policy"
)

// foreignRA is the example hook for those who have another daemon send the router advertisements.
const foreignRA = "../../contrib/hooks/20-router-advertisements"

// hookDir is a directory with a copy of the hook for one daemon, and a systemctl that writes down what it is asked, and
// fails while there is a file named fail.
type hookDir struct {
	t         *testing.T
	dir, file string
	daemon    string
}

func newHookDir(t *testing.T, dir, daemon string) *hookDir {
	t.Helper()
	netlab.NeedProgram(t, "jq", "jq")
	h := &hookDir{t: t, dir: dir, daemon: daemon, file: filepath.Join(dir, daemon+".conf")}
	h.program("systemctl", `echo "$@" >>`+dir+`/calls; test ! -e `+dir+"/fail")
	hook, err := filepath.Abs(foreignRA)
	if err != nil {
		t.Fatal(err)
	}
	h.program("hook", "PATH="+dir+":$PATH exec "+hook+` "$@"`) // since uplinkd gives hooks a PATH of its own
	return h
}

func (h *hookDir) program(name, script string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// read is a file of the directory; none is empty.
func (h *hookDir) read(name string) string {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Fatal(err)
	}
	return string(b)
}

// config is the hook in uplinkd.toml.
func (h *hookDir) config(unit string) string {
	return fmt.Sprintf("ra.enabled = false\n\n[hook.ra]\nrun = [%q, %q, %q, %q]\n", filepath.Join(h.dir, "hook"), h.daemon, h.file, unit)
}

// tell calls the hook as uplinkd does.
func (h *hookDir) tell(s policy.Site) (string, error) { return h.call(s, false) }

func (h *hookDir) call(s policy.Site, test bool) (string, error) {
	h.t.Helper()
	c, err := hooks.Native(config.Hook{Name: "ra", Run: []string{filepath.Join(h.dir, "hook"), h.daemon, h.file, h.daemon}},
		hooks.Item{Seq: 1, At: s.Now, Test: test, Event: policy.Event{Kind: policy.PrefixChanged}, Site: ctl.SiteOf(s, s.Now)})
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.CommandContext(h.t.Context(), c.Argv[0], c.Argv[1:]...)
	cmd.Env, cmd.Stdin = c.Env, strings.NewReader(string(c.Stdin))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The site of these tests: a LAN with an old and a new prefix. The /60 is not for hosts, and neither is inner0.
func siteWith(now time.Time, up bool, subnets ...policy.Subnet) policy.Site {
	for i := range subnets {
		subnets[i].Uplink = "fiber"
	}
	return policy.Site{Now: now,
		Uplinks: []policy.Uplink{{Name: "fiber", Interface: "wan0", Up: up}, {Name: "other", Interface: "wan1", Up: true}},
		Downstreams: []policy.Downstream{
			{Name: "lan", Interface: "lan0", Kind: "access", Subnets: subnets},
			{Name: "inner", Interface: "inner0", Kind: "transit", Subnets: subnets[:0:0]},
		}}
}

func subnet(prefix string, state policy.State, preferred, valid lifetime.Deadline) policy.Subnet {
	return policy.Subnet{Prefix: netip.MustParsePrefix(prefix), State: state, PreferredUntil: preferred, ValidUntil: valid}
}

// step is a site, and the lines that it makes of a daemon's file, without those that are always there.
type step struct {
	what string
	site policy.Site
	want map[string]string
}

// steps are a prefix that comes, is deprecated beside a new one, goes with the uplink down, and is forgotten.
func steps() []step {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	in := func(seconds uint32) lifetime.Deadline { return lifetime.After(now, seconds) }
	later := now.Add(5401 * time.Second)
	const a, b = "2001:db8:1100::/64", "2001:db8:1200::/64"
	radvd := func(interval, life int, lines string) string {
		return fmt.Sprintf("interface lan0 { AdvSendAdvert on; MaxRtrAdvInterval %d; AdvDefaultLifetime %d; %s};", interval, life, lines)
	}
	prefix := func(p string, preferred, valid int) string {
		return fmt.Sprintf("prefix %s { AdvPreferredLifetime %d; AdvValidLifetime %d; }; ", p, preferred, valid)
	}
	corerad := func(interval, life int, lines string) string {
		return fmt.Sprintf(`[[interfaces]] name = "lan0" advertise = true max_interval = "%ds" default_lifetime = "%ds"%s`, interval, life, lines)
	}
	table := func(p string, preferred, valid int, deprecated bool) string {
		return fmt.Sprintf(` [[interfaces.prefix]] prefix = "%s" preferred_lifetime = "%ds" valid_lifetime = "%ds" deprecated = %v`, p, preferred, valid, deprecated)
	}
	dnsmasq := func(interval, life int) string {
		return fmt.Sprintf("enable-ra dhcp-range=::,constructor:lan0,ra-only,64,5400 ra-param=lan0,%d,%d", interval, life)
	}
	return []step{
		{"a prefix for ever", siteWith(now, true, subnet(a, policy.Preferred, lifetime.Forever(), lifetime.Forever()),
			subnet("2001:db8:1100:10::/60", policy.Preferred, lifetime.Forever(), lifetime.Forever())),
			map[string]string{"radvd": radvd(600, 1800, prefix(a, 2700, 5400)), "corerad": corerad(600, 1800, table(a, 2700, 5400, false)),
				"dnsmasq": dnsmasq(600, 1800)}},
		{"deprecated beside a new one", siteWith(now, true, subnet(a, policy.Deprecated, in(0), in(3000)), subnet(b, policy.Preferred, in(900), in(1200))),
			map[string]string{"radvd": radvd(300, 1800, prefix(a, 0, 3000)+prefix(b, 900, 1200)),
				"corerad": corerad(300, 1800, table(a, 1, 3000, true)+table(b, 900, 1200, false)), "dnsmasq": dnsmasq(600, 1800)}},
		{"gone, and the uplink down", siteWith(now, false, subnet(b, policy.Preferred, in(9000), in(9000))),
			map[string]string{"radvd": radvd(600, 0, prefix(a, 0, 0)+prefix(b, 2700, 5400)),
				"corerad": corerad(600, 0, table(a, 1, 1, true)+table(b, 2700, 5400, false)), "dnsmasq": dnsmasq(60, 0)}},
		{"forgotten", siteWith(later, true, subnet(b, policy.Preferred, lifetime.Forever(), lifetime.Forever())),
			map[string]string{"radvd": radvd(600, 1800, prefix(b, 2700, 5400)), "corerad": corerad(600, 1800, table(b, 2700, 5400, false)),
				"dnsmasq": dnsmasq(600, 1800)}},
	}
}

// TestForeignRAFiles compares what the hook writes, and counts reloads. radvd and dnsmasq themselves check the files;
// corerad, which Debian does not have, does not: for it this is all that is tested.
func TestForeignRAFiles(t *testing.T) {
	t.Parallel()
	netlab.NeedProgram(t, "radvd", "radvd")
	netlab.NeedProgram(t, "dnsmasq", "dnsmasq-base")
	verb := map[string]string{"radvd": "try-reload-or-restart", "dnsmasq": "try-restart", "corerad": "try-restart"}
	for daemon, verb := range verb {
		t.Run(daemon, func(t *testing.T) {
			h := newHookDir(t, t.TempDir(), daemon)
			calls, last := "", ""
			for _, c := range steps() {
				if c.want[daemon] != last {
					calls += verb + " " + daemon + "\n"
				}
				last = c.want[daemon]
				for range 2 { // the second time nothing is new
					if out, err := h.tell(c.site); err != nil {
						t.Fatalf("%s: %v\n%s", c.what, err, out)
					}
					lines := slices.DeleteFunc(strings.Split(h.read(daemon+".conf"), "\n"), func(l string) bool { return strings.HasPrefix(l, "#") })
					if got := strings.Join(strings.Fields(strings.Join(lines, " ")), " "); got != last {
						t.Errorf("%s: the file has\n%s\nwant\n%s", c.what, got, last)
					}
				}
				if got := h.read("calls"); got != calls {
					t.Errorf("%s: systemctl was called\n%swant\n%s", c.what, got, calls)
				}
			}
		})
	}
}

// TestForeignRATry is "uplinkd hooks test": the file is shown, checked by the daemon if it can, and not written.
func TestForeignRATry(t *testing.T) {
	t.Parallel()
	netlab.NeedProgram(t, "radvd", "radvd")
	netlab.NeedProgram(t, "dnsmasq", "dnsmasq-base")
	for _, daemon := range []string{"radvd", "dnsmasq", "corerad"} {
		h := newHookDir(t, t.TempDir(), daemon)
		list := steps()
		if out, err := h.tell(list[0].site); err != nil {
			t.Fatalf("%s: %v\n%s", daemon, err, out)
		}
		before, calls := h.read(daemon+".conf"), h.read("calls")
		out, err := h.call(list[2].site, true)
		if shown := strings.Join(strings.Fields(out), " "); err != nil || !strings.Contains(shown, list[2].want[daemon]) {
			t.Errorf("%s: %v, shown is\n%s\nwant in it\n%s", daemon, err, shown, list[2].want[daemon])
		}
		if h.read(daemon+".conf") != before || h.read("calls") != calls {
			t.Errorf("%s: after a test there is\n%s\nand systemctl was called:\n%s", daemon, h.read(daemon+".conf"), h.read("calls"))
		}
		names, err := filepath.Glob(filepath.Join(h.dir, ".*"))
		if err != nil || len(names) != 0 {
			t.Errorf("%s: left behind: %v, %v", daemon, names, err)
		}
	}
	h := newHookDir(t, t.TempDir(), "radvd")
	h.program("radvd", "echo syntax error; exit 1")
	if out, err := h.call(steps()[0].site, true); err == nil || !strings.Contains(out, "syntax error") {
		t.Errorf("a file that radvd refuses: %v\n%s", err, out)
	}
}

// TestForeignRALeavesOurs has uplinkd announce one network of two, and then both: nobody else may send there, not even what
// was announced before.
func TestForeignRALeavesOurs(t *testing.T) {
	t.Parallel()
	netlab.NeedProgram(t, "radvd", "radvd")
	netlab.NeedProgram(t, "dnsmasq", "dnsmasq-base")
	for daemon, silent := range map[string]string{"radvd": "interface lan0 { AdvSendAdvert off;", "corerad": `name = "lan0" advertise = false`, "dnsmasq": ""} {
		h := newHookDir(t, t.TempDir(), daemon)
		s := steps()[0].site
		guest := s.Downstreams[0]
		guest.Name, guest.Interface = "guest", "lan1"
		guest.Subnets = []policy.Subnet{subnet("2001:db8:1101::/64", policy.Preferred, lifetime.Forever(), lifetime.Forever())}
		guest.Subnets[0].Uplink = "fiber"
		s.Downstreams = append(slices.Clone(s.Downstreams), guest)
		file := func() string {
			t.Helper()
			if out, err := h.tell(s); err != nil {
				t.Fatalf("%s: %v\n%s", daemon, err, out)
			}
			return strings.Join(strings.Fields(h.read(daemon+".conf")), " ")
		}
		announced := func(text, dev, prefix string) bool {
			if daemon == "dnsmasq" {
				return strings.Contains(text, "constructor:"+dev+",")
			}
			return strings.Contains(text, prefix)
		}
		lan := func(text string) bool { return announced(text, "lan0", "2001:db8:1100::/64") }
		other := func(text string) bool { return announced(text, "lan1", "2001:db8:1101::/64") }
		if text := file(); !lan(text) || !other(text) {
			t.Errorf("%s: two networks without RAs of uplinkd:\n%s", daemon, text)
		}
		s.Downstreams[0].Announce.Send = true
		if text := file(); lan(text) || !other(text) || !strings.Contains(text, silent) {
			t.Errorf("%s: uplinkd announces on lan0:\n%s", daemon, text)
		}
		s.Downstreams[2].Announce.Send = true
		if text := file(); lan(text) || other(text) {
			t.Errorf("%s: uplinkd announces on both:\n%s", daemon, text)
		}
	}
}

// TestForeignRAFailures lets the reload fail, the daemon refuse its new file, and an interface have an evil name.
func TestForeignRAFailures(t *testing.T) {
	t.Parallel()
	netlab.NeedProgram(t, "radvd", "radvd")
	h := newHookDir(t, t.TempDir(), "radvd")
	list := steps()
	const reload = "try-reload-or-restart radvd\n"
	h.program("fail", "")
	if out, err := h.tell(list[0].site); err == nil || h.read("calls") != reload {
		t.Errorf("a reload that fails: %v, calls %q\n%s", err, h.read("calls"), out)
	}
	_ = os.Remove(filepath.Join(h.dir, "fail"))
	if out, err := h.tell(list[0].site); err != nil || h.read("calls") != reload+reload {
		t.Errorf("the same again, and it does not fail: %v, calls %q\n%s", err, h.read("calls"), out)
	}

	before := h.read("radvd.conf")
	h.program("radvd", "echo syntax error; exit 1")
	if out, err := h.tell(list[1].site); err == nil || !strings.Contains(out, "keeps its old configuration: syntax error") {
		t.Errorf("a file that radvd refuses: %v\n%s", err, out)
	}
	evil := list[1].site
	evil.Downstreams[0].Interface = "lan0 {};"
	if out, err := h.tell(evil); err == nil || !strings.Contains(out, "not a name") {
		t.Errorf("interface %q: %v\n%s", evil.Downstreams[0].Interface, err, out)
	}
	if h.read("radvd.conf") != before || h.read("calls") != reload+reload {
		t.Errorf("after failures there is\n%s\nand systemctl was called:\n%s", h.read("radvd.conf"), h.read("calls"))
	}
}

// TestForeignRA has radvd and dnsmasq advertise what uplinkd knows, through a renumbering.
func TestForeignRA(t *testing.T) {
	for _, c := range []struct {
		daemon, debianPackage string
		args                  func(h *hookDir) []string
		pid                   bool
	}{
		{"radvd", "radvd", func(h *hookDir) []string {
			return []string{"--nodaemon", "--logmethod=stderr", "--config=" + h.file, "--pidfile=" + filepath.Join(h.dir, "pid")}
		}, true},
		{"dnsmasq", "dnsmasq-base", func(h *hookDir) []string {
			return []string{"--keep-in-foreground", "--log-facility=-", "--port=0", "--user=root", "--no-resolv", "--conf-file=" + h.file,
				"--dhcp-leasefile=" + filepath.Join(h.dir, "leases"), "--pid-file=" + filepath.Join(h.dir, "pid")}
		}, false},
	} {
		t.Run(c.daemon, func(t *testing.T) {
			t.Parallel()
			netlab.NeedProgram(t, c.daemon, c.debianPackage)
			netlab.NeedProgram(t, "rdisc6", "ndisc6")
			s := newSite(t, false)
			h := newHookDir(t, s.dir, c.daemon)
			unit := c.daemon
			if c.pid {
				unit = filepath.Join(h.dir, "pid")
			}
			v := s.simulate(forever)
			s.configure(prompt + h.config(unit))
			s.start()
			s.awaitHealthy()
			s.eventually("a file that makes a default router", func() (bool, string) {
				text := h.read(c.daemon + ".conf")
				return strings.Contains(text, "1800"), text
			})
			s.byHand(h, unit)
			calls := h.read("calls")
			s.router.Start(s.router.Command(t.Context(), c.daemon, c.args(h)...))
			old := s.hostAddress(pool, "preferred", preferred)
			oldPrefix, _ := old.Local.Prefix(64)
			s.reach()

			if err := v.Renumber(netip.MustParsePrefix(newPool), 6); err != nil {
				t.Fatal(err)
			}
			if _, stderr, status := s.run("renew", "fiber"); status != 0 {
				t.Fatalf("renew: %s", stderr)
			}
			s.hostAddress(newPool, "preferred", preferred)
			s.hostAddress(pool, "deprecated", deprecated)
			s.reach()
			if now := h.read("calls"); now != calls { // radvd had a signal, dnsmasq has seen it by itself
				t.Errorf("systemctl was called:\n%s", strings.TrimPrefix(now, calls))
			}
			s.eventually("nothing of the old lease but a route to hosts that still have it", func() (bool, string) {
				left := s.rowsOf(oldPrefix)
				return left == oldPrefix.String()+" dev lan0 metric 255 proto 200\n", left
			})
			s.eventually("an RA that takes back the old prefix", func() (bool, string) {
				out := output(s.host, "rdisc6", "-1", "-r", "2", "-w", "2000", "eth0")
				return preferredTime(out, oldPrefix) == "0", out
			})
			s.hostAddress(newPool, "preferred", preferred)
			s.reach()
		})
	}
}

// byHand calls the hook with what status says, as it describes itself. Nothing has changed, and so must the file not.
func (s *site) byHand(h *hookDir, unit string) {
	s.t.Helper()
	want := h.read(h.daemon + ".conf")
	if err := os.Remove(h.file); err != nil {
		s.t.Fatal(err)
	}
	script := `"$0" status --config "$1" --json | jq '{time, site: .}' | "$2" "$3" "$4" "$5" now`
	s.router.Run("sh", "-e", "-c", script, os.Getenv(binaryVar), s.config, filepath.Join(h.dir, "hook"), h.daemon, h.file, unit)
	if got := h.read(h.daemon + ".conf"); got != want {
		s.t.Errorf("by hand the hook has written\n%s\nand by itself\n%s", got, want)
	}
}

// preferredTime is the preferred lifetime of a prefix in the output of rdisc6.
func preferredTime(out string, p netip.Prefix) string {
	_, after, _ := strings.Cut(out, p.String())
	for line := range strings.Lines(after) {
		name, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) == "Pref. time" {
			return strings.Fields(value)[0]
		}
	}
	return ""
}
