package rtnl

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

// Files of /proc/sys stay open between reads; those of an interface that went away must not stand for the next one of its
// name.
func TestSysctlsOfInterfaceThatComesBack(t *testing.T) {
	k := lab(t, options{})
	const name = "net.ipv6.conf.v0.hop_limit"
	scope := kernel.Scope{Sysctls: []string{name}}
	see := func(want string) {
		t.Helper()
		if got := read(t, k, scope).Text(time.Now()); got != "sysctl "+name+"="+want+"\n" {
			t.Errorf("read %q, want the value %s", got, want)
		}
	}
	see("64")
	if rep := do(k, kernel.Replace, kernel.Sysctl{Name: name, Value: "63"}); len(rep.Done) != 1 {
		t.Fatal(rep.Failed)
	}
	see("63")
	see("63")
	ip(t, "link set v0 down")
	ip(t, "link set v0 name v2")
	see(kernel.Absent)
	ip(t, "link set v2 name v0")
	see("63")
	ip(t, "link del v0")
	see(kernel.Absent)
	ip(t, "link add v0 type veth peer name v1")
	see("64")
}

// Reading the sysctls of all uplinks again and again opens none of them again, and with more of them than may be open, few.
func TestSysctlsStayOpen(t *testing.T) {
	dir := t.TempDir()
	paths := make([]string, 4*512+1)
	for i := range paths {
		paths[i] = filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(paths[i], []byte(fmt.Sprintln(i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for most, kept := range map[int]int{len(paths): len(paths), 2000: 1500, 0: 0} {
		v := values{most: most}
		defer v.close()
		for round := range 3 {
			before := maps.Clone(v.files)
			for i, path := range paths {
				if got, err := v.read(path); err != nil || got != fmt.Sprint(i) {
					t.Fatal(got, err)
				}
			}
			same := 0
			for path, fd := range before {
				if now, open := v.files[path]; open && now == fd {
					same++
				}
			}
			if len(v.files) > most || round > 0 && same < kept {
				t.Errorf("most %d, round %d: %d are open, %d of them still", most, round, len(v.files), same)
			}
		}
	}
}

// Where a process may open few files, sysctls leave most of them to sockets.
func TestSysctlsLeaveFilesToSockets(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	if n := mostValues(); n != 256 {
		t.Errorf("%d of 1024", n)
	}
}
