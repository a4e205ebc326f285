package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"uplinkd/pd"
)

func TestUnusableFiles(t *testing.T) {
	whole := func() string {
		d := open(t, t.TempDir())
		if err := d.SaveLease("fiber", lease); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(d.path, "lease-fiber.json"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}()
	for _, c := range []struct{ name, content, cause string }{
		{"empty", "", "unexpected end of JSON input"},
		{"truncated", whole[:len(whole)/2], "unexpected end of JSON input"},
		{"garbage", "\x00\xff\x1b[2J", "invalid character '\\x00' looking for beginning of value"},
		{"stray end", whole + "}", "invalid character '}' after top-level value"},
		{"newer", strings.Replace(whole, `"version": 1`, `"version": 2`, 1), "version 2, this uplinkd reads version 1"},
		{"no data", `{"version": 1}`, `no "data"`},
		{"null data", `{"version": 1, "data": null}`, `no "data"`},
		{"IPv4", strings.Replace(whole, "2001:db8:100::/56", "192.0.2.0/24", 1), "prefix 192.0.2.0/24: want an IPv6 prefix without host bits"},
		{"host bits", strings.Replace(whole, "2001:db8:100::/56", "2001:db8:100::1/56", 1),
			"prefix 2001:db8:100::1/56: want an IPv6 prefix without host bits"},
		{"no prefix", strings.Replace(whole, "2001:db8:100::/56", "", 1), "prefix invalid Prefix: want an IPv6 prefix without host bits"},
		{"too short", strings.Replace(whole, "2001:db8:100::/56", "2001:c00::/23", 1), "prefix 2001:c00::/23: shorter than /29, which no provider delegates"},
		{"link-local", strings.Replace(whole, "2001:db8:100::/56", "fe80::/64", 1), "prefix fe80::/64: overlaps link-local fe80::/10"},
		{"search", strings.Replace(whole, `"sol_max_rt"`, `"domain_search": ["a.example\u001b[2J"], "sol_max_rt"`, 1), `"a.example\x1b[2J" is no host name`},
		{"AFTR", strings.Replace(whole, `"sol_max_rt"`, `"aftr": "a b", "sol_max_rt"`, 1), `"a b" is no host name`},
		{"portal", strings.Replace(whole, `"sol_max_rt"`, `"captive_portal": "https://a/\n", "sol_max_rt"`, 1),
			"captive_portal: a character that is not allowed in a URI"},
		{"resolver", strings.Replace(whole, `"sol_max_rt"`, `"resolvers": [{"priority": 1, "name": "a", "params": "AAE="}], "sol_max_rt"`, 1),
			`resolver "a": parameters without addresses`},
		{"lifetimes", strings.Replace(whole, "T13:00:00Z", "T15:00:00Z", 1),
			"prefix 2001:db8:100::/56: preferred until 2026-03-01T15:00:00Z, longer than valid until 2026-03-01T14:00:00Z"},
		{"DNS", strings.Replace(whole, "2001:db8::53", "", 1), "DNS server invalid IP: want an IPv6 address of a server"},
		{"NTP", strings.Replace(whole, "2001:db8::123", "192.0.2.1", 1), "NTP server 192.0.2.1: want an IPv6 address of a server"},
		{"SNTP", strings.Replace(whole, "2001:db8::124", "192.0.2.1", 1), "SNTP server 192.0.2.1: want an IPv6 address of a server"},
		{"exclude elsewhere", strings.Replace(whole, "2001:db8:100:ff::/64", "2001:db8:200:ff::/64", 1),
			"prefix 2001:db8:100::/56: exclude 2001:db8:200:ff::/64 is not inside it"},
		{"exclude everything", strings.Replace(whole, "2001:db8:100:ff::/64", "2001:db8:100::/56", 1),
			"prefix 2001:db8:100::/56: exclude 2001:db8:100::/56 is not inside it"},
		{"address", strings.Replace(whole, `"2001:db8::7"`, `"ff02::1"`, 1), "address ff02::1: want an IPv6 unicast address"},
		{"no address", strings.Replace(whole, `"2001:db8::7"`, `""`, 1), "address invalid IP: want an IPv6 unicast address"},
		{"address lifetimes", strings.Replace(whole, "T12:01:00Z", "T15:00:00Z", 1),
			"address 2001:db8::7: preferred until 2026-03-01T15:00:00Z, longer than valid until 2026-03-01T14:00:00Z"},
		{"previous", strings.Replace(whole, `"sol_max_rt"`, `"previous": ["192.0.2.0/24"], "sol_max_rt"`, 1),
			"previous prefix 192.0.2.0/24: want an IPv6 prefix without host bits"},
		{"short key", strings.Replace(whole, "MDEyMzQ1Njc4OWFiY2RlZg==", "MDEy", 1),
			"reconf: server_id of 10 octets and key of 3, want 3 to 130 and 16"},
		{"huge", whole + strings.Repeat(" ", maxFile), "longer than 4194304 octets"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, t.TempDir())
			put(t, d, "lease-fiber.json", c.content)
			l, err := d.Lease("fiber")
			want := fmt.Sprintf("unusable state file %s/lease-fiber.json: %s; going on without it, it is kept as lease-fiber.json.corrupt-1",
				d.path, c.cause)
			if !errors.Is(err, ErrCorrupt) || err.Error() != want || !cmp.Equal(l, pd.Lease{}, equate) {
				t.Errorf("got lease %+v, error\n%v, want\n%s", l, err, want)
			}
			kept, err := os.ReadFile(filepath.Join(d.path, "lease-fiber.json.corrupt-1"))
			if err != nil || string(kept) != c.content {
				t.Errorf("kept %q, %v", kept, err)
			}
			if _, err := d.Lease("fiber"); err != nil {
				t.Errorf("second read: %v", err)
			}
			if err := d.SaveLease("fiber", lease); err != nil {
				t.Errorf("save after that: %v", err)
			}
		})
	}
}

func TestSetAsideIsBounded(t *testing.T) {
	d := open(t, t.TempDir())
	for i := range maxSetAside + 3 {
		put(t, d, "ledger.json", fmt.Sprint("garbage ", i))
		if err := d.ReadJSON("ledger.json", 1, new(int)); !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
	}
	if n := len(files(t, d)); n != maxSetAside+1 {
		t.Errorf("%d files, want %d and the lock: %q", n, maxSetAside, files(t, d))
	}
	first, err := os.ReadFile(filepath.Join(d.path, "ledger.json.corrupt-1"))
	if err != nil || string(first) != "garbage 0" {
		t.Errorf("the first incident became %q, %v", first, err)
	}
}

func TestSetAside(t *testing.T) {
	d := open(t, t.TempDir())
	put(t, d, "lease-fiber.json", "{")
	for _, want := range [][]string{nil, {filepath.Join(d.path, "lease-fiber.json.corrupt-1")}} {
		got, err := d.SetAside()
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
		if _, err := d.Lease("fiber"); want == nil && err == nil {
			t.Error("a damaged lease was read")
		}
	}
}

// A reader that does not believe parts of a file goes on with the rest: the file stays, a copy shows what it was.
func TestRepaired(t *testing.T) {
	d := open(t, t.TempDir())
	put(t, d, "ledger.json", "{}")
	err := d.Repaired("ledger.json", errors.New("two uplinks have the number 7"))
	want := fmt.Sprintf("unusable state file %s/ledger.json: two uplinks have the number 7; going on with the rest, a copy is kept as ledger.json.corrupt-1", d.path)
	if !errors.Is(err, ErrCorrupt) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	for _, name := range []string{"ledger.json", "ledger.json.corrupt-1"} {
		if b, err := os.ReadFile(filepath.Join(d.path, name)); string(b) != "{}" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for range maxSetAside + 3 {
		d.Repaired("ledger.json", errors.New("again"))
	}
	if n := len(files(t, d)); n != maxSetAside+2 {
		t.Errorf("%d files, want %d, the ledger and the lock: %q", n, maxSetAside, files(t, d))
	}
}
