package pd

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Check returns an error if there is something in i that package wire never lets through. It is for what was read from a disk:
// disks lose bits and people edit files, and all of this ends up in router advertisements, logs and the environment of hooks.
func (i Info) Check() error {
	for _, list := range []struct {
		what  string
		addrs []netip.Addr
	}{{"DNS", i.DNS}, {"NTP", i.NTP}, {"SNTP", i.SNTP}} {
		for _, a := range list.addrs {
			if !a.Is6() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
				return fmt.Errorf("%s server %s: want an IPv6 address of a server", list.what, a)
			}
		}
	}
	names := slices.Concat(i.DomainSearch, i.NTPNames)
	if i.AFTR != "" {
		names = append(names, i.AFTR)
	}
	for _, n := range names {
		if err := checkHostName(n); err != nil {
			return err
		}
	}
	for _, r := range i.Resolvers {
		if err := r.Check(); err != nil {
			return fmt.Errorf("resolver %.80q: %w", r.Name, err)
		}
	}
	if i.CaptivePortal != "" {
		if _, err := PortalURI(i.CaptivePortal); err != nil {
			return fmt.Errorf("captive_portal: %w", err)
		}
	}
	return nil
}

// checkHostName accepts a name in text form, without a dot at its end.
func checkHostName(name string) error {
	if len(name) > 253 {
		return fmt.Errorf("a host name of %d octets, want at most 253", len(name))
	}
	for label := range strings.SplitSeq(name, ".") {
		odd := strings.ContainsFunc(label, func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
		})
		if odd || label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("%.80q is no host name", name)
		}
	}
	return nil
}
