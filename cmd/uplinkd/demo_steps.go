package main

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"uplinkd/internal/ctl"
)

// killed pings a hundred times a second through the router while uplinkd is killed and started again.
func (d *demo) killed() (string, error) {
	var out bytes.Buffer
	ping := d.host.Command(d.ctx, "ping", "-6", "-n", "-q", "-i", "0.01", "-c", "150", "-W", "1", demoServer)
	ping.Stdout, ping.Stderr = &out, &out
	if err := ping.Start(); err != nil {
		return "", err
	}
	time.Sleep(300 * time.Millisecond)
	_ = d.daemon.Signal(os.Kill)
	<-d.daemon.Done()
	time.Sleep(300 * time.Millisecond)
	if err := d.spawn(); err != nil {
		return "", err
	}
	_ = ping.Wait()
	lost := firstWith(out.String(), "packet loss")
	if !strings.Contains(lost, " 0% packet loss") {
		return "", fmt.Errorf("packets were lost: %s", lost)
	}
	return lost, d.until("uplinkd does not answer after its restart", func() bool {
		_, err := d.client().Status(d.ctx)
		return err == nil
	})
}

func (d *demo) renumbered() (string, error) {
	if err := d.provider.Renumber(netip.MustParsePrefix(demoNewPool), 0); err != nil {
		return "", err
	}
	p, err := d.delegated(demoNewPool)
	return fmt.Sprintf("%s, told in the answer to a Renew (T1 is 5 s)", p), err
}

func (d *demo) hostRenumbered() (string, error) {
	a, err := d.address(d.host, "eth0", demoNewPool)
	if err != nil {
		return "", err
	}
	err = d.until("the host still prefers "+d.first.String(), func() bool {
		out := d.output(d.host, "ip", "-6", "-o", "address", "show", "dev", "eth0")
		old := firstWith(out, d.first.String())
		return old == "" || strings.Contains(old, "deprecated")
	})
	return a.String(), err
}

func (d *demo) client() *ctl.Client { return ctl.Dial(filepath.Join(d.dir, "run", "control.sock")) }

// status is what `uplinkd status` prints now.
func (d *demo) status() string {
	self, err := os.Executable()
	if err != nil {
		return err.Error()
	}
	return d.output(d.router, self, "status", "--config", filepath.Join(d.dir, "uplinkd.toml"))
}

// screen is what the demonstration prints, in colour on a terminal.
type screen struct {
	out    io.Writer
	colour bool
}

func (s screen) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s screen) done(title string, took time.Duration, text string) {
	fmt.Fprintf(s.out, "%s %9s  %s\n", s.paint("32", "ok"), short(took), s.paint("1", title))
	if text != "" {
		fmt.Fprintf(s.out, "              %s\n", s.paint("2", text))
	}
}

func (s screen) failed(title string, err error) {
	fmt.Fprintf(s.out, "%s %s\n              %v\n", s.paint("31", "FAILED      "), s.paint("1", title), err)
}

func (s screen) quote(text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		fmt.Fprintf(s.out, "              %s\n", s.paint("36", "| "+line))
	}
}

func (s screen) status(text string) {
	fmt.Fprintf(s.out, "\n%s\n", s.paint("1", "uplinkd status says:"))
	s.quote(text)
}

func (s screen) end(took time.Duration) {
	fmt.Fprintf(s.out, `
All steps were seen to work, in %s. Nothing outside the namespaces was touched.

Where to look next:
  contrib/uplinkd.toml                          every key of the config, explained
  build/uplinkd plan --config contrib/uplinkd.toml --prefix 2001:db8:1100::/56
                                                what would be programmed, without root
  docs/manual.md                                installing it on a router, verbs, hooks
`, short(took))
}
