package engine

import (
	"maps"
	"net"
	"slices"
	"strings"

	"uplinkd/internal/kernel"
	"uplinkd/policy"
)

// device identifies an interface, whatever its name is.
type device struct {
	Index int    `json:"index"` // of the interface, in the boot Boot
	Boot  string `json:"boot"`
	MAC   string `json:"mac,omitempty"`
}

// followNames carries the records of what was announced on an interface, and of what its sysctls were, over to its new name. The
// config goes by names: when two NICs exchange theirs, each network follows its name to the other cable. But the hosts stay on
// their cable, and have to be told there that their prefix is not valid any more. And an interface keeps its sysctls: one that is
// no uplink any more has to get the values from before uplinkd back.
func (e *Engine) followNames() {
	renamed := e.saved.renamed(e.links, e.opt.BootID)
	if len(renamed) > 0 {
		e.ledger.Announced = renameAnnounced(e.ledger.Announced, renamed)
		e.saved.Sysctls = renameSysctls(e.saved.Sysctls, renamed)
		e.opt.Log.Info("interfaces have other names", "now", renamed)
	}
	if next := e.devices(renamed); !maps.Equal(next, e.saved.Devices) {
		e.saved.Devices = next
		e.save()
	}
}

// renamed maps the old names of interfaces to the new ones. An interface that is not there, or was deleted and made anew, has not
// been renamed.
func (d *durable) renamed(links []kernel.Link, boot string) map[string]string {
	renamed := map[string]string{}
	for was, dev := range d.Devices {
		i := slices.IndexFunc(links, func(l kernel.Link) bool {
			return l.Index == dev.Index && (dev.Boot == boot || dev.MAC == l.MAC && d.alone(links, l.MAC))
		})
		if i >= 0 && links[i].Name != was {
			renamed[was] = links[i].Name
		} else if now := d.exchanged(links, was); i < 0 && dev.Boot != boot && now != "" {
			renamed[was] = now
		}
	}
	return renamed
}

// alone reports whether one interface has that MAC address, now and when the devices were noted. In another boot an index is
// that of whatever is made at the same turn, and VLANs are made in any order.
func (d *durable) alone(links []kernel.Link, mac string) bool {
	n := 0
	for _, l := range links {
		if l.MAC == mac {
			n++
		}
	}
	for _, dev := range d.Devices {
		if dev.MAC == mac {
			n++
		}
	}
	return mac != "" && n == 2
}

// exchanged finds the interface that had the name old before a reboot, by its MAC address: it has to have a name that uplinkd
// knows, and another interface has to have the old one. Less than that proves nothing, since MAC addresses wander: a VLAN has that
// of the interface below it, and a bridge that has no ports yet has another one than later.
func (d *durable) exchanged(links []kernel.Link, old string) (now string) {
	mac, away := d.Devices[old].MAC, false
	for _, l := range links {
		known, isKnown := d.Devices[l.Name]
		switch {
		case l.Name == old:
			away = l.MAC != mac
		case mac == "" || l.MAC != mac:
		case now != "" || !isKnown || known.MAC == mac:
			return ""
		default:
			now = l.Name
		}
	}
	if !away {
		return ""
	}
	return now
}

// devices are the interfaces of the config and those on which something was announced, as they are now, or as they were last if
// they are not there.
func (e *Engine) devices(renamed map[string]string) map[string]device {
	next := map[string]device{}
	note := func(name string) {
		if l, ok := e.world.Links[name]; ok {
			next[name] = device{Index: l.Index, Boot: e.opt.BootID, MAC: l.MAC}
		} else if was, ok := e.saved.Devices[name]; ok && renamed[name] == "" {
			next[name] = was
		}
	}
	for _, u := range e.cfg.Uplinks {
		note(u.Interface)
	}
	for _, d := range e.cfg.Downstreams {
		note(d.Interface)
	}
	for _, list := range e.ledger.Announced {
		for _, r := range list {
			note(r.Interface)
		}
	}
	return next
}

// renameAnnounced returns a copy of the records with the new names of interfaces.
func renameAnnounced(records map[string][]policy.AnnouncedRecord, renamed map[string]string) map[string][]policy.AnnouncedRecord {
	next := make(map[string][]policy.AnnouncedRecord, len(records))
	for owner, list := range records {
		list = slices.Clone(list)
		for i := range list {
			if now, ok := renamed[list[i].Interface]; ok {
				list[i].Interface = now
			}
		}
		next[owner] = list
	}
	return next
}

// renameSysctls returns a copy of values, by variable, with the new names of interfaces in the names of variables.
func renameSysctls(values map[string]string, renamed map[string]string) map[string]string {
	const prefix = "net.ipv6.conf."
	next := make(map[string]string, len(values))
	moved := map[string]string{}
	for name, value := range values {
		rest, isConf := strings.CutPrefix(name, prefix)
		dot := strings.LastIndexByte(rest, '.')
		if now, ok := renamed[strings.ReplaceAll(rest[:max(0, dot)], "/", ".")]; isConf && ok {
			moved[prefix+strings.ReplaceAll(now, ".", "/")+rest[dot:]] = value
		} else {
			next[name] = value
		}
	}
	maps.Copy(next, moved)
	return next
}

// soundDevices drops what is no interface.
func soundDevices(a *audit, devices map[string]device) {
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		d := devices[name]
		err := checkDev(name)
		if err == nil && d.MAC != "" {
			_, err = net.ParseMAC(d.MAC)
		}
		if err != nil || len(d.Boot) > 64 {
			a.note("devices: %.40q (%.80q) is none that uplinkd notes", name, d.MAC)
			delete(devices, name)
		}
	}
}
