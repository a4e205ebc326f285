package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/internal/netlab"
	"uplinkd/pd/store"
)

// formerClients run until they have a prefix, and leave their files. DIR is where those end up: two of them know only
// one place on the machine, so an empty directory is mounted there, and copied out at the end.
var formerClients = []struct {
	name, program, debianPackage string
	script                       string
	file                         string // in DIR, for --file
	keepsPrefix                  bool
}{
	{"dhclient", "dhclient", "isc-dhcp-client", `
touch DIR/conf DIR/leases
dhclient -6 -P -1 -d -cf DIR/conf -lf DIR/leases -pf DIR/pid -sf /bin/true wan0 &
until grep -q iaprefix DIR/leases; do sleep 0.1; done`, "leases", true},
	{"dhcpcd", "dhcpcd", "dhcpcd-base", `
mount -t tmpfs none /var/lib/dhcpcd
mkdir -p /run/dhcpcd
printf 'duid\nipv6only\nnoipv6rs\nscript /bin/true\ninterface wan0\n ia_pd 1 lan0/1/64\n' > DIR/conf
dhcpcd -B -f DIR/conf wan0 &
until test -s /var/lib/dhcpcd/wan0.lease6; do sleep 0.1; done
cp /var/lib/dhcpcd/duid /var/lib/dhcpcd/wan0.lease6 DIR`, "duid", true},
	{"wide", "dhcp6c", "wide-dhcpv6-client", `
mount -t tmpfs none /var/lib/dhcpv6
printf 'interface wan0 { send ia-pd 0; };\nid-assoc pd 0 { prefix-interface lan0 { sla-id 1; sla-len 8; ifid 1; }; };\n' > DIR/conf
dhcp6c -f -c DIR/conf -p DIR/pid wan0 &
until ip -6 address show dev lan0 | grep -q 2001:db8:11; do sleep 0.1; done
cp /var/lib/dhcpv6/dhcp6c_duid DIR`, "dhcp6c_duid", false},
}

// TestImportFromClients runs other clients against the simulated provider: the DUID that is imported must be the one by
// which the provider knows the router, and the prefix the one that it has delegated.
func TestImportFromClients(t *testing.T) {
	for _, c := range formerClients {
		t.Run(c.name, func(t *testing.T) {
			netlab.NeedProgram(t, c.program, c.debianPackage)
			lab := netlab.New(t)
			ns, provider := lab.NS("router"), lab.NS("provider")
			// dhclient makes an IAID of the last octets of a MAC, and writes those that are all printable as a string: "1bB^".
			lab.Veth(ns, "wan0", provider, "isp0", "02:00:31:62:42:5e", "02:00:00:00:01:02")
			lab.Veth(ns, "lan0", provider, "host0")
			ns.LinkLocal("wan0")
			p := serve(t, provider, isp.Config{Interface: "isp0", Pool: netip.MustParsePrefix("2001:db8:1100::/40")})
			dir := lab.Dir()
			// The client dies with the shell, the first process of its namespace: told to stop, some would release the prefix.
			ns.Run("timeout", "25", "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-e", "-c",
				strings.ReplaceAll(c.script, "DIR", dir))
			if len(p.Bindings()) != 1 {
				t.Fatalf("bindings %v, want one", p.Bindings())
			}
			b := p.Bindings()[0]

			config := filepath.Join(dir, "uplinkd.toml")
			state := filepath.Join(dir, "state")
			text := fmt.Sprintf("state_dir = %q\nrun_dir = %q\n%s", state, filepath.Join(dir, "run"), smallConfig)
			if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			out := verbIn(t.Context(), "import", c.name, "--config", config, "--file", filepath.Join(dir, c.file))
			if out.status != exitOK || out.stderr != "" {
				t.Fatalf("exit status %d\n%s%s", out.status, out.stdout, out.stderr)
			}
			wantState(t, state, b, c.keepsPrefix)
		})
	}
}

// wantState compares the state directory with what the provider knows.
func wantState(t *testing.T, dir string, b isp.Binding, hint bool) {
	t.Helper()
	d, err := store.ReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if id, err := d.SavedDUID(); err != nil || id != b.ClientID {
		t.Errorf("DUID %s, %v; the provider knows %s", id, err, b.ClientID)
	}
	l, err := d.Lease("fiber")
	var want []netip.Prefix
	if hint {
		want = []netip.Prefix{b.Prefix}
	}
	if err != nil || !slices.Equal(l.Previous, want) {
		t.Errorf("previous prefixes %v, %v; want %v", l.Previous, err, want)
	}
	var iaids []uint32
	if hint {
		iaids = []uint32{b.IAID}
	}
	if ids, err := d.IAIDs("fiber"); err != nil || !slices.Equal(ids.Prefixes, iaids) || ids.Address != nil {
		t.Errorf("IAIDs %+v, %v; the provider knows %d", ids, err, b.IAID)
	}
}

// serve runs a simulated provider until the test ends.
func serve(t *testing.T, ns *netlab.NS, cfg isp.Config) *isp.Provider {
	t.Helper()
	p, err := isp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	wait, enough := context.WithTimeout(t.Context(), 20*time.Second)
	defer enough()
	if err := ns.Do(func() error { return p.Open(wait) }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("provider: %v", err)
		}
	})
	return p
}

// The DUID of odhcp6c is in the interface, and a daemon that runs has the state directory.
func TestImportFromHardware(t *testing.T) {
	ns, config := router(t)
	ns.IP("link set wan0 address 02:00:00:00:01:01")
	out := ns.Run("uplinkd", "import", "odhcp6c", "--config", config)
	if want := "found DUID 00:03:00:01:02:00:00:00:01:01 in the hardware address of wan0\n"; !strings.HasPrefix(out, want) {
		t.Errorf("got %q, want %q", out, want)
	}
	d, err := store.Open(filepath.Join(filepath.Dir(config), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	busy := verbIn(t.Context(), "import", "--duid", "00:03:00:01:02:00:00:00:01:02", "--force", "--config", config)
	if busy.status != exitFailed || !matches(`another uplinkd is running \(process [0-9]+\); stop it first: systemctl stop uplinkd`, busy.stderr) {
		t.Errorf("exit status %d, %q", busy.status, busy.stderr)
	}
	if id, err := d.SavedDUID(); err != nil || id.String() != "00:03:00:01:02:00:00:00:01:01" {
		t.Errorf("on disk: %s, %v", id, err)
	}
}
