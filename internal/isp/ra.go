package isp

import (
	"encoding/binary"
	"net/netip"

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
	hardware := cfg.RA.Hardware
	if hardware == nil {
		hardware = s.hardware
	}
	if len(hardware) == 6 { // the library writes no others
		ra.Options = append(ra.Options, &ndp.LinkLayerAddress{Direction: ndp.Source, Addr: hardware})
	}
	for _, p := range cfg.RA.Prefixes {
		ra.Options = append(ra.Options, p.option())
	}
	for _, p := range cfg.RA.PREF64 {
		ra.Options = append(ra.Options, &ndp.PREF64{Lifetime: cfg.RA.RouterLifetime, Prefix: p})
	}
	if uri := cfg.RA.CaptivePortal; uri != "" {
		ra.Options = append(ra.Options, &ndp.CaptivePortal{URI: uri})
	}
	if len(cfg.DNS) > 0 {
		ra.Options = append(ra.Options, &ndp.RecursiveDNSServer{Lifetime: cfg.RA.RouterLifetime, Servers: cfg.DNS})
	}
	return ra
}

// option is a Prefix Information option (RFC 4861 §4.6.2). The library does not know the P flag (RFC 9762 §4).
func (p RAPrefix) option() ndp.Option {
	var flags byte
	if p.OnLink {
		flags |= 0x80
	}
	if p.Autonomous {
		flags |= 0x40
	}
	if p.PreferPD {
		flags |= 0x10
	}
	value := []byte{uint8(p.Prefix.Bits()), flags}
	value = binary.BigEndian.AppendUint32(value, p.Valid)
	value = binary.BigEndian.AppendUint32(value, p.Preferred)
	value = append(value, 0, 0, 0, 0)
	value = append(value, p.Prefix.Masked().Addr().AsSlice()...)
	return &ndp.RawOption{Type: 3, Length: 4, Value: value}
}
