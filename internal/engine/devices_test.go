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

func TestRenamedDevices(t *testing.T) {
	link := func(name string, index int, mac string) kernel.Link {
		return kernel.Link{Name: name, Index: index, MAC: mac}
	}
	const one, two, three, vlans = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "02:00:00:00:00:04"
	for what, c := range map[string]struct {
		boot  string // of the links; the devices are of "then"
		links []kernel.Link
		want  string
	}{
		"nothing changed":            {"then", []kernel.Link{link("lan0", 5, one), link("lan1", 6, two)}, ""},
		"renamed":                    {"then", []kernel.Link{link("old0", 5, one), link("lan1", 6, two)}, "lan0=old0"},
		"names exchanged":            {"then", []kernel.Link{link("lan0", 6, two), link("lan1", 5, one)}, "lan0=lan1 lan1=lan0"},
		"another MAC, as bridges do": {"then", []kernel.Link{link("lan0", 5, three), link("lan1", 6, two)}, ""},
		"made anew":                  {"then", []kernel.Link{link("lan0", 9, one), link("lan1", 10, three)}, ""},
		"gone, as a bridge whose port has its MAC": {"then", []kernel.Link{link("lan1", 6, two), link("port", 4, one)}, ""},
		"after a reboot":              {"now", []kernel.Link{link("lan0", 6, one), link("lan1", 5, two)}, ""},
		"names exchanged by a reboot": {"now", []kernel.Link{link("lan0", 5, two), link("lan1", 6, one)}, "lan0=lan1 lan1=lan0"},
		"three names by a reboot": {"now", []kernel.Link{link("lan0", 5, three), link("lan1", 6, one), link("lan2", 7, two)},
			"lan0=lan1 lan1=lan2"},
		"after a reboot, a bridge without its port":   {"now", []kernel.Link{link("lan0", 8, three), link("port", 4, one), link("lan1", 6, two)}, ""},
		"after a reboot, before there is the bridge":  {"now", []kernel.Link{link("port", 4, one), link("lan1", 6, two)}, ""},
		"after a reboot, VLANs with the same MAC":     {"now", []kernel.Link{link("lan0", 8, three), link("lan1", 9, one), link("x", 10, one)}, ""},
		"after a reboot, VLANs made in another order": {"now", []kernel.Link{link("eth0", 4, vlans), link("vlan20", 28, vlans), link("vlan10", 29, vlans)}, ""},
		"after a reboot, a VLAN that is no more":      {"now", []kernel.Link{link("eth0", 4, vlans), link("vlan20", 28, vlans)}, ""},
		"after a reboot, renamed with the same index": {"now", []kernel.Link{link("old0", 5, one), link("lan1", 6, two)}, "lan0=old0"},
	} {
		d := durable{Devices: map[string]device{"lan0": {5, "then", one}, "lan1": {6, "then", two}, "lan2": {Index: 7, Boot: "then"},
			"vlan10": {28, "then", vlans}, "vlan20": {29, "then", vlans}}}
		var got []string
		for was, now := range d.renamed(c.links, c.boot) {
			got = append(got, was+"="+now)
		}
		slices.Sort(got)
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %q, want %q", what, text, c.want)
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
