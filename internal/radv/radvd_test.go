package radv

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"uplinkd/internal/lifetime"
	"uplinkd/internal/netlab"
	"uplinkd/policy"
)

// lasting is a prefix whose lifetimes are the caps, as radvd's are by default: they stay the same while time passes.
func lasting(prefix string, preferred, valid time.Duration) policy.AnnouncedPrefix {
	return policy.AnnouncedPrefix{Prefix: netip.MustParsePrefix(prefix), PreferredUntil: lifetime.Forever(), ValidUntil: lifetime.Forever(),
		PreferredCap: preferred, ValidCap: valid}
}

func toForever(prefix string) policy.AnnouncedRoute {
	return policy.AnnouncedRoute{Prefix: netip.MustParsePrefix(prefix), Until: lifetime.Forever()}
}

// likeRadvd are announcements and the lines of radvd.conf that mean the same. What radvd 2.19 does not know (PREF64, captive
// portal) is in TestBuild and TestPREF64Octets.
var likeRadvd = []struct {
	name, conf string
	a          policy.Announcement
}{
	{"minimal", `AdvDefaultLifetime 1800;
		prefix 2001:db8:a::/64 { AdvValidLifetime 5400; AdvPreferredLifetime 2700; };`,
		policy.Announcement{Router: true, RouterLifetime: 1800 * time.Second,
			Prefixes: []policy.AnnouncedPrefix{lasting("2001:db8:a::/64", 2700*time.Second, 5400*time.Second)}}},
	{"every option", `AdvDefaultLifetime 2700; AdvDefaultPreference high; AdvOtherConfigFlag on; AdvLinkMTU 1480;
		prefix 2001:db8:a::/64 { AdvValidLifetime 5400; AdvPreferredLifetime 2700; };
		prefix fd00:0:1:2::/64 { AdvValidLifetime 4000; AdvPreferredLifetime 3000; };
		prefix 2001:db8:b::/64 { AdvValidLifetime 0; AdvPreferredLifetime 0; };
		prefix 2001:db8:c::/64 { AdvValidLifetime 600; AdvPreferredLifetime 0; };
		route 2001:db8:a::/56 { AdvRouteLifetime 1800; };
		route 2001:db8:e:0:8000::/65 { AdvRouteLifetime 1800; };
		route fd00:0:1::/48 { AdvRouteLifetime 0; };
		RDNSS 2001:db8:a::1 fd00:0:1:2::1 { AdvRDNSSLifetime 1800; };
		DNSSL lan.example b.example { AdvDNSSLLifetime 1800; };`,
		policy.Announcement{Router: true, RouterLifetime: 2700 * time.Second, Preference: "high", Other: true, MTU: 1480,
			Prefixes: []policy.AnnouncedPrefix{lasting("2001:db8:a::/64", 2700*time.Second, 5400*time.Second),
				lasting("fd00:0:1:2::/64", 3000*time.Second, 4000*time.Second), {Prefix: prefixB, Stale: true}, lasting("2001:db8:c::/64", 0, 600*time.Second)},
			Routes: []policy.AnnouncedRoute{toForever("2001:db8:a::/56"), toForever("2001:db8:e:0:8000::/65"), {Prefix: netip.MustParsePrefix("fd00:0:1::/48")}},
			DNS:    []netip.Addr{netip.MustParseAddr("2001:db8:a::1"), netip.MustParseAddr("fd00:0:1:2::1")}, Search: []string{"lan.example", "b.example"}}},
	{"low preference", `AdvDefaultLifetime 1800; AdvDefaultPreference low;
		prefix 2001:db8:a::/64 { AdvValidLifetime 5400; AdvPreferredLifetime 2700; };`,
		policy.Announcement{Router: true, RouterLifetime: 1800 * time.Second, Preference: "low",
			Prefixes: []policy.AnnouncedPrefix{lasting("2001:db8:a::/64", 2700*time.Second, 5400*time.Second)}}},
	{"no way out", `AdvDefaultLifetime 0;
		prefix 2001:db8:a::/64 { AdvValidLifetime 5400; AdvPreferredLifetime 2700; };
		route 2001:db8:a::/56 { AdvRouteLifetime 1800; };`,
		policy.Announcement{RouterLifetime: 1800 * time.Second, Preference: "high", // which is not to be said then
			Prefixes: []policy.AnnouncedPrefix{lasting("2001:db8:a::/64", 2700*time.Second, 5400*time.Second)},
			Routes:   []policy.AnnouncedRoute{toForever("2001:db8:a::/56")}}},
	{"hosts that ask DHCPv6 for addresses and send everything to the router", `AdvDefaultLifetime 1800; AdvManagedFlag on;
		prefix 2001:db8:a::/64 { AdvValidLifetime 5400; AdvPreferredLifetime 2700; AdvAutonomous off; AdvOnLink off; };`,
		policy.Announcement{Router: true, RouterLifetime: 1800 * time.Second, Managed: true, NotAutonomous: true, NotOnLink: true,
			Prefixes: []policy.AnnouncedPrefix{lasting("2001:db8:a::/64", 2700*time.Second, 5400*time.Second)}}},
	{"a prefix that is not on-link", `AdvDefaultLifetime 1800;
		prefix 2001:db8:a::/64 { AdvValidLifetime 5400; AdvPreferredLifetime 2700; AdvOnLink off; };`,
		policy.Announcement{Router: true, RouterLifetime: 1800 * time.Second, NotOnLink: true,
			Prefixes: []policy.AnnouncedPrefix{lasting("2001:db8:a::/64", 2700*time.Second, 5400*time.Second)}}},
	{"a prefix of another length", `AdvDefaultLifetime 1800;
		prefix 2001:db8:a::/60 { AdvValidLifetime 5400; AdvPreferredLifetime 2700; AdvAutonomous off; };`,
		policy.Announcement{Router: true, RouterLifetime: 1800 * time.Second,
			Prefixes: []policy.AnnouncedPrefix{lasting("2001:db8:a::/60", 2700*time.Second, 5400*time.Second)}}},
}

// TestLikeRadvd has radvd and a Sender announce the same from interfaces with the same addresses, and compares packets: the
// headers, each option octet for octet, and what tcpdump reads in them.
func TestLikeRadvd(t *testing.T) {
	netlab.NeedProgram(t, "radvd", "radvd")
	netlab.NeedProgram(t, "tcpdump", "tcpdump")
	for _, c := range likeRadvd {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lab := netlab.New(t)
			theirs, ours, hosts := lab.NS("radvd"), lab.NS("uplinkd"), lab.NS("hosts")
			for _, n := range []*netlab.NS{theirs, ours, hosts} {
				n.Sysctl("net.ipv6.conf.default.accept_dad", "0")
			}
			var captures []*capture
			for i, n := range []*netlab.NS{theirs, ours} {
				n.Sysctl("net.ipv6.conf.all.forwarding", "1")
				name := fmt.Sprintf("eth%d", i)
				lab.Veth(n, "lan0", hosts, name, "02:00:00:00:01:01", fmt.Sprintf("02:00:00:00:02:%02x", i))
				n.LinkLocal("lan0")
				captures = append(captures, capturesOn(t, hosts, name))
			}
			conf := filepath.Join(t.TempDir(), "radvd.conf")
			text := "interface lan0 { AdvSendAdvert on; MinRtrAdvInterval 200; MaxRtrAdvInterval 600;\n" + c.conf + "\n};\n"
			if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			theirs.Start(theirs.Command(t.Context(), "radvd", "-n", "-m", "stderr", "-C", conf, "-p", conf+".pid"))
			c.a.Send, c.a.MinInterval, c.a.MaxInterval = true, 200*time.Second, 600*time.Second
			sends(t, ours, c.a)
			want, got := captures[0].await("radvd"), captures[1].await("uplinkd")
			if diff := cmp.Diff(fields(want), fields(got)); diff != "" {
				t.Errorf("-radvd +uplinkd, by octets:\n%s", diff)
			}
			wantText, gotText := tcpdump(t, hosts, want), tcpdump(t, hosts, got)
			if diff := cmp.Diff(wantText, gotText); diff != "" {
				t.Errorf("-radvd +uplinkd, as tcpdump reads them:\n%s", diff)
			}
			for _, line := range gotText {
				for _, complaint := range []string{"invalid", "bad", "unknown", "incorrect", "wrong", "[|", "trunc", "malformed"} {
					if strings.Contains(strings.ToLower(line), complaint) {
						t.Errorf("tcpdump: %s", line)
					}
				}
			}
		})
	}
}

// fields are the parts of a packet with an advertisement, options sorted. Left out are the flow label, which the kernel chooses,
// the checksum, which depends on the order of the options, and the payload length, see shortened.
func fields(f frame) []string {
	ip, ra := f[etherHeader:], f.icmpv6()
	list := []string{
		fmt.Sprintf("version and class %x, next header %d, hop limit %d", ip[:1], ip[6], ip[7]),
		fmt.Sprintf("from %s to %s", netip.AddrFrom16([16]byte(ip[8:24])), f.to()),
		fmt.Sprintf("type and code %x, hop limit %d, flags %02x, router lifetime %x, reachable %x, retrans %x", ra[:2], ra[4], ra[5], ra[6:8], ra[8:12], ra[12:16]),
	}
	var options []string
	for o := ra[16:]; len(o) > 1 && o[1] > 0 && len(o) >= 8*int(o[1]); o = o[8*int(o[1]):] {
		options = append(options, fmt.Sprintf("option %2d: %s", o[0], hex.EncodeToString(shortened(o[:8*int(o[1])]))))
	}
	slices.Sort(options)
	return append(list, options...)
}

// shortened returns a Route Information option in its shortest form; others as they are. radvd spends 16 octets on every
// prefix, which RFC 4191 §2.3 allows too.
func shortened(o []byte) []byte {
	o = bytes.Clone(o)
	if o[0] == 24 && o[1] == 3 && o[2] <= 64 {
		o[1], o = 2, o[:16]
	}
	return o
}

// unequal is what fields leaves out, in the words of tcpdump.
var unequal = regexp.MustCompile(`flowlabel 0x[0-9a-f]+, |,? ?(payload )?length:? \d+( \(\d+\))?`)

// tcpdump returns what tcpdump -vv says of a packet, a line per field or option, sorted, without what fields leaves out.
func tcpdump(t *testing.T, n *netlab.NS, f frame) []string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(n.Run("tcpdump", "-vv", "-n", "-t", "-r", pcap(t, f))) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "0x") {
			continue
		}
		if strings.HasPrefix(line, "IP6 ") || strings.HasPrefix(line, "route info ") {
			line = unequal.ReplaceAllString(line, "")
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}
