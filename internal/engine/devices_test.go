package engine

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/kernel/fake"
	"uplinkd/policy"
)

func TestDeviceName(t *testing.T) {
	link := func(name string, index int, mac string) kernel.Link {
		return kernel.Link{Name: name, Index: index, MAC: mac}
	}
	const one, two = "02:00:00:00:00:01", "02:00:00:00:00:02"
	lan0 := device{Index: 5, Boot: "now", MAC: one}
	rebooted := device{Index: 5, Boot: "then", MAC: one}
	for what, c := range map[string]struct {
		d     device
		links []kernel.Link
		want  string
	}{
		"nothing changed":                         {lan0, []kernel.Link{link("lan0", 5, one), link("lan1", 6, two)}, "lan0"},
		"renamed":                                 {lan0, []kernel.Link{link("old0", 5, one)}, "old0"},
		"names exchanged":                         {lan0, []kernel.Link{link("lan0", 6, two), link("lan1", 5, one)}, "lan1"},
		"another MAC, as a bridge may get":        {lan0, []kernel.Link{link("lan0", 5, two)}, "lan0"},
		"made anew":                               {lan0, []kernel.Link{link("lan0", 9, one)}, "lan0"},
		"made anew with another MAC":              {lan0, []kernel.Link{link("lan0", 9, two)}, "lan0"},
		"gone":                                    {lan0, []kernel.Link{link("lan1", 6, two)}, "lan0"},
		"plugged in again under another name":     {lan0, []kernel.Link{link("lan1", 6, two), link("usb1", 9, one)}, "usb1"},
		"two with its MAC":                        {lan0, []kernel.Link{link("a", 8, one), link("b", 9, one)}, "lan0"},
		"after a reboot":                          {rebooted, []kernel.Link{link("lan0", 9, one), link("lan1", 5, two)}, "lan0"},
		"names exchanged by a reboot":             {rebooted, []kernel.Link{link("lan0", 5, two), link("lan1", 9, one)}, "lan1"},
		"a VLAN with its MAC":                     {rebooted, []kernel.Link{link("lan0", 9, one), link("lan0.7", 10, one)}, "lan0"},
		"after a reboot, without a MAC (tunnels)": {device{Index: 5, Boot: "then"}, []kernel.Link{link("tun1", 5, "")}, "lan0"},
	} {
		if got := c.d.name(c.links, "lan0", "now"); got != c.want {
			t.Errorf("%s: %s, want %s", what, got, c.want)
		}
	}
}

// Two downstream interfaces exchange their names: hosts on each cable hear that the prefix which they had there is over, be the
// engine running or not, and when the names are exchanged back they have the one that was theirs.
func TestExchangedNames(t *testing.T) {
	for name, stopped := range map[string]bool{"running": false, "stopped": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kern, store := &fake.Kernel{Link: fakeLinks()}, newMemory()
				announced := map[string]policy.Announcement{}
				cfg := parse(t, fiber+lan+"[downstream.guest]\ninterface = \"lan1\"\n")
				run := func() (*Engine, func()) {
					return startStoppable(t, kern, store, cfg, func(o *Options) {
						o.Leases, o.Announce = store.leases, func(d string, a policy.Announcement) { announced[d] = a }
					})
				}
				give := func(e *Engine) {
					e.Client("fiber", ClientStatus{State: "bound", Reported: true, Lease: lease([]string{"2001:db8:1100::/56"})}, true)
					pass(time.Second)
				}
				e, stop := run()
				give(e)
				mine := map[string]netip.Prefix{"lan": announced["lan"].Prefixes[0].Prefix, "guest": announced["guest"].Prefixes[0].Prefix}
				for turn := range 3 {
					if stopped {
						stop()
					}
					kern.Change(func() {
						kern.Link = slices.Clone(kern.Link)
						kern.Link[0].Index, kern.Link[1].Index = kern.Link[1].Index, kern.Link[0].Index
						kern.Link[0].MAC, kern.Link[1].MAC = kern.Link[1].MAC, kern.Link[0].MAC
					})
					if stopped {
						e, stop = run()
						give(e)
					} else {
						e.Hint()
						pass(time.Second)
					}
					for d, other := range map[string]string{"lan": "guest", "guest": "lan"} {
						var current, over []netip.Prefix
						for _, p := range announced[d].Prefixes {
							if p.ValidUntil.Over(time.Now()) {
								over = append(over, p.Prefix)
							} else {
								current = append(current, p.Prefix)
							}
						}
						if !slices.Equal(current, []netip.Prefix{mine[d]}) || !slices.Equal(over, []netip.Prefix{mine[other]}) {
							t.Errorf("turn %d: %s announces %v, and %v as over", turn, d, current, over)
						}
					}
				}
				stop()
			})
		})
	}
}

func TestDevicesAreNotBelieved(t *testing.T) {
	d := durable{Devices: map[string]device{"lan0": {Index: 5, Boot: "b", MAC: "02:00:00:00:00:01"}, "tun0": {Index: -1},
		"\x1b[2J": {Index: 5}, "lan1": {MAC: "\x1b[2J"}, "lan2": {Boot: strings.Repeat("b", 65)}}}
	if err := d.sound(); err == nil || !slices.Equal(slices.Sorted(maps.Keys(d.Devices)), []string{"lan0", "tun0"}) {
		t.Errorf("%v, left %v", err, d.Devices)
	}
}

// What a variable was before uplinkd goes with its device.
func TestSysctlsFollowTheirDevice(t *testing.T) {
	before := map[string]string{"net.ipv6.conf.all.forwarding": "0", "net.ipv6.conf.wan0.accept_ra": "1", "net.ipv6.conf.wan1.accept_ra": "0",
		"net.ipv6.conf.eth0/7.accept_ra": "2", "net.ipv6.ip_nonlocal_bind": "0", "net.ipv6.conf.lan0.accept_ra": "1"}
	got := renameSysctls(before, map[string]string{"wan0": "wan1", "wan1": "wan0", "eth0.7": "eth1.7"})
	want := map[string]string{"net.ipv6.conf.all.forwarding": "0", "net.ipv6.conf.wan1.accept_ra": "1", "net.ipv6.conf.wan0.accept_ra": "0",
		"net.ipv6.conf.eth1/7.accept_ra": "2", "net.ipv6.ip_nonlocal_bind": "0", "net.ipv6.conf.lan0.accept_ra": "1"}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
