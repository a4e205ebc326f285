package rtnl

import (
	"testing"
	"time"

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
