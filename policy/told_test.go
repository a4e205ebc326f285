package policy

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

func nat64(prefix string, seconds uint32) PREF64 {
	return PREF64{Prefix: pfx(prefix), Until: lifetime.After(epoch, seconds)}
}

// Where DHCPv6 and RAs tell the same, DHCPv6 comes first; neither list of facts is written to.
func TestToldJoins(t *testing.T) {
	a, b, c := netip.MustParseAddr("2001:db8::a"), netip.MustParseAddr("2001:db8::b"), netip.MustParseAddr("2001:db8::c")
	byDHCP := append(make([]netip.Addr, 0, 8), a, b)
	f := UplinkFacts{Told: pd.Info{DNS: byDHCP, CaptivePortal: "https://lease.example/"}, Heard: Heard{DNS: []netip.Addr{b, c}, Search: []string{"ra.example"},
		CaptivePortal: "https://ra.example/", PREF64: []PREF64{nat64("64:ff9b::/96", 60), nat64("64:ff9b::/96", 90), nat64("2001:db8:64::/96", 0)}}}
	got := told(f, epoch)
	want := Told{Info: pd.Info{DNS: []netip.Addr{a, b, c}, DomainSearch: []string{"ra.example"}, CaptivePortal: "https://lease.example/"},
		PREF64: []PREF64{nat64("64:ff9b::/96", 60)}}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, lifetime.Deadline{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if byDHCP[:3][2].IsValid() {
		t.Error("the lease's list of servers was written to")
	}
	f.Told.CaptivePortal = ""
	if got := told(f, epoch).CaptivePortal; got != "https://ra.example/" {
		t.Errorf("captive portal %q", got)
	}
}

func TestSameMeaning(t *testing.T) {
	x, y := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	base := func() Told {
		return Told{Info: pd.Info{DNS: []netip.Addr{x, y}, DomainSearch: []string{"a.example"}, NTP: []netip.Addr{x}, NTPNames: []string{"ntp.example"},
			SNTP: []netip.Addr{y}, AFTR: "aftr.example", CaptivePortal: "https://portal.example/", S46: []pd.Option{{Code: 94, Data: []byte{1}}}, Resolvers: []pd.Resolver{{Priority: 1, Name: "dot.example", Addresses: []netip.Addr{x}}},
			Unknown: []pd.Option{{Code: 17, Data: []byte{2}}}}, PREF64: []PREF64{nat64("64:ff9b::/96", 60)}}
	}
	for name, change := range map[string]func(*Told){
		"DNS":           func(o *Told) { o.DNS = []netip.Addr{x} },
		"one more DNS":  func(o *Told) { o.DNS = append(o.DNS, netip.MustParseAddr("2001:db8::3")) },
		"search":        func(o *Told) { o.DomainSearch[0] = "b.example" },
		"NTP":           func(o *Told) { o.NTP = nil },
		"NTP names":     func(o *Told) { o.NTPNames = nil },
		"SNTP":          func(o *Told) { o.SNTP = nil },
		"AFTR":          func(o *Told) { o.AFTR = "" },
		"portal":        func(o *Told) { o.CaptivePortal += "x" },
		"resolver":      func(o *Told) { o.Resolvers[0].Priority = 2 },
		"S46":           func(o *Told) { o.S46[0].Data = []byte{2} },
		"other code":    func(o *Told) { o.Unknown[0].Code = 18 },
		"unknown":       func(o *Told) { o.Unknown = nil },
		"PREF64":        func(o *Told) { o.PREF64[0] = nat64("64:ff9b:1::/96", 60) },
		"=order":        func(o *Told) { slices.Reverse(o.DNS) },
		"=deadline":     func(o *Told) { o.PREF64[0].Until = lifetime.Forever() },
		"=a name twice": func(o *Told) { o.NTPNames = append(o.NTPNames, "ntp.example") },
	} {
		o := base()
		change(&o)
		if want := name[0] == '='; base().SameMeaning(o) != want || o.SameMeaning(base()) != want {
			t.Errorf("%s: the same meaning is not %t", name, want)
		}
	}
}

// Hosts get the NAT64 prefixes that all working uplinks of theirs have in common, and one captive portal.
func TestPassedOn(t *testing.T) {
	const config = "[uplink.a]\ninterface = \"wan0\"\nmetric = 2000\n[uplink.b]\ninterface = \"wan1\"\n[downstream.lan]\ninterface = \"lan0\"\n" +
		"[downstream.inner]\ninterface = \"lan1\"\nfrom = \"a\"\nra.dns = \"2001:db8::53\"\n"
	facts := func(n string, portal string, nat ...PREF64) UplinkFacts {
		return UplinkFacts{Reported: true, Delegations: []Granted{granted(epoch, "2001:db8:"+n+"00::/56", 3000, 4000)},
			Heard: Heard{Routers: []Router{router(epoch, "fe80::1")}, PREF64: nat, CaptivePortal: portal}}
	}
	wellKnown, ofA, ofB := nat64("64:ff9b::/96", 600), nat64("2001:db8:a:64::/96", 600), nat64("2001:db8:b:64::/96", 600)
	soon := nat64("64:ff9b::/96", 100)
	for _, tt := range []struct {
		name       string
		down       string
		a, b       UplinkFacts
		lan, inner Announcement
	}{
		{"in common", "", facts("11", "https://a.example/", ofA, wellKnown), facts("22", "https://b.example/", soon, ofB),
			Announcement{PREF64: []PREF64{soon}, CaptivePortal: "https://b.example/"},
			Announcement{PREF64: []PREF64{wellKnown, ofA}, CaptivePortal: "https://a.example/"}},
		{"nothing in common", "", facts("11", "https://a.example/", ofA), facts("22", "", ofB),
			Announcement{CaptivePortal: "https://a.example/"}, Announcement{PREF64: []PREF64{ofA}, CaptivePortal: "https://a.example/"}},
		{"one does not tell", "", facts("11", "", ofA), facts("22", ""), Announcement{}, Announcement{PREF64: []PREF64{ofA}}},
		{"one is down", "wan0", facts("11", "https://a.example/", ofA), facts("22", "", ofB), Announcement{PREF64: []PREF64{ofB}}, Announcement{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := world(epoch, "wan0", "wan1", "lan0", "lan1")
			if tt.down != "" {
				delete(w.Links, tt.down)
			}
			w.Uplinks["a"], w.Uplinks["b"] = tt.a, tt.b
			site, _, _ := Plan(configOf(t, config), w, Ledger{})
			for i, want := range []Announcement{tt.lan, tt.inner} {
				got := site.Downstreams[i].Announce
				got = Announcement{PREF64: got.PREF64, CaptivePortal: got.CaptivePortal}
				if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, lifetime.Deadline{}), cmpopts.EquateEmpty()); d != "" {
					t.Errorf("%s (-want +got):\n%s", site.Downstreams[i].Name, d)
				}
			}
			for _, d := range site.Downstreams {
				for _, p := range d.Announce.PREF64 {
					if p.Until.Over(epoch.Add(time.Second)) {
						t.Errorf("%s is announced although it ends at %s", p.Prefix, p.Until)
					}
				}
			}
		})
	}
}
