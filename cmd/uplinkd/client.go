package main

import (
	"uplinkd/internal/config"
	"uplinkd/pd"
)

// asked are the options that every client asks for besides those that its protocol needs: what hosts, hooks and other
// programs have a use for.
var asked = []uint16{pd.OptNTPServer, pd.OptAFTRName, pd.OptS46MapE, pd.OptS46MapT, pd.OptS46LW, pd.OptCaptivePortal, pd.OptDNR}

// optAuth is the Authentication option (RFC 9915 §21.11).
const optAuth = 11

// machineConfig is the client of uplink u in the words of package pd.
func machineConfig(u config.Uplink, id clientIdentity) pd.Config {
	d := u.DHCPv6
	c := pd.Config{ClientID: id.duid, Stateless: d.Information, RapidCommit: d.RapidCommit, Reconfigure: d.Reconfigure, Delay: d.Delay,
		ORO: append(append([]uint16(nil), asked...), d.Request...), UserClass: d.UserClass}
	prefixes, address := iaidsOf(u, id.iaids)
	for i, p := range d.Prefixes {
		c.PDs = append(c.PDs, pd.PDConfig{IAID: prefixes[i], Length: p.Length, Prefix: p.Prefix, Min: p.Min, Max: p.Max})
	}
	if d.Address != config.AddressNever {
		c.NA = &pd.NAConfig{IAID: address, Required: d.Address == config.AddressAlways}
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
	if len(d.Auth) > 0 {
		c.Extra = append(c.Extra, pd.Option{Code: optAuth, Data: d.Auth})
	}
	for _, o := range d.Options {
		c.Extra = append(c.Extra, pd.Option(o))
	}
	return c
}
