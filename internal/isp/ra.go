package isp

import (
	"net/netip"
	"time"

	"github.com/mdlayher/ndp"
)

// allNodes is where unsolicited RAs go, allRouters where RSs come from.
var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
)

// sendRA sends the current RA, or the last one of a router that retires. The lock is held.
func (p *Provider) sendRA(last bool, to netip.Addr) {
	if p.sockets == nil || p.mute {
		return
	}
	ra := advertisement(p.server.cfg, p.sockets)
	if last {
		ra.RouterLifetime = 0
	}
	if p.interceptRA != nil && !p.interceptRA(ra) {
		return
	}
	if err := p.sockets.ra.WriteTo(ra, nil, to); err != nil {
		p.log("send Router Advertisement to %s: %v", to, err)
		return
	}
	p.counts.RA++
}

func advertisement(cfg Config, s *sockets) *ndp.RouterAdvertisement {
	ra := &ndp.RouterAdvertisement{
		CurrentHopLimit:      64,
		ManagedConfiguration: !cfg.RA.Unmanaged,
		OtherConfiguration:   !cfg.RA.Unmanaged,
		RouterLifetime:       cfg.RA.RouterLifetime,
	}
	if len(s.hardware) == 6 { // the library writes no others
		ra.Options = append(ra.Options, &ndp.LinkLayerAddress{Direction: ndp.Source, Addr: s.hardware})
	}
	for _, p := range cfg.RA.Prefixes {
		ra.Options = append(ra.Options, &ndp.PrefixInformation{
			Prefix:                         p.Prefix.Masked().Addr(),
			PrefixLength:                   uint8(p.Prefix.Bits()),
			OnLink:                         p.OnLink,
			AutonomousAddressConfiguration: p.Autonomous,
			PreferredLifetime:              seconds(p.Preferred),
			ValidLifetime:                  seconds(p.Valid),
		})
	}
	if len(cfg.DNS) > 0 {
		ra.Options = append(ra.Options, &ndp.RecursiveDNSServer{Lifetime: cfg.RA.RouterLifetime, Servers: cfg.DNS})
	}
	return ra
}

func seconds(s uint32) time.Duration { return time.Duration(s) * time.Second }
