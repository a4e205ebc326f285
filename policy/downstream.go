package policy

import (
	"fmt"
	"slices"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel"
)

// downstream is c without what it gets.
func (p *planner) downstream(c config.Downstream) Downstream {
	p.noteDuplicates(c)
	link, exists := p.w.Links[c.Interface]
	d := Downstream{Name: c.Name, Interface: c.Interface, Kind: string(c.Kind), Link: exists && link.Up || c.Interface == "",
		Via: c.Via, Config: "downstream." + c.Name + " (" + place(c.Pos) + ")"}
	if c.Kind == config.Service {
		d.AnyIP = p.anyIP(c)
	}
	switch {
	case c.Interface == "":
	case !exists:
		p.problem("downstream."+c.Name, "no-interface", "interface %s does not exist; see: ip link", c.Interface)
	case !link.Up:
		p.problem("downstream."+c.Name, "interface-down", "interface %s is down; to use it: ip link set %s up", c.Interface, c.Interface)
	}
	if exists && c.Subnet == config.VLANSubnet && link.VLAN == 0 {
		p.problem("downstream."+c.Name, "no-vlan", "interface %s is no VLAN interface, so subnet = \"vlan\" gives no subnet id; write a number, \"auto\" or \"hash\"", c.Interface)
	}
	return d
}

// anyIP says how packets find the service c. By interface, all of the Internet reaches every program of the router that
// listens on [::], on any address; that is not done on an uplink unless somebody filters what comes in or the config
// says that it is meant so.
func (p *planner) anyIP(c config.Downstream) AnyIP {
	a := AnyIP{Mode: string(c.AnyIP.Mode), Nonlocal: c.AnyIP.Nonlocal}
	path := "downstream." + c.Name
	switch c.AnyIP.Mode {
	case config.AnyIPInterface:
		onUplink := slices.ContainsFunc(p.cfg.Uplinks, func(u config.Uplink) bool { return u.Interface == c.Interface })
		a.Armed = !onUplink || p.w.Filtered || c.AnyIP.Unfiltered
		if !a.Armed {
			p.problem(path, "unfiltered-uplink", "%s is an uplink's interface and nothing filters what comes in: the Internet would reach every program that listens on [::]; "+
				"set up a packet filter, or set anyip.mode = \"mark\", or anyip.unfiltered = true", c.Interface)
		}
	case config.AnyIPMark:
		a.Armed, a.Mark = true, c.AnyIP.Mark
		for _, port := range c.AnyIP.Ports {
			a.Ports = append(a.Ports, fmt.Sprintf("%s/%d", port.Protocol, port.Number))
		}
		if len(a.Ports) > 0 && c.Interface != "" && !kernel.Spellable(c.Interface) {
			a.Ports = nil
			p.problem(path, "interface-name", "nft(8) has no way to write the interface name %q, so nothing is marked; rename the interface", c.Interface)
		}
	}
	return a
}
