package isp_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/ndp"

	"uplinkd/internal/isp"
	"uplinkd/internal/kernel"
	"uplinkd/internal/netlab"
	"uplinkd/internal/radv"
)

// TestRouterAdvertisements looks at what the kernel of the client makes of them.
func TestRouterAdvertisements(t *testing.T) {
	l := setup(t, isp.Config{RA: isp.RA{RouterLifetime: 20 * time.Minute, Prefixes: []isp.RAPrefix{
		{Prefix: netip.MustParsePrefix("2001:db8:1:1::/64"), OnLink: true, Autonomous: true, Preferred: 1000, Valid: 2000}}}})
	defaultRoute := func(want bool) {
		t.Helper()
		netlab.Eventually(t, patience, fmt.Sprintf("a default route: %v", want), func() (bool, string) {
			routes := l.rtr.IP("-6 route show default")
			return strings.Contains(routes, "default via fe80::ff:fe00:102 dev wan0 proto ra") == want, routes
		})
	}
	defaultRoute(true)
	netlab.Eventually(t, patience, "an address from the RA", func() (bool, string) {
		addresses := l.rtr.IP("-6 addr show dev wan0")
		return strings.Contains(addresses, "2001:db8:1:1:0:ff:fe00:101/64"), addresses
	})
	l.provider.StopRA()
	defaultRoute(false)
	l.provider.StartRA()
	defaultRoute(true)
}

// TestContentOfRouterAdvertisements has the listener of uplinkd read what the provider says.
func TestContentOfRouterAdvertisements(t *testing.T) {
	prefix, nat64 := netip.MustParsePrefix("2001:db8:1:1::/64"), netip.MustParsePrefix("2001:db8:64::/48")
	hardware, portal := "02:00:00:00:09:09", "https://portal.example/api"
	mac, err := net.ParseMAC(hardware)
	if err != nil {
		t.Fatal(err)
	}
	l := setup(t, isp.Config{RA: isp.RA{RouterLifetime: 20 * time.Minute, Unmanaged: true, Hardware: mac, PREF64: []netip.Prefix{nat64}, CaptivePortal: portal,
		Prefixes: []isp.RAPrefix{{Prefix: prefix, OnLink: true, PreferPD: true, Preferred: 1000, Valid: 2000}}}})
	heard := make(chan radv.Facts, 100)
	listener := radv.NewListener("wan", func(f radv.Facts) { heard <- f }, slog.New(slog.DiscardHandler))
	var index int
	if err := l.rtr.Do(func() error {
		wan0, err := net.InterfaceByName("wan0")
		if err == nil {
			index = wan0.Index
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	listener.SetLink(kernel.Link{Name: "wan0", Index: index, Up: true, Carrier: true, LinkLocal: l.rtr.LinkLocal("wan0")})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.rtr.Do(func() error { return listener.Run(ctx) }) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	select {
	case f := <-heard:
		p := f.Prefixes[0]
		if f.MACs[0] != hardware || f.PREF64[0].Prefix != nat64 || f.CaptivePortal != portal || f.Invitation != radv.DHCPv6Served || f.Managed || f.Other ||
			p.Prefix != prefix || !p.OnLink || p.Autonomous || !p.PreferPD || f.Interface != index {
			t.Errorf("heard %+v", f)
		}
	case <-time.After(patience):
		t.Fatal("heard nothing")
	}
}

func TestRouterSolicitationIsAnswered(t *testing.T) {
	l := setup(t, isp.Config{RA: isp.RA{Interval: time.Hour, RouterLifetime: time.Hour}})
	l.provider.InterceptRA(func(ra *ndp.RouterAdvertisement) bool {
		ra.ManagedConfiguration = false
		return true
	})
	var conn *ndp.Conn
	err := l.rtr.Do(func() (err error) {
		wan0, err := net.InterfaceByName("wan0")
		if err != nil {
			return err
		}
		wan0.Name = fmt.Sprint(wan0.Index)
		conn, _, err = ndp.Listen(wan0, ndp.LinkLocal)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if err := conn.WriteTo(&ndp.RouterSolicitation{}, nil, netip.MustParseAddr("ff02::2")); err != nil {
		t.Fatal(err)
	}
	for {
		m, _, from, err := conn.ReadFrom()
		if err != nil {
			t.Fatal(err)
		}
		if ra, ok := m.(*ndp.RouterAdvertisement); ok {
			if ra.ManagedConfiguration || !ra.OtherConfiguration || from.WithZone("").String() != "fe80::ff:fe00:102" {
				t.Errorf("from %s: %+v", from, ra)
			}
			return
		}
	}
}
