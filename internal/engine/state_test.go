package engine

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/fake"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/pd/store"
	"uplinkd/policy"
)

// hostile are put in the place of every value of every state file, in turn.
var hostile = []string{`null`, `{}`, `[]`, `[null]`, `""`, `-1`, `1e300`, `18446744073709551615`, `4294967295`, `true`, `"\u001b[2J\n"`, `"::/0"`, `"2000::/3"`,
	`"fe80::1"`, `"ff02::1/128"`, `"192.0.2.0/24"`, `"192.0.2.1"`, `"::1"`, `"forever"`, `"9999-12-31T23:59:59Z"`, `{"x":{"y":[1]}}`}

var allHostile = flag.Bool("hostile", false, "TestHostileState: all variants of the state files instead of some, a minute")

// TestHostileState replaces each value in each state file by each of these, and starts an engine with it. Whatever it makes of
// that: nothing reaches the kernel, hosts or a log that must not, and when the provider has said what there is, the site works.
// Every run takes other variants.
func TestHostileState(t *testing.T) {
	files, leases := stateFiles(t)
	start := *seed
	if start == 0 {
		start = uint64(time.Now().UnixNano())
	}
	t.Logf("variants with -seed %d", start)
	rnd := rand.New(rand.NewPCG(start, 0))
	seen := map[string]bool{}
	skip := func(where string) bool {
		seen[where] = true
		return !*allHostile && rnd.IntN(10) > 0
	}
	var found []string // a failure inside a bubble would end the test
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content := files[name]
		each(t, content, func(where string, b []byte) {
			if skip(name + where) {
				return
			}
			synctest.Test(t, func(t *testing.T) {
				s := &damaged{newMemory()}
				maps.Copy(s.files, files)
				s.files[name] = b
				found = append(found, hostileStart(t, name+where, s, func(o *Options) {
					if o.Leases = maps.Clone(leases); name == reportedFile { // what was reported stands in for a lease
						delete(o.Leases, "fiber")
						o.Lost = []string{"fiber"}
					}
				})...)
			})
		})
	}
	// A lease is read by the store, before the engine is there.
	dir := t.TempDir()
	b, err := json.Marshal(leases["fiber"])
	if err != nil {
		t.Fatal(err)
	}
	each(t, b, func(where string, b []byte) {
		if skip("lease" + where) {
			return
		}
		lease, lost := stored(t, filepath.Join(dir, fmt.Sprint(len(seen), "-", len(b))), b)
		synctest.Test(t, func(t *testing.T) {
			s := &damaged{newMemory()}
			maps.Copy(s.files, files)
			found = append(found, hostileStart(t, "lease"+where, s, func(o *Options) {
				o.Leases = maps.Clone(leases)
				if o.Leases["fiber"] = lease; lost || !lease.Held() {
					delete(o.Leases, "fiber")
				}
				if lost {
					o.Lost = []string{"fiber"}
				}
			})...)
		})
	})
	for _, line := range found {
		t.Error(line)
	}
	if len(seen) < 1000 {
		t.Errorf("only %d variants of the state files", len(seen))
	}
}

// Whatever uplinkd comes to report is believed at the next start.
func TestOwnReportIsBelieved(t *testing.T) {
	files, _ := stateFiles(t)
	for _, p := range places {
		synctest.Test(t, func(t *testing.T) {
			kern, s := &fake.Kernel{Link: fakeLinks()}, newMemory()
			e, stop := startStoppable(t, kern, s, parse(t, p.config))
			walker{t, e, kern, kern.SetLink}.visit(p)
			stop()
			files[p.name] = s.files[reportedFile]
		})
	}
	delete(files, ledgerFile)
	for name, content := range files {
		var r reported
		if content == nil { // nothing to report
			continue
		}
		if err := errors.Join(json.Unmarshal(content, &r), r.sound()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// damaged is a Store that finds as pd/store does what is no JSON or of the wrong type.
type damaged struct{ *memory }

var errDamaged = errors.New("damaged")

func (s *damaged) ReadJSON(name string, version int, v any) error {
	err := s.memory.ReadJSON(name, version, v)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return err
}

// hostileConfig has all that leaves traces on disk.
const hostileConfig = "ula = \"fd12:3456:789a::/48\"\n" + fiber + cable + lan + guest + service

// stateFiles are the engine's files and leases after a life with two uplinks, an inner router, and a renumbering.
func stateFiles(t *testing.T) (files map[string][]byte, leases map[string]pd.Lease) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		kern, s := &fake.Kernel{Link: fakeLinks()}, newMemory()
		e, stop := startStoppable(t, kern, s, parse(t, hostileConfig))
		w := walker{t, e, kern, kern.SetLink}
		w.visit(place{config: hostileConfig, leases: both(give("fiber", "2001:db8:1100::/56"), give("cable", "2001:db8:2100::/56")),
			routers: both(via("fiber", "fe80::1"), via("cable", "fe80::3")), inner: true})
		allTold(e)
		pass(time.Minute)
		w.visit(place{config: hostileConfig, leases: both(give("fiber", "old 2001:db8:1100::/56", "2001:db8:1200::/56"), give("cable", "2001:db8:2200::/56")),
			routers: both(via("fiber", "fe80::1"), via("cable", "fe80::3")), inner: true})
		allTold(e)
		pass(time.Minute)
		stop()
		files, leases = s.files, s.leases
	})
	if len(files) != 2 || len(leases) != 2 {
		t.Fatalf("files %v, leases %v", slices.Sorted(maps.Keys(files)), leases)
	}
	return files, leases
}

// allTold has both uplinks tell what they delegate now and all else that can be told.
func allTold(e *Engine) {
	fiber := lease([]string{"old 2001:db8:1100::/56", "2001:db8:1200::/56"})
	fiber.Info = pd.Info{DNS: []netip.Addr{netip.MustParseAddr("2001:db8::53")}, DomainSearch: []string{"example.net"}, NTPNames: []string{"ntp.example.net"},
		AFTR: "aftr.example.net", CaptivePortal: "https://portal.example/", S46: []pd.Option{{Code: 94, Data: []byte{0, 89, 0, 0}}}}
	e.Heard("fiber", policy.Heard{Routers: []policy.Router{{Address: netip.MustParseAddr("fe80::1"), Until: lifetime.Forever()}},
		PREF64: []policy.PREF64{{Prefix: netip.MustParsePrefix("64:ff9b::/96"), Until: lifetime.Forever()}}})
	e.Heard("cable", policy.Heard{Routers: []policy.Router{{Address: netip.MustParseAddr("fe80::3"), Until: lifetime.Forever()}}})
	e.Client("fiber", ClientStatus{State: "bound", Reported: true, Lease: fiber}, true)
	e.Client("cable", ClientStatus{State: "bound", Reported: true, Lease: lease([]string{"2001:db8:2200::/56"})}, true)
}

// each calls f with every variant of a JSON text in which one value is a hostile one, or an object has a key that nobody knows.
func each(t *testing.T, text []byte, f func(where string, b []byte)) {
	t.Helper()
	var root any
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	emit := func(where string) {
		b, err := json.Marshal(root)
		if err != nil {
			t.Fatal(err)
		}
		f(where, b)
	}
	var visit func(where string, v any, set func(any))
	visit = func(where string, v any, set func(any)) {
		for _, h := range hostile {
			set(json.RawMessage(h))
			emit(where + "=" + h)
		}
		set(v)
		switch v := v.(type) {
		case map[string]any:
			v["unknown"] = map[string]any{"x": nil}
			emit(where + ".unknown")
			delete(v, "unknown")
			for _, k := range slices.Sorted(maps.Keys(v)) {
				visit(where+"."+k, v[k], func(x any) { v[k] = x })
				was := v[k]
				delete(v, k)
				v["\x1b[2J"+k] = was
				emit(where + "." + k + " renamed")
				delete(v, "\x1b[2J"+k)
				v[k] = was
			}
		case []any:
			for i := range v[:min(1, len(v))] {
				visit(fmt.Sprintf("%s[%d]", where, i), v[i], func(x any) { v[i] = x })
			}
		}
	}
	visit("", root, func(x any) { root = x })
}

// stored is what pd/store makes of a lease file with that content.
func stored(t *testing.T, dir string, content []byte) (l pd.Lease, lost bool) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lease-fiber.json"), fmt.Appendf(nil, `{"version":1,"data":%s}`, content), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := store.ReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err = d.Lease("fiber")
	if err != nil && !errors.Is(err, store.ErrCorrupt) {
		t.Fatal(err)
	}
	return l.At(time.Now()), err != nil
}

// hostileStart starts an engine with these files, watches what it does, has the uplinks report, and returns what is wrong.
func hostileStart(t *testing.T, what string, s Store, change func(*Options)) (found []string) {
	t.Helper()
	kern := &fake.Kernel{Link: fakeLinks()}
	var log strings.Builder
	bad := func(format string, args ...any) {
		found = append(found, what+": "+fmt.Sprintf(format, args...))
	}
	e, stop := startStoppable(t, kern, s, parse(t, hostileConfig), change, func(o *Options) {
		o.Damaged, o.Log = errDamaged, slog.New(slog.NewTextHandler(&log, nil))
		o.Repaired = func(_ string, err error) error { return err }
		o.Announce = func(d string, a policy.Announcement) {
			for _, p := range a.Prefixes {
				if err := checkDelegation(p.Prefix); err != nil {
					bad("%s announces %s: %v", d, p.Prefix, err)
				}
			}
			if err := (pd.Info{DNS: a.DNS, DomainSearch: a.Search, CaptivePortal: a.CaptivePortal}).Check(); err != nil {
				bad("%s announces: %v", d, err)
			}
			for _, p := range a.PREF64 {
				if err := checkTold(policy.Told{PREF64: []policy.PREF64{p}}); err != nil {
					bad("%s announces: %v", d, err)
				}
			}
		}
		o.Events = func(items []Item, _ policy.Site) {
			for _, i := range items {
				if err := checkText(strings.ReplaceAll(i.Text(), "→", "")); err != nil {
					bad("event: %v", err)
				}
			}
		}
	})
	pass(time.Second)
	allTold(e)
	pass(time.Minute)
	allTold(e) // what was adopted is over
	pass(5 * time.Second)
	snap := e.Snapshot()
	stop()
	for _, op := range kern.Log {
		if err := harmless(op.Row); err != nil {
			bad("%s: %v", op.Text(time.Now()), err)
		}
	}
	lan := snap.Site.Downstream("lan")
	if !snap.Ready || len(lan.Subnets) != 4 || len(snap.Problems) > 0 {
		bad("ready %v, subnets %v, problems %v", snap.Ready, lan.Subnets, snap.Problems)
	}
	if strings.ContainsAny(log.String(), "\x1b\x00") || strings.Contains(log.String(), "runtime error") {
		bad("log: %q", log.String())
	}
	return found
}

// harmless is what any row must be, whatever the disk says.
func harmless(row kernel.Row) error {
	check := func(p netip.Prefix, allowed ...string) error {
		if !p.IsValid() || slices.Contains(allowed, p.String()) {
			return nil
		}
		return checkDelegation(p.Masked())
	}
	switch r := row.(type) {
	case kernel.Address:
		if !slices.Contains([]string{"lan0", "lan1", "lo"}, r.Dev) {
			return errors.New("on a strange device")
		}
		return check(r.Prefix)
	case kernel.Route:
		if (r.Table < 1000 || r.Table > 1600) && r.Table != kernel.TableMain && r.Table != kernel.TableLocal {
			return errors.New("in a strange table")
		}
		return check(r.Dst, "::/0")
	case kernel.Rule:
		if r.Priority < 1000 || r.Priority > 20600 {
			return errors.New("a strange priority")
		}
		if err := check(r.To); err != nil {
			return err
		}
		return check(r.From, "2000::/3", "fc00::/7")
	case kernel.Sysctl:
		if !ownSysctl.MatchString(r.Name) || !sysctlValue.MatchString(r.Value) {
			return errors.New("a strange variable")
		}
	}
	return nil
}
