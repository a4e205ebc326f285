package main

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/config"
	"uplinkd/pd"
	"uplinkd/pd/wire"
)

// provider is one for whom there is a profile, as strict as its documentation: it answers only what is as it should be.
type provider struct {
	needs  string                                               // what the user adds to the profile
	lans   string                                               // and to the file
	silent func(m pd.Message, options map[uint16][]byte) string // why there is no answer, "" if there is one
	length int                                                  // of what it delegates
	most   int                                                  // IA_PDs that get something
}

// someAuth has the form of what Orange wants since 2018: eleven zero octets, then the account, salt and digest.
const someAuth = "0000000000000000000000" + "1a0900000558010341010b6674692f64756d6d79"

const threeLANs = "[downstream.a]\ninterface = \"a\"\n[downstream.b]\ninterface = \"b\"\n[downstream.c]\ninterface = \"c\"\n"

var providers = map[string]provider{
	// The capture of a Livebox in opnsense/core#2774, OPNsense's guide for Orange. Priority and DSCP are outside of messages.
	"orange-fr": {needs: `dhcpv6.auth = "` + someAuth + `"`, length: 56, most: 1, silent: func(m pd.Message, o map[uint16][]byte) string {
		switch {
		case !strings.HasPrefix(string(o[1]), "\x00\x03\x00\x01") || len(o[1]) != 10:
			return "no DUID-LL"
		case hex.EncodeToString(o[11]) != someAuth:
			return "wrong authentication"
		case string(o[15]) != "\x00\x2bFSVDSL_livebox.Internet.softathome.Livebox6":
			return "wrong user class"
		case string(o[16]) != "\x00\x00\x04\x0e\x00\x05sagem":
			return "wrong vendor class"
		case string(o[17]) != "\x00\x00\x05\x58\x00\x06\x00\x0eIPV6_REQUESTED":
			return "wrong vendor-specific information"
		case len(m.IANAs) > 0 || len(m.IAPDs) != 1:
			return "asks for something else than a prefix"
		case m.Type == pd.Solicit && !(slices.Contains(m.ORO, 17) && slices.Contains(m.ORO, 23) && slices.Contains(m.ORO, 24)):
			return "does not ask for options 17, 23 and 24"
		}
		return ""
	}},
	// NTT's technical reference, quoted in fakemanhk/openwrt-jp-ipoe#51; openwrt/odhcp6c#78.
	"ntt-ngn": {length: 56, most: 1, silent: func(m pd.Message, o map[uint16][]byte) string {
		switch {
		case !strings.HasPrefix(string(o[1]), "\x00\x03\x00\x01") || len(o[1]) != 10:
			return "no DUID-LL"
		case !m.ReconfAccept:
			return "refuses Reconfigure"
		}
		return ""
	}},
	// systemd#22571: an IA_NA and several IA_PDs in one message, /64s only. The gateway has given the others away.
	"att": {lans: threeLANs, length: 64, most: 2, silent: func(m pd.Message, _ map[uint16][]byte) string {
		for _, ia := range m.IAPDs {
			for _, p := range ia.Prefixes {
				if p.HintLen != 64 && p.Prefix.Bits() != 64 {
					return "asks for another length than 64"
				}
			}
		}
		if len(m.IANAs) != 1 || len(m.IAPDs) != 3 {
			return "one prefix is not enough for several networks"
		}
		return ""
	}},
	// opnsense/core#3240: a /56 for who asks for one. That nobody else gets anything is stricter than Telekom is.
	"dtag": {length: 56, most: 1, silent: func(m pd.Message, _ map[uint16][]byte) string {
		if len(m.IAPDs) != 1 || !slices.ContainsFunc(m.IAPDs[0].Prefixes, func(p pd.IAPrefix) bool {
			return p.HintLen == 56 || p.Prefix.Bits() == 56
		}) {
			return "does not ask for a /56"
		}
		return ""
	}},
}

// conversation is a client of the machine with a provider, in virtual time.
type conversation struct {
	t        *testing.T
	m        *pd.Machine
	now      time.Time
	provider provider
	session  int // another one delegates other prefixes
	refused  []string
	heard    []pd.Message
}

// converse begins one on an uplink with that config.
func converse(t *testing.T, text string, p provider) *conversation {
	u := uplinkWith(t, text)
	id := clientIdentity{duid: routersOwn}
	if kind := u.DHCPv6.DUID; kind != "auto" {
		id.duid = makeDUID(kind, []byte{2, 0, 0, 0, 1, 1}, time.Now()).DUID
	}
	now := time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	c := &conversation{t: t, now: now, provider: p, m: pd.NewMachine(machineConfig(u, id), pd.Lease{}, now, rand.New(rand.NewPCG(1, 2)))}
	c.step(pd.Input{Kind: pd.InputLinkUp})
	return c
}

// step has something happen, and the provider answer what comes of it.
func (c *conversation) step(in pd.Input) {
	c.t.Helper()
	for _, out := range c.m.Step(c.now, in) {
		if out.Kind != pd.OutputSend {
			continue
		}
		b, err := wire.Encode(out.Message)
		if err != nil {
			c.t.Fatal(err)
		}
		m, err := wire.Decode(b)
		if err != nil {
			c.t.Fatal(err)
		}
		c.heard = append(c.heard, m)
		if why := c.provider.silent(m, optionsOf(b)); why != "" {
			c.refused = append(c.refused, why)
			continue
		}
		if reply := c.answer(m); reply.Type != 0 {
			c.step(pd.Input{Kind: pd.InputMessage, Message: reply, Unicast: true})
		}
	}
}

// pass lets d of time go by.
func (c *conversation) pass(d time.Duration) {
	c.t.Helper()
	for end := c.now.Add(d); ; {
		at, ok := c.m.Deadline()
		if !ok || at.After(end) {
			c.now = end
			return
		}
		c.now = at
		c.step(pd.Input{Kind: pd.InputTimer})
	}
}

// answer delegates the prefix that is named, else a new one; after a session what is held is over.
func (c *conversation) answer(m pd.Message) (reply pd.Message) {
	reply = pd.Message{Type: pd.Reply, XID: m.XID, ClientID: m.ClientID, ServerID: "\x00\x03\x00\x01server"}
	if m.Type == pd.Solicit {
		reply.Type = pd.Advertise
	}
	for i, ia := range m.IAPDs {
		answer := pd.IAPD{IAID: ia.IAID, T1: 1800, T2: 2880}
		p := netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(c.session), 0, 0, byte(i)}), c.provider.length)
		if len(ia.Prefixes) > 0 && ia.Prefixes[0].Prefix.IsValid() {
			p = ia.Prefixes[0].Prefix
		}
		switch {
		case i >= c.provider.most:
			answer.Status = pd.Status{Code: pd.NoPrefixAvail}
		case m.Type == pd.Rebind && c.session > 0:
			answer.Prefixes = []pd.IAPrefix{{Prefix: p}}
		default:
			answer.Prefixes = []pd.IAPrefix{{Prefix: p, Preferred: 3600, Valid: 7200}}
		}
		reply.IAPDs = append(reply.IAPDs, answer)
	}
	for _, ia := range m.IANAs {
		reply.IANAs = append(reply.IANAs, pd.IANA{IAID: ia.IAID, Status: pd.Status{Code: pd.NoAddrsAvail}})
	}
	return reply
}

// optionsOf are the options at the top of a message, by code.
func optionsOf(b []byte) map[uint16][]byte {
	found := map[uint16][]byte{}
	for b = b[4:]; len(b) >= 4; {
		n := 4 + int(binary.BigEndian.Uint16(b[2:]))
		found[binary.BigEndian.Uint16(b)] = b[4:n]
		b = b[n:]
	}
	return found
}

// TestProfilesTalk has each profile get a lease and keep it, from a provider with whom the same client without the profile
// gets nothing in a day.
func TestProfilesTalk(t *testing.T) {
	if names := slices.Sorted(maps.Keys(providers)); !slices.Equal(names, config.ProfileNames()) {
		t.Errorf("profiles %q, and providers for %q", config.ProfileNames(), names)
	}
	for _, name := range config.ProfileNames() {
		t.Run(name, func(t *testing.T) {
			p := providers[name]
			c := converse(t, fmt.Sprintf("profile = %q\n%s\n%s", name, p.needs, p.lans), p)
			c.pass(time.Hour)
			if l := c.m.Lease(); len(l.Prefixes) != p.most || l.Prefixes[0].Prefix.Bits() != p.length || len(c.refused) > 0 {
				t.Fatalf("lease %+v, refused %q", l, c.refused)
			}
			if !c.has(pd.Renew) {
				t.Error("no Renew in an hour")
			}
			plain := converse(t, p.lans, p)
			plain.pass(24 * time.Hour)
			if l := plain.m.Lease(); l.Held() || len(plain.refused) == 0 {
				t.Errorf("without the profile: lease %+v, refused %q", l, plain.refused)
			}
		})
	}
}

func (c *conversation) has(typ pd.MessageType) bool {
	return slices.ContainsFunc(c.heard, func(m pd.Message) bool { return m.Type == typ })
}

// TestSameHintAfterReconnect ends the PPPoE session, after which Telekom's prefixes are others and what is held is over; who
// names the last prefix gets it back from a provider like that of dhcpcd#489.
func TestSameHintAfterReconnect(t *testing.T) {
	c := converse(t, `profile = "dtag"`, providers["dtag"])
	c.pass(time.Hour)
	before := c.m.Lease().Prefixes
	c.step(pd.Input{Kind: pd.InputLinkDown})
	c.session++
	c.pass(time.Minute)
	c.heard = nil
	c.step(pd.Input{Kind: pd.InputLinkUp})
	c.pass(time.Minute)
	after := c.m.Lease().Prefixes
	if len(before) != 1 || len(after) != 1 || after[0].Prefix != before[0].Prefix || len(c.refused) > 0 {
		t.Errorf("before %v, after %v, refused %q", before, after, c.refused)
	}
	if !c.has(pd.Rebind) || !c.has(pd.Solicit) || c.has(pd.Release) {
		t.Errorf("the client has said %v", c.heard)
	}
}
