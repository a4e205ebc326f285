package policy

import (
	"net/netip"
	"slices"
	"testing"

	"uplinkd/internal/config"
)

func TestEUI64(t *testing.T) {
	for mac, want := range map[string]string{"02:00:00:00:01:01": "::ff:fe00:101", "34:56:78:9a:bc:de": "::3656:78ff:fe9a:bcde", "": "", "02:00": "", "02:00:00:00:00:00:00:01": "", "zz:00:00:00:00:00": ""} {
		id, ok := eui64(mac)
		if ok != (want != "") || ok && hostOf(id) != netip.MustParseAddr(want) {
			t.Errorf("%q: %v %v, want %s", mac, hostOf(id), ok, want)
		}
	}
}

// An opaque address is the same every time, and another one in another subnet, on another interface, in another network and
// for another secret (RFC 7217 §4); the next one is taken where somebody has it.
func TestStableHost(t *testing.T) {
	n := pfx("2001:db8:1100::/64")
	id := func(n string, iface, network string, counter uint32, secret string) [8]byte {
		return stableID(pfx(n), iface, network, counter, []byte(secret))
	}
	all := [][8]byte{id("2001:db8:1100::/64", "lan0", "lan", 0, "s"), id("2001:db8:1200::/64", "lan0", "lan", 0, "s"), id("2001:db8:1100::/60", "lan0", "lan", 0, "s"),
		id("2001:db8:1100::/64", "lan1", "lan", 0, "s"), id("2001:db8:1100::/64", "lan0", "guest", 0, "s"), id("2001:db8:1100::/64", "lan0", "lan", 1, "s"),
		id("2001:db8:1100::/64", "lan0", "lan", 0, "t"), id("2001:db8:1100::/64", "lan0l", "an", 0, "s")}
	for i := range all {
		if slices.Contains(all[:i], all[i]) {
			t.Errorf("number %d is like another one: %x", i, all[i])
		}
	}
	c := config.Downstream{Name: "lan", Interface: "lan0"}
	var duplicates []netip.Addr
	for range maxDAD {
		host, ok := stableHost(c, n, []byte("s"), duplicates)
		a, fits := hostIn(n, host)
		if !ok || !fits || slices.Contains(duplicates, a.Addr()) {
			t.Fatalf("%v %v after %v", a, ok, duplicates)
		}
		if again, _ := stableHost(c, n, []byte("s"), duplicates); again != host {
			t.Fatalf("%v, then %v", host, again)
		}
		duplicates = append(duplicates, a.Addr())
	}
	if host, ok := stableHost(c, n, []byte("s"), duplicates); ok {
		t.Errorf("everybody has all, but there is %v", host)
	}
	for host, want := range map[string]bool{"::": true, "::200:5eff:fe00:5213": true, "::200:5eff:feff:ffff": true, "::fdff:ffff:ffff:ff80": true, "::fdff:ffff:ffff:ff7f": false,
		"::fdff:ffff:ffff:ffff": true, "::1": false, "::200:5eff:fd00:1": false} {
		if reservedID(netip.MustParseAddr(host)) != want {
			t.Errorf("%s is reserved: %v", host, !want)
		}
	}
}

// The kernel tells of a duplicate once, since the address is not tried again; the ledger keeps it.
func TestDuplicateIsRemembered(t *testing.T) {
	cfg := configOf(t, smallest+"address = \"stable\"\n")
	w := fiberHas("2001:db8:1100::/56")
	site, _, led := Plan(cfg, w, Ledger{})
	first := site.Downstreams[0].Subnets[0].Address
	if a := first.Addr().As16(); first.Bits() != 64 || a[15] == 1 && a[8] == 0 {
		t.Fatalf("no opaque address: %s", first)
	}
	l := w.Links["lan0"]
	l.Duplicates = []netip.Addr{first.Addr()}
	w.Links["lan0"] = l
	site, _, led = Plan(cfg, w, led)
	second := site.Downstreams[0].Subnets[0].Address
	l.Duplicates = nil
	w.Links["lan0"] = l
	site, problems, _ := Plan(cfg, w, led)
	if third := site.Downstreams[0].Subnets[0].Address; second == first || third != second || len(problems) > 0 {
		t.Errorf("first %s, after it turned out to be a duplicate %s, later %s; %v", first, second, third, problems)
	}
}

func TestHostParts(t *testing.T) {
	for _, tt := range []struct{ name, config, mac, want, problem string }{
		{"EUI-64", smallest + "address = \"eui64\"\n", "02:00:00:00:01:01", "2001:db8:1100::ff:fe00:101/64", ""},
		{"EUI-64 in a /60", smallest + "address = \"eui64\"\nlength = 60\n", "02:00:00:00:01:01", "2001:db8:1100::ff:fe00:101/60", ""},
		{"no MAC", smallest + "address = \"eui64\"\n", "", "", "no-mac"},
		{"long", smallest + "address = \"::300:0:0:1\"\n", "", "2001:db8:1100:0:300::1/64", ""},
		{"transit", fiberOnly + "[downstream.inner]\nkind = \"transit\"\ninterface = \"lan0\"\naddress = \"eui64\"\n", "02:00:00:00:01:01", "2001:db8:1100::ff:fe00:101/128", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := fiberHas("2001:db8:1100::/56")
			l := w.Links["lan0"]
			l.MAC = tt.mac
			w.Links["lan0"] = l
			site, problems, _ := Plan(configOf(t, tt.config), w, Ledger{})
			got := ""
			for _, n := range site.Downstreams[0].Subnets {
				got = n.Address.String()
			}
			if got != tt.want || len(problems) != len(tt.problem)/max(1, len(tt.problem)) || tt.problem != "" && problems[0].Code != tt.problem {
				t.Errorf("%s, want %s; problems %v", got, tt.want, problems)
			}
		})
	}
}
