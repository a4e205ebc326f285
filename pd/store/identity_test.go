package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var identity = Identity{Used: "\x00\x03\x00\x01\x02\x00\x00\x00\x01\x01", Made: map[string]MadeDUID{
	"ll":  {DUID: "\x00\x03\x00\x01\x02\x00\x00\x00\x01\x01"},
	"llt": {DUID: "\x00\x040123456789abcdef", InPlace: true},
}}

func TestIdentitySurvivesRestart(t *testing.T) {
	d := open(t, t.TempDir())
	if id, err := d.Identity("fiber"); err != nil || !cmp.Equal(id, Identity{}) {
		t.Errorf("before the first save: %+v, %v", id, err)
	}
	if err := d.SaveIdentity("fiber", identity); err != nil {
		t.Fatal(err)
	}
	d = reopen(t, d)
	if id, err := d.Identity("fiber"); err != nil || !cmp.Equal(id, identity) {
		t.Errorf("%+v, %v", id, err)
	}
	if id, err := d.Identity("dsl"); err != nil || !cmp.Equal(id, Identity{}) {
		t.Errorf("of another uplink: %+v, %v", id, err)
	}
	if _, err := d.SavedDUID(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the router's own DUID: %v", err)
	}
}

func TestDamagedIdentity(t *testing.T) {
	d := open(t, t.TempDir())
	for content, cause := range map[string]string{
		`{"version": 1, "data": {}}`:             "used: DUID of 0 octets, want 3 to 130",
		`{"version": 1, "data": {"used": "00"}}`: "want 3 to 130",
		`{"version": 1, "data": {"used": "00:03:00:01", "made": {"\u001b[2J": {"duid": ""}}}}`:    `made as "\x1b[2J": DUID of 0 octets, want 3 to 130`,
		`{"version": 1, "data": {"used": "00:03:00:01", "made": {"ll": {"duid": "00:03:00:0"}}}}`: "want hexadecimal octets",
		`{"version": 2, "data": {"used": "00:03:00:01"}}`:                                         "version 2, this uplinkd reads version 1",
		"{": "unexpected end of JSON input",
	} {
		put(t, d, "duid-fiber.json", content)
		id, err := d.Identity("fiber")
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), cause) || !cmp.Equal(id, Identity{}) {
			t.Errorf("%s: %+v, %v; want %s", content, id, err, cause)
		}
	}
}

func TestIAIDs(t *testing.T) {
	d := open(t, t.TempDir())
	if ids, err := d.IAIDs("fiber"); err != nil || !cmp.Equal(ids, IAIDs{}) {
		t.Errorf("before the first save: %+v, %v", ids, err)
	}
	want := IAIDs{Prefixes: []uint32{0, 1<<32 - 1}, Address: new(uint32(0))}
	if err := d.SaveIAIDs("fiber", want); err != nil {
		t.Fatal(err)
	}
	d = reopen(t, d)
	if ids, err := d.IAIDs("fiber"); err != nil || !cmp.Equal(ids, want) {
		t.Errorf("%+v, %v", ids, err)
	}
	put(t, d, "iaid-fiber.json", `{"version": 1, "data": {"prefixes": [-1]}}`)
	if ids, err := d.IAIDs("fiber"); !errors.Is(err, ErrCorrupt) || !cmp.Equal(ids, IAIDs{}) {
		t.Errorf("%+v, %v", ids, err)
	}
	if _, err := os.Stat(filepath.Join(d.path, "iaid-fiber.json.corrupt-1")); err != nil {
		t.Error(err)
	}
}

// An uplink with the name of another's file does not get at it, and neither does one whose files the router has itself.
func TestUplinkFiles(t *testing.T) {
	seen := map[string]bool{duidName: true}
	for _, kind := range []string{"lease", "duid", "iaid"} {
		for _, uplink := range []string{"", "fiber", "duid", "duid-fiber", "../duid"} {
			name := uplinkFile(kind, uplink)
			if seen[name] || checkName(name) != nil {
				t.Errorf("%s of %q: %s", kind, uplink, name)
			}
			seen[name] = true
		}
	}
}
