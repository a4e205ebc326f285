package rtnl

import "testing"

func TestFiltered(t *testing.T) {
	k := nftLab(t, options{})
	for _, c := range []struct {
		name, commands string
		want           bool
	}{
		{"nothing", "", false},
		{"Debian's empty nftables.conf", "add table inet filter; add chain inet filter input { type filter hook input priority filter; }", false},
		{"a rule", "add table inet filter; add chain inet filter input { type filter hook input priority filter; }; add rule inet filter input tcp dport 22 accept", true},
		{"a policy", "add table ip6 f; add chain ip6 f in { type filter hook input priority 0; policy drop; }", true},
		{"IPv4 only", "add table ip f; add chain ip f in { type filter hook input priority 0; policy drop; }", false},
		{"forwarding only", "add table inet f; add chain inet f passing { type filter hook forward priority 0; policy drop; }", false},
		{"a rule elsewhere in the table", "add table inet f; add chain inet f in { type filter hook input priority 0; }; add chain inet f other; add rule inet f other drop", false},
		{"as ip6tables-nft has it", "add table ip6 filter; add chain ip6 filter INPUT { type filter hook input priority 0; policy accept; }; add rule ip6 filter INPUT tcp dport 80 counter drop", true},
		{"our own", "add table ip6 uplinkd; add chain ip6 uplinkd in { type filter hook input priority 0; policy drop; }", false},
	} {
		nft(t, "flush ruleset")
		if c.commands != "" {
			nft(t, c.commands)
		}
		for range 2 { // the second time from memory
			if got, err := k.Filtered(t.Context()); err != nil || got != c.want {
				t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
			}
		}
	}
}
