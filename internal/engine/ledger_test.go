package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel/fake"
)

// believed are ledgers on disk, and what is left of them.
var believed = map[string]struct{ disk, left, found string }{
	"what uplinkd writes": {
		disk: `{"plan":{"uplinks":{"a":1,"b":512},"had":{"lan":["2001:db8:1:1::/64"]},"announced":{"lan":[{"prefix":"2001:db8:1:1::/64","until":"forever"}]}},` +
			`"sysctls":{"net.ipv6.conf.all.forwarding":"0","net.ipv6.conf.eth0/7.accept_ra":"1","net.ipv6.conf.wan0.ra_honor_pio_pflag":"absent"},` +
			`"addresses":[{"dev":"lan0","prefix":"2001:db8:1:1::1/64"}]}`,
		left: "a=1 b=512 had=1 announced=1 sysctls=3 addresses=1"},
	"one number twice": {
		disk: `{"plan":{"uplinks":{"a":7,"b":7,"c":2}}}`,
		left: "a=7 c=2", found: `uplinks: "a" and "b" have the number 7`},
	"numbers out of range": {
		disk: `{"plan":{"uplinks":{"a":0,"b":22766,"c":4294967295,"d":513,"e":512}}}`,
		left: "e=512", found: `uplinks: "a" has the number 0, want 1 to 512; uplinks: "b" has the number 22766, want 1 to 512; ` +
			`uplinks: "c" has the number 4294967295, want 1 to 512; uplinks: "d" has the number 513, want 1 to 512`},
	"sysctls of others": {
		disk: `{"sysctls":{"../../../etc/x":"1","net.ipv6.conf.wan0.disable_ipv6":"1","net.ipv6.conf.wan0.accept_ra":"1\n2","net.ipv6.conf.lan0.accept_ra":"1"}}`,
		left: "sysctls=1", found: `sysctls: "../../../etc/x" = "1" is none that uplinkd sets; sysctls: "net.ipv6.conf.wan0.accept_ra" = "1\n2" is none ` +
			`that uplinkd sets; sysctls: "net.ipv6.conf.wan0.disable_ipv6" = "1" is none that uplinkd sets`},
	"routes to everything": {
		disk: `{"plan":{"had":{"lan":["::/0","2001:db8::/64"]},"held":{"a":[{"prefix":"10.0.0.0/8","until":"forever"},{"prefix":"2001:db8::/48","until":"2036-01-01T00:00:00Z"}]},"loopback":{"a":["fe80::/64"]},` +
			`"announced":{"lan":[{"prefix":"::/0","until":"2036-01-01T00:00:00Z"},{"prefix":"2001:db8::1/64","until":"forever"}]}}}`,
		left: "had=1 held=1", found: `"announced on lan": 2001:db8::1/64 cannot be a prefix of a provider or a site; "announced on lan": ::/0 cannot be a prefix of a provider or a site; ` +
			`"had of lan": ::/0 cannot be a prefix of a provider or a site; "held by a": 10.0.0.0/8 cannot be a prefix of a provider or a site; ` +
			`"loopback of a": fe80::/64 is not global`},
	"loans and addresses": {
		disk: `{"plan":{"loans":{"lan":[{"prefix":"ff02::/64","until":"forever"}]},"places":{"lan":[{"length":200},{"length":60,"prefixes":["::/0"]},{"length":60}]}},` +
			`"addresses":[{"dev":"\u001b[2J","prefix":"2001:db8::1/64"},{"dev":"lan0","prefix":"::1/128"}]}`,
		left: "places=1", found: `"addresses": "\x1b[2J" is no name of an interface; "addresses": ::1/128 is not global; "loans of lan": ff02::/64 is not global; ` +
			`"places of lan": ::/0 cannot be a prefix of a provider or a site; "places of lan": length 200, want 128 at most`},
	"a list without end": {
		disk: `{"plan":{"announced":{"lan":[` + strings.Repeat(`{"prefix":"2001:db8:9::/64","until":"2036-01-01T00:00:00Z"},`, 5000) + `{"prefix":"::/0","until":"forever"}]}}}`,
		left: "announced=4096", found: `"announced on lan": 5001 records, want 4096 at most`},
	"more than fits into a line": {
		disk: `{"plan":{"uplinks":{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0}}}`,
		left: "", found: `uplinks: "a" has the number 0, want 1 to 512; uplinks: "b" has the number 0, want 1 to 512; uplinks: "c" has the number 0, want 1 to 512; ` +
			`uplinks: "d" has the number 0, want 1 to 512; uplinks: "e" has the number 0, want 1 to 512; and 2 more`},
}

func TestLedgerIsNotBelieved(t *testing.T) {
	for name, c := range believed {
		var d durable
		if err := json.Unmarshal([]byte(c.disk), &d); err != nil {
			t.Fatal(name, err)
		}
		found := ""
		if err := d.sound(); err != nil {
			found = err.Error()
		}
		if found != c.found {
			t.Errorf("%s: found\n%s\nwant\n%s", name, found, c.found)
		}
		if got := contents(d); got != c.left {
			t.Errorf("%s: left is %q, want %q", name, got, c.left)
		}
		if err := d.sound(); err != nil {
			t.Errorf("%s: twice: %v", name, err)
		}
	}
}

func contents(d durable) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(d.Plan.Uplinks)) {
		parts = append(parts, fmt.Sprintf("%s=%d", name, d.Plan.Uplinks[name]))
	}
	count := func(what string, n int) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s=%d", what, n))
		}
	}
	count("had", len(d.Plan.Had["lan"]))
	count("held", len(d.Plan.Holds["a"]))
	count("loopback", len(d.Plan.Loopback["a"]))
	count("announced", len(d.Plan.Announced["lan"]))
	count("loans", len(d.Plan.Loans["lan"]))
	count("places", len(d.Plan.Places["lan"]))
	count("sysctls", len(d.Sysctls))
	count("addresses", len(d.Addresses))
	return strings.Join(parts, " ")
}

// Whatever uplinkd comes to write is believed at the next start: in all places of the walk, and every sysctl by its name.
func TestOwnLedgerIsBelieved(t *testing.T) {
	for _, p := range places {
		synctest.Test(t, func(t *testing.T) {
			kern, store := &fake.Kernel{Link: fakeLinks()}, newMemory()
			e := start(t, kern, store, parse(t, p.config))
			walker{t, e, kern, kern.SetLink}.visit(p)
			synctest.Wait()
			var d durable
			if err := store.ReadJSON(ledgerFile, formatVersion, &d); err != nil {
				t.Fatal(p.name, err)
			}
			if err := d.sound(); err != nil {
				t.Errorf("%s: %v", p.name, err)
			}
			for _, s := range e.Snapshot().Wanted.Sysctls {
				if !ownSysctl.MatchString(s.Name) || !sysctlValue.MatchString(s.Value) {
					t.Errorf("%s: %s=%s would not be believed", p.name, s.Name, s.Value)
				}
			}
		})
	}
}

// A start with a ledger that somebody has edited: both uplinks get tables of their own, the kernel follows, and the disk has
// a ledger that can be believed, beside a copy of the other.
func TestStartWithEditedLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kern, store := &fake.Kernel{Link: fakeLinks()}, newMemory()
		store.files[ledgerFile] = []byte(`{"plan":{"uplinks":{"cable":9,"fiber":9},"subnets":{"lan":5}},"sysctls":{"../x":"1"},"addresses":[]}`)
		both := places[slices.IndexFunc(places, func(p place) bool { return p.name == "two-uplinks" })]
		var repaired []string
		e := start(t, kern, store, parse(t, both.config), func(o *Options) {
			o.Repaired = func(file string, cause error) error {
				repaired = append(repaired, file+": "+cause.Error())
				return errors.New("a copy is kept")
			}
		})
		walker{t, e, kern, kern.SetLink}.visit(both)
		synctest.Wait()
		numbers := map[uint32]bool{}
		for _, u := range e.Snapshot().Site.Uplinks {
			numbers[u.Number] = u.Number >= 1 && u.Number <= config.MaxUplinks
		}
		if len(numbers) != 2 || !e.Snapshot().Ready {
			t.Errorf("numbers %v, ready %v", numbers, e.Snapshot().Ready)
		}
		if want := `ledger.json: sysctls: "../x" = "1" is none that uplinkd sets; uplinks: "cable" and "fiber" have the number 9`; !slices.Equal(repaired, []string{want}) {
			t.Errorf("found %q, want %s", repaired, want)
		}
		var d durable
		if err := store.ReadJSON(ledgerFile, formatVersion, &d); err != nil || d.sound() != nil || d.Plan.Subnets["lan"] != 5 {
			t.Errorf("on disk: %+v, %v", d, err)
		}
	})
}

// A ledger written while the clock was years ahead: what it calls stale is forgotten in time all the same.
func TestLedgerOfTheFuture(t *testing.T) {
	for lifetime, cap := range map[string]time.Duration{"": MaxLoan, "ra.valid_lifetime = \"3h\"\n": 3 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			kern, store := &fake.Kernel{Link: fakeLinks()}, newMemory()
			store.files[ledgerFile] = []byte(`{"plan":{"announced":{"lan":[{"prefix":"2001:db8:ffff::/64","until":"2040-01-01T00:00:00Z"}]},` +
				`"loans":{"lan":[{"client":"00:03:00:01:69:6e:6e:65:72:30:30:30:31","iaid":1,"prefix":"2001:db8:eeee::/64","until":"2040-01-01T00:00:00Z"}]}},` +
				`"sysctls":{},"addresses":[],"borrowers":[{"downstream":"lan","client":"00:03:00:01:69:6e:6e:65:72:30:30:30:31","iaid":1,"via":"fe80::1:1","length":64,"until":"2040-01-01T00:00:00Z"}]}`)
			e := start(t, kern, store, parse(t, fiber+lan+lifetime))
			synctest.Wait()
			if s := e.Snapshot().Site.Downstream("lan").Stale; len(s) != 2 {
				t.Errorf("at first stale are %v", s)
			}
			pass(cap - time.Minute)
			if s := e.Snapshot().Site.Downstream("lan").Stale; len(s) == 0 {
				t.Errorf("stale is nothing before %s are over", cap)
			}
			pass(2 * time.Minute)
			if s := e.Snapshot().Site.Downstream("lan").Stale; len(s) != 0 {
				t.Errorf("after %s stale are %v", cap, s)
			}
		})
	}
}
