package engine

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
	"uplinkd/policy"
)

// sound drops from a ledger what no uplinkd can have written, and returns what that was. A disk loses bits, and people edit
// files: a number that two uplinks share puts the prefixes of both into one table, one that is too large puts their rules
// behind those of the system, and a name that is no sysctl keeps the kernel from being read at all. What was dropped is
// given anew, as for an uplink that is new.
func (d *durable) sound() error {
	var a audit
	d.Plan.Uplinks = a.numbers(d.Plan.Uplinks)
	for name, lists := range map[string]map[string][]netip.Prefix{"had": d.Plan.Had, "loopback": d.Plan.Loopback} {
		for owner, list := range lists {
			lists[owner] = keepSound(&a, name+" of "+owner, list, checkPrefix)
		}
	}
	for owner, list := range d.Plan.Holds {
		d.Plan.Holds[owner] = keepSound(&a, "held by "+owner, list, func(r policy.HeldRecord) error { return checkPrefix(r.Prefix) })
	}
	for owner, list := range d.Plan.Announced {
		d.Plan.Announced[owner] = keepSound(&a, "announced on "+owner, list, func(r policy.AnnouncedRecord) error { return checkPrefix(r.Prefix) })
	}
	for owner, list := range d.Plan.Loans {
		d.Plan.Loans[owner] = keepSound(&a, "loans of "+owner, list, func(r policy.LoanRecord) error { return checkPrefix(r.Prefix) })
	}
	for owner, list := range d.Plan.Places {
		d.Plan.Places[owner] = keepSound(&a, "places of "+owner, list, checkPlace)
	}
	d.Addresses = keepSound(&a, "addresses", d.Addresses, func(r addressRecord) error {
		return cmp.Or(checkDev(r.Dev), checkAddress(r.Prefix))
	})
	soundDevices(&a, d.Devices)
	for _, name := range slices.Sorted(maps.Keys(d.Sysctls)) {
		if !ownSysctl.MatchString(name) || !sysctlValue.MatchString(d.Sysctls[name]) {
			a.note("sysctls: %.80q = %.80q is none that uplinkd sets", name, d.Sysctls[name])
			delete(d.Sysctls, name)
		}
	}
	return a.err()
}

// shorten has no record of what is told no more end later than it can: longest after now. One written while the clock was
// years ahead would keep prefixes, perhaps another customer's by now, on-link and dead until then.
func (d *durable) shorten(now time.Time, longest func(downstream string) time.Duration) {
	eachTold(d.Plan, func(downstream string, _ netip.Prefix, _, until *lifetime.Deadline) {
		if !until.IsForever() { // else it is still told
			*until = lifetime.Min(*until, lifetime.Until(now.Add(longest(downstream))))
		}
	})
}

// eachTold calls f with what each record of something told says of a prefix, and with the downstream; that is "" for what the
// provider told the router.
func eachTold(l policy.Ledger, f func(downstream string, p netip.Prefix, valid, until *lifetime.Deadline)) {
	for name, list := range l.Announced {
		for i := range list {
			f(name, list[i].Prefix, &list[i].Valid, &list[i].Until)
		}
	}
	for name, list := range l.Loans {
		for i := range list {
			f(name, list[i].Prefix, &list[i].Valid, &list[i].Until)
		}
	}
	for _, list := range l.Holds {
		for i := range list {
			f("", list[i].Prefix, &list[i].Valid, &list[i].Until)
		}
	}
}

// longestTold is how long something may stay valid after it was told on a downstream for the last time.
func (e *Engine) longestTold(downstream string) time.Duration {
	d, _ := e.downstream(downstream)
	return max(MaxLoan, d.RA.ValidLifetime)
}

// ownSysctl matches the variables that policy.Compile sets, sysctlValue what they can have been.
var (
	ownSysctl = regexp.MustCompile(`^net\.ipv6\.(ip_nonlocal_bind|conf\.all\.forwarding|conf\.[^./\pC\pZ][^.\pC\pZ]{0,14}` +
		`\.(accept_ra|accept_ra_defrtr|accept_ra_rt_info_max_plen|ra_honor_pio_pflag))$`)
	sysctlValue = regexp.MustCompile(`^(-?[0-9]{1,10}|` + kernel.Absent + `)$`)
)

// audit collects what is wrong with a ledger.
type audit struct{ found []string }

func (a *audit) note(format string, args ...any) {
	a.found = append(a.found, fmt.Sprintf(format, args...))
}

// err is what was found, in one line of bounded length: a file may have thousands of bad records.
func (a *audit) err() error {
	const most = 5
	if len(a.found) == 0 {
		return nil
	}
	slices.Sort(a.found)
	text := strings.Join(a.found[:min(most, len(a.found))], "; ")
	if n := len(a.found) - most; n > 0 {
		text += fmt.Sprintf("; and %d more", n)
	}
	return errors.New(text)
}

// numbers keeps the numbers that can be: from 1 to config.MaxUplinks, each once. Of two uplinks with one number the first
// by name keeps it.
func (a *audit) numbers(numbers map[string]uint32) map[string]uint32 {
	owner := map[uint32]string{}
	for _, name := range slices.Sorted(maps.Keys(numbers)) {
		n := numbers[name]
		other, taken := owner[n]
		switch {
		case n < 1 || n > config.MaxUplinks:
			a.note("uplinks: %.80q has the number %d, want 1 to %d", name, n, config.MaxUplinks)
		case taken:
			a.note("uplinks: %.80q and %.80q have the number %d", other, name, n)
		default:
			owner[n] = name
			continue
		}
		delete(numbers, name)
	}
	return numbers
}

// maxRecords bounds each list of a ledger. The longest that uplinkd writes, loans and places, have some hundreds.
const maxRecords = 4096

func keepSound[T any](a *audit, what string, list []T, check func(T) error) []T {
	if len(list) > maxRecords {
		a.note("%.100q: %d records, want %d at most", what, len(list), maxRecords)
		list = list[:maxRecords]
	}
	return slices.DeleteFunc(list, func(x T) bool {
		err := check(x)
		if err != nil {
			a.note("%.100q: %v", what, err)
		}
		return err != nil
	})
}

// checkPrefix refuses what cannot be a delegation or a part of one. A route to it could be a route to everything: no provider
// has more than the /12 that a regional registry has of IANA.
func checkPrefix(p netip.Prefix) error {
	if p.Bits() < 12 || p != p.Masked() {
		return fmt.Errorf("%s cannot be a prefix of a provider or a site", p)
	}
	return checkAddress(p)
}

func checkAddress(p netip.Prefix) error {
	if a := p.Addr(); !p.IsValid() || !a.Is6() || a.Is4In6() || !a.IsGlobalUnicast() {
		return fmt.Errorf("%s is not global", p)
	}
	return nil
}

func checkPlace(l policy.Place) error {
	errs := []error{}
	if l.Length > 128 {
		errs = append(errs, fmt.Errorf("length %d, want 128 at most", l.Length))
	}
	for _, p := range l.Prefixes {
		errs = append(errs, checkPrefix(p))
	}
	return cmp.Or(errs...)
}

// checkDev refuses what the kernel refuses as the name of an interface (dev_valid_name), and what a terminal would obey.
func checkDev(name string) error {
	if len(name) < 1 || len(name) > 15 || name == "." || name == ".." || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '/' || r == ':' || r >= 127 && r < 160 }) {
		return fmt.Errorf("%.40q is no name of an interface", name)
	}
	return nil
}
