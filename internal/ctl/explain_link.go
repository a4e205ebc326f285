package ctl

import (
	"net/netip"
	"slices"

	"uplinkd/internal/config"
	"uplinkd/internal/engine"
	"uplinkd/internal/kernel"
	"uplinkd/policy"
)

// toNeighbours are the routes in main that stand for what is on-link on the uplinks. Of a prefix that the site itself has, main
// says the same as of the whole: there is none.
func toNeighbours(s kernel.State) (list []kernel.Route) {
	for _, r := range s.Routes {
		if r.Table == kernel.TableMain && r.Type == kernel.Throw && r.Dst.Bits() > 0 {
			list = append(list, r)
		}
	}
	return list
}

// neighbours notes on which uplinks' links it is: where main has nothing longer.
func (x *Explanation) neighbours(s kernel.State) {
	longest := 0
	for _, r := range s.Routes {
		if r.Table == kernel.TableMain && x.in(r.Dst) {
			longest = max(longest, r.Dst.Bits())
		}
	}
	x.onLink = slices.DeleteFunc(toNeighbours(s), func(r kernel.Route) bool { return !x.in(r.Dst) || r.Dst.Bits() < longest })
}

// linkOf is the on-link prefix of u that it is in; the zero value if it is not on the link.
func (x *Explanation) linkOf(u policy.Uplink) (q netip.Prefix) {
	for _, r := range x.onLink {
		if r.Reason.Uplink == u.Name {
			q = r.Dst
		}
	}
	return q
}

// isOneLink reports whether q can be the prefix of a link (RFC 4291 §2.5.1). A router can announce any as on-link.
func isOneLink(q netip.Prefix) bool { return q.Bits() >= 64 }

// linkText is what the on-link prefix q of u is.
func linkText(u policy.Uplink, q netip.Prefix) string {
	if isOneLink(q) {
		return "on the link of uplink " + u.Name + " (" + u.Interface + ")"
	}
	return "on the link of uplink " + u.Name + " (" + u.Interface + ") for the kernel, but too much for one link: packets go where all others go"
}

// linkLocal tells where it is the router's own link-local address. Advertisements come from the first one of a link.
func (x *Explanation) linkLocal(s *engine.Snapshot) {
	hosts := map[string]string{string(config.Access): "hosts", string(config.Transit): "inner routers"}
	for _, l := range s.Links {
		if !x.is(l.LinkLocal) && !slices.ContainsFunc(l.OtherLinkLocal, x.is) {
			continue
		}
		text := "the router's own link-local address on " + l.Name
		for _, d := range s.Site.Downstreams {
			switch who := hosts[d.Kind]; {
			case d.Interface != l.Name || who == "":
			case d.Announce.Send && d.Announce.Router && x.is(l.LinkLocal):
				x.role(text + ", which " + who + " have as their default router (downstream " + d.Name + ")")
			default:
				x.role(text + " (downstream " + d.Name + ")")
			}
		}
		for _, u := range s.Site.Uplinks {
			if u.Interface == l.Name {
				x.role(text + " (uplink " + u.Name + ")")
			}
		}
	}
}
