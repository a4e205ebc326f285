package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"uplinkd/internal/netlab"
)

// fullSite adds to renumbered a network on which there is an inner router, and a service whose prefix is all its own.
const fullSite = renumbered + `
[downstream.inner]
interface = "lan2"
ra = { max_interval = "12s", min_interval = "9s", preferred_lifetime = "20s", valid_lifetime = "20s" }

[downstream.hosting]
kind = "service"
length = 80
`

// inner is another uplinkd, which asks the first one for a prefix, and a host behind it.
type inner struct {
	router, leaf *netlab.NS
	daemon       *netlab.Process
	stream       *stream // of leaf
}

func (r *renumbering) startInner() *inner {
	r.t.Helper()
	n := &inner{router: r.lab.NS("inner"), leaf: r.lab.NS("leaf")}
	for _, ns := range []*netlab.NS{n.router, n.leaf} {
		ns.Sysctl("net.ipv6.conf.all.accept_dad", "0")
		ns.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	}
	r.lab.Veth(r.router, "lan2", n.router, "wan0", "02:00:00:00:06:01", "02:00:00:00:06:02")
	r.lab.Veth(n.router, "lan0", n.leaf, "eth0", "02:00:00:00:07:01", "02:00:00:00:07:02")
	for _, dev := range []string{"wan0", "lan0"} {
		n.router.LinkLocal(dev)
	}
	r.router.LinkLocal("lan2")
	dir := filepath.Join(r.dir, "inner")
	if err := os.Mkdir(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	rest, _, _ := strings.Cut(renumbered, "[downstream.guest]")
	config := filepath.Join(dir, "uplinkd.toml")
	text := fmt.Sprintf("state_dir = %q\nrun_dir = %q\n%s", filepath.Join(dir, "state"), filepath.Join(dir, "run"), rest)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	n.daemon = n.router.Start(n.router.Command(context.Background(), os.Getenv(binaryVar), "run", "--config", config))
	r.retired = append(r.retired, n.daemon)
	return n
}

// usable waits until the host behind the inner router has an address of a prefix, and reaches the far server.
func (r *renumbering) usable(n *inner, within netip.Prefix) {
	r.t.Helper()
	r.eventually("the host behind the inner router to use "+within.String(), func() (bool, string) {
		list := addresses(n.leaf, "eth0")
		for _, a := range list {
			if within.Contains(a.Local) && !a.Deprecated {
				out := output(n.leaf, "ping", "-6", "-n", "-c", "1", "-W", "1", "-I", a.Local.String(), farAddress)
				return strings.Contains(out, " 1 received"), out
			}
		}
		return false, fmt.Sprint(list)
	})
}

var servicePrefix = regexp.MustCompile(`(?m)^route local (\S+/80) `)

// serves looks for the prefix of the service out of a delegation, and asks it on one of its addresses that nobody has
// configured.
func (r *renumbering) serves(within netip.Prefix) {
	r.t.Helper()
	r.eventually("the service to answer in "+within.String(), func() (bool, string) {
		rows := r.kernelText()
		for _, m := range servicePrefix.FindAllStringSubmatch(rows, -1) {
			p, err := netip.ParsePrefix(m[1])
			if err != nil || !within.Contains(p.Addr()) {
				continue
			}
			a := p.Addr().As16()
			a[12], a[15] = 0xab, 0xcd
			err = r.asks(netip.AddrFrom16(a))
			return err == nil, fmt.Sprint(err)
		}
		return false, rows
	})
}

// asks has the far server talk by TCP to the service at an address.
func (r *renumbering) asks(a netip.Addr) error {
	return r.far.Do(func() error {
		c, err := net.DialTimeout("tcp6", net.JoinHostPort(a.String(), echoPort), time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if _, err := c.Write([]byte("?")); err != nil {
			return err
		}
		_, err = io.ReadFull(c, make([]byte, 1))
		return err
	})
}

// listen starts a server in the router that knows of no address.
func (r *renumbering) listen() {
	r.t.Helper()
	var l net.Listener
	if err := r.router.Do(func() (err error) { l, err = net.Listen("tcp6", "[::]:"+echoPort); return err }); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { l.Close() })
	go echoStreams(l)
}
