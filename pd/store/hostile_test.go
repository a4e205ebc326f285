package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// impostors put something that is no file in the place of one. None may hang a read, lead it out of the directory, or
// keep the daemon from starting.
var impostors = map[string]func(path string) error{
	"named pipe": func(path string) error { return syscall.Mkfifo(path, 0o600) },
	"directory":  func(path string) error { return os.MkdirAll(filepath.Join(path, "inner"), 0o700) },
	"symbolic link": func(path string) error {
		victim := filepath.Join(filepath.Dir(path), "victim")
		return errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), os.Symlink("victim", path))
	},
	"socket": func(path string) error {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer syscall.Close(fd)
		// The path may be longer than a socket's name can be.
		dir, err := os.Open(filepath.Dir(path))
		if err != nil {
			return err
		}
		defer dir.Close()
		return syscall.Bind(fd, &syscall.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))})
	},
}

func TestImpostors(t *testing.T) {
	for kind, place := range impostors {
		t.Run(kind, func(t *testing.T) {
			path := t.TempDir()
			put := func(name string) {
				t.Helper()
				if err := place(filepath.Join(path, name)); err != nil {
					t.Fatal(err)
				}
			}
			put("lease-fiber.json")
			put("lease-fiber.json.tmp")
			d := open(t, path)
			_, err := d.Lease("fiber")
			want := fmt.Sprintf("unusable state file %s/lease-fiber.json: not a regular file but a %s; "+
				"going on without it, it is kept as lease-fiber.json.corrupt-1", path, kind)
			if !errors.Is(err, ErrCorrupt) || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if kind == "directory" { // what is in it is not ours to remove
				err := d.SaveLease("fiber", lease)
				want := fmt.Sprintf("write %[1]s/lease-fiber.json: remove %[1]s/lease-fiber.json.tmp: directory not empty", path)
				if err == nil || err.Error() != want {
					t.Errorf("got  %v\nwant %s", err, want)
				}
				return
			}
			put("lease-fiber.json.tmp") // after the start
			if err := d.SaveLease("fiber", lease); err != nil {
				t.Error(err)
			}
			if l, err := d.Lease("fiber"); err != nil || !cmp.Equal(l, lease, equate) {
				t.Errorf("read back: %+v, %v", l, err)
			}
			if b, err := os.ReadFile(filepath.Join(path, "victim")); kind == "symbolic link" && string(b) != "precious" {
				t.Errorf("a link was followed: %q, %v", b, err)
			}
		})
	}
}

// The lock may be another daemon's, so nothing is set aside; but nothing hangs, and the message says what to do.
func TestImpostorOfLock(t *testing.T) {
	for kind, place := range impostors {
		path := t.TempDir()
		if err := place(filepath.Join(path, lockName)); err != nil {
			t.Fatal(err)
		}
		d, err := Open(path)
		if err == nil {
			d.Close()
		}
		if want := fmt.Sprintf("state directory %s: lock is not a regular file but a %s: remove it", path, kind); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestCheckMode(t *testing.T) {
	d := open(t, t.TempDir())
	for mode, want := range map[os.FileMode]string{0o700: "", 0o755: "",
		0o770: "others can write to it (mode 0770)", 0o702: "others can write to it (mode 0702)"} {
		if err := os.Chmod(d.path, mode); err != nil {
			t.Fatal(err)
		}
		text := ""
		if err := d.CheckMode(); err != nil {
			text = err.Error()
		}
		if want != "" {
			want = fmt.Sprintf("state directory %[1]s: %[2]s: chmod go-w %[1]s", d.path, want)
		}
		if text != want {
			t.Errorf("mode %o: got %q, want %q", mode, text, want)
		}
	}
}
