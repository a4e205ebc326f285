package kernel

import (
	"net/netip"
	"slices"
)

// Link is a network interface as the kernel shows it at one moment: a fact for planning and for the tasks that need
// sockets on it, not a row (uplinkd does not create it).
type Link struct {
	Name           string         `json:"name"`
	Index          int            `json:"index"`
	Up             bool           `json:"up"`                         // IFF_UP
	Carrier        bool           `json:"carrier"`                    // IFF_LOWER_UP
	MTU            int            `json:"mtu"`                        // bytes
	VLAN           uint16         `json:"vlan,omitempty"`             // 802.1Q id of a VLAN interface; 0: none
	MAC            string         `json:"mac,omitempty"`              // "02:00:00:00:01:01"; "" for links without one (ppp, tun)
	LinkLocal      netip.Addr     `json:"link_local,omitzero"`        // fe80::/10 that has passed DAD, without zone; zero while there is none
	OtherLinkLocal []netip.Addr   `json:"other_link_local,omitempty"` // its other link-local addresses, sorted
	Globals        []netip.Prefix `json:"globals,omitempty"`          // global and ULA addresses of any owner that have passed DAD, sorted
	Duplicates     []netip.Addr   `json:"duplicates,omitempty"`       // global addresses that failed DAD: somebody else on the link has them
	OnLink         []netip.Prefix `json:"on_link,omitempty"`          // global and ULA prefixes of which others are neighbours, as the main table has it; at most MaxOnLink, sorted
	OnLinkMore     bool           `json:"on_link_more,omitempty"`     // there may be others, since they keep becoming others
	OnLinkMetric   uint32         `json:"on_link_metric,omitempty"`   // the best one of the routes to them
}

// MaxOnLink bounds the on-link prefixes of a link: any router on it can make the kernel believe in as many as it likes.
const MaxOnLink = 64

// IsUsable reports whether link-local packets can be sent and received: that needs carrier and a source address that has passed
// DAD.
func (l Link) IsUsable() bool {
	return l.Index > 0 && l.Up && l.Carrier && l.LinkLocal.IsLinkLocalUnicast()
}

// Equal reports whether two facts about a link are the same.
func (l Link) Equal(o Link) bool {
	if l.Name != o.Name || l.Index != o.Index || l.Up != o.Up || l.Carrier != o.Carrier || l.MTU != o.MTU || l.MAC != o.MAC ||
		l.LinkLocal != o.LinkLocal || l.VLAN != o.VLAN {
		return false
	}
	return slices.Equal(l.OtherLinkLocal, o.OtherLinkLocal) && slices.Equal(l.Globals, o.Globals) &&
		slices.Equal(l.Duplicates, o.Duplicates) && slices.Equal(l.OnLink, o.OnLink) && l.OnLinkMetric == o.OnLinkMetric && l.OnLinkMore == o.OnLinkMore
}
