package config

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestUses has a downstream of each kind with what its keys become.
func TestUses(t *testing.T) {
	got := mustParse(t, smallest+`
[downstream.guest]
interface = "lan0.7"
subnet = "vlan"
address = "eui64"
ra = "off"
dhcpv6 = "off"

[downstream.routed]
kind = "transit"
interface = "lan0"
length = 60
subnet = "hash"
via = "fe80::2"

[downstream.pool]
kind = "transit"
interface = "lan0"
length = 56
address = "::300:0:0:1"
dhcpv6.length = 62

[downstream.silent]
kind = "transit"
interface = "lan1"
ra = "off"

[downstream.web]
kind = "service"
length = 96

[downstream.catch]
kind = "service"
interface = "wan0"
anyip = { mode = "interface", nonlocal_bind = true, unfiltered = true }

[downstream.marked]
kind = "service"
anyip.mode = "mark"

[downstream.dns]
kind = "service"
interface = "wan0"
anyip.mode = "mark"
anyip.mark = 0x35
anyip.ports = ["tcp/53", "udp/53"]

[downstream.spare]
kind = "reserve"
subnet = 0
length = 60
`).Downstreams
	one := netip.MustParseAddr("::1")
	want := []Downstream{
		{Name: "lan", Interface: "lan0", Kind: Access, Subnet: AutoSubnet, Length: 64, Address: one, RA: defaultRA, DHCPv6: defaultServer},
		{Name: "guest", Interface: "lan0.7", Kind: Access, Subnet: VLANSubnet, Length: 64, Host: HostEUI64, RA: defaultRA, DHCPv6: defaultServer},
		{Name: "routed", Interface: "lan0", Kind: Transit, Subnet: HashSubnet, Length: 60, Host: HostNone, Via: netip.MustParseAddr("fe80::2")},
		{Name: "pool", Interface: "lan0", Kind: Transit, Subnet: AutoSubnet, Length: 56, Address: netip.MustParseAddr("::300:0:0:1"),
			DHCPv6: Server{Enabled: true, Delegate: true, Length: 62, Shortest: 56}, RA: RA{Enabled: true}},
		{Name: "silent", Interface: "lan1", Kind: Transit, Subnet: AutoSubnet, Length: 64, Host: HostNone,
			DHCPv6: Server{Enabled: true, Delegate: true, Length: 64, Shortest: 64}},
		{Name: "web", Kind: Service, Subnet: AutoSubnet, Length: 96, Host: HostNone, AnyIP: AnyIP{Mode: AnyIPSubnet}},
		{Name: "catch", Interface: "wan0", Kind: Service, Subnet: AutoSubnet, Length: 64, Host: HostNone,
			AnyIP: AnyIP{Mode: AnyIPInterface, Nonlocal: true, Unfiltered: true}},
		{Name: "marked", Kind: Service, Subnet: AutoSubnet, Length: 64, Host: HostNone, AnyIP: AnyIP{Mode: AnyIPMark, Mark: 0x40}},
		{Name: "dns", Interface: "wan0", Kind: Service, Subnet: AutoSubnet, Length: 64, Host: HostNone,
			AnyIP: AnyIP{Mode: AnyIPMark, Mark: 0x35, Ports: []Port{{"tcp", 53}, {"udp", 53}}}},
		{Name: "spare", Kind: Reserve, Subnet: 0, Length: 60, Host: HostNone},
	}
	want[1].RA.Enabled, want[1].DHCPv6.Enabled = false, false
	if diff := cmp.Diff(want, got, equalButPlaces); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	var without []string
	for _, d := range got {
		if !d.HasSubnet() {
			without = append(without, d.Name)
		}
	}
	if names := strings.Join(without, " "); names != "catch marked dns" {
		t.Errorf("without a subnet: %s", names)
	}
}

// What an inner router may ask for follows what it gets when it does not say.
func TestShortest(t *testing.T) {
	for keys, want := range map[string]Server{
		"dhcpv6.length = 56": {Enabled: true, Delegate: true, Length: 56, Shortest: 56},
		"dhcpv6.length = 62": {Enabled: true, Delegate: true, Length: 62, Shortest: 60},
		"kind = \"transit\"": {Enabled: true, Delegate: true, Length: 64, Shortest: 64},
		"kind = \"transit\"\nlength = 48\ndhcpv6.shortest = 56":     {Enabled: true, Delegate: true, Length: 64, Shortest: 56},
		"kind = \"transit\"\nlength = 72\ndhcpv6.delegate = false":  {Enabled: true, Length: 64, Shortest: 64},
		"kind = \"transit\"\nlength = 48\nvia = \"dhcpv6\"":         {Enabled: true, Delegate: true, Length: 64, Shortest: 48},
		"kind = \"transit\"\nlength = 127\nvia = \"fe80:0:0:0::2\"": {},
	} {
		if diff := cmp.Diff(want, mustParse(t, smallest+keys).Downstreams[0].DHCPv6); diff != "" {
			t.Errorf("%q: (-want +got)\n%s", keys, diff)
		}
	}
}

func TestULA(t *testing.T) {
	for text, want := range map[string]ULA{
		`"off"`:                 {},
		`"auto"`:                {Auto: true},
		`"fd12:3456:789a::/48"`: {Prefix: netip.MustParsePrefix("fd12:3456:789a::/48")},
		`"fd12::8:0:0:0:0/64"`:  {Prefix: netip.MustParsePrefix("fd12:0:0:8::/64")},
	} {
		if got := mustParse(t, "ula = "+text+"\n"+smallest).ULA; got != want {
			t.Errorf("ula = %s is %+v, want %+v", text, got, want)
		}
	}
	const advice = `write "auto" to have one made, or one such as "fd12:3456:789a::/48"`
	for text, want := range map[string]string{
		`true`:                   `expected a string, found true or false`,
		`"on"`:                   `"on" is not an IPv6 prefix; ` + advice,
		`"fd12:3456:789a::"`:     `"fd12:3456:789a::" is not an IPv6 prefix; ` + advice,
		`"10.0.0.0/8"`:           `"10.0.0.0/8" is an IPv4 prefix, and uplinkd is about IPv6; ` + advice,
		`"fc00:1:2::/48"`:        `fc00:1:2::/48 is in fc00::/8, which nobody may assign to himself (RFC 4193 §3.2); ` + advice,
		`"2001:db8::/48"`:        `2001:db8::/48 is not in fd00::/8, the prefixes for local use (RFC 4193); ` + advice,
		`"fd12:3456:789a::1/48"`: `"fd12:3456:789a::1/48" has bits behind its length; write "fd12:3456:789a::/48"`,
		`"fd00::/8"`:             `length 8 is out of range: a site has a prefix of length 48 (RFC 4193), and parts of it down to 64 can be given to uplinkd`,
		`"fd12::/65"`:            `length 65 is out of range: a site has a prefix of length 48 (RFC 4193), and parts of it down to 64 can be given to uplinkd`,
	} {
		_, err := Parse(File{"uplinkd.toml", []byte("ula = " + text + "\n" + smallest)})
		if err == nil || err.Error() != "uplinkd.toml:1:7: ula: "+want {
			t.Errorf("ula = %s: %v\nwant %s", text, err, want)
		}
	}
}

// Anything that Parse accepts can be planned with: no kind has settings of another, and lengths fit.
func soundUse(t *testing.T, d Downstream) {
	t.Helper()
	known := slices.Contains([]Kind{Access, Transit, Service, Reserve}, d.Kind)
	onLink := d.Kind == Access || d.Kind == Transit
	word := d.Host == HostEUI64 || d.Host == HostStable
	for what, wrong := range map[string]bool{
		"kind":      !known,
		"interface": onLink && d.Interface == "" || d.Kind == Reserve && d.Interface != "" || d.AnyIP.Mode == AnyIPInterface && d.Interface == "" || (len(d.AnyIP.Ports) > 0) != (d.AnyIP.Mode == AnyIPMark && d.Interface != ""),
		"length":    d.Length < 1 || d.Length > 128,
		"subnet":    d.Subnet < VLANSubnet || d.Subnet == VLANSubnet && !onLink,
		"host":      word && d.Length > 64 || d.Kind == Access && d.Host == HostNone || !onLink && d.Host != HostNone,
		"address":   (d.Host == HostFixed) != d.Address.IsValid(),
		"via":       d.Via.IsValid() && (d.Kind != Transit || !d.Via.IsLinkLocalUnicast() || d.Via.Zone() != ""),
		"ra":        d.Kind != Access && d.RA.Enabled && (d.Kind != Transit || d.Via.IsValid()),
		"dhcpv6":    (!onLink || d.Via.IsValid()) && d.DHCPv6 != Server{} || d.DHCPv6.Enabled && (d.DHCPv6.Shortest < 1 || d.DHCPv6.Shortest > d.DHCPv6.Length || d.DHCPv6.Length > 64),
		"anyip":     (d.Kind == Service) != (d.AnyIP.Mode != "") || (d.AnyIP.Mode == AnyIPMark) != (d.AnyIP.Mark != 0),
	} {
		if wrong {
			t.Errorf("%s: %+v", what, d)
		}
	}
}
