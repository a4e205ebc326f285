package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
)

// TestEmergency is the manual's recipe for a night on which the daemon itself is in doubt: what it keeps, as a script, and
// back again by the line that the script names.
func TestEmergency(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	s.simulate(forever)
	s.configure(prompt)
	s.start()
	s.awaitHealthy()
	s.hostAddress(pool, "preferred", preferred)
	healthy := s.kernelText()

	script, stderr, status := s.run("plan")
	if status != 0 {
		t.Fatalf("plan: %s", stderr)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "plan.sh"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	s.end(syscall.SIGTERM)
	if out, stderr, status := s.run("clean"); status != 0 {
		t.Fatalf("clean: %s%s", out, stderr)
	}
	s.router.Run("sh", "-e", filepath.Join(s.dir, "plan.sh"))
	s.reach()

	back := regexp.MustCompile(`(?m)^# +(sed .*)$`).FindStringSubmatch(script)
	if back == nil {
		t.Fatalf("the script does not name the way back:\n%s", script)
	}
	s.router.Run("sh", "-e", "-c", `cd "$0"; eval "$1"`, s.dir, back[1])
	s.start()
	s.awaitHealthy()
	s.eventually("what there was before", func() (bool, string) {
		text := s.kernelText()
		return text == healthy, "want\n" + healthy + "have\n" + text
	})
	s.reach()
}
