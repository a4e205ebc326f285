package main

import (
	"fmt"

	"uplinkd/internal/config"
	"uplinkd/pd"
)

// asked are the options that every client asks for besides those that its protocol needs: what hosts, hooks and other
// programs have a use for.
var asked = []uint16{pd.OptNTPServer, pd.OptAFTRName, pd.OptS46MapE, pd.OptS46MapT, pd.OptS46LW, pd.OptCaptivePortal}

// machineConfig is the client of uplink u in the words of package pd. IAIDs are derived from the uplink's name and the
// place in the list, so that they survive restarts, a lost state directory and another interface (RFC 9096 WPD-10).
func machineConfig(u config.Uplink, duid pd.DUID) pd.Config {
	d := u.DHCPv6
	c := pd.Config{ClientID: duid, Stateless: d.Information, RapidCommit: d.RapidCommit, Reconfigure: d.Reconfigure, Delay: d.Delay,
		ORO: append(append([]uint16(nil), asked...), d.Request...), UserClass: d.UserClass}
	for i, p := range d.Prefixes {
		name := u.Name
		if i > 0 {
			name = fmt.Sprintf("%s/%d", u.Name, i)
		}
		c.PDs = append(c.PDs, pd.PDConfig{IAID: pd.IAIDFor(name), Length: p.Length, Prefix: p.Prefix, Min: p.Min, Max: p.Max})
	}
	if d.Address != config.AddressNever {
		c.NA = &pd.NAConfig{IAID: pd.IAIDFor(u.Name), Required: d.Address == config.AddressAlways}
	}
	switch d.Prefer {
	case "largest":
		c.Prefer = pd.PreferShortest
	case "hint":
		c.Prefer = pd.PreferHint
	}
	for _, v := range d.VendorClass {
		c.VendorClass = append(c.VendorClass, pd.VendorClass(v))
	}
	for _, o := range d.Options {
		c.Extra = append(c.Extra, pd.Option(o))
	}
	return c
}
