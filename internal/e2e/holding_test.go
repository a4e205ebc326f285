package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"uplinkd/internal/ctl"
	"uplinkd/internal/isp"
	"uplinkd/pd"
)

// holding is what the router has of its provider. What the kernel shall have follows from it.
type holding struct {
	addresses   []netip.Addr
	delegations []netip.Prefix
	subnets     map[netip.Prefix]string // /64s and their interfaces
}

// onLAN is a site whose delegations each have lan0 as their first subnet.
func onLAN(addresses []netip.Addr, delegations ...netip.Prefix) holding {
	h := holding{addresses, delegations, map[netip.Prefix]string{}}
	for _, d := range delegations {
		h.subnets[netip.PrefixFrom(d.Addr(), 64)] = "lan0"
	}
	return h
}

// text is kernelText with the lifetimes left out, sorted.
func (h holding) text(downstreams ...string) string {
	lines := []string{
		"sysctl net.ipv6.conf.all.forwarding=1",
		"sysctl net.ipv6.conf.wan0.accept_ra=2",
		"sysctl net.ipv6.conf.wan0.accept_ra_defrtr=0",
		"sysctl net.ipv6.conf.wan0.accept_ra_rt_info_max_plen=0",
		"route unreachable default table 1001 metric 4294967295 proto 200",
		"route default via " + gatewayLL + " dev wan0 metric 1000 proto 200",
		"route default via " + gatewayLL + " dev wan0 table 1001 metric 1000 proto 200",
		"rule pref 1000 from all lookup main suppress_prefixlength 0 protocol 200",
		"rule pref 9001 from all oif wan0 lookup 1001 protocol 200",
		"rule pref 9001 from all iif wan0 lookup 1001 suppress_prefixlength 0 protocol 200",
	}
	for _, dev := range downstreams {
		lines = append(lines, "rule pref 19999 from 2000::/3 iif "+dev+" unreachable protocol 200")
	}
	for _, a := range h.addresses {
		lines = append(lines, fmt.Sprintf("address %s/128 dev wan0 valid_lft N preferred_lft N noprefixroute proto 200", a),
			fmt.Sprintf("rule pref 10001 from %s/128 lookup 1001 protocol 200", a))
	}
	for _, d := range h.delegations {
		lines = append(lines, fmt.Sprintf("route unreachable %s table 1001 metric 2147483647 proto 200", d),
			fmt.Sprintf("rule pref 10001 from %s lookup 1001 protocol 200", d))
	}
	for p, dev := range h.subnets {
		lines = append(lines, fmt.Sprintf("route %s dev %s metric 255 proto 200", p, dev),
			fmt.Sprintf("address %s/64 dev %s valid_lft N preferred_lft N noprefixroute proto 200", p.Addr().Next(), dev))
	}
	return sorted(lines)
}

func sorted(lines []string) string {
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// gatewayLL is the address of up0, from its MAC address.
const gatewayLL = "fe80::ff:fe00:102"

// running is a lifetime that is not over.
var running = regexp.MustCompile(`_lft ([1-9][0-9]*|forever)`)

// onLink are the rows for what the kernel believes to be on-link on wan0.
func (s *site) onLink() (lines []string) {
	s.t.Helper()
	for line := range strings.Lines(s.router.IP("-6 route show dev wan0 proto kernel")) {
		if q := strings.Fields(line)[0]; q != "fe80::/64" {
			lines = append(lines, "route throw "+q+" metric 255 proto 200", "route "+q+" dev wan0 table 1001 metric 255 proto 200",
				"rule pref 20000 from all to "+q+" lookup 1001 protocol 200")
		}
	}
	return lines
}

// holds waits until the kernel has exactly what follows from h and from what is on-link, with a lifetime that is running for
// every address.
func (s *site) holds(h holding, downstreams ...string) {
	s.t.Helper()
	if downstreams == nil {
		downstreams = []string{"lan0"}
	}
	s.eventually("the kernel to have what follows from the lease", func() (bool, string) {
		want := sorted(append(strings.Split(h.text(downstreams...), "\n"), s.onLink()...))
		lines := strings.Split(strings.TrimSpace(running.ReplaceAllString(s.kernelText(), "_lft N")), "\n")
		lines = slices.DeleteFunc(lines, func(line string) bool { return forTheDead(line, h.delegations) })
		got := sorted(lines)
		return got == want, cmp.Diff(want, got)
	})
}

// deadRow leads to hosts that may still send from a prefix that is over; deadTable answers what they send (RFC 7084 L-14).
// The others refuse what comes for a delegation that was withdrawn, and from it.
var (
	deadRow = regexp.MustCompile(`^(?:route (2001:db8:\S+/64) dev lan[0-9] metric 255 proto 200` +
		`|route unreachable (2001:db8:\S+) table 1001 metric 2147483647 proto 200|rule pref 12001 from (2001:db8:\S+) unreachable protocol 200)$`)
	deadTable = regexp.MustCompile(`^table ip6 uplinkd # as written, text `)
)

// forTheDead reports whether a row is there only because of a prefix that is none of those held.
func forTheDead(line string, held []netip.Prefix) bool {
	m := deadRow.FindStringSubmatch(line)
	if m == nil {
		return deadTable.MatchString(line)
	}
	to, err := netip.ParsePrefix(m[1] + m[2] + m[3])
	return err == nil && !slices.ContainsFunc(held, to.Overlaps)
}

// uplink is the only uplink in the status, the zero one of a daemon that has only just started.
func (s *site) uplink() (u ctl.Uplink) {
	s.t.Helper()
	if st, err := s.status(); err == nil && len(st.Uplinks) > 0 {
		return st.Uplinks[0]
	}
	return u
}

// held is what the router has according to status: addresses of its own, and delegations.
func (s *site) held() (addresses []netip.Addr, delegations []netip.Prefix) {
	s.t.Helper()
	u := s.uplink()
	for _, a := range u.Addresses {
		addresses = append(addresses, a.Address)
	}
	for _, g := range u.Delegations {
		delegations = append(delegations, g.Prefix)
	}
	return addresses, delegations
}

// awaitHeld waits until the router has so many addresses and delegations by DHCPv6, and returns them.
func (s *site) awaitHeld(wantAddresses, wantDelegations int) (addresses []netip.Addr, delegations []netip.Prefix) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%d addresses and %d delegations", wantAddresses, wantDelegations), func() (bool, string) {
		addresses, delegations = s.held()
		return len(addresses) == wantAddresses && len(delegations) == wantDelegations, fmt.Sprint(addresses, delegations)
	})
	return addresses, delegations
}

// witness is a provider that says nothing but RAs, beside a server of other people: it knows what the client asks.
func (s *site) witness() *simulated {
	s.t.Helper()
	v := s.simulate(isp.Config{})
	v.Silence(true)
	return v
}

// awaitSeen waits until the provider has seen so many messages of a type.
func (s *site) awaitSeen(v *simulated, typ pd.MessageType, n int) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%d messages %s", n, typ), func() (bool, string) {
		seen := v.Counts().Seen
		return seen[typ] >= n, fmt.Sprint(seen)
	})
}

// noStorm fails the test if the client has sent more than most messages in all.
func (v *simulated) noStorm(t *testing.T, most int) {
	t.Helper()
	n, seen := 0, v.Counts().Seen
	for _, c := range seen {
		n += c
	}
	if n > most {
		t.Errorf("the client has sent %d messages, want at most %d: %v", n, most, seen)
	}
}

// renew asks the daemon to ask the provider.
func (s *site) renew() {
	s.t.Helper()
	if err := s.client().Renew(s.t.Context(), ""); err != nil {
		s.t.Fatal(err)
	}
}
