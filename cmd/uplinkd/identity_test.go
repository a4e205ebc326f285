package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/lifetime"
	"uplinkd/internal/netlab"
	"uplinkd/pd"
	"uplinkd/pd/store"
)

const routersOwn = pd.DUID("\x00\x01\x00\x01\x30\x00\x00\x00\x02\x00\x00\x00\x01\x01")

// identities is the part of a daemon that knows DUIDs, and what it has logged.
type identities struct {
	t     *testing.T
	dir   string
	log   bytes.Buffer
	lease pd.Lease
}

// ask starts a daemon anew and has it identify uplink fiber on dev. It returns what was logged, too.
func (x *identities) ask(kind, dev string) (clientIdentity, string) {
	x.t.Helper()
	d, err := store.Open(x.dir)
	if err != nil {
		x.t.Fatal(err)
	}
	defer d.Close()
	x.log.Reset()
	ts := newTasks(x.t.Context(), slog.New(slog.NewTextHandler(&x.log, nil)), d, routersOwn, nil)
	id := ts.identify(config.Uplink{Name: "fiber", Interface: dev, DHCPv6: config.DHCPv6{DUID: kind}}, x.lease, dumpHardware())
	return id, x.log.String()
}

// want asks and compares the DUID with a regular expression; what is logged must contain all of logged, and nothing if there
// is none.
func (x *identities) want(kind, dev, duid string, logged ...string) pd.DUID {
	x.t.Helper()
	id, log := x.ask(kind, dev)
	if !matches("^"+duid+"$", id.duid.String()) || id.waits {
		x.t.Errorf("%s on %s: %s, waits %t; want %s", kind, dev, id.duid, id.waits, duid)
	}
	for _, l := range logged {
		if !strings.Contains(log, l) {
			x.t.Errorf("%s on %s: logged %q, want %q", kind, dev, log, l)
		}
	}
	if len(logged) == 0 && log != "" {
		x.t.Errorf("%s on %s: logged %q", kind, dev, log)
	}
	return id.duid
}

const (
	aUUID   = "00:04(:..){6}:4.(:..):[89ab].(:..){7}" // RFC 9562: version 4
	changed = "the DUID of this uplink has changed; the provider may delegate another prefix"
)

// TestDUIDKinds goes through the kinds of dhcpv6.duid, over restarts.
func TestDUIDKinds(t *testing.T) {
	netlab.Need(t)
	netlab.NeedFile(t, "/dev/net/tun")
	ns := netlab.New(t).NS("router")
	ns.IP("link add eth0 address 02:00:00:00:01:01 type veth peer name eth1 address 02:00:00:00:01:02")
	ns.IP("tuntap add tun0 mode tun")
	if err := ns.Do(func() error { duidKinds(t); return nil }); err != nil {
		t.Fatal(err)
	}
}

func duidKinds(t *testing.T) {
	x := &identities{t: t, dir: t.TempDir()}
	x.want("auto", "eth0", routersOwn.String())
	if names, err := store.ReadOnly(x.dir); err == nil {
		if id, err := names.Identity("fiber"); err != nil || id.Used != "" {
			t.Errorf("auto has left %+v, %v", id, err)
		}
		names.Close()
	}
	ll := x.want("ll", "eth0", "00:03:00:01:02:00:00:00:01:01")
	x.want("ll", "eth0", ll.String())
	x.want("ll", "eth1", ll.String()) // another card: a DUID does not follow the hardware (RFC 9915 §11)
	x.want("ll", "none", ll.String())
	llt := x.want("llt", "eth1", "00:01:00:01(:..){4}:02:00:00:00:01:02", changed, "was="+ll.String())
	x.want("llt", "eth0", llt.String())
	uuid := x.want("uuid", "eth0", aUUID, changed)
	x.want("uuid", "tun0", uuid.String())
	en := x.want("en:32473", "none", "00:02:00:00:7e:d9(:..){16}", changed)
	x.want("en:32473", "none", en.String())
	if x.want("en:9", "none", "00:02:00:00:00:09(:..){16}", changed) == en {
		t.Error("two enterprise numbers have one DUID")
	}
	x.want("0x0003000102000000abcd", "eth0", "00:03:00:01:02:00:00:00:ab:cd", changed)
	x.want("0x0003000102000000abcd", "eth0", "00:03:00:01:02:00:00:00:ab:cd")
	x.want("auto", "eth0", routersOwn.String(), changed)
	x.want("auto", "eth0", routersOwn.String())
	x.want("ll", "eth1", ll.String(), changed) // the one of before
	x.want("uuid", "eth1", uuid.String(), changed)
}

// A router with nothing but PPP has no hardware address; one that gets its card later makes the DUID then.
func TestDUIDWithoutHardware(t *testing.T) {
	netlab.Need(t)
	netlab.NeedFile(t, "/dev/net/tun")
	ns := netlab.New(t).NS("router")
	ns.IP("tuntap add tun0 mode tun")
	ns.IP("link add eth0 address 02:00:00:00:01:01 type veth peer name eth1")
	err := ns.Do(func() error {
		x := &identities{t: t, dir: t.TempDir()}
		first, log := x.ask("ll", "none")
		if !first.waits || log != "" {
			t.Errorf("without an interface: %+v, logged %q", first, log)
		}
		if again, _ := x.ask("ll", "none"); again.duid == first.duid {
			t.Error("a DUID that nobody has seen was kept")
		}
		const standsIn = "the interface has no hardware address for the DUID; a random one stands in for it"
		uuid := x.want("ll", "tun0", aUUID, standsIn)
		x.want("ll", "tun0", uuid.String(), standsIn)
		x.want("ll", "eth0", "00:03:00:01:02:00:00:00:01:01", changed, "was="+uuid.String())
		x.want("ll", "tun0", "00:03:00:01:02:00:00:00:01:01")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// An uplink with a lease that has had the router's own DUID changes it, too; one without a lease has not been seen.
func TestDUIDChangesUnderLease(t *testing.T) {
	x := &identities{t: t, dir: t.TempDir(), lease: pd.Lease{Prefixes: []pd.LeasedPrefix{{IAID: 1,
		Prefix: netip.MustParsePrefix("2001:db8:100::/56"), ValidUntil: lifetime.Forever()}}}}
	x.want("auto", "none", routersOwn.String())
	x.want("uuid", "none", aUUID, changed, "was="+routersOwn.String())
}

func TestDamagedDUIDOfUplink(t *testing.T) {
	x := &identities{t: t, dir: t.TempDir()}
	first := x.want("uuid", "none", aUUID)
	d, err := store.Open(x.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.SaveIdentity("fiber", store.Identity{Used: "x"}); err != nil {
		t.Fatal(err)
	}
	d.Close()
	if x.want("uuid", "none", aUUID, "stored DUID is of no use", "duid-fiber.json.corrupt-1") == first {
		t.Error("the same DUID was made twice")
	}
}

// TestIAIDs: config, then import, then the name; never two alike.
func TestIAIDs(t *testing.T) {
	fiber, second := pd.IAIDFor("fiber"), pd.IAIDFor("fiber/1")
	for _, c := range []struct {
		name     string
		config   string
		imported store.IAIDs
		prefixes []uint32
		address  uint32
	}{
		{"derived", "prefixes = [{}, {}]", store.IAIDs{}, []uint32{fiber, second}, fiber},
		{"imported", "prefixes = [{}, {}]", store.IAIDs{Prefixes: []uint32{0, 7, 8}, Address: new(uint32(9))}, []uint32{0, 7}, 9},
		{"imported for one", "prefixes = [{}, {}]", store.IAIDs{Prefixes: []uint32{7}}, []uint32{7, second}, fiber},
		{"config", "prefixes = [{}, { iaid = 2 }]\ndhcpv6.iaid = 0", store.IAIDs{Prefixes: []uint32{7, 8}, Address: new(uint32(9))}, []uint32{0, 2}, 0},
		{"of the entry", "prefixes = [{ iaid = 1 }]\ndhcpv6.iaid = 3", store.IAIDs{}, []uint32{1}, 3},
		{"imported is taken", "prefixes = [{}, { iaid = 7 }]", store.IAIDs{Prefixes: []uint32{7}}, []uint32{fiber, 7}, fiber},
		{"imported twice", "prefixes = [{}, {}]", store.IAIDs{Prefixes: []uint32{7, 7}}, []uint32{7, second}, fiber},
		{"derived is taken", fmt.Sprintf("prefixes = [{}, { iaid = %d }]", fiber), store.IAIDs{}, []uint32{fiber + 1, fiber}, fiber},
		{"no prefixes", "prefixes = []", store.IAIDs{Prefixes: []uint32{7}}, []uint32{}, fiber},
	} {
		prefixes, address := iaidsOf(uplinkWith(t, "dhcpv6."+c.config), c.imported)
		if !slices.Equal(prefixes, c.prefixes) || address != c.address {
			t.Errorf("%s: %d and %d, want %d and %d", c.name, prefixes, address, c.prefixes, c.address)
		}
	}
}

// uplinkWith is uplink fiber of a config that says this about it.
func uplinkWith(t *testing.T, text string) config.Uplink {
	t.Helper()
	cfg, err := config.Parse(config.File{Name: "uplinkd.toml", Data: []byte("[uplink.fiber]\ninterface = \"wan0\"\n" + text)})
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Uplinks[0]
}

func TestWarnOfIAIDs(t *testing.T) {
	x := &identities{t: t}
	ts := newTasks(t.Context(), slog.New(slog.NewTextHandler(&x.log, nil)), nil, routersOwn, nil)
	lease := pd.Lease{Prefixes: []pd.LeasedPrefix{{IAID: 7, Prefix: netip.MustParsePrefix("2001:db8:100::/56"), ValidUntil: lifetime.Forever()}},
		Addresses: []pd.LeasedAddress{{IAID: 9, Address: netip.MustParseAddr("2001:db8::7"), ValidUntil: lifetime.After(time.Now(), 60)}}}
	same := machineConfig(uplinkWith(t, "dhcpv6.prefixes = [{}, { iaid = 7 }]\ndhcpv6.iaid = 9"), clientIdentity{duid: routersOwn})
	if ts.warnOfIAIDs("fiber", same, lease); x.log.Len() > 0 {
		t.Errorf("the same IAIDs: %s", &x.log)
	}
	ts.warnOfIAIDs("fiber", machineConfig(uplinkWith(t, ""), clientIdentity{duid: routersOwn}), lease)
	for _, want := range []string{"prefix=2001:db8:100::/56 iaid=7", "address=2001:db8::7 iaid=9"} {
		if !strings.Contains(x.log.String(), want) || strings.Count(x.log.String(), "WARN") != 2 {
			t.Errorf("logged %s; want %s", &x.log, want)
		}
	}
}
