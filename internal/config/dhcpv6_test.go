package config

import (
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"uplinkd/pd"
)

// The lists of dhcpv6.*, in each of the ways in which TOML lets one write them.
func TestDHCPv6Lists(t *testing.T) {
	prefix := netip.MustParsePrefix
	for name, c := range map[string]struct {
		text string
		want func(*DHCPv6)
	}{
		"length": {`length = 56`, func(d *DHCPv6) { d.Prefixes = []PrefixWish{{Length: 56}} }},
		"prefixes": {`prefixes = [{ length = 56, min = 48, max = 60 }, { prefix = "2001:db8::/48" }, {},
			{ prefix = "fd00:db8::/80", length = 64, max = 0x80 }]`, func(d *DHCPv6) {
			d.Prefixes = []PrefixWish{{Length: 56, Min: 48, Max: 60}, {Prefix: prefix("2001:db8::/48")}, {},
				{Prefix: prefix("fd00:db8::/80"), Length: 64, Max: 128}}
		}},
		"iaids": {"iaid = 4294967295\nprefixes = [{ iaid = 0 }, { iaid = 0xff }, { iaid = \"auto\" }]", func(d *DHCPv6) {
			d.IAID = new(uint32(math.MaxUint32))
			d.Prefixes = []PrefixWish{{IAID: new(uint32(0))}, {IAID: new(uint32(255))}, {}}
		}},
		"start":                  {`start = "ra-mo"`, func(d *DHCPv6) { d.Start = StartRAMO }},
		"duid":                   {`duid = "0x0003000102000000ABcd"`, func(d *DHCPv6) { d.DUID = "0x0003000102000000abcd" }},
		"duid kind":              {`duid = "en:032473"`, func(d *DHCPv6) { d.DUID = "en:32473" }},
		"auth":                   {`auth = "00000000000000000000000a"`, func(d *DHCPv6) { d.Auth = []byte{11: 10} }},
		"no auth":                {`auth = ""`, func(*DHCPv6) {}},
		"prefixes alike":         {`prefixes = [{ length = 64 }, { length = 64 }]`, func(d *DHCPv6) { d.Prefixes = []PrefixWish{{Length: 64}, {Length: 64}} }},
		"one prefix":             {`prefixes = { length = 60 }`, func(d *DHCPv6) { d.Prefixes = []PrefixWish{{Length: 60}} }},
		"one prefix, dotted":     {`prefixes.length = 60`, func(d *DHCPv6) { d.Prefixes = []PrefixWish{{Length: 60}} }},
		"no prefixes":            {`prefixes = []`, func(d *DHCPv6) { d.Prefixes = []PrefixWish{} }},
		"no prefixes, no length": {"prefixes = []\nlength = 0", func(d *DHCPv6) { d.Prefixes = []PrefixWish{} }},
		"request":                {`request = [1_7, 0xffff, 39]`, func(d *DHCPv6) { d.Request = []uint16{17, 65535, 39} }},
		"one request":            {`request = 17`, func(d *DHCPv6) { d.Request = []uint16{17} }},
		"options": {`options = [{ code = 17, hex = "0000de" }, { hex = "0xAB", code = 17 }, { code = 65535, hex = "" }]`, func(d *DHCPv6) {
			d.Options = []RawOption{{17, []byte{0, 0, 0xde}}, {17, []byte{0xab}}, {65535, []byte{}}}
		}},
		"user_class": {`user_class = ["FSVDSL_livebox", "0x00ff", "0"]`, func(d *DHCPv6) {
			d.UserClass = [][]byte{[]byte("FSVDSL_livebox"), {0, 0xff}, []byte("0")}
		}},
		"one user_class": {`user_class = "a b"`, func(d *DHCPv6) { d.UserClass = [][]byte{[]byte("a b")} }},
		"vendor_class": {"vendor_class = [ # why\n  { enterprise = 1038, data = [\"sagem\", \"0x01\"] },\n  { enterprise = 4294967295, data = \"x\" },\n]",
			func(d *DHCPv6) {
				d.VendorClass = []VendorClass{{1038, [][]byte{[]byte("sagem"), {1}}}, {4294967295, [][]byte{[]byte("x")}}}
			}},
	} {
		t.Run(name, func(t *testing.T) {
			want := defaultDHCPv6
			c.want(&want)
			got := mustParse(t, "[uplink.fiber]\ninterface = \"wan0\"\n[uplink.fiber.dhcpv6]\n"+c.text).Uplinks[0].DHCPv6
			if diff := cmp.Diff(want, got, equalButPlaces); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// The bounds of lists, and one more than each: the position is that of the first entry too many.
func TestDHCPv6Bounds(t *testing.T) {
	list := func(n int, entry string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, entry+",\n", i)
		}
		return "[\n" + b.String() + "]"
	}
	long := func(n int) string { return fmt.Sprintf(`[{ code = 17, hex = "%s" }]`, strings.Repeat("00", n)) }
	text := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	for _, c := range []struct{ key, most, tooMuch, want string }{
		{"prefixes", list(16, `{ length = %[1]d }`), list(17, `{ length = %[1]d }`), "4:1: uplink.fiber.dhcpv6.prefixes: 17 entries; at most 16 are supported"},
		{"request", list(32, `10%02[1]d`), list(33, ` 10%02[1]d`), "4:2: uplink.fiber.dhcpv6.request: 33 entries; at most 32 are supported"},
		{"options", list(32, `{ code = 10%02[1]d, hex = "" }`), list(33, `{ code = 10%02[1]d, hex = "" }`), "4:1: uplink.fiber.dhcpv6.options: 33 entries; at most 32 are supported"},
		{"options", long(1024), long(1025), "3:38: uplink.fiber.dhcpv6.options.hex: 1025 octets; at most 1024 are supported"},
		{"user_class", list(16, `"%[1]d"`), list(17, `"%[1]d"`), "4:1: uplink.fiber.dhcpv6.user_class: 17 entries; at most 16 are supported"},
		{"user_class", text(255), text(256), `3:21: uplink.fiber.dhcpv6.user_class: "` + strings.Repeat("x", 64) + `"… has 256 octets; it must have 1 to 255`},
		{"vendor_class", list(8, `{ enterprise = 1%[1]d, data = "x" }`), list(9, `{ enterprise = 1%[1]d, data = "x" }`), "4:1: uplink.fiber.dhcpv6.vendor_class: 9 entries; at most 8 are supported"},
		{"vendor_class", `{ enterprise = 1, data = ` + list(8, `"%[1]d"`) + " }", `{ enterprise = 1, data = ` + list(9, `"%[1]d"`) + " }",
			"4:1: uplink.fiber.dhcpv6.vendor_class.data: 9 entries; at most 8 are supported"},
	} {
		head := "[uplink.fiber]\ninterface = \"wan0\"\ndhcpv6." + c.key + " = "
		mustParse(t, head+c.most+"\n")
		_, err := Parse(File{"uplinkd.toml", []byte(head + c.tooMuch + "\n")})
		line, want, _ := strings.Cut(c.want, ":")
		if line == "4" { // the last entry
			line = fmt.Sprint(3 + strings.Count(c.tooMuch, "\n") - 1)
		}
		if want = "uplinkd.toml:" + line + ":" + want; err == nil || err.Error() != want {
			t.Errorf("%s: got\n%v, want\n%s", c.key, err, want)
		}
	}
}

// Every code that a client must not name (RFC 9915 §21.7) is refused in both lists, and no other.
func TestRefusedOptions(t *testing.T) {
	refused := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 18, 19, 20, 25, 26}
	keys := regexp.MustCompile(`dhcpv6\.[a-z_]+`)
	for code := 1; code <= 255; code++ {
		for _, entry := range []string{`request = [%d]`, `options = [{ code = %d, hex = "" }]`} {
			text := fmt.Sprintf("[uplink.fiber]\ninterface = \"wan0\"\n[uplink.fiber.dhcpv6]\n"+entry, code)
			_, err := Parse(File{"uplinkd.toml", []byte(text)})
			if (err != nil) != slices.Contains(refused, code) {
				t.Errorf("option %d in %s: %v", code, entry, err)
			}
			if err == nil {
				continue
			}
			for _, key := range keys.FindAllString(refusedOptions[uint16(code)], -1) {
				if _, ok := Closest(key, []string{key}); !ok || !strings.Contains(reference(t, true), "\n"+key+" = ") {
					t.Errorf("the message for option %d names %s, which is no setting", code, key)
				}
			}
		}
	}
}

// sound checks what the rest of uplinkd takes for granted about any configuration.
func sound(t *testing.T, d DHCPv6) {
	t.Helper()
	if len(d.Prefixes) > maxPrefixes || len(d.Request) > maxRequest || len(d.Options) > maxOptions || len(d.UserClass) > maxUserClass ||
		len(d.VendorClass) > maxVendorClass || d.DSCP > 63 || d.Priority < 0 || d.Priority > 7 {
		t.Errorf("out of bounds: %+v", d)
	}
	if len(d.Prefixes) == 0 && d.Address == AddressNever && !d.Information {
		t.Errorf("nothing is asked for: %+v", d)
	}
	if len(d.Auth) > 0 && len(d.Auth) < 11 || len(d.Auth) > maxOptionData {
		t.Errorf("authentication of %d octets", len(d.Auth))
	}
	if b, err := hex.DecodeString(strings.TrimPrefix(d.DUID, "0x")); strings.HasPrefix(d.DUID, "0x") && (err != nil || !pd.DUID(b).Valid()) {
		t.Errorf("DUID %q", d.DUID)
	}
	for _, w := range d.Prefixes {
		if w.Length > 64 || w.Max != 0 && w.Min > w.Max || w.Prefix.IsValid() && w.Prefix.Masked() != w.Prefix {
			t.Errorf("prefix %+v", w)
		}
	}
	for _, o := range d.Options {
		if o.Code == 0 || refusedOptions[o.Code] != "" || len(o.Data) > maxOptionData {
			t.Errorf("option %+v", o)
		}
	}
	for _, c := range d.VendorClass {
		if c.Enterprise == 0 || len(c.Data) == 0 || len(c.Data) > maxVendorData {
			t.Errorf("vendor class %+v", c)
		}
	}
	for _, c := range d.UserClass {
		if len(c) == 0 || len(c) > maxClassData {
			t.Errorf("user class %q", c)
		}
	}
}
