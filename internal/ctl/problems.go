package ctl

import (
	"strings"
	"time"

	"uplinkd/policy"
)

func problems(list []policy.Problem, site policy.Site) []Problem {
	out := []Problem{}
	for _, p := range list {
		var uplink policy.Uplink // the one that p is about, if it is about one
		for _, u := range site.Uplinks {
			if p.Path == "uplink."+u.Name {
				uplink = u
			}
		}
		out = append(out, Problem{Path: p.Path, Code: p.Code, Message: p.Message, Advice: advice(p, uplink)})
	}
	return out
}

// advice says what to do about findings whose message does not say it.
func advice(p policy.Problem, uplink policy.Uplink) string {
	switch p.Code {
	case "no-interface":
		return "correct interface in [" + p.Path + "] if the name is wrong (ip link lists them); when the interface appears, uplinkd goes on by itself"
	case "subnet-id-too-large":
		return "set subnet in [" + p.Path + "] to one of these numbers or to \"auto\", or ask the provider for a larger prefix with dhcpv6.length or dhcpv6.prefixes"
	case "subnet-overlap":
		return "give [" + p.Path + "] another subnet, or \"auto\""
	case "pool-shrunk", "loan-full":
		return "ask the provider for a larger prefix with dhcpv6.length or dhcpv6.prefixes, or set a longer length for what has a large part of it"
	case "too-many-borrowers":
		return "see what asks for prefixes there (tcpdump 'udp port 547'), or set dhcpv6.delegate = false in [" + p.Path + "]"
	case "delegation-full":
		return "ask the provider for a larger prefix with dhcpv6.length or dhcpv6.prefixes, or remove a downstream"
	case "delegation-overlap":
		return "two providers hand out the same addresses, or two uplinks reach the same provider: remove one of the uplinks"
	case "address-overlap":
		return "ask the provider of " + uplink.Name + ", or see who sends router advertisements there (rdisc6 " + uplink.Interface + "): what is not its own must not come from there"
	case "too-many-on-link":
		return "see who sends router advertisements there (rdisc6 " + uplink.Interface + "); so that the kernel takes no prefixes from them: sysctl -w net.ipv6.conf." +
			strings.ReplaceAll(uplink.Interface, ".", "/") + ".accept_ra_pinfo=0"
	case "read-failed":
		return "uplinkd tries again by itself; it needs CAP_NET_ADMIN, and the journal has more: journalctl -u uplinkd"
	case "apply-failed":
		return "uplinkd tries again by itself with growing pauses; if an object of somebody else is in the way, remove it"
	case "fighting":
		return "find the other program (ip monitor shows when it writes; often systemd-networkd or a firewall script) and tell it to leave this alone"
	case "no-router":
		return "see what comes in there: rdisc6 " + uplink.Interface + ", or tcpdump -ni " + uplink.Interface + " icmp6; a packet filter of this machine must let " +
			"router advertisements in (ICMPv6 type 134); a provider that sends none leaves no way to send packets to it"
	case "not-invited":
		return "if this provider has DHCPv6 all the same, set dhcpv6.start = \"ra\" or \"link\" in [" + p.Path + "]"
	case "no-prefix":
		return "see what the provider answers: " + capture(uplink) + "; ask again now: uplinkd renew " + uplink.Name
	case "lease-not-extended":
		return "uplinkd goes on asking; see whether the provider answers: " + capture(uplink)
	case "config-not-loaded":
		return "uplinkd check shows every mistake; when it says ok: systemctl reload uplinkd"
	case "unfiltered-uplink":
		return "filters of nft and of ip6tables-nft are seen; if yours is made with ip6tables-legacy, which uplinkd cannot see, say so with anyip.unfiltered = true"
	case "dhcpv6-server":
		return "uplinkd tries again by itself; to have no DHCPv6 server there: dhcpv6 = \"off\" in [" + p.Path + "]"
	case "not-saved":
		return "make room in the state directory or correct its owner; until then a restart forgets the newest lease"
	}
	return ""
}

// capture is a command that shows the DHCPv6 messages of an uplink.
func capture(u policy.Uplink) string {
	return "uplinkd trace " + u.Name
}

// awhile is how long a client may wait for an invitation before people should know: routers answer solicitations within
// seconds.
const awhile = time.Minute

// routerless finds what uplinks lack of router advertisements: a router, or the word that there is DHCPv6. It goes by what
// snapshots say of clients, and policy knows nothing of those.
func routerless(st Status, site policy.Site, now time.Time) (ps []Problem) {
	for i, u := range site.Uplinks {
		c := st.Uplinks[i].Client
		invited := !strings.HasPrefix(c.State, waitingForRouter)
		p := policy.Problem{Path: "uplink." + u.Name}
		switch {
		case !u.Up && strings.HasPrefix(u.Reason, "no router advertisement"):
			p.Code, p.Message = "no-router", u.Reason+", so there is no way out"
			if !invited {
				p.Message += ", and DHCPv6 does not begin before there is one (dhcpv6.start)"
			}
		case u.Up && !invited && c.Since != nil && now.Sub(*c.Since) > awhile:
			p.Code, p.Message = "not-invited", "routers on "+u.Interface+" advertise, but not that there is DHCPv6, so nobody has been asked for a prefix: the client is "+c.State
		default:
			continue
		}
		ps = append(ps, problems([]policy.Problem{p}, site)...)
	}
	return ps
}

// waitingForRouter begins the states of clients that wait for a router's invitation.
const waitingForRouter = "waiting for a router advertisement"
