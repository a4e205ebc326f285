package policy

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"uplinkd/internal/lifetime"
)

// subnetsText is who has what of the site.
func subnetsText(s Site) (list []string) {
	for _, d := range s.Downstreams {
		list = append(list, subnetTexts(d.Subnets)...)
	}
	return list
}

func TestSubnetIDs(t *testing.T) {
	w := fiberHas("2001:db8:1100::/52")
	for i, id := range []uint16{0, 832, 0} {
		l := w.Links[[]string{"lan0", "lan1", "lan2"}[i]]
		l.VLAN = id
		w.Links[l.Name] = l
	}
	const config = fiberOnly + "[downstream.hashed]\ninterface = \"lan0\"\nsubnet = \"hash\"\n[downstream.vlan]\ninterface = \"lan1\"\nsubnet = \"vlan\"\n" +
		"[downstream.untagged]\ninterface = \"lan2\"\nsubnet = \"vlan\"\n"
	cfg := configOf(t, config)
	site, problems, led := Plan(cfg, w, Ledger{})
	id := site.Downstreams[0].Subnets[0].ID
	if got := site.Downstreams[1].Subnets; len(got) != 1 || got[0].ID != 832 {
		t.Errorf("vlan: %v", got)
	}
	if len(problems) != 1 || problems[0].Code != "no-vlan" || problems[0].Path != "downstream.untagged" || id == 0 {
		t.Errorf("%v, id by hash %d", problems, id)
	}
	delete(w.Links, "lan1") // without its interface the network keeps its id
	site, _, _ = Plan(cfg, w, led)
	if got := site.Downstreams[1].Subnets; len(got) != 1 || got[0].ID != 832 {
		t.Errorf("vlan without interface: %v", got)
	}
	// On another router, with more networks, it is the same; who comes later gives way.
	other := configOf(t, fiberOnly+"[downstream.a]\ninterface = \"lan2\"\n[downstream.hashed]\ninterface = \"lan0\"\nsubnet = \"hash\"\n")
	if site, _, _ = Plan(other, fiberHas("2001:db8:1100::/52"), Ledger{}); site.Downstreams[1].Subnets[0].ID != id {
		t.Errorf("by hash %d, on another router %d", id, site.Downstreams[1].Subnets[0].ID)
	}
	taken := configOf(t, fiberOnly+"[downstream.hashed]\ninterface = \"lan0\"\nsubnet = \"hash\"\n[downstream.a]\ninterface = \"lan1\"\n")
	taken.Downstreams[1].Subnet = int64(id)
	if site, _, _ = Plan(taken, fiberHas("2001:db8:1100::/52"), Ledger{}); site.Downstreams[0].Subnets[0].ID != (id+1)%4096 {
		t.Errorf("by hash %d, where that is taken %d", id, site.Downstreams[0].Subnets[0].ID)
	}
}

// The ladder, where there is too little for all.
func TestLadder(t *testing.T) {
	const lanGuest, inner = "[downstream.lan]\ninterface = \"lan0\"\n[downstream.guest]\ninterface = \"lan1\"\n", "[downstream.inner]\nkind = \"transit\"\ninterface = \"lan2\"\nlength = 60\n"
	for _, tt := range []struct {
		name, config, delegation string
		ledger                   Ledger
		want, problems           []string
	}{
		{"room for all", inner + lanGuest, "2001:db8:1100::/56", Ledger{}, []string{"inner=2001:db8:1100:10::/60", "lan=2001:db8:1100::/64", "guest=2001:db8:1100:1::/64"}, nil},
		{"a pool shrinks", inner + lanGuest, "2001:db8:1100::/60", Ledger{}, []string{"inner=2001:db8:1100:8::/61", "lan=2001:db8:1100::/64", "guest=2001:db8:1100:1::/64"},
			[]string{"pool-shrunk: 2001:db8:1100::/60 of uplink fiber has no room for a /60 beside the others, so inner routers share 2001:db8:1100:8::/61: lan has 2001:db8:1100::/64, guest has 2001:db8:1100:1::/64"}},
		{"a pool comes last", inner + lanGuest, "2001:db8:1100::/63", Ledger{}, []string{"lan=2001:db8:1100::/64", "guest=2001:db8:1100:1::/64"},
			[]string{"delegation-full: no free /64 left in 2001:db8:1100::/63 of uplink fiber for inner routers: lan has 2001:db8:1100::/64, guest has 2001:db8:1100:1::/64"}},
		{"a pool gives way that had all", inner + lanGuest, "2001:db8:1100::/60", Ledger{Had: map[string][]netip.Prefix{"inner": {pfx("2001:db8:1100::/60")}}},
			[]string{"inner=2001:db8:1100:8::/61", "lan=2001:db8:1100::/64", "guest=2001:db8:1100:1::/64"},
			[]string{"pool-shrunk: 2001:db8:1100::/60 of uplink fiber has no room for a /60 beside the others, so inner routers share 2001:db8:1100:8::/61: lan has 2001:db8:1100::/64, guest has 2001:db8:1100:1::/64"}},
		{"who has it keeps it", lanGuest, "2001:db8:1100::/64", Ledger{Had: map[string][]netip.Prefix{"guest": {pfx("2001:db8:1100::/64")}}}, []string{"guest=2001:db8:1100::/64"},
			[]string{"delegation-full: no free /64 left in 2001:db8:1100::/64 of uplink fiber: guest has 2001:db8:1100::/64"}},
		{"who is remembered comes first", lanGuest, "2001:db8:1100::/64", Ledger{Subnets: map[string]uint64{"guest": 0}}, []string{"guest=2001:db8:1100::/64"},
			[]string{"delegation-full: no free /64 left in 2001:db8:1100::/64 of uplink fiber: guest has 2001:db8:1100::/64"}},
		{"an id in the config comes first", lanGuest + "subnet = 0\n", "2001:db8:1100::/64", Ledger{Subnets: map[string]uint64{"lan": 0}}, []string{"guest=2001:db8:1100::/64"},
			[]string{"delegation-full: no free /64 left in 2001:db8:1100::/64 of uplink fiber: guest has 2001:db8:1100::/64"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			site, problems, _ := Plan(configOf(t, fiberOnly+tt.config), fiberHas(tt.delegation), tt.ledger)
			if got := subnetsText(site); !slices.Equal(got, tt.want) {
				t.Errorf("subnets %v, want %v", got, tt.want)
			}
			var said []string
			for _, p := range problems {
				said = append(said, p.Code+": "+p.Message)
			}
			if !slices.Equal(said, tt.problems) {
				t.Errorf("problems %q,\nwant %q", said, tt.problems)
			}
		})
	}
}

// A delegation that the server has replaced without a word is deprecated as soon as there is another one, and not before.
func TestSuperseded(t *testing.T) {
	unlisted := granted(epoch, "2001:db8:1100::/56", 3000, 4000)
	unlisted.Unlisted = true
	other, over := granted(epoch, "2001:db8:1200::/56", 3000, 4000), granted(epoch, "2001:db8:1200::/56", 0, 4000)
	for _, tt := range []struct {
		name string
		gs   []Granted
		want State
	}{{"alone", []Granted{unlisted}, Preferred}, {"beside another one", []Granted{unlisted, other}, Deprecated}, {"beside a deprecated one", []Granted{unlisted, over}, Preferred}} {
		w := fiberHas()
		w.Uplinks["fiber"] = UplinkFacts{Delegations: tt.gs}
		site, _, _ := Plan(configOf(t, smallest), w, Ledger{})
		g, n := site.Uplinks[0].Delegations[0], site.Downstreams[0].Subnets[0]
		if g.State != tt.want || n.State != tt.want || n.PreferredUntil.Over(epoch) != (tt.want == Deprecated) || n.ValidUntil != unlisted.ValidUntil {
			t.Errorf("%s: %v, %v", tt.name, g, n)
		}
	}
}

// The site's own prefix stays whatever servers delegate, and without it hosts are told so.
func TestULA(t *testing.T) {
	w := fiberHas("fd00:1:2::/56")
	w.ULA = pfx("fd00:1:2::/48")
	site, problems, led := Plan(configOf(t, smallest), w, Ledger{})
	if len(site.Uplinks[0].Delegations) != 0 || len(problems) != 1 || problems[0].Code != "delegation-overlap" {
		t.Errorf("%v, %v", site.Uplinks[0].Delegations, problems)
	}
	if got := Events(Site{}, site, nil); slices.ContainsFunc(got, func(e Event) bool { return e.Prefix.IsValid() }) {
		t.Errorf("events of the ULA prefix: %v", got)
	}
	w.ULA, w.Uplinks["fiber"] = netip.Prefix{}, UplinkFacts{}
	w.Now = epoch.Add(time.Second)
	site, _, _ = Plan(configOf(t, smallest), w, led)
	d := site.Downstreams[0]
	if len(d.Announce.Prefixes) != 1 || !d.Announce.Prefixes[0].Stale || len(d.Dead) != 1 || !d.Announce.Send {
		t.Errorf("without it: %+v", d)
	}
}

// The record of what was announced is bounded, and two downstreams that had one and the same prefix do not both lead to it.
func TestStaleOnce(t *testing.T) {
	record := func(seconds uint32) []AnnouncedRecord {
		return []AnnouncedRecord{{Prefix: pfx("2001:db8:9::/64"), Until: lifetime.After(epoch, seconds)}}
	}
	led := Ledger{Announced: map[string][]AnnouncedRecord{"lan": record(100), "guest": record(200)}}
	site, _, _ := Plan(configOf(t, smallest+"[downstream.guest]\ninterface = \"lan1\"\n"), fiberHas("2001:db8:1100::/56"), led)
	if lan, guest := site.Downstreams[0], site.Downstreams[1]; len(lan.Stale) != 0 || len(guest.Stale) != 1 || len(guest.Dead) != 1 {
		t.Errorf("lan %v, guest %v", lan.Stale, guest.Stale)
	}
	site, _, _ = Plan(configOf(t, smallest), fiberHas("2001:db8:9::/56"), led) // somebody else has it now, so to say
	if lan := site.Downstreams[0]; len(lan.Stale) != 0 || len(lan.Dead) != 0 {
		t.Errorf("in use: %v %v", lan.Stale, lan.Dead)
	}
}
