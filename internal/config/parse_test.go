package config

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "rewrite the expected errors in testdata")

const smallest = `[uplink.fiber]
interface = "wan0"

[downstream.lan]
interface = "lan0"
`

// defaultDHCPv6 is an uplink without keys dhcpv6.*.
var defaultDHCPv6 = DHCPv6{Prefixes: []PrefixWish{{}}, Address: AddressAuto, Information: true, RapidCommit: true, Reconfigure: true,
	Delay: true, ReportAfter: 15 * time.Second, Prefer: "preference", Start: StartLink, DUID: "auto"}

// defaultServer and defaultRA are an access network without keys dhcpv6.* and ra.*.
var (
	defaultServer = Server{Enabled: true, Delegate: true, Length: 64, Shortest: 60}
	defaultRA     = RA{Enabled: true, MaxInterval: 600 * time.Second, MinInterval: 200 * time.Second, RouterLifetime: 1800 * time.Second,
		PreferredLifetime: 2700 * time.Second, ValidLifetime: 5400 * time.Second, Preference: "medium", Routes: true, Autonomous: true, OnLink: true}
)

var sameValue = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestDefaults(t *testing.T) {
	got, err := Parse(File{"uplinkd.toml", []byte(smallest)})
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		StateDir:  "/var/lib/uplinkd",
		RunDir:    "/run/uplinkd",
		TableBase: 1000,
		RuleBase:  RuleBase{AnyIP: 500, Main: 1000, OIF: 9000, From: 10000, Withdrawn: 12000, Strict: 19999, OnLink: 20000},
		Uplinks: []Uplink{{
			Name: "fiber", Interface: "wan0", Metric: 1000,
			DHCPv6: defaultDHCPv6,
			Pos:    Position{"uplinkd.toml", 1, 1},
		}},
		Downstreams: []Downstream{{
			Name: "lan", Interface: "lan0", Kind: Access, Subnet: AutoSubnet, Length: 64, Address: netip.MustParseAddr("::1"),
			DHCPv6: defaultServer, RA: defaultRA,
			Pos: Position{"uplinkd.toml", 4, 1},
		}},
	}
	if diff := cmp.Diff(want, got, sameValue); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestEveryKey(t *testing.T) {
	got, err := Parse(
		File{"uplinkd.toml", []byte(`
state_dir = "/srv/state"
run_dir = "/srv/run"
table_base = 5000
ula = "fd12:3456:789a::/48"
[rules]
anyip = 1
main = 2
oif = 100
from = 700
withdrawn = 1300
strict = 1900
onlink = 1901
[uplink."dsl.7"]
interface = "ppp0"
metric = 0x10
[uplink."dsl.7".dhcpv6]
length = 48
address = "never"
information = false
rapid_commit = false
reconfigure = false
release = true
delay = false
report_after = 60
prefer = "largest"
start = "ra"
duid = "uuid"
iaid = 7
auth = "0x0000000000000000000000"
request = [17, 0xfde8]
dscp = 48
priority = 6
`)},
		File{"conf.d/guest.toml", []byte(`
uplink.fiber = { interface = "wan0" }
[downstream.guest]
interface = "br-guest"
kind = "access"
from = ["fiber", "dsl.7"]
subnet = 0xff
length = 64
address = "::53"
ra = { enabled = false, max_interval = 4, min_interval = "3s", router_lifetime = 0, preferred_lifetime = "1h30m", preference = "high", routes = false, on_link = false, managed = true }
dhcpv6 = { enabled = false, delegate = false, length = 62, shortest = 61 }
`)},
		File{"conf.d/hooks.toml", []byte(`
[hook.firewall]
run = ["/usr/local/bin/firewall", "--reload now"]
dialect = "uplinkd"
on = ["prefix.*", "uplink.down"]
timeout = "1.5s"
[downstream.one]
interface = "one"
from = "fiber"
length = 128
ra.valid_lifetime = "2h"
ra.dns = ["2001:db8::53", "fe80::1"]
ra.mtu = 1280
ra.autonomous = false
`)})
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		StateDir: "/srv/state", RunDir: "/srv/run", TableBase: 5000,
		ULA:      ULA{Prefix: netip.MustParsePrefix("fd12:3456:789a::/48")},
		RuleBase: RuleBase{AnyIP: 1, Main: 2, OIF: 100, From: 700, Withdrawn: 1300, Strict: 1900, OnLink: 1901},
		Uplinks: []Uplink{
			{Name: "dsl.7", Interface: "ppp0", Metric: 16, DHCPv6: DHCPv6{
				Prefixes: []PrefixWish{{Length: 48}}, Address: AddressNever, Release: true, ReportAfter: time.Minute, Prefer: "largest",
				Start: StartRA, DUID: "uuid", IAID: new(uint32(7)), Auth: make([]byte, 11), Request: []uint16{17, 0xfde8}, DSCP: 48, Priority: 6}, Pos: Position{"uplinkd.toml", 14, 1}},
			{Name: "fiber", Interface: "wan0", Metric: 1000, DHCPv6: defaultDHCPv6,
				Pos: Position{"conf.d/guest.toml", 2, 1}},
		},
		Downstreams: []Downstream{
			{Name: "guest", Interface: "br-guest", Kind: Access, From: []string{"fiber", "dsl.7"}, Subnet: 255, Length: 64,
				Address: netip.MustParseAddr("::53"),
				RA: RA{MaxInterval: 4 * time.Second, MinInterval: 3 * time.Second, PreferredLifetime: 5400 * time.Second,
					ValidLifetime: 5400 * time.Second, Preference: "high", Autonomous: true, Managed: true},
				DHCPv6: Server{Length: 62, Shortest: 61},
				Pos:    Position{"conf.d/guest.toml", 3, 1}},
			{Name: "one", Interface: "one", Kind: Access, From: []string{"fiber"}, Subnet: AutoSubnet, Length: 128,
				Address: netip.IPv6Unspecified(),
				RA: RA{Enabled: true, MaxInterval: 600 * time.Second, MinInterval: 200 * time.Second, RouterLifetime: 1800 * time.Second,
					PreferredLifetime: 2700 * time.Second, ValidLifetime: 7200 * time.Second,
					DNS: []netip.Addr{netip.MustParseAddr("2001:db8::53"), netip.MustParseAddr("fe80::1")}, MTU: 1280, Preference: "medium", Routes: true, OnLink: true},
				DHCPv6: defaultServer,
				Pos:    Position{"conf.d/hooks.toml", 7, 1}},
		},
		Hooks: []Hook{{Name: "firewall", Run: []string{"/usr/local/bin/firewall", "--reload now"}, Dialect: "uplinkd",
			On: []string{"prefix.*", "uplink.down"}, Timeout: 1500 * time.Millisecond, Pos: Position{"conf.d/hooks.toml", 2, 1}}},
	}
	if diff := cmp.Diff(want, got, sameValue); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestErrors parses each configuration in testdata, a directory of TOML files, and compares what is wrong with it with the
// file "errors".
func TestErrors(t *testing.T) {
	for name, files := range configurations(t) {
		t.Run(name, func(t *testing.T) {
			got := "ok\n"
			if _, err := Parse(files...); err != nil {
				got = err.Error() + "\n"
			}
			golden := filepath.Join("testdata", name, "errors")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// configurations reads testdata/NAME/uplinkd.toml and testdata/NAME/conf.d/*.toml.
func configurations(t testing.TB) map[string][]File {
	t.Helper()
	mains, err := filepath.Glob("testdata/*/uplinkd.toml")
	if err != nil || len(mains) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	all := map[string][]File{}
	for _, main := range mains {
		dir := filepath.Dir(main)
		more, err := filepath.Glob(filepath.Join(dir, "conf.d", "*.toml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range append([]string{main}, more...) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := filepath.Rel(dir, path)
			all[filepath.Base(dir)] = append(all[filepath.Base(dir)], File{name, b})
		}
	}
	return all
}

func TestErrorsAs(t *testing.T) {
	_, err := Parse(File{"x.toml", []byte("[uplink.a]\nmetric = 0\n")})
	all, ok := errors.AsType[Errors](err)
	if !ok || len(all) != 2 {
		t.Fatalf("got %#v, want Errors with two mistakes", err)
	}
	one, ok := errors.AsType[Error](err)
	want := Error{Pos: Position{"x.toml", 1, 1}, Path: "uplink.a.interface", Msg: `missing; write for example interface = "wan0"`}
	if !ok || one != want {
		t.Errorf("got %#v, want %#v", one, want)
	}
}

// However the authentication information is written wrongly, what is said about it is said without it.
func TestSecretIsNotShown(t *testing.T) {
	const secret = "0000000000000000000000534543524554"
	for _, line := range []string{
		"dhcpv6.auth = " + secret, "dhcpv6.auth = " + secret + "xyz", "dhcpv6.auth = 0x" + secret, "dhcpv6.\"auth\" = " + secret + "abc",
		"dhcpv6 = { auth = " + secret + "abc }", "dhcpv6.auht = " + secret + "abc", "auth = " + secret + "abc", "dhcpv6.auth = \"" + secret,
		"dhcpv6.auth = \"" + secret + "xyz\"", "dhcpv6.auth = [\"" + secret + "\"]", "dhcpv6.auth = [" + secret + "abc]",
		"dhcpv6.auth = " + secret + "abc " + secret, "dhcpv6.auth = '" + secret + "' '" + secret + "'", "dhcpv6.auth = -" + secret,
		"dhcpv6.auth =\n" + secret, "dhcpv6.auth = \"" + strings.Repeat(secret, 100) + "\"", "dhcpv6.auth = \"\\q" + secret + "\"",
	} {
		_, err := Parse(File{"uplinkd.toml", []byte("[uplink.fiber]\ninterface = \"wan0\"\n" + line + "\n")})
		if err == nil || strings.Contains(err.Error(), "5345") || !strings.HasPrefix(err.Error(), "uplinkd.toml:") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	big := File{"conf.d/big.toml", []byte(strings.Repeat("#", MaxFileSize+1))}
	_, err := Parse(File{"uplinkd.toml", []byte(smallest)}, big)
	if want := "conf.d/big.toml:1:1: the file has 1048577 bytes; at most 1048576 are read"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestNoFiles(t *testing.T) {
	if _, err := Parse(); err == nil {
		t.Error("no files make a configuration")
	}
}

func TestTooManyUplinks(t *testing.T) {
	var b strings.Builder
	for i := range MaxUplinks + 1 {
		fmt.Fprintf(&b, "[uplink.u%03d]\ninterface = \"u%03d\"\n", i, i)
	}
	_, err := Parse(File{"uplinkd.toml", []byte(b.String())})
	if want := "uplinkd.toml:1025:1: uplink: 513 sections; at most 512 are supported"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// equalButPlaces compares configurations without the positions of their sections.
var equalButPlaces = cmp.Options{sameValue, cmpopts.IgnoreTypes(Position{}), cmpopts.EquateEmpty()}

func FuzzParse(f *testing.F) {
	f.Add(smallest, "")
	for _, files := range configurations(f) {
		second := ""
		if len(files) > 1 {
			second = string(files[1].Data)
		}
		f.Add(string(files[0].Data), second)
	}
	f.Add(reference(f, true), "")
	f.Fuzz(func(t *testing.T, first, second string) {
		files := []File{{"a", []byte(first)}, {"b", []byte(second)}}
		config, err := Parse(files...)
		if err == nil {
			if len(config.Uplinks) == 0 {
				t.Error("a configuration without uplinks was accepted")
			}
			for _, u := range config.Uplinks {
				sound(t, u.DHCPv6)
			}
			for _, d := range config.Downstreams {
				soundUse(t, d)
			}
			return
		}
		all, ok := errors.AsType[Errors](err)
		if !ok || len(all) == 0 || config != nil {
			t.Fatalf("got %v and %#v", config, err)
		}
		for i, e := range all {
			if e.Pos.Line < 1 || e.Pos.Column < 1 || e.Pos.File == "" {
				t.Errorf("no position: %#v", e)
			}
			if i > 0 && e.Pos.File == all[i-1].Pos.File && e.Pos.Line < all[i-1].Pos.Line {
				t.Errorf("not sorted: %v after %v", e, all[i-1])
			}
			if strings.ContainsFunc(e.Error(), func(c rune) bool { return !unicode.IsPrint(c) }) {
				t.Errorf("not printable: %q", e.Error())
			}
		}
	})
}
