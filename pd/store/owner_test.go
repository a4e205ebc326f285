package store

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"uplinkd/internal/netlab"
)

// What root writes into the directory of the unit's user (`uplinkd clean`) belongs to that user, who has to read it.
func TestRootWritesForTheOwner(t *testing.T) {
	netlab.NeedRoot(t, "gives a directory to somebody else")
	path := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	const uid, gid = 61234, 61235
	if err := os.Chown(path, uid, gid); err != nil {
		t.Fatal(err)
	}
	d := open(t, path)
	if err := d.SaveLease("fiber", lease); err != nil {
		t.Fatal(err)
	}
	for _, name := range files(t, d) {
		info, err := os.Lstat(filepath.Join(path, name))
		if err != nil {
			t.Fatal(err)
		}
		if s := info.Sys().(*syscall.Stat_t); s.Uid != uid || s.Gid != gid {
			t.Errorf("%s belongs to %d:%d, want %d:%d as the directory", name, s.Uid, s.Gid, uid, gid)
		}
	}
}
