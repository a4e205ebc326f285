package pd

import (
	"net/netip"
	"time"

	"uplinkd/internal/lifetime"
)

// This file makes up what happens in a walk: inputs, messages and what stands on a disk.

func (w *walk) input() Input {
	switch w.pick("input", 20) {
	case 0, 1, 2, 3, 4, 5, 6, 7:
		return Input{Kind: InputMessage, Message: w.message(), Unicast: w.pick("unicast", 2) == 1}
	case 8, 9, 10:
		return Input{Kind: InputLinkUp}
	case 11:
		return Input{Kind: []InputKind{InputLinkDown, InputRelease, 99, InputLinkDown}[w.pick("rare", 4)]}
	case 12:
		return Input{Kind: InputRenew}
	case 13:
		return Input{Kind: InputSuspect}
	case 14:
		in := Input{Kind: InputConflict, Address: w.address()}
		if held := w.m.Lease().Addresses; len(held) > 0 {
			in.Address = held[w.pick("which", len(held))].Address
		}
		return in
	case 15:
		return w.reconfigure()
	}
	return Input{Kind: InputTimer}
}

// reconfigure is mostly one of the server that has given a key.
func (w *walk) reconfigure() Input {
	msg := Message{Type: Reconfigure, ClientID: ourID, ServerID: serverID("a"), ReconfMsg: []MessageType{Renew, Rebind, InformationRequest, 0}[w.pick("asks", 4)]}
	key, replay := []byte("another 16 bytes"), uint64(w.pick("replay", 256))
	if k := w.m.Lease().Reconf; k != nil {
		msg.ServerID, replay = k.ServerID, k.Replay+uint64(w.pick("more", 3))-1
		if w.pick("key", 4) > 0 {
			key = k.Key
		}
	}
	msg = signed(msg, replay, key)
	switch w.pick("damage", 8) {
	case 0:
		msg.Raw = msg.Raw[:w.pick("length", len(msg.Raw))]
	case 1:
		msg.Raw[w.pick("octet", len(msg.Raw))] ^= 1 << w.pick("bit", 8)
	case 2:
		msg.Auth = nil
	}
	return Input{Kind: InputMessage, Message: msg, Unicast: w.pick("unicast", 8) > 0}
}

// saved is what may stand on a disk.
func (w *walk) saved() Lease {
	at := func() lifetime.Deadline {
		switch w.pick("deadline", 4) {
		case 0:
			return lifetime.Forever()
		case 1:
			return lifetime.Deadline{}
		}
		return lifetime.Until(start.Add(time.Duration(w.pick("offset", 4000)-500) * time.Second))
	}
	l := Lease{ServerID: serverID("a"), T1: at(), T2: at(), SolMaxRT: uint32(w.pick("solmax", 200)), InfMaxRT: uint32(w.pick("infmax", 200)), InfoUntil: at()}
	l.Received = start.Add(time.Duration(w.pick("received", 7)-3) * time.Hour)
	if w.pick("server", 4) == 0 {
		l.ServerID = ""
	}
	if w.pick("prefixes", 3) > 0 {
		for range w.pick("prefixes", 40) {
			l.Prefixes = append(l.Prefixes, LeasedPrefix{IAID: uint32(5 + w.pick("iaid", 4)), Prefix: w.prefix(), Exclude: w.prefix(), PreferredUntil: at(), ValidUntil: at()})
		}
	}
	for range w.pick("addresses", 20) {
		l.Addresses = append(l.Addresses, LeasedAddress{IAID: uint32(5 + w.pick("iaid", 8)/7), Address: w.address(), PreferredUntil: at(), ValidUntil: at()})
	}
	for range w.pick("previous", 40) {
		l.Previous = append(l.Previous, w.prefix())
	}
	l.IgnoresRebind = []DUID{"", serverID("a"), serverID("b"), "x"}[w.pick("ignores", 4)]
	if w.pick("key", 2) == 1 {
		l.Reconf = &ReconfKey{ServerID: serverID("a"), Key: []byte("0123456789abcdef")[:16-w.pick("short", 2)], Replay: uint64(w.pick("replay", 100))}
	}
	return l
}

func (w *walk) prefix() netip.Prefix {
	if w.pick("prefix kind", 2) == 0 {
		return walkPrefixes[w.pick("prefix", len(walkPrefixes))]
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(w.pick("net", 64))}), 56)
}

func (w *walk) address() netip.Addr {
	if w.pick("address kind", 4) == 0 {
		return walkAddresses[w.pick("address", len(walkAddresses))]
	}
	return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(1 + w.pick("host", 30))})
}

// message is mostly an answer to the last message sent, with anything in it.
func (w *walk) message() Message {
	msg := Message{
		Type:     []MessageType{Reply, Advertise, Reply, Reconfigure, Solicit}[min(w.pick("type", 12)/2, 4)],
		XID:      w.last.XID,
		ClientID: ourID,
		ServerID: serverID(string(rune('a' + w.pick("server", 26)))),
	}
	if w.m.State() == "soliciting" && msg.Type == Reply {
		msg.Type, msg.RapidCommit = []MessageType{Advertise, Reply}[w.pick("rapid reply", 2)], w.pick("rapid option", 2) == 1
	}
	if w.last.ServerID != "" && w.pick("addressed", 4) > 0 {
		msg.ServerID = w.last.ServerID
	}
	switch w.pick("foreign", 20) {
	case 0:
		msg.XID++
	case 1:
		msg.ClientID = "somebody else"
	case 2:
		msg.ServerID = ""
	case 3, 4:
		msg.Type, msg.XID = Reply, w.info
	}
	msg.Preference = []uint8{0, 1, 255}[w.pick("preference", 3)]
	limits := []uint32{0, 59, 60, 3600, 86400, 86401, lifetime.Infinity}
	msg.SolMaxRT, msg.InfMaxRT = limits[w.pick("solmax", 7)], limits[w.pick("infmax", 7)]
	msg.InfoRefresh = limits[w.pick("irt", 7)]
	msg.DNS = make([]netip.Addr, w.pick("dns", 2)*100)
	msg.Unknown = make([]Option, w.pick("unknown", 2)*100)
	if w.pick("auth", 3) == 0 {
		msg.Auth = &Auth{Protocol: uint8(3 - w.pick("protocol", 8)/7), Algorithm: 1, Replay: uint64(w.pick("replay", 200)), Info: append([]byte{1}, reconfKey...)[:17-w.pick("short", 2)]}
	}
	if w.pick("status", 4) == 0 {
		msg.Status.Code = walkStatus[w.pick("code", len(walkStatus))]
	}
	for range w.pick("ias", 8) / 2 {
		i := w.ia()
		if w.cfg.NA != nil && w.pick("kind", 2) == 0 {
			msg.IANAs = append(msg.IANAs, w.iana(i))
			continue
		}
		msg.IAPDs = append(msg.IAPDs, i)
	}
	return msg
}

func (w *walk) life() uint32 { return walkLifetimes[w.pick("lifetime", len(walkLifetimes))] }

func (w *walk) ia() IAPD {
	o := IAPD{IAID: uint32(5 + w.pick("iaid", 8)/2)}
	if w.pick("first", 2) == 0 {
		o.IAID = 5
	}
	if w.pick("times", 3) == 0 {
		o.T1, o.T2 = w.life(), w.life()
	}
	o.Status = Status{Code: walkStatus[w.pick("ia status", len(walkStatus))], Text: "why"}
	n := w.pick("n", 4)
	if n == 3 {
		n = 40
	}
	for range n {
		p := IAPrefix{Prefix: w.prefix(), Exclude: w.prefix(), Preferred: w.life(), Valid: w.life(), HintLen: 7}
		if w.pick("prefix status", 6) == 0 {
			p.Status.Code = walkStatus[w.pick("code", len(walkStatus))]
		}
		o.Prefixes = append(o.Prefixes, p)
	}
	return o
}

func (w *walk) iana(like IAPD) IANA {
	o := IANA{IAID: like.IAID, T1: like.T1, T2: like.T2, Status: like.Status}
	for _, p := range like.Prefixes {
		o.Addresses = append(o.Addresses, IAAddress{Address: w.address(), Preferred: p.Preferred, Valid: p.Valid, Status: p.Status})
	}
	return o
}
