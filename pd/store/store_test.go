package store

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

var equate = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
	cmp.Comparer(func(a, b lifetime.Deadline) bool { return a.Compare(b) == 0 })}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var lease = pd.Lease{
	ServerID: "\x00\x03\x00\x01\x02\x00\x00\x00\x02\x01",
	Received: start,
	T1:       lifetime.After(start, 1800),
	T2:       lifetime.After(start, 2880),
	Prefixes: []pd.LeasedPrefix{
		{IAID: 7, Prefix: netip.MustParsePrefix("2001:db8:100::/56"), Exclude: netip.MustParsePrefix("2001:db8:100:ff::/64"),
			PreferredUntil: lifetime.After(start, 3600), ValidUntil: lifetime.After(start, 7200)},
		{IAID: 8, Prefix: netip.MustParsePrefix("2001:db8:200::/56"), ValidUntil: lifetime.Forever()},
	},
	Addresses: []pd.LeasedAddress{{IAID: 9, Address: netip.MustParseAddr("2001:db8::7"), PreferredUntil: lifetime.After(start, 60),
		ValidUntil: lifetime.After(start, 7200)}},
	Info: pd.Info{
		DNS:           []netip.Addr{netip.MustParseAddr("2001:db8::53")},
		DomainSearch:  []string{"example.com"},
		NTP:           []netip.Addr{netip.MustParseAddr("2001:db8::123")},
		NTPNames:      []string{"ntp.example.com"},
		SNTP:          []netip.Addr{netip.MustParseAddr("2001:db8::124")},
		AFTR:          "aftr.example.com",
		CaptivePortal: "https://portal.example.com/",
		S46:           []pd.Option{{Code: pd.OptS46MapE, Data: []byte("map")}},
		Unknown:       []pd.Option{{Code: 17, Data: []byte{0, 0xff}}},
	},
	InfoUntil: lifetime.After(start, 86400),
	SolMaxRT:  7200,
	InfMaxRT:  3600,
	Reconf:    &pd.ReconfKey{ServerID: "\x00\x03\x00\x01\x02\x00\x00\x00\x02\x01", Key: []byte("0123456789abcdef"), Replay: 1<<64 - 1},
}

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// reopen is a restart of the daemon.
func reopen(t *testing.T, d *Dir) *Dir {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, d.path)
}

func put(t *testing.T, d *Dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.path, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, d *Dir) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(d.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestLeaseSurvivesRestart(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "new", "state"))
	if info, err := os.Stat(d.path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v %v, want mode 0700", info.Mode(), err)
	}
	if l, err := d.Lease("fiber"); err != nil || !cmp.Equal(l, pd.Lease{}, equate) {
		t.Errorf("before the first save: %+v, %v", l, err)
	}
	if err := d.SaveLease("fiber", lease); err != nil {
		t.Fatal(err)
	}
	got, err := reopen(t, d).Lease("fiber")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(lease, got, equate); diff != "" {
		t.Error(diff)
	}
}

func TestUnchangedIsNotWritten(t *testing.T) {
	d := open(t, t.TempDir())
	if err := d.SaveLease("fiber", lease); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(filepath.Join(d.path, "lease-fiber.json"))
	if err != nil {
		t.Fatal(err)
	}
	same := func() bool {
		if err := d.SaveLease("fiber", lease); err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(filepath.Join(d.path, "lease-fiber.json"))
		if err != nil {
			t.Fatal(err)
		}
		return os.SameFile(before, after) // every write makes a new file
	}
	if !same() {
		t.Error("equal lease was written again")
	}
	d.unsynced = true
	if same() {
		t.Error("equal lease was not written again although the rename may be lost")
	}
}

// TestKilledWhileWriting has the states of the disk that a SIGKILL or a power cut between the steps of replace leaves.
func TestKilledWhileWriting(t *testing.T) {
	for _, temp := range []string{"", `{"version": 1, "da`, "\x00\x00\x00\x00"} {
		d := open(t, t.TempDir())
		if err := d.SaveLease("fiber", lease); err != nil {
			t.Fatal(err)
		}
		put(t, d, "lease-fiber.json.tmp", temp)
		put(t, d, "lease-gone.json.tmp", temp)
		d = reopen(t, d)
		got, err := d.Lease("fiber")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(lease, got, equate); diff != "" {
			t.Error(diff)
		}
		if want := []string{"lease-fiber.json", "lock"}; !slices.Equal(files(t, d), want) {
			t.Errorf("files %q, want %q", files(t, d), want)
		}
	}
}

func TestFailedWriteKeepsOld(t *testing.T) {
	d := open(t, t.TempDir())
	if err := d.WriteJSON("ledger.json", 1, 1); err != nil {
		t.Fatal(err)
	}
	// A directory that is not empty in the place of the temporary file makes writing fail, also for root.
	inner := filepath.Join(d.path, "ledger.json.tmp", "inner")
	if err := os.MkdirAll(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	err := d.WriteJSON("ledger.json", 1, 2)
	if want := fmt.Sprintf("write %[1]s/ledger.json: remove %[1]s/ledger.json.tmp: directory not empty", d.path); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	var got int
	if err := d.ReadJSON("ledger.json", 1, &got); err != nil || got != 1 {
		t.Errorf("got %d, %v, want the old content", got, err)
	}
	if err := os.Remove(inner); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteJSON("ledger.json", 1, 3); err != nil {
		t.Errorf("after the cause is gone: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		_, err := Open(path)
		want := "state directory " + path + ": not a directory: set state_dir"
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	err := dirError("/var/lib/uplinkd", &fs.PathError{Op: "mkdir", Path: "/var/lib/uplinkd", Err: os.ErrPermission})
	if want := "state directory /var/lib/uplinkd: permission denied: run as root or set state_dir"; err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestOneDaemonPerDirectory(t *testing.T) {
	d := open(t, t.TempDir())
	_, err := Open(d.path)
	want := fmt.Sprintf("state directory %s: another uplinkd is running (process %d)", d.path, os.Getpid())
	if !errors.Is(err, ErrLocked) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, d, lockName, "not a number")
	open(t, d.path)
}

// TestLockOfTheDead has the lock held by what a killed daemon was just starting.
func TestLockOfTheDead(t *testing.T) {
	child := exec.Command("true")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	held := open(t, t.TempDir())
	put(t, held, lockName, fmt.Sprintf("%d\n", child.Process.Pid))
	var closed atomic.Bool
	go func() {
		time.Sleep(50 * time.Millisecond)
		closed.Store(true)
		held.lock.Close()
	}()
	open(t, held.path)
	if !closed.Load() {
		t.Error("opened while it was locked")
	}
}

func TestConcurrentOpen(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	opened := make([]*Dir, 16)
	for i := range opened {
		wg.Go(func() {
			d, err := Open(dir)
			if err != nil && !errors.Is(err, ErrLocked) {
				t.Error(err)
			}
			opened[i] = d
		})
	}
	wg.Wait()
	n := 0
	for _, d := range opened {
		if d != nil {
			n++
			d.Close()
		}
	}
	if n != 1 {
		t.Errorf("%d opened the directory, want 1", n)
	}
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadOnly(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
	w := open(t, dir)
	if err := w.SaveLease("fiber", lease); err != nil {
		t.Fatal(err)
	}
	put(t, w, "lease-dsl.json", "garbage")
	put(t, w, "lease-dsl.json.tmp", "being written")
	before := files(t, w)
	d, err := ReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got, err := d.Lease("fiber"); err != nil || !cmp.Equal(got, lease, equate) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := d.Lease("dsl"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
	if err := d.SaveLease("fiber", pd.Lease{}); !errors.Is(err, errReadOnly) {
		t.Errorf("save: got %v", err)
	}
	if _, err := d.DUID(func() pd.DUID { return "abc" }); !errors.Is(err, errReadOnly) {
		t.Errorf("DUID: got %v", err)
	}
	if after := files(t, w); !slices.Equal(before, after) {
		t.Errorf("files before %q, after %q", before, after)
	}
}

func TestDUID(t *testing.T) {
	const first, second = pd.DUID("\x00\x03\x00\x01\x02\x00\x00\x00\x01\x01"), pd.DUID("\x00\x03\x00\x01\x02\x00\x00\x00\x01\x02")
	d := open(t, t.TempDir())
	if _, err := d.DUID(func() pd.DUID { return "" }); err == nil {
		t.Error("an invalid DUID was accepted")
	}
	if id, err := d.DUID(func() pd.DUID { return first }); err != nil || id != first {
		t.Fatalf("created %s, %v", id, err)
	}
	d = reopen(t, d)
	if id, err := d.DUID(func() pd.DUID { t.Error("created again"); return second }); err != nil || id != first {
		t.Errorf("loaded %s, %v", id, err)
	}
	for _, bad := range []string{`{"version": 1, "data": "00"}`, `{"version": 1, "data": ""}`, `{"version": 1, "data": "00:03:00:0`} {
		put(t, d, duidName, bad)
		id, err := d.DUID(func() pd.DUID { return second })
		if !errors.Is(err, ErrCorrupt) || id != second {
			t.Errorf("%s: got %s, %v, want a new DUID and ErrCorrupt", bad, id, err)
		}
		if id, err := d.DUID(func() pd.DUID { t.Error("created again"); return first }); err != nil || id != second {
			t.Errorf("%s: loaded %s, %v", bad, id, err)
		}
	}
}

func TestNames(t *testing.T) {
	for uplink, want := range map[string]string{
		"fiber":         "lease-fiber.json",
		"wan-0_b":       "lease-wan-0_b.json",
		"../etc/passwd": "lease-%2E%2E%2Fetc%2Fpasswd.json",
		"a%2Eb":         "lease-a%252Eb.json",
		"ü\x00":         "lease-%C3%BC%00.json",
		"":              "lease-.json",
	} {
		if got := leaseName(uplink); got != want {
			t.Errorf("%q: got %s, want %s", uplink, got, want)
		}
	}
	d := open(t, t.TempDir())
	for _, name := range []string{"", ".", "..", "a/b", "../a", "a\x00", strings.Repeat("a", maxName+1)} {
		if err := d.WriteJSON(name, 1, 1); err == nil {
			t.Errorf("%.20q: written", name)
		}
		if err := d.ReadJSON(name, 1, new(int)); err == nil || errors.Is(err, ErrCorrupt) {
			t.Errorf("%.20q: got %v", name, err)
		}
	}
	if err := d.SaveLease(strings.Repeat("ü", 100), lease); err == nil {
		t.Error("an uplink whose file name is too long was accepted")
	}
}

func TestSymlinkLeavesNot(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside.json")
	if err := os.WriteFile(outside, []byte(`{"version": 1, "data": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	d := open(t, t.TempDir())
	if err := os.Symlink(outside, filepath.Join(d.path, "ledger.json")); err != nil {
		t.Fatal(err)
	}
	var got int
	if err := d.ReadJSON("ledger.json", 1, &got); !errors.Is(err, ErrCorrupt) || got != 0 {
		t.Errorf("a link out of the directory was followed: %d, %v", got, err)
	}
}
