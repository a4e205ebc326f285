package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"uplinkd/internal/isp"
	"uplinkd/internal/lifetime"
	"uplinkd/internal/netlab"
	"uplinkd/pd"
)

// answersOnly has a provider answer what is as it should be: silent says why not, "" if it is.
func (s *site) answersOnly(v *simulated, silent func(req pd.Message) string) (refused func() []string) {
	var mu sync.Mutex
	var why []string
	v.Intercept(func(req pd.Message, _ *pd.Message) bool {
		w := silent(req)
		mu.Lock()
		defer mu.Unlock()
		if w != "" {
			why = append(why, fmt.Sprintf("%s: %s", req.Type, w))
		}
		return w == ""
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(why)
	}
}

// profiled is a config of the uplink with these lines about it, and of networks on these interfaces.
func profiled(lines string, lans ...string) string {
	text := "[uplink.fiber]\ninterface = \"wan0\"\ndhcpv6.delay = false\n" + lines + "\n"
	for _, lan := range lans {
		text += fmt.Sprintf("[downstream.%s]\ninterface = %q\n", lan, lan)
	}
	return text
}

// isLL reports whether a DUID is a DUID-LL of wan0 (RFC 9915 §11.4).
func isLL(d pd.DUID) bool { return d.String() == "00:03:00:01:02:00:00:00:01:01" }

// without starts a daemon without the profile, waits until the provider has left it alone, and then gives it the profile.
func (s *site) without(what func() (bool, string), plain, profile string) {
	s.t.Helper()
	s.configure(plain)
	s.start()
	s.eventually("the provider to ignore a client without the profile", what)
	if now := s.uplink(); len(now.Delegations) > 0 {
		s.t.Errorf("without the profile the client has %+v", now.Delegations)
	}
	s.configure(profile)
	s.hangup()
}

// refusedTwice waits for two messages that the provider has left unanswered.
func refusedTwice(refused func() []string) func() (bool, string) {
	return func() (bool, string) { return len(refused()) >= 2, fmt.Sprint(refused()) }
}

// keeps ends the daemon, which must not give the prefix back, and starts it again with the same one.
func (s *site) keeps(v *simulated, h holding) {
	s.t.Helper()
	ours := func() (found []isp.Binding) {
		for _, b := range v.Bindings() { // there may be others, of a client that was left alone
			if b.Prefix == h.delegations[0] {
				b.ValidUntil = lifetime.Deadline{}
				found = append(found, b)
			}
		}
		return found
	}
	before := ours()
	s.end(syscall.SIGTERM)
	if n := v.Counts().Seen[pd.Release]; n > 0 {
		s.t.Errorf("%d messages of type Release", n)
	}
	s.holds(h)
	s.start()
	s.awaitSeen(v, pd.Rebind, 1)
	s.awaitHealthy()
	s.holds(h)
	if after := ours(); len(before) != 1 || !slices.Equal(before, after) {
		s.t.Errorf("bindings before the restart %v, after it %v", before, after)
	}
}

// options are those of a message as it was on the wire, by code.
func options(raw []byte) map[uint16]string {
	found := map[uint16]string{}
	for b := raw[4:]; len(b) >= 4; {
		n := 4 + int(binary.BigEndian.Uint16(b[2:]))
		found[binary.BigEndian.Uint16(b)] = string(b[4:n])
		b = b[n:]
	}
	return found
}

// TestProfileOrange is the exchange of a Livebox: the options of the capture in opnsense/core#2774, with the classes of
// OPNsense's guide for Orange; all of it as CS6 (opnsense/core#6292) and with priority 6, which the VLAN makes 802.1p
// (openwrt/odhcp6c#74). The provider drops what has another DSCP, and in place of a switch that wants the priority the router
// drops what leaves with another one: not every kernel that runs the tests has VLANs.
func TestProfileOrange(t *testing.T) {
	t.Parallel()
	netlab.NeedProgram(t, "nft", "nftables")
	const auth = "00000000000000000000001a0900000558010341010b6674692f64756d6d79"
	s := newSite(t, false)
	v := s.simulate(isp.Config{})
	refused := s.answersOnly(v, func(req pd.Message) string {
		o := options(req.Raw)
		switch {
		case !isLL(req.ClientID):
			return "no DUID-LL"
		case fmt.Sprintf("%x", o[11]) != auth:
			return "wrong authentication"
		case o[15] != "\x00\x2bFSVDSL_livebox.Internet.softathome.Livebox6":
			return "wrong user class"
		case o[16] != "\x00\x00\x04\x0e\x00\x05sagem":
			return "wrong vendor class"
		case o[17] != "\x00\x00\x05\x58\x00\x06\x00\x0eIPV6_REQUESTED":
			return "wrong vendor-specific information"
		case len(req.IANAs) > 0:
			return "asks for an address"
		case req.Type == pd.Solicit && !(slices.Contains(req.ORO, 17) && slices.Contains(req.ORO, 23) && slices.Contains(req.ORO, 24)):
			return "does not ask for options 17, 23 and 24"
		}
		return ""
	})
	// The client without the profile shall fail for its DSCP, so the router lets everything out until it has the profile.
	s.isp.Run("nft", "add table inet bng; add chain inet bng in { type filter hook input priority 0; }; "+
		"add rule inet bng in udp dport 547 ip6 dscp != cs6 counter drop")
	reached := 0
	s.without(func() (bool, string) {
		reached = len(v.Exchanges())
		rules := s.isp.Run("nft", "list chain inet bng in")
		return !strings.Contains(rules, "counter packets 0") && !strings.Contains(rules, "counter packets 1 "), rules
	}, profiled("", "lan0"), profiled("profile = \"orange-fr\"\ndhcpv6.auth = \""+auth+"\"", "lan0"))
	if reached > 0 {
		t.Errorf("the provider was reached by %d messages without DSCP", reached)
	}

	_, delegations := s.awaitHeld(0, 1)
	s.router.Run("nft", "add table inet egress; add chain inet egress out { type filter hook output priority 0; }; "+
		"add rule inet egress out udp dport 547 meta priority != 0:6 drop")
	h := onLAN(nil, delegations...)
	s.awaitHealthy()
	s.holds(h)
	s.reach()
	s.renew()
	s.awaitSeen(v, pd.Renew, 1)
	s.awaitHealthy()
	s.keeps(v, h)
	if why := refused(); len(why) > 0 {
		t.Errorf("the provider has refused %q", why)
	}
	if delegations[0].Bits() != 56 {
		t.Errorf("delegated %v", delegations)
	}
	trace, _, _ := s.run("trace")
	if text := trace + s.daemon.Output(); !strings.Contains(trace, "auth protocol 0") || strings.Contains(text, "dummy") || strings.Contains(text, auth[30:]) {
		t.Errorf("the account is shown to people:\n%s", text)
	}
}

// TestProfileNTT: only a DUID-LL is answered (NTT's technical reference, section 2.4.2.1.4, quoted in
// fakemanhk/openwrt-jp-ipoe#51); a Reconfigure is followed (openwrt/odhcp6c#78); nothing is released (the field notes of
// routerd).
func TestProfileNTT(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v := s.simulate(isp.Config{})
	refused := s.answersOnly(v, func(req pd.Message) string {
		if !isLL(req.ClientID) {
			return "no DUID-LL"
		}
		return ""
	})
	s.without(refusedTwice(refused), profiled("", "lan0"), profiled(`profile = "ntt-ngn"`, "lan0"))
	_, delegations := s.awaitHeld(0, 1)
	h := onLAN(nil, delegations...)
	s.awaitHealthy()
	s.holds(h)
	s.reach()
	if sent, err := v.Reconfigure(pd.Renew); err != nil || sent == 0 { // also to the client that it has left alone
		t.Fatalf("%d messages Reconfigure, %v", sent, err)
	}
	s.awaitSeen(v, pd.Renew, 1)
	s.awaitHealthy()
	s.holds(h)
	s.keeps(v, h)
}

// TestLateInterface starts the daemon before the interface is there whose hardware address the DUID has.
func TestLateInterface(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	s.router.IP("link del wan0")
	s.configure(profiled(`dhcpv6.duid = "ll"`, "lan0"))
	s.start()
	s.eventually("the daemon to answer", func() (bool, string) {
		st, err := s.status()
		return err == nil && len(st.Uplinks) == 1, fmt.Sprint(err)
	})
	s.connectUplink()
	s.router.LinkLocal("wan0")
	v := s.simulate(isp.Config{})
	_, delegations := s.awaitHeld(0, 1)
	s.awaitHealthy()
	s.holds(onLAN(nil, delegations...))
	s.reach()
	if b := v.Bindings(); len(b) != 1 || !isLL(b[0].ClientID) {
		t.Errorf("bindings %v", b)
	}
	for _, e := range v.Exchanges() {
		if !isLL(e.Request.ClientID) {
			t.Errorf("%s from %s", e.Request.Type, e.Request.ClientID)
		}
	}
}

// TestImportedIdentity has the daemon go on as the dhclient that has left a lease file: to the provider it is the same client,
// with the same IAIDs. What the config says counts more.
func TestImportedIdentity(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v := s.simulate(withAddresses(isp.Config{}))
	leases := filepath.Join(s.dir, "leases")
	if err := os.WriteFile(leases, []byte(`default-duid "\000\003\000\001\002\000\000\000\011\011";
lease6 { interface "wan0"; ia-na 0:0:1:7 { } ia-pd 0:0:1:1 { iaprefix 2001:db8:1122:3300::/56 { } } }
`), 0o644); err != nil {
		t.Fatal(err)
	}
	s.configure(profiled("", "lan0"))
	if out, stderr, status := s.run("import", "dhclient", "--file", leases); status != 0 {
		t.Fatalf("import: %s%s", out, stderr)
	}
	s.start()
	s.awaitHeld(1, 1)
	const former = "00:03:00:01:02:00:00:00:09:09"
	is := func(list []isp.Binding, iaid uint32) bool {
		return slices.ContainsFunc(list, func(b isp.Binding) bool { return b.ClientID.String() == former && b.IAID == iaid })
	}
	if !is(v.Bindings(), 0x101) || !is(v.Leases(), 0x107) || len(v.Bindings())+len(v.Leases()) != 2 {
		t.Errorf("prefixes %v, addresses %v", v.Bindings(), v.Leases())
	}
	first := v.Exchanges()[0].Request
	if len(first.IAPDs) != 1 || len(first.IAPDs[0].Prefixes) == 0 || first.IAPDs[0].Prefixes[0].Prefix.String() != "2001:db8:1122:3300::/56" {
		t.Errorf("the first message names %+v", first.IAPDs)
	}

	s.configure(profiled("dhcpv6.iaid = 9", "lan0"))
	s.hangup()
	s.eventually("bindings with the IAID of the config", func() (bool, string) {
		return is(v.Bindings(), 9) && is(v.Leases(), 9), fmt.Sprint(v.Bindings(), v.Leases())
	})
	for _, what := range []string{"prefix of the configuration has the IAID", "address of the configuration no longer has the IAID"} {
		if !strings.Contains(s.daemon.Output(), what) {
			t.Errorf("the log does not say %q", what)
		}
	}
	s.awaitHealthy()
}

// TestProfileATT: a gateway that answers several IA_PDs with a /64 each, beside an IA_NA (systemd#22571), and nothing else.
// Another network asks for another prefix and gets it; those that are there keep theirs.
func TestProfileATT(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	s.lab.Veth(s.router, "lan1", s.host, "eth1", "02:00:00:00:03:01", "02:00:00:00:03:02")
	s.lab.Veth(s.router, "lan2", s.host, "eth2", "02:00:00:00:04:01", "02:00:00:00:04:02")
	v := s.simulate(withAddresses(isp.Config{Length: 64}))
	var wanted atomic.Int32
	wanted.Store(2)
	refused := s.answersOnly(v, func(req pd.Message) string {
		for _, ia := range req.IAPDs {
			if !slices.ContainsFunc(ia.Prefixes, func(p pd.IAPrefix) bool { return p.HintLen == 64 || p.Prefix.Bits() == 64 }) {
				return "asks for something else than a /64"
			}
		}
		if req.Type != pd.InformationRequest && (len(req.IAPDs) != int(wanted.Load()) || len(req.IANAs) != 1) {
			return "not several prefixes and an address at once"
		}
		return ""
	})
	s.without(refusedTwice(refused), profiled("", "lan0", "lan1"), profiled(`profile = "att"`, "lan0", "lan1"))
	leased, delegations := s.awaitHeld(1, 2)
	s.awaitHealthy()
	s.oneEach(leased, delegations)
	s.reach()
	s.renew()
	s.awaitSeen(v, pd.Renew, 1)
	s.awaitHealthy()
	s.oneEach(leased, delegations)

	wanted.Store(3)
	before := s.networks(s.kernelText())
	s.configure(profiled(`profile = "att"`, "lan0", "lan1", "lan2"))
	s.hangup()
	_, more := s.awaitHeld(1, 3)
	s.eventually("an address on lan2", func() (bool, string) { return len(addresses(s.router, "lan2")) == 1, s.kernelText() })
	s.awaitHealthy()
	after := s.networks(s.kernelText())
	for line := range strings.Lines(before) {
		if !strings.Contains(after, line) {
			t.Errorf("before another network:\n%s\nwith it:\n%s", before, after)
		}
	}
	if !slices.Contains(more, delegations[0]) || !slices.Contains(more, delegations[1]) {
		t.Errorf("delegated %v, then %v", delegations, more)
	}
}

// TestProfileTelekom: a /56 for who asks for one (opnsense/core#3240), and another one in the next session unless the last
// is named, as the provider of dhcpcd#489 does: a Rebind is answered with lifetimes of 0. Nothing is released, which gives the
// prefix away (opnsense/core#4282).
func TestProfileTelekom(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v := s.simulate(isp.Config{})
	silent := func(req pd.Message) string {
		if len(req.IAPDs) == 1 && slices.ContainsFunc(req.IAPDs[0].Prefixes, func(p pd.IAPrefix) bool {
			return p.HintLen == 56 || p.Prefix.Bits() == 56
		}) || req.Type == pd.InformationRequest {
			return ""
		}
		return "does not ask for a /56"
	}
	refused := s.answersOnly(v, silent)
	s.without(refusedTwice(refused), profiled("", "lan0"), profiled(`profile = "dtag"`, "lan0"))
	_, delegations := s.awaitHeld(0, 1)
	h := onLAN(nil, delegations...)
	s.awaitHealthy()
	s.holds(h)
	s.reach()
	s.keeps(v, h)

	var mu sync.Mutex
	var named []netip.Prefix
	v.Intercept(func(req pd.Message, reply *pd.Message) bool {
		for i := range reply.IAPDs {
			for j := range reply.IAPDs[i].Prefixes {
				if p := &reply.IAPDs[i].Prefixes[j]; req.Type == pd.Rebind {
					p.Preferred, p.Valid = 0, 0
				}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for _, ia := range req.IAPDs {
			if req.Type == pd.Solicit && len(ia.Prefixes) > 0 {
				named = append(named, ia.Prefixes[0].Prefix)
			}
		}
		return silent(req) == ""
	})
	s.router.IP("link set wan0 down")
	s.eventually("the client to notice", func() (bool, string) {
		c := s.uplink().Client
		return c.State == pd.StateNoLink, c.State
	})
	s.router.IP("link set wan0 up")
	s.eventually("a Solicit that names the last prefix", func() (bool, string) {
		mu.Lock()
		defer mu.Unlock()
		return slices.Contains(named, delegations[0]), fmt.Sprint(named)
	})
	s.awaitHealthy()
	_, again := s.awaitHeld(0, 1)
	if again[0] != delegations[0] {
		t.Errorf("delegated %v, before the session ended %v", again, delegations)
	}
	s.holds(onLAN(nil, again...))
	s.reach()
}
