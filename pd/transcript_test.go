package pd

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"uplinkd/internal/lifetime"
)

// This file holds the words of the transcripts in testdata: how configs, leases and messages are read and written.

// configure reads the words of a config line. Without "pd=" there is one IA_PD with IAID 1; "no-pd" asks for none.
func (c *conversation) configure(words []string) {
	pds := []PDConfig{}
	for _, w := range words {
		switch k, v, _ := strings.Cut(w, "="); k {
		case "length":
			c.cfg.PDs[0].Length = uint8(c.number(v))
		case "prefix":
			c.cfg.PDs[0].Prefix = netip.MustParsePrefix(v)
		case "accept":
			low, high, _ := strings.Cut(v, "-")
			c.cfg.PDs[0].Min, c.cfg.PDs[0].Max = uint8(c.number(low)), uint8(c.number(high))
		case "pd": // IAID or IAID/length
			id, length, _ := strings.Cut(v, "/")
			pds = append(pds, PDConfig{IAID: c.number(id), Length: uint8(c.number("0" + length))})
			c.cfg.PDs = pds
		case "no-pd":
			c.cfg.PDs = nil
		case "na":
			c.cfg.NA = &NAConfig{IAID: 1, Required: v == "required"}
		case "stateless":
			c.cfg.Stateless = true
		case "rapid":
			c.cfg.RapidCommit = true
		case "reconfigure":
			c.cfg.Reconfigure = true
		case "delay":
			c.cfg.Delay = true
		case "prefer":
			c.cfg.Prefer = Preference(v)
		case "oro":
			for _, n := range strings.Split(v, ",") {
				c.cfg.ORO = append(c.cfg.ORO, uint16(c.number(n)))
			}
		case "user-class":
			c.cfg.UserClass = append(c.cfg.UserClass, []byte(v))
		case "vendor-class":
			c.cfg.VendorClass = append(c.cfg.VendorClass, VendorClass{Enterprise: 32473, Data: [][]byte{[]byte(v)}})
		case "extra":
			c.cfg.Extra = append(c.cfg.Extra, Option{Code: uint16(c.number(v))})
		default:
			c.t.Fatalf("unknown word %q", w)
		}
	}
}

func (c *conversation) number(s string) uint32 {
	if s == "inf" {
		return lifetime.Infinity
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		c.t.Fatal(err)
	}
	return uint32(n)
}

func (c *conversation) duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		c.t.Fatal(err)
	}
	return d
}

func (c *conversation) status(s string) Status {
	name, text, _ := strings.Cut(s, ":")
	for i, n := range statusNames {
		if n == name {
			return Status{Code: StatusCode(i), Text: strings.ReplaceAll(text, "_", " ")}
		}
	}
	return Status{Code: StatusCode(c.number(name)), Text: strings.ReplaceAll(text, "_", " ")}
}

// anyIA is an IA of a message while its words are read.
type anyIA struct {
	ia
	t1, t2 uint32
	status Status
	leases []IAPrefix
}

// message reads "advertise" or "reply", then KEY=VALUE and prefixes or addresses as "2001:db8::/56=preferred/valid" with an
// optional "!Status" or "^excluded" behind. They belong to the first IA of the config until "iapd=N" or "iana=N" begins
// another. What is not said answers the last message that was sent.
func (c *conversation) message(words []string) Message {
	msg := Message{Type: Reply, XID: c.last.XID, ClientID: ourID, ServerID: serverID("a")}
	if words[0] == "advertise" {
		msg.Type = Advertise
	}
	ias := []anyIA{{}}
	if w := c.cfg.wanted(); len(w) > 0 {
		ias[0].ia = w[0]
	} else {
		ias = nil
	}
	named := false // an IA, or something in the first one
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		if slices.Contains([]string{"iaid", "ia-status", "t1", "t2"}, k) || strings.Contains(k, ":") {
			named = true
		}
		switch k {
		case "iapd", "iana":
			next := anyIA{ia: ia{na: k == "iana", id: c.number(v)}}
			if !named {
				ias = nil
			}
			ias, named = append(ias, next), true
		case "iaid":
			ias[0].id = c.number(v)
		case "no-ia":
			ias = nil
		case "ia-status":
			ias[len(ias)-1].status = c.status(v)
		case "t1":
			ias[len(ias)-1].t1 = c.number(v)
		case "t2":
			ias[len(ias)-1].t2 = c.number(v)
		default:
			if !c.messageWord(&msg, k, v) {
				ias[len(ias)-1].leases = append(ias[len(ias)-1].leases, c.prefix(k, v))
			}
		}
	}
	for _, i := range ias {
		if !i.na {
			msg.IAPDs = append(msg.IAPDs, IAPD{IAID: i.id, T1: i.t1, T2: i.t2, Status: i.status, Prefixes: i.leases})
			continue
		}
		o := IANA{IAID: i.id, T1: i.t1, T2: i.t2, Status: i.status}
		for _, p := range i.leases {
			o.Addresses = append(o.Addresses, IAAddress{Address: p.Prefix.Addr(), Preferred: p.Preferred, Valid: p.Valid, Status: p.Status})
		}
		msg.IANAs = append(msg.IANAs, o)
	}
	return msg
}

// messageWord reads what is not about an IA, and reports whether it was that.
func (c *conversation) messageWord(msg *Message, k, v string) bool {
	switch k {
	case "server":
		msg.ServerID = serverID(v)
	case "no-server-id":
		msg.ServerID = ""
	case "no-client-id":
		msg.ClientID = ""
	case "client-id":
		msg.ClientID = serverID(v)
	case "xid":
		if n, named := strings.CutPrefix(v, "#"); named {
			msg.XID = c.xids[int(c.number(n))]
		} else {
			msg.XID = c.last.XID ^ c.number(v)
		}
	case "pref":
		msg.Preference = uint8(c.number(v))
	case "rapid":
		msg.RapidCommit = true
	case "status":
		msg.Status = c.status(v)
	case "solmax":
		msg.SolMaxRT = c.number(v)
	case "infmax":
		msg.InfMaxRT = c.number(v)
	case "irt":
		msg.InfoRefresh = c.number(v)
	case "dns":
		msg.DNS = append(msg.DNS, netip.MustParseAddr(v))
	case "search":
		msg.DomainSearch = append(msg.DomainSearch, v)
	case "key": // replay value
		msg.Auth = &Auth{Protocol: 3, Algorithm: 1, Replay: uint64(c.number(v)), Info: append([]byte{1}, reconfKey...)}
	default:
		return false
	}
	return true
}

var reconfKey = []byte("0123456789abcdef")

// prefix reads a prefix, or an address as a /128.
func (c *conversation) prefix(prefix, lifetimes string) IAPrefix {
	p := IAPrefix{Prefix: mustPrefix(prefix)}
	lifetimes, status, refused := strings.Cut(lifetimes, "!")
	if refused {
		p.Status = c.status(status)
	}
	lifetimes, exclude, with := strings.Cut(lifetimes, "^")
	if with {
		p.Exclude = netip.MustParsePrefix(exclude)
	}
	preferred, valid, _ := strings.Cut(lifetimes, "/")
	p.Preferred, p.Valid = c.number(preferred), c.number(valid)
	return p
}

func mustPrefix(s string) netip.Prefix {
	if !strings.Contains(s, "/") {
		return host(netip.MustParseAddr(s))
	}
	return netip.MustParsePrefix(s)
}

// reconfigure reads "renew", "rebind", "information" or a number, then "replay=N", "server=X" and what is wrong with it.
func (c *conversation) reconfigure(words []string) Input {
	types := map[string]MessageType{"renew": Renew, "rebind": Rebind, "information": InformationRequest, "solicit": Solicit}
	msg := Message{Type: Reconfigure, ClientID: ourID, ServerID: serverID("a"), ReconfMsg: types[words[0]]}
	in, key, forged := Input{Kind: InputMessage, Unicast: true}, reconfKey, false
	replay := uint64(0)
	for _, w := range words[1:] {
		switch k, v, _ := strings.Cut(w, "="); k {
		case "replay":
			replay = uint64(c.number(v))
		case "multicast":
			in.Unicast = false
		case "other-key":
			key = []byte("another 16 bytes")
		case "changed": // on the way
			forged = true
		case "no-auth":
			key = nil
		default:
			if !c.messageWord(&msg, k, v) {
				c.t.Fatalf("unknown word %q", w)
			}
		}
	}
	in.Message = signed(msg, replay, key)
	if forged {
		in.Message.Raw[len(in.Message.Raw)-1] ^= 1
	}
	return in
}

// signed is msg with the authentication of a server that has given key, or without any.
func signed(msg Message, replay uint64, key []byte) Message {
	raw := []byte{byte(msg.Type), 0, 0, 0}
	option := func(code uint16, data []byte) {
		raw = binary.BigEndian.AppendUint16(raw, code)
		raw = binary.BigEndian.AppendUint16(raw, uint16(len(data)))
		raw = append(raw, data...)
	}
	option(1, []byte(msg.ClientID))
	option(2, []byte(msg.ServerID))
	digest := 0
	if key != nil {
		data := append(binary.BigEndian.AppendUint64([]byte{3, 1, 0}, replay), make([]byte, 17)...)
		data[11] = 2
		option(11, data)
		digest = len(raw) - 16
	}
	option(19, []byte{byte(msg.ReconfMsg)})
	if key != nil {
		mac := hmac.New(md5.New, key)
		mac.Write(raw)
		copy(raw[digest:], mac.Sum(nil))
		msg.Auth = &Auth{Protocol: 3, Algorithm: 1, Replay: replay, Info: raw[digest-1 : digest+16]}
	}
	msg.Raw = raw
	return msg
}

// lease reads "received=-1h t1=… t2=… server=a" and prefixes and addresses as "2001:db8::/56=preferred/valid", all
// relative to the start. "iaid=N" is about the prefixes after it.
func (c *conversation) lease(words []string) Lease {
	l := Lease{ServerID: serverID("a")}
	until := func(s string) lifetime.Deadline { return lifetime.Until(start.Add(c.duration(s))) }
	iaid := uint32(1)
	var bs []binding
	for _, w := range words {
		switch k, v, _ := strings.Cut(w, "="); k {
		case "received":
			l.Received = start.Add(c.duration(v))
		case "t1":
			l.T1 = until(v)
		case "t2":
			l.T2 = until(v)
		case "iaid":
			iaid = c.number(v)
		case "server":
			l.ServerID = serverID(v)
		case "solmax":
			l.SolMaxRT = c.number(v)
		case "infmax":
			l.InfMaxRT = c.number(v)
		case "dns":
			l.DNS = append(l.DNS, netip.MustParseAddr(v))
		case "ignores-rebind":
			l.IgnoresRebind = serverID(v)
		case "info-until":
			l.InfoUntil = until(v)
		case "previous":
			l.Previous = append(l.Previous, netip.MustParsePrefix(v))
		case "key":
			l.Reconf = &ReconfKey{ServerID: l.ServerID, Key: reconfKey, Replay: uint64(c.number(v))}
		default:
			preferred, valid, _ := strings.Cut(v, "/")
			bs = append(bs, binding{na: !strings.Contains(k, "/"), LeasedPrefix: LeasedPrefix{IAID: iaid, Prefix: mustPrefix(k),
				PreferredUntil: until(preferred), ValidUntil: until(valid)}})
		}
	}
	return l.with(bs)
}
