package main

import (
	"os"
	"os/exec"
	"testing"

	"uplinkd/internal/netlab"
)

// Any local user may bind an abstract name. Only who could be an uplinkd keeps another one out.
func TestOnlyNetAdminsKeepOthersOut(t *testing.T) {
	netlab.Need(t)
	if lacksNetAdmin(int32(os.Getpid())) {
		t.Error("this process, root in its namespaces, is taken for one without CAP_NET_ADMIN")
	}
	powerless := exec.Command("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "sleep", "60")
	if err := powerless.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = powerless.Process.Kill(); _ = powerless.Wait() }()
	netlab.Eventually(t, demoLimit, "a process without CAP_NET_ADMIN is seen as such", func() (bool, string) {
		return lacksNetAdmin(int32(powerless.Process.Pid)), ""
	})
}
