package pd

import (
	"net/netip"
	"testing"
)

func TestUndelegable(t *testing.T) {
	for prefix, want := range map[string]string{
		"2001:db8::/56":      "",
		"2001:db8::/29":      "",
		"2001:db0::/28":      "shorter than /29, which no provider delegates",
		"3fff::/20":          "shorter than /29, which no provider delegates",
		"fd00:db8::/48":      "",
		"2001:db8::1/128":    "",
		"2000::/3":           "overlaps 6to4 2002::/16",
		"2001::/16":          "shorter than /29, which no provider delegates",
		"fc00::/7":           "shorter than /29, which no provider delegates",
		"::/1":               "contains the unspecified or the loopback address",
		"2002:c000:200::/48": "overlaps 6to4 2002::/16",
		"64:ff9b::/96":       "overlaps the IPv4 Internet behind NAT64 64:ff9b::/96",
		"64:ff9b::/64":       "overlaps the IPv4 Internet behind NAT64 64:ff9b::/96",
		"64:ff9b:1::/48":     "outside of 2000::/3 and fc00::/7",
		"100::/64":           "outside of 2000::/3 and fc00::/7",
		"4000::/32":          "outside of 2000::/3 and fc00::/7",
		"fec0::/48":          "outside of 2000::/3 and fc00::/7",
		"::ffff:0:0/96":      "overlaps the IPv4-mapped addresses ::ffff:0:0/96",
		"fe80::/64":          "overlaps link-local fe80::/10",
		"ff05::/16":          "overlaps multicast ff00::/8",
		"::1/128":            "contains the unspecified or the loopback address",
	} {
		p := netip.MustParsePrefix(prefix)
		if got := Undelegable(p); got != want {
			t.Errorf("%s: %q, want %q", prefix, got, want)
		}
		if got := delegable(p); p == p.Masked() && got != (want == "") {
			t.Errorf("%s: delegable is %v", prefix, got)
		}
	}
	for _, p := range []netip.Prefix{{}, netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::1/56")} {
		if delegable(p) {
			t.Errorf("%v is delegable", p)
		}
	}
}
