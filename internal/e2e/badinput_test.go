package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"uplinkd/internal/ctl"
	"uplinkd/internal/netlab"
)

// TestRefusals starts the daemon where it cannot work: it says why and what to do, and ends.
func TestRefusals(t *testing.T) {
	t.Parallel()
	netlab.NeedProgram(t, "setpriv", "util-linux")
	s := newSite(t, false)
	s.write("file", "")
	blocked := "state_dir = \"" + s.dir + "/file/state\"\n" + prompt
	for _, c := range []struct {
		what, config string
		prefix       []string // of the command
		status       int
		want         string
	}{
		{"no privilege", prompt, []string{"setpriv", "--bounding-set=-all", "--inh-caps=-all"}, 1,
			"uplinkd: no privilege: this process lacks CAP_NET_ADMIN, CAP_NET_RAW, CAP_NET_BIND_SERVICE; run it as root or through the systemd unit\n"},
		{"some privilege missing", prompt, []string{"setpriv", "--bounding-set=-net_raw", "--inh-caps=-all"}, 1,
			"uplinkd: no privilege: this process lacks CAP_NET_RAW; run it as root or through the systemd unit\n"},
		{"state directory below a file", blocked, nil, 1,
			"uplinkd: state directory DIR/file/state: not a directory: set state_dir\n"},
		{"misspelt key", strings.Replace(prompt, "interface", "interfce", 1), nil, 2,
			"uplinkd: DIR/uplinkd.toml:5:1: uplink.fiber.interfce: unknown key; did you mean \"interface\"?\n"},
		{"wrong type", strings.Replace(prompt, "false", "\"no\"", 1), nil, 2,
			"uplinkd: DIR/uplinkd.toml:6:16: uplink.fiber.dhcpv6.delay: expected true or false, found a string\n"},
		{"overlapping downstreams", prompt + "subnet = 1\n[downstream.b]\ninterface = \"lan1\"\nsubnet = 1\n", nil, 2,
			"uplinkd: DIR/uplinkd.toml:13:10: downstream.b.subnet: subnet id 1 is already that of downstream.lan (DIR/uplinkd.toml:10:10)\n"},
	} {
		t.Run(c.what, func(t *testing.T) {
			text := c.config
			if !strings.HasPrefix(text, "state_dir") {
				text = fmt.Sprintf("state_dir = %q\n", filepath.Join(s.dir, "state")) + text
			}
			s.write("uplinkd.toml", fmt.Sprintf("run_dir = %q\n", filepath.Join(s.dir, "run"))+text)
			cmd := s.router.Command(t.Context(), "env", append(c.prefix, os.Getenv(binaryVar), "run", "--config", s.config)...)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			_ = cmd.Run() // the status says more
			got := strings.ReplaceAll(errs.String(), s.dir, "DIR")
			if status := cmd.ProcessState.ExitCode(); status != c.status || got != c.want || out.Len() > 0 {
				t.Errorf("status %d, want %d\n%sgot\n%swant\n%s", status, c.status, out.String(), got, c.want)
			}
		})
	}
	if text := s.kernelText(); strings.Contains(text, "200") {
		t.Errorf("a daemon that refused to start wrote to the kernel:\n%s", text)
	}
}

// TestBadReload keeps the old config in force when the new one is wrong.
func TestBadReload(t *testing.T) {
	t.Parallel()
	s, _ := bound(t, forever, prompt)
	before := s.kernelText()
	s.configure(strings.Replace(prompt, "lan0", "lan0\"\nsubnet = \"sometimes", 1))
	if err := s.daemon.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.eventually("the new config to be refused", func() (bool, string) {
		out := s.daemon.Output()
		return strings.Contains(out, "stays in force") && strings.Contains(out, "uplinkd.toml:10:10"), out
	})
	s.reconciles(1)
	if now := s.kernelText(); now != before {
		t.Errorf("before:\n%safter:\n%s", before, now)
	}
	s.configure(prompt)
	s.hangup()
	s.awaitHealthy()
}

// TestSubnetTooLarge asks for a subnet that the delegation turns out not to have.
func TestSubnetTooLarge(t *testing.T) {
	t.Parallel()
	s, _ := bound(t, forever, prompt)
	s.configure(prompt + "subnet = 0x100\n")
	s.hangup()
	g := s.delegation(pool).Prefix
	s.problem(fmt.Sprintf("subnet id 256 does not fit: %s of uplink fiber has 256 /64 subnets (0 to 255)", g))
	s.configure(prompt)
	s.hangup()
	s.awaitHealthy()
	s.reach()
}

// TestMissingInterfaces starts the daemon without its interfaces. It says so, and works when they appear.
func TestMissingInterfaces(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	s.router.IP("link del lan0")
	s.router.IP("link del wan0")
	s.configure(prompt)
	s.start()
	s.missing("wan0")
	s.missing("lan0")
	if st := s.statusNow(); st.Health != ctl.NoPrefix {
		t.Errorf("health %s without an uplink", st.Health)
	}
	s.connectUplink()
	v := s.simulate(forever)
	s.delegation(pool)
	if st := s.statusNow(); st.Health != ctl.Degraded {
		t.Errorf("health %s without the downstream's interface", st.Health)
	}
	s.connectHost()
	s.awaitHealthy()
	s.hostAddress(pool, "preferred", preferred)
	s.reach()
	v.stop()
}

// TestSecondDaemon starts another daemon beside one that runs.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	s, _ := bound(t, forever, prompt)
	_, stderr, status := s.run("run")
	want := fmt.Sprintf("uplinkd: state directory %s/state: another uplinkd is running (process %d)\n", s.dir, s.daemon.PID())
	if status != 1 || stderr != want {
		t.Errorf("status %d, want 1\ngot  %swant %s", status, stderr, want)
	}
	s.awaitHealthy()
	s.reach()
}

// damages are what power cuts, full disks and editors do to a file.
var damages = map[string]func([]byte) []byte{
	"truncated": func(b []byte) []byte { return b[:len(b)/2] },
	"empty":     func([]byte) []byte { return nil },
	"garbage":   func([]byte) []byte { return []byte("\x00\x1b[31m\xff\"{]\n") },
}

// TestDamagedState damages each state file in each way while the daemon is down. It starts all the same, says what it
// misses, keeps the damaged file for the bug report, and nothing else is lost.
func TestDamagedState(t *testing.T) {
	t.Parallel()
	s, v := bound(t, forever, prompt)
	healthy, identity := s.kernelText(), s.stateFile("duid.json")
	for _, name := range []string{"lease-fiber.json", "ledger.json", "site.json", "duid.json"} { // a new DUID gets another prefix: last
		for what, damage := range damages {
			s.end(syscall.SIGTERM)
			damaged := damage(s.stateFile(name))
			if err := os.WriteFile(filepath.Join(s.dir, "state", name), damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			s.start()
			s.problem(name + " was damaged")
			s.keptDamaged(name, what, damaged)
			s.awaitHealthy()
			if name == "duid.json" {
				continue
			}
			if text := s.kernelText(); text != healthy {
				t.Errorf("%s %s: the kernel had\n%s\nand has\n%s", name, what, healthy, text)
			}
			if now := s.stateFile("duid.json"); !bytes.Equal(now, identity) {
				t.Errorf("%s %s: the DUID was lost as well:\n%s", name, what, now)
			}
			if strings.Contains(s.daemon.Output(), "prefix.lost") {
				t.Errorf("%s %s: a prefix that is still delegated was reported lost:\n%s", name, what, s.daemon.Output())
			}
			if n := len(v.Bindings()); n != 1 {
				t.Errorf("%s %s: the provider has %d bindings for one client", name, what, n)
			}
		}
	}
	s.hostAddress(pool, "preferred", preferred)
	s.reach()
}

func (s *site) stateFile(name string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "state", name))
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

var keptAs = regexp.MustCompile(`it is kept as ([^ "\\]+)`)

// keptDamaged finds in the log under which name the damaged file is kept, and removes it, which ends the problem.
func (s *site) keptDamaged(name, what string, content []byte) {
	s.t.Helper()
	var log string
	var m [][]string
	s.eventually("a line in the log about "+name, func() (bool, string) { // status may know sooner
		log = s.daemon.Output()
		m = keptAs.FindAllStringSubmatch(log, -1)
		return len(m) > 0, log
	})
	if len(m) != 1 || !strings.HasPrefix(m[0][1], name+".corrupt-") {
		s.t.Errorf("%s %s: the log tells of %v:\n%s", name, what, m, log)
		return
	}
	if kept := s.stateFile(m[0][1]); !bytes.Equal(kept, content) {
		s.t.Errorf("%s %s: %s has %q, the damaged file had %q", name, what, m[0][1], kept, content)
	}
	if err := os.Remove(filepath.Join(s.dir, "state", m[0][1])); err != nil {
		s.t.Error(err)
	}
	if strings.ContainsAny(log, "\x00\x1b") || !utf8.ValidString(log) {
		s.t.Errorf("%s %s: control characters in the log: %q", name, what, log)
	}
}
