package identity

import (
	"fmt"
	"strings"
	"testing"
)

const someDUID = `default-duid "\000\003\000\001\002\000\000\000\001\001";` + "\n"

func lease6(dev, body string) string {
	return fmt.Sprintf("lease6 {\n  interface %q;\n%s}\n", dev, body)
}

func iaPD(iaid, prefix string) string {
	return "  ia-pd " + iaid + " {\n    starts 1;\n    iaprefix " + prefix + " {\n      max-life 4000;\n    }\n  }\n"
}

func TestDhclient(t *testing.T) {
	const mac = "00:03:00:01:02:00:00:00:01:01"
	for _, c := range []struct{ name, in, want string }{
		{"only a DUID", someDUID, mac},
		{"escapes", `default-duid "a\"\\\n\tz\17x";`, "61:22:5c:0a:09:7a:0f:78"},
		{"octets in place of a string", "default-duid 0:3:0:1:2:0:0:0:1:1;", mac},
		{"the last DUID counts", `default-duid "abc"; ` + someDUID, mac},
		{"comment, and leases of IPv4", "# } {\nlease {\n  option x \"};\";\n  a { b; }\n}\n" + someDUID, mac},
		{"client-id when nothing else", lease6("wan0", "  option dhcp6.client-id 0:3:0:1:2:0:0:0:1:1;\n"), mac},
		{"the last lease of each interface", someDUID + lease6("wan0", iaPD("0:0:0:1", "2001:db8:100::/56")) +
			lease6("wan1", iaPD("0:0:0:2", "2001:db8:200::/56")) + lease6("wan0", iaPD("0:0:0:1", "2001:db8:300::/56")),
			mac + " wan0/1/2001:db8:300::/56 wan1/2/2001:db8:200::/56"},
		{"a lease of addresses does not end one of prefixes", someDUID + lease6("wan0", iaPD("0:0:0:1", "2001:db8:100::/56")) +
			lease6("wan0", "  ia-na 00:00:00:01 {\n    iaaddr 2001:db8::7 {\n      max-life 1;\n    }\n  }\n"), mac + " wan0/1/2001:db8:100::/56 wan0/1"},
		{"address and prefixes in one lease", someDUID + lease6("wan0", "  ia-na 0:0:0:3 { }\n"+iaPD("0:0:0:1", "2001:db8:100::/56")+
			iaPD("0:0:0:2", "2001:db8:200::/56")), mac + " wan0/1/2001:db8:100::/56 wan0/2/2001:db8:200::/56 wan0/3"},
		{"host bits", someDUID + lease6("wan0", iaPD("ff:0:0:1", "2001:db8:100::1/56")), mac + " wan0/4278190081/2001:db8:100::/56"},

		{"printable IAIDs", someDUID + lease6("wan0", iaPD(`"1bB^"`, "2001:db8:100::/56")+"  ia-na \"a;}\\\"\" {\n  }\n"),
			mac + " wan0/828523102/2001:db8:100::/56 wan0/1631288610"},

		{"empty", "", "error: no default-duid in it: is it a lease file of dhclient -6?"},
		{"leases of IPv4 only", "lease { }\n", "error: no default-duid in it: is it a lease file of dhclient -6?"},
		{"cut short", someDUID + "lease6 {\n  interface \"wan0\";\n", "error: line 4: the file ends inside a lease6"},
		{"cut short in a string", `default-duid "\000`, "error: line 1: a string without its closing quotation mark, or too long"},
		{"string over a line", "\ndefault-duid \"a\nb\";", "error: line 2: a string without its closing quotation mark"},
		{"cut short in a statement", "default-duid", "error: line 1: the file ends in the middle of a statement"},
		{"cut short in an ia-pd", someDUID + "lease6 {\nia-pd 0:0:0:1 {", "error: line 3: the file ends inside an ia-pd"},
		{"octal", `default-duid "\400";`, `error: line 1: an octal escape above \377`},
		{"short DUID", `default-duid "ab";`, "error: line 1: default-duid: DUID of 2 octets, want 3 to 130"},
		{"no octets", "default-duid 0:3:zz;", `error: line 1: default-duid: "0:3:zz": want hexadecimal octets with colons between them`},
		{"IAID", someDUID + lease6("wan0", iaPD("0:1", "2001:db8::/56")), `error: line 4: ia-pd "0:1": want an IAID of four octets`},
		{"IAID of an address", someDUID + lease6("wan0", "  ia-na x { }\n"), `error: line 4: ia-na "x": want an IAID of four octets`},
		{"cut short in an ia-na", someDUID + "lease6 {\nia-na 0:0:0:1 {", "error: line 3: the file ends inside a block"},
		{"IPv4 prefix", someDUID + lease6("wan0", iaPD("0:0:0:1", "192.0.2.0/24")), `error: line 6: iaprefix "192.0.2.0/24": want an IPv6 prefix`},
		{"multicast", someDUID + lease6("wan0", iaPD("0:0:0:1", "ff00::/8")), "error: line 6: iaprefix ff00::/8: overlaps multicast ff00::/8"},
		{"brace without name", "{ }", "error: line 1: a block without a name"},
		{"brace too many", "}", "error: line 1: } without {"},
		{"no semicolon", "lease6 { interface }", "error: line 1: ; is missing before }"},
		{"deep", strings.Repeat("a {", 100000), "error: line 1: the file ends inside a block"},
		{"long word", strings.Repeat("a", MaxFile), "error: line 1: a word that is too long"},
		{"long statement", strings.Repeat("a ", MaxFile/2), "error: line 1: more than 4096 words in a statement"},
		{"huge", strings.Repeat(";", MaxFile+1), "error: longer than 1048576 octets: not such a file"},
	} {
		id, err := Dhclient([]byte(c.in))
		got := id.DUID.String()
		for _, x := range id.Delegations {
			got += fmt.Sprintf(" %s/%d/%s", x.Interface, x.IAID, x.Prefix)
		}
		for _, x := range id.Addresses {
			got += fmt.Sprintf(" %s/%d", x.Interface, x.IAID)
		}
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got  %s\nwant %s", c.name, got, c.want)
		}
	}
}
