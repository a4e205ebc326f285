package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"uplinkd/internal/lifetime"
)

// network is a downstream section for access.
func network(name, iface string) string {
	return fmt.Sprintf("[downstream.%s]\ninterface = %q\n", name, iface)
}

// announcedText is what hosts on each interface are told.
func announcedText(s Site) (list []string) {
	for _, d := range s.Downstreams {
		for _, x := range d.Announce.Prefixes {
			text := fmt.Sprintf("%s %s", d.Interface, x.Prefix)
			if x.Stale {
				text += " stale"
			}
			list = append(list, text)
		}
	}
	return list
}

// What hosts on an interface were told of, they are told the end of there, however the network on it is called now.
func TestNetworkOnAnotherInterface(t *testing.T) {
	before := fiberOnly + network("aaa", "lan0") + network("bbb", "lan1")
	const p0, p1 = "2001:db8:1100::/64", "2001:db8:1100:1::/64"
	for _, tt := range []struct {
		name   string
		config string
		want   []string
		then   []string // with the first config again, one minute later
	}{
		{"swapped", fiberOnly + network("aaa", "lan1") + network("bbb", "lan0"), []string{"lan1 " + p0, "lan1 " + p1 + " stale", "lan0 " + p1, "lan0 " + p0 + " stale"},
			[]string{"lan0 " + p0, "lan0 " + p1 + " stale", "lan1 " + p1, "lan1 " + p0 + " stale"}},
		{"renamed", fiberOnly + network("ccc", "lan0") + "subnet = 2\n" + network("bbb", "lan1"), []string{"lan0 2001:db8:1100:2::/64", "lan0 " + p0 + " stale", "lan1 " + p1},
			[]string{"lan0 " + p0, "lan0 2001:db8:1100:2::/64 stale", "lan1 " + p1}},
		{"renamed in place", fiberOnly + network("ccc", "lan0") + network("bbb", "lan1"), []string{"lan0 " + p0, "lan1 " + p1}, []string{"lan0 " + p0, "lan1 " + p1}},
		{"moved to a free one", fiberOnly + network("aaa", "lan2") + network("bbb", "lan1"), []string{"lan2 " + p0, "lan1 " + p1}, []string{"lan0 " + p0, "lan1 " + p1}},
		{"moved onto the other", fiberOnly + network("aaa", "lan1"), []string{"lan1 " + p0, "lan1 " + p1 + " stale"}, []string{"lan0 " + p0, "lan1 " + p1, "lan1 " + p0 + " stale"}},
		{"a pool", fiberOnly + network("aaa", "lan1") + "kind = \"transit\"\nvia = \"fe80::2\"\n" + network("ccc", "lan0") + "subnet = 7\n" + network("bbb", "lan2"),
			[]string{"lan1 " + p1 + " stale", "lan0 2001:db8:1100:7::/64", "lan0 " + p0 + " stale", "lan2 " + p1},
			[]string{"lan0 " + p0, "lan0 2001:db8:1100:7::/64 stale", "lan1 " + p1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := fiberHas("2001:db8:1100::/56")
			_, _, led := Plan(configOf(t, before), w, Ledger{})
			w.Now = epoch.Add(time.Minute)
			site, _, led := Plan(configOf(t, tt.config), w, led)
			if got := announcedText(site); !slices.Equal(got, tt.want) {
				t.Errorf("announced %q,\nwant %q", got, tt.want)
			}
			w.Now = epoch.Add(2 * time.Minute)
			site, _, led = Plan(configOf(t, before), w, led)
			if got := announcedText(site); !slices.Equal(got, tt.then) {
				t.Errorf("afterwards %q,\nwant %q", got, tt.then)
			}
			w.Now = epoch.Add(3 * time.Hour)
			w.Uplinks["fiber"] = UplinkFacts{Reported: true}
			if _, _, led = Plan(configOf(t, before), w, led); len(led.Announced) > 0 {
				t.Errorf("in the end the ledger has %v", led.Announced)
			}
		})
	}
}

// Records of an older version do not say the interface: it was that of the downstream of their name.
func TestOldRecord(t *testing.T) {
	led := Ledger{Announced: map[string][]AnnouncedRecord{"lan": {{Prefix: pfx("2001:db8:9::/64"), Until: lifetime.Forever()}},
		"gone": {{Prefix: pfx("2001:db8:8::/64"), Until: lifetime.Forever()}}}}
	site, _, led := Plan(configOf(t, smallest), fiberHas(), led)
	if got := announcedText(site); !slices.Equal(got, []string{"lan0 2001:db8:9::/64 stale"}) {
		t.Errorf("announced %q", got)
	}
	if r := led.Announced["lan"]; len(led.Announced) != 1 || len(r) != 1 || r[0].Interface != "lan0" {
		t.Errorf("ledger: %+v", led.Announced)
	}
}

// Property: whatever is announced as current on an interface is announced there in every later plan in which there is a network
// on it, as stale at least, until the end of its lifetime: over changes of names, interfaces and delegations.
func TestHostsHearTheEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		led, heard := Ledger{}, map[spot]time.Time{}
		w := fiberHas()
		for range rapid.IntRange(2, 6).Draw(t, "steps") {
			text := fiberOnly
			free := rapid.Permutation([]string{"lan0", "lan1", "lan2"}).Draw(t, "interfaces")
			for i, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 3, rapid.ID[string]).Draw(t, "names") {
				text += network(name, free[i])
			}
			w.Now = w.Now.Add(time.Duration(rapid.IntRange(0, 1800).Draw(t, "pause")) * time.Second)
			w.Uplinks["fiber"] = UplinkFacts{Reported: true, Delegations: []Granted{
				granted(w.Now, rapid.SampledFrom([]string{"2001:db8:1100::/56", "2001:db8:2200::/56"}).Draw(t, "delegation"), 2700, 5400)}}
			var site Site
			site, _, led = Plan(configOf(silent{}, text), w, led)
			for _, d := range site.Downstreams {
				told := map[netip.Prefix]bool{}
				for _, x := range d.Announce.Prefixes {
					told[x.Prefix] = true
					if !x.Stale {
						heard[spot{d.Interface, x.Prefix}] = w.Now.Add(5400 * time.Second)
					}
				}
				for at, until := range heard {
					if at.iface == d.Interface && until.After(w.Now) && !told[at.prefix] {
						t.Fatalf("hosts on %s are not told that %s is over: %v", at.iface, at.prefix, announcedText(site))
					}
				}
			}
		}
	})
}
