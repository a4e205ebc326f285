package main

import (
	cryptorand "crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"uplinkd/internal/config"
	"uplinkd/pd"
	"uplinkd/pd/identity"
	"uplinkd/pd/store"
)

// clientIdentity is who the DHCPv6 client of an uplink is to the provider.
type clientIdentity struct {
	duid  pd.DUID
	iaids store.IAIDs // imported
	waits bool        // for the interface: its hardware address makes another DUID
}

// identify is the identity that the config wants for u. What is made for that is kept on disk from then on, and a change of
// what the provider has known this uplink by is told: it may delegate another prefix.
func (t *tasks) identify(u config.Uplink, lease pd.Lease, hardware hardware) clientIdentity {
	log, kind := t.log.With("uplink", u.Name), u.DHCPv6.DUID
	known, err := t.store.Identity(u.Name)
	if err != nil {
		log.Error("stored DUID is of no use; the provider may delegate another prefix", "err", err)
	}
	id := clientIdentity{}
	if id.iaids, err = t.store.IAIDs(u.Name); err != nil {
		log.Error("imported IAIDs are of no use; the provider may delegate another prefix", "err", err)
	}
	used := known.Used
	if used == "" && lease.Held() {
		used = t.duid // all uplinks have had this one
	}
	switch {
	case kind == "auto":
		id.duid = t.duid
	case strings.HasPrefix(kind, "0x"):
		octets, _ := hex.DecodeString(kind[2:]) // the config has seen to it
		id.duid = pd.DUID(octets)
	default:
		m, there := duidOfKind(kind, u.Interface, known, hardware)
		if id.duid = m.DUID; m.InPlace && !there {
			id.waits = true
			return id // nobody has seen it, and nobody will
		}
		if m.InPlace {
			log.Warn("the interface has no hardware address for the DUID; a random one stands in for it", "interface", u.Interface,
				"dhcpv6.duid", kind, "duid", m.DUID)
		}
		if known.Made == nil {
			known.Made = map[string]store.MadeDUID{}
		}
		known.Made[kind] = m
	}
	if used != "" && used != id.duid {
		log.Warn("the DUID of this uplink has changed; the provider may delegate another prefix", "dhcpv6.duid", kind, "was", used, "is", id.duid)
	}
	if kind == "auto" && known.Used == "" {
		return id // it is in a file of its own
	}
	known.Used = id.duid
	if err := t.save(u.Name, known); err != nil {
		log.Error("the DUID may be another after the next start", "err", err)
	}
	return id
}

// duidOfKind is the DUID of a kind of dhcpv6.duid that was made before, or one that is made now. One that stands in for
// another goes when the interface has the hardware address for that. there reports whether there is the interface, as far as
// it matters.
func duidOfKind(kind, dev string, known store.Identity, hardware hardware) (m store.MadeDUID, there bool) {
	m, kept := known.Made[kind]
	if kept && !m.InPlace {
		return m, true
	}
	mac, there := hardware(dev)
	if !kept || mac != nil {
		m = makeDUID(kind, mac, time.Now())
	}
	return m, there
}

// hardware returns the Ethernet address of an interface, nil if it has none, and whether there is such an interface.
type hardware func(dev string) (mac []byte, there bool)

// hardware looks at the links that the engine has told; at the start, when it has told none yet, at a dump of its own. One of
// them does for all uplinks: asking for one interface (net.InterfaceByName) dumps all of them.
func (t *tasks) hardware() hardware {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.links) == 0 {
		return dumpHardware()
	}
	macs := make(map[string][]byte, len(t.links))
	for name, l := range t.links {
		macs[name], _ = net.ParseMAC(l.MAC) // "" for those without one
	}
	return among(macs)
}

// dumpHardware asks the kernel. Without an answer no interface is there.
func dumpHardware() hardware {
	macs := map[string][]byte{}
	list, _ := net.Interfaces()
	for _, i := range list {
		macs[i.Name] = i.HardwareAddr
	}
	return among(macs)
}

func among(macs map[string][]byte) hardware {
	return func(dev string) (mac []byte, there bool) {
		mac, there = macs[dev]
		if _, err := identity.LinkLayer(mac); err != nil {
			return nil, there
		}
		return mac, there
	}
}

// makeDUID makes one of a kind of dhcpv6.duid (RFC 9915 §11.2 to §11.5). Without mac, where the kind needs one, it is a
// DUID-UUID in place of that.
func makeDUID(kind string, mac []byte, now time.Time) store.MadeDUID {
	random := make([]byte, 16)
	cryptorand.Read(random) // never fails (crypto/rand)
	number, enterprise := strings.CutPrefix(kind, "en:")
	switch {
	case enterprise:
		n, _ := strconv.ParseUint(number, 10, 32) // the config has seen to it
		b := binary.BigEndian.AppendUint32([]byte{0, 2}, uint32(n))
		return store.MadeDUID{DUID: pd.DUID(append(b, random...))}
	case kind == "ll" && mac != nil:
		d, _ := identity.LinkLayer(mac) // hardware has tried
		return store.MadeDUID{DUID: d}
	case kind == "llt" && mac != nil:
		return store.MadeDUID{DUID: pd.NewDUID(mac, now, nil)}
	}
	return store.MadeDUID{DUID: pd.NewDUID(nil, now, random), InPlace: kind != "uuid"}
}

// iaidsOf are the IAIDs of u: of its IA_PDs, in the order of dhcpv6.prefixes, and of its IA_NA. What the config says counts
// most, then what was imported. Else they are derived from the uplink's name and the place in the list, so that they
// survive restarts, a lost state directory and another interface (RFC 9096 WPD-10).
func iaidsOf(u config.Uplink, imported store.IAIDs) (prefixes []uint32, address uint32) {
	d := u.DHCPv6
	wished := func(i int) *uint32 {
		if i == 0 && d.Prefixes[i].IAID == nil {
			return d.IAID
		}
		return d.Prefixes[i].IAID
	}
	prefixes = make([]uint32, len(d.Prefixes))
	taken := map[uint32]bool{} // no two IA_PDs may have the same (RFC 9915 §12)
	for i := range prefixes {
		if w := wished(i); w != nil {
			prefixes[i], taken[*w] = *w, true
		}
	}
	for i := range prefixes {
		if wished(i) != nil {
			continue
		}
		name := u.Name
		if i > 0 {
			name = fmt.Sprintf("%s/%d", u.Name, i)
		}
		id := pd.IAIDFor(name)
		if i < len(imported.Prefixes) && !taken[imported.Prefixes[i]] {
			id = imported.Prefixes[i]
		}
		for taken[id] {
			id++
		}
		prefixes[i], taken[id] = id, true
	}
	switch {
	case d.IAID != nil:
		return prefixes, *d.IAID
	case imported.Address != nil:
		return prefixes, *imported.Address
	}
	return prefixes, pd.IAIDFor(u.Name)
}

// warnOfIAIDs tells which prefixes and addresses of a lease have an IAID that c no longer has: to the provider they belong to
// something else now.
func (t *tasks) warnOfIAIDs(uplink string, c pd.Config, lease pd.Lease) {
	for _, p := range lease.Prefixes {
		if !slices.ContainsFunc(c.PDs, func(x pd.PDConfig) bool { return x.IAID == p.IAID }) {
			t.log.Warn("no prefix of the configuration has the IAID of this lease any more; the provider may delegate another prefix",
				"uplink", uplink, "prefix", p.Prefix, "iaid", p.IAID)
		}
	}
	for _, a := range lease.Addresses {
		if c.NA == nil || c.NA.IAID != a.IAID {
			t.log.Warn("the address of the configuration no longer has the IAID of this lease; the provider may give another address",
				"uplink", uplink, "address", a.Address, "iaid", a.IAID)
		}
	}
}

// newDUID makes the client's identity: from the first MAC address of the uplinks, at random when they have none.
func newDUID(cfg *config.Config) pd.DUID {
	var mac []byte
	hardware := dumpHardware()
	for _, u := range cfg.Uplinks {
		if mac, _ = hardware(u.Interface); mac != nil {
			break
		}
	}
	random := make([]byte, 16)
	cryptorand.Read(random) // never fails (crypto/rand)
	return pd.NewDUID(mac, time.Now(), random)
}
