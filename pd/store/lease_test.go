package store

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// TestFormerShape reads a file as an uplinkd wrote it that knew one IA_PD for each uplink, and none besides prefixes.
func TestFormerShape(t *testing.T) {
	b, err := os.ReadFile("testdata/lease-one-ia.json")
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, t.TempDir())
	put(t, d, "lease-fiber.json", string(b))
	want := pd.Lease{
		ServerID: lease.ServerID, Received: start, T1: lease.T1, T2: lease.T2, SolMaxRT: 7200,
		Prefixes: []pd.LeasedPrefix{{IAID: 7, Prefix: netip.MustParsePrefix("2001:db8:100::/56"), PreferredUntil: lifetime.After(start, 3600),
			ValidUntil: lifetime.After(start, 7200)}},
		Info: pd.Info{DNS: lease.DNS, DomainSearch: lease.DomainSearch},
	}
	for range 2 { // as it was, then as it is written today
		got, err := d.Lease("fiber")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, equate); diff != "" {
			t.Error(diff)
		}
		if err := d.SaveLease("fiber", got); err != nil {
			t.Fatal(err)
		}
	}
}

// TestModes: nobody but the owner reads what may contain a key, also where the file was there before with another mode.
func TestModes(t *testing.T) {
	d := open(t, t.TempDir())
	for _, content := range []string{"garbage", "same"} {
		path := filepath.Join(d.path, "lease-fiber.json")
		if content == "garbage" {
			put(t, d, "lease-fiber.json", content)
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := d.SaveLease("fiber", lease); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s content before: mode %v, %v, want 0600", content, info.Mode(), err)
		}
	}
}

func TestLeaseFileIsReadable(t *testing.T) {
	d := open(t, t.TempDir())
	l := lease
	l.Prefixes, l.NTP, l.SNTP, l.NTPNames = l.Prefixes[:1], nil, nil, nil
	if err := d.SaveLease("fiber", l); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(d.path, "lease-fiber.json"))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
  "version": 1,
  "data": {
    "server_id": "00:03:00:01:02:00:00:00:02:01",
    "received": "2026-03-01T12:00:00Z",
    "t1": "2026-03-01T12:30:00Z",
    "t2": "2026-03-01T12:48:00Z",
    "prefixes": [
      {
        "iaid": 7,
        "prefix": "2001:db8:100::/56",
        "exclude": "2001:db8:100:ff::/64",
        "preferred_until": "2026-03-01T13:00:00Z",
        "valid_until": "2026-03-01T14:00:00Z"
      }
    ],
    "addresses": [
      {
        "iaid": 9,
        "address": "2001:db8::7",
        "preferred_until": "2026-03-01T12:01:00Z",
        "valid_until": "2026-03-01T14:00:00Z"
      }
    ],
    "dns": [
      "2001:db8::53"
    ],
    "domain_search": [
      "example.com"
    ],
    "aftr": "aftr.example.com",
    "captive_portal": "https://portal.example.com/",
    "s46": [
      {
        "code": 94,
        "data": "bWFw"
      }
    ],
    "unknown": [
      {
        "code": 17,
        "data": "AP8="
      }
    ],
    "info_until": "2026-03-02T12:00:00Z",
    "sol_max_rt": 7200,
    "inf_max_rt": 3600,
    "reconf": {
      "server_id": "00:03:00:01:02:00:00:00:02:01",
      "key": "MDEyMzQ1Njc4OWFiY2RlZg==",
      "replay": 18446744073709551615
    }
  }
}
`
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Error(diff)
	}
}

func TestSetDUID(t *testing.T) {
	d := open(t, t.TempDir())
	a, b := pd.DUID("\x00\x03\x00\x01\x02\x00\x00\x00\x01\x01"), pd.DUID("\x00\x03\x00\x01\x02\x00\x00\x00\x01\x02")
	saved := func(want pd.DUID) {
		t.Helper()
		if got, err := d.SavedDUID(); err != nil || got != want {
			t.Errorf("on disk: %s, %v; want %s", got, err, want)
		}
	}
	if _, err := d.SavedDUID(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	for range 2 {
		if err := d.SetDUID(a, false); err != nil {
			t.Error(err)
		}
		saved(a)
	}
	want := "write " + d.path + "/duid.json: there is another DUID, " + a.String()
	if err := d.SetDUID(b, false); !errors.Is(err, ErrOtherDUID) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	saved(a)
	if err := d.SetDUID(b, true); err != nil {
		t.Error(err)
	}
	saved(b)
	if err := d.SetDUID("\x00\x01", true); err == nil {
		t.Error("a DUID of two octets was written")
	}
	saved(b)
	put(t, d, "duid.json", "{")
	if err := d.SetDUID(a, false); err != nil {
		t.Errorf("over a damaged file: %v", err)
	}
	saved(a)
	if kept, err := os.ReadFile(d.path + "/duid.json.corrupt-1"); err != nil || string(kept) != "{" {
		t.Errorf("kept %q, %v", kept, err)
	}
}
