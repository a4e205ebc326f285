package radv

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/ndp"

	"uplinkd/internal/kernel"
)

// goodbyes is how often hosts hear that a link-local address of the router's is none any more.
const goodbyes = 3

// former is the link-local address by which hosts know the router, and one by which they knew it before.
type former struct {
	now   netip.Addr // the source of what made it a default router; zero: it is none
	index int        // of the link that had it,
	mac   string     // and the address from which the kernel makes it
	gone  netip.Addr
	left  int // how often that is still to be said
}

// moved is called when all nodes were sent ra on link. That gets another link-local address when a bridge is made anew, or is
// down while its first port becomes another NIC. To hosts that is another router, and they go on sending to the one that they
// know until they notice that nobody is there: 8 s were measured. So they are told in its name (RFC 4861 §6.2.8), after the new
// address is a default router to them. moved returns the address that has to be left now, if there is one.
//
// An address that goes from an interface which stays what it was was taken off by somebody: keepalived for one, when another
// router has it from now on, and hosts are to stay with that.
func (f *former) moved(link kernel.Link, router bool) (leave netip.Addr) {
	own := link.LinkLocal
	if f.now.IsValid() && f.now != own && (f.index != link.Index || f.mac != link.MAC) {
		f.gone, f.left = f.now, goodbyes
	}
	f.now, f.index, f.mac = netip.Addr{}, link.Index, link.MAC
	if router {
		f.now = own
	}
	if f.gone == own || slices.Contains(link.OtherLinkLocal, f.gone) {
		f.left = 0 // it is back
	}
	if f.left == 0 {
		return netip.Addr{}
	}
	f.left--
	return f.gone
}

// leave says in the name of an address that the link has no more that there is no default router.
func (s *Sender) leave(address netip.Addr, ra *ndp.RouterAdvertisement, now time.Time) {
	last := *ra
	last.RouterLifetime, last.RouterSelectionPreference, last.Options = 0, ndp.Medium, nil
	link := s.said.link
	link.LinkLocal = address
	err := func() error {
		b, err := ndp.MarshalMessage(&last)
		if err != nil {
			return err
		}
		c, err := s.openFormer(link)
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Send(b, allNodes)
	}()
	s.schedule.limit.Take(now)
	if err != nil {
		s.log.Warn("hosts may keep a default router that is gone, until they notice",
			"err", fmt.Errorf("send a router advertisement from %s, the former address of dev %s: %w", address, link.Name, err))
	}
}
