package identity

import (
	"encoding/hex"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"uplinkd/pd"
	"uplinkd/pd/wire"
)

var equate = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

// recorded reads a file that the client itself has written, in a namespace, against Kea.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRecorded(t *testing.T) {
	check := func(what string, d pd.DUID, err error, want string) {
		t.Helper()
		if err != nil || d.String() != want {
			t.Errorf("%s: %s, %v; want %s", what, d, err, want)
		}
	}
	delegations := func(what string, got Identity, want Delegation, addresses ...Address) {
		t.Helper()
		if diff := cmp.Diff(Identity{DUID: got.DUID, Delegations: []Delegation{want}, Addresses: addresses}, got, equate); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	id, err := Dhclient(recorded(t, "dhclient6.leases"))
	check("dhclient", id.DUID, err, "00:01:00:01:32:95:23:4f:02:00:00:00:01:01")
	delegations("dhclient", id, Delegation{"wan0", 0x101, netip.MustParsePrefix("2001:db8:1000::/56")}, Address{"wan0", 0x101})
	d, err := Text(recorded(t, "dhcpcd-duid"))
	check("dhcpcd", d, err, "00:01:00:01:32:95:23:c0:02:00:00:00:01:01")
	id, err = DhcpcdLease(recorded(t, "wan0.lease6"))
	check("lease of dhcpcd", id.DUID, err, "00:01:00:01:32:95:23:c0:02:00:00:00:01:01")
	delegations("dhcpcd", id, Delegation{"", 1, netip.MustParsePrefix("2001:db8:1000:100::/56")})
	d, err = Wide(recorded(t, "dhcp6c_duid"))
	check("wide", d, err, "00:01:00:01:32:95:23:c7:02:00:00:00:01:01")
	// What systemd-networkd 252 sent in a namespace with this machine id.
	d, err = MachineID([]byte("0123456789abcdef0123456789abcdef\n"))
	check("networkd", d, err, "00:02:00:00:ab:11:de:de:0f:ab:f5:e9:fc:a3")
}

// The example of the paper on SipHash, appendix A.
func TestSipHash(t *testing.T) {
	var key [16]byte
	var b []byte
	for i := range key {
		key[i] = byte(i)
	}
	for i := range byte(15) {
		b = append(b, i)
	}
	if got := siphash24(key, b); got != 0xa129ca6149be45e5 {
		t.Errorf("%x", got)
	}
}

func TestDUIDs(t *testing.T) {
	long := strings.Repeat("00:", 130) + "00"
	for _, c := range []struct {
		name string
		read func([]byte) (pd.DUID, error)
		in   string
		want string // the DUID, or "error: ..."
	}{
		{"text without the end of the line", Text, "00:03:00:01:02:00:00:00:01:01", "00:03:00:01:02:00:00:00:01:01"},
		{"empty text", Text, "", `error: line 1: DUID "": 0 octets, want 3 to 130`},
		{"two lines", Text, "00:03\n00:01\n", "error: line 2: want one line with a DUID"},
		{"no hexadecimal", Text, "\x1b[2J", `error: line 1: DUID "\x1b[2J": want hexadecimal octets, e.g. 00:03:00:01:02:00:00:00:01:01`},
		{"long text", Text, long, "error: line 1: 392 characters are too many for a DUID"},
		{"huge text", Text, strings.Repeat("0", MaxFile+1), "error: longer than 1048576 octets: not such a file"},
		{"wide, big-endian", Wide, "\x00\x04\x00\x02\x7e\xd9", "00:02:7e:d9"},
		{"wide, empty", Wide, "", "error: 0 octets, want two with a length and a DUID"},
		{"wide, cut short", Wide, "\x0e\x00\x00\x01", "error: says that 14 octets follow (or 3584, of a machine with the other byte order), but 2 do"},
		{"wide, too short", Wide, "\x02\x00\x00\x01", "error: DUID of 2 octets, want 3 to 130"},
		{"wide, too long", Wide, "\x83\x00" + strings.Repeat("x", 131), "error: DUID of 131 octets, want 3 to 130"},
		{"machine id, short", MachineID, "0123", "error: line 1: want the 32 hexadecimal digits of a machine id"},
		{"machine id, first boot", MachineID, "uninitialized\n", "error: line 1: want the 32 hexadecimal digits of a machine id"},
		{"hardware address", LinkLayer, "\x02\x00\x00\x00\x01\x01", "00:03:00:01:02:00:00:00:01:01"},
		{"no hardware address", LinkLayer, "", "error: no Ethernet address to make a DUID of"},
		{"hardware address of lo", LinkLayer, "\x00\x00\x00\x00\x00\x00", "error: no Ethernet address to make a DUID of"},
		{"networkctl", parseBytes, "DUID-EN/Vendor:0000ab11dede0fabf5e9fca3", "00:02:00:00:ab:11:de:de:0f:ab:f5:e9:fc:a3"},
		{"networkctl, UUID", parseBytes, "UUID:00000000000000000000000000000001", "00:04:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:01"},
		{"OpenWrt", parseBytes, "00030001020000000101", "00:03:00:01:02:00:00:00:01:01"},
		{"type without octets", parseBytes, "DUID-LL:", `error: DUID "0003": 2 octets, want 3 to 130`},
	} {
		d, err := c.read([]byte(c.in))
		got := d.String()
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got  %s\nwant %s", c.name, got, c.want)
		}
	}
}

func parseBytes(b []byte) (pd.DUID, error) { return Parse(string(b)) }

// An IA_NA counts when it holds an address.
func TestDhcpcdLeaseOfAddress(t *testing.T) {
	b, err := wire.Encode(pd.Message{Type: pd.Reply, ClientID: "client", ServerID: "server", IANAs: []pd.IANA{{IAID: 7, Addresses: []pd.IAAddress{
		{Address: netip.MustParseAddr("2001:db8::7"), Valid: 60}}}, {IAID: 8, Status: pd.Status{Code: pd.NoAddrsAvail}}}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := DhcpcdLease(b)
	if want := (Identity{DUID: "client", Addresses: []Address{{"", 7}}}); err != nil || !cmp.Equal(want, id) {
		t.Errorf("%+v, %v", id, err)
	}
}

func TestDhcpcdLeaseRefused(t *testing.T) {
	advertise := recorded(t, "wan0.lease6")
	advertise[0] = byte(pd.Advertise)
	for name, b := range map[string][]byte{"empty": nil, "not a Reply": advertise, "huge": make([]byte, MaxFile+1)} {
		if id, err := DhcpcdLease(b); err == nil {
			t.Errorf("%s: %+v", name, id)
		}
	}
}

// Whatever is in a file, the readers end, and what they return is in bounds.
func FuzzReaders(f *testing.F) {
	for _, name := range []string{"dhclient6.leases", "dhcpcd-duid", "wan0.lease6", "dhcp6c_duid"} {
		f.Add(recorded(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(id Identity, err error) {
			if err == nil && id.DUID != "" && !id.DUID.Valid() {
				t.Errorf("DUID %s", hex.EncodeToString([]byte(id.DUID)))
			}
			for _, x := range id.Delegations {
				if why := pd.Undelegable(x.Prefix); err == nil && (why != "" || x.Prefix != x.Prefix.Masked()) {
					t.Errorf("prefix %s: %s", x.Prefix, why)
				}
			}
		}
		check(Dhclient(b))
		check(DhcpcdLease(b))
		for _, read := range []func([]byte) (pd.DUID, error){Text, Wide, MachineID, LinkLayer, parseBytes} {
			d, err := read(b)
			check(Identity{DUID: d}, err)
		}
	})
}
