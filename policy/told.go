package policy

// told joins what an uplink's provider tells by DHCPv6 with what its routers advertise.
func told(f UplinkFacts) Told {
	t := Told{Info: f.Told, PREF64: f.Heard.PREF64}
	t.DNS = appendNew(t.DNS[:len(t.DNS):len(t.DNS)], f.Heard.DNS)
	t.DomainSearch = appendNew(t.DomainSearch[:len(t.DomainSearch):len(t.DomainSearch)], f.Heard.Search)
	if t.CaptivePortal == "" {
		t.CaptivePortal = f.Heard.CaptivePortal
	}
	return t
}
