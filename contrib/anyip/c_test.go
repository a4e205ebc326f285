package anyip

import (
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/netlab"
)

// TestC compiles the server that docs/anyip.md shows to those who do not write Go, and asks it.
func TestC(t *testing.T) {
	s := newSite(t)
	netlab.NeedProgram(t, "gcc", "gcc")
	program := filepath.Join(t.TempDir(), "echo")
	if out, err := exec.Command("gcc", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror", "-o", program, "testdata/echo.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	s.router.IP(byService)
	s.router.Start(s.router.Command(t.Context(), program, "5353"))
	s.router.LinkLocal("wan0")
	netlab.Eventually(t, limit, "the server to listen", func() (bool, string) {
		out := s.router.Run("ss", "-Huln", "sport = :5353")
		return strings.Contains(out, ":5353"), out
	})
	for _, a := range addresses(service, 20) {
		var c net.Conn
		s.in(s.client, func() (err error) { c, err = net.Dial("udp6", net.JoinHostPort(a.String(), "5353")); return err })
		_ = c.SetDeadline(time.Now().Add(limit))
		b := make([]byte, 100)
		_, err := c.Write([]byte("hello"))
		n := 0
		if err == nil {
			n, err = c.Read(b)
		}
		if string(b[:n]) != "hello" || err != nil {
			t.Errorf("asked %v: %q, %v", a, b[:n], err)
		}
		_ = c.Close()
	}
}
