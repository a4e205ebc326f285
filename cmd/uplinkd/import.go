package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"uplinkd/internal/config"
	"uplinkd/pd"
	"uplinkd/pd/identity"
	"uplinkd/pd/store"
)

var importVerb = verb{
	name: "import", args: "[FROM]", summary: "take over the DHCP identity of another client",
	about: `Takes the DUID by which the provider knows this router from the DHCPv6 client that ran here before, so that the same
prefix comes. FROM is dhclient, dhcpcd, networkd, odhcp6c or wide. Where the client has kept its last lease too (dhclient,
dhcpcd), an uplink on the same interface that has no lease takes over the IAIDs, by which the provider tells the leases of
one DUID apart, and asks for the same prefix first. IAIDs of the others can be given with dhcpv6.iaid.

The DUID of networkd is computed from /etc/machine-id, that of odhcp6c from the hardware address of the uplink's
interface. Both can be configured to use another; so can any client that is not in the list. Give such a DUID with
--duid in place of FROM, as networkctl status INTERFACE shows it or in hexadecimal (OpenWrt: uci get
network.globals.dhcp_default_duid).

Refuses while the daemon runs, and to replace another DUID unless --force says so. Stop the other client first: two with one
DUID take the prefix from each other.`,
	failed: "there is nothing to import, a daemon is running, or there is another DUID",
	examples: []string{"uplinkd import dhclient --dry-run", "uplinkd import dhcpcd --file /mnt/old/var/lib/dhcpcd/duid",
		"uplinkd import odhcp6c --uplink fiber", "uplinkd import --duid DUID-EN/Vendor:0000ab11dede0fabf5e9fca3"},
	run: cmdImport,
}

// importFlags are what the command line says.
type importFlags struct {
	from, file, uplink, duid string
	dry, force               bool
}

func cmdImport(env *environment, args []string) int {
	fs := env.flags("import")
	var f importFlags
	fs.StringVar(&f.file, "file", "", "read `FILE` instead of looking where FROM keeps it")
	fs.StringVar(&f.uplink, "uplink", "", "only for `UPLINK`; needed for odhcp6c if there are several")
	fs.StringVar(&f.duid, "duid", "", "this is the DUID: hexadecimal `OCTETS`, or as networkctl shows it")
	fs.BoolVar(&f.dry, "dry-run", false, "print what would be done, and do nothing")
	fs.BoolVar(&f.force, "force", false, "replace another DUID, other IAIDs, and which prefixes are asked for first")
	rest, status, ok := env.parse(fs, args, 0, 1)
	if !ok {
		return status
	}
	if len(rest) == 1 {
		f.from = rest[0]
	}
	if mistake := f.mistake(); mistake != "" {
		return env.usage("import", "%s", mistake)
	}
	cfg, err := env.configOrDefaults()
	if err != nil {
		return env.failConfig(err)
	}
	uplinks := cfg.Uplinks
	if f.uplink != "" {
		uplinks = slices.DeleteFunc(slices.Clone(uplinks), func(u config.Uplink) bool { return u.Name != f.uplink })
		if len(uplinks) == 0 {
			return env.usage("import", "there is no uplink %q in the configuration", f.uplink)
		}
	}
	found, err := f.find(uplinks)
	if err != nil {
		return env.fail(err)
	}
	if err := env.importFound(cfg.StateDir, found, uplinks, f); err != nil {
		return env.fail(err)
	}
	return exitOK
}

// mistake says what is wrong with the command line, "" if nothing is.
func (f importFlags) mistake() string {
	_, known := importSources[f.from]
	switch {
	case f.from == "" && f.duid == "":
		return "import from which client? " + importNames() + "; or --duid"
	case f.from != "" && f.duid != "":
		return "either FROM or --duid, not both"
	case f.from != "" && !known:
		return fmt.Sprintf("cannot import from %q; from %s, or with --duid", f.from, importNames())
	case f.file != "" && (f.from == "odhcp6c" || f.duid != ""):
		return "--file does not go with odhcp6c or --duid, which need none"
	}
	return ""
}

func importNames() string {
	var names []string
	for name := range importSources {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// find gets the identity from where the command line says.
func (f importFlags) find(uplinks []config.Uplink) (found, error) {
	if f.duid != "" {
		d, err := identity.Parse(f.duid)
		return found{duid: d, where: "--duid"}, err
	}
	return importSources[f.from](f.file, uplinks)
}

// importFound prints what was found and writes it into the state directory.
func (env *environment) importFound(dir string, got found, uplinks []config.Uplink, f importFlags) error {
	say := func(format string, args ...any) {
		fmt.Fprintln(env.stdout, printable(fmt.Sprintf(format, args...)))
	}
	say("found DUID %s in %s", got.duid, got.where)
	for _, h := range got.held {
		say("found prefix %s of %s, IAID 0x%08x, in %s", h.Prefix, h.Interface, h.IAID, h.where)
	}
	for _, a := range got.leased {
		say("found an address of %s, IAID 0x%08x", a.Interface, a.IAID)
	}
	for _, w := range got.warnings {
		fmt.Fprintln(env.stderr, "uplinkd: warning: "+printable(w.Error()))
	}
	state, err := openImport(dir, f.dry)
	if err != nil {
		return err
	}
	defer state.close()
	if err := state.setDUID(got.duid, f.force, say); err != nil {
		return err
	}
	for _, u := range uplinks {
		if u.DHCPv6.DUID != "auto" {
			say("note: uplink %s has dhcpv6.duid = %q, so it does not use this DUID", u.Name, u.DHCPv6.DUID)
		}
		if err := state.takeOver(u, got, f.force, say); err != nil {
			return err
		}
	}
	for _, h := range got.held {
		if !slices.ContainsFunc(uplinks, func(u config.Uplink) bool { return u.Interface == h.Interface }) {
			say("left alone: prefix %s, no such uplink is on %s", h.Prefix, h.Interface)
		}
	}
	return nil
}

// importState is the state directory that an identity goes into.
type importState struct {
	dir  string
	d    *store.Dir // nil: there is none yet, in a dry run
	dry  bool
	verb string // what is done, for messages
}

func openImport(dir string, dry bool) (importState, error) {
	s := importState{dir: dir, dry: dry, verb: "written"}
	var err error
	if dry {
		s.verb = "would be written"
		if s.d, err = store.ReadOnly(dir); errors.Is(err, fs.ErrNotExist) {
			return s, nil
		}
		return s, err
	}
	if s.d, err = store.Open(dir); errors.Is(err, store.ErrLocked) {
		err = fmt.Errorf("%w; stop it first: systemctl stop uplinkd", err)
	}
	return s, err
}

func (s importState) close() {
	if s.d != nil {
		s.d.Close()
	}
}

// setDUID writes the DUID, unless it is there already.
func (s importState) setDUID(id pd.DUID, force bool, say func(string, ...any)) error {
	var saved pd.DUID
	if s.d != nil {
		var err error
		saved, err = s.d.SavedDUID()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			if !errors.Is(err, store.ErrCorrupt) {
				return err
			}
			say("%s", err) // it is of no use, so that nothing is lost by writing another
		}
	}
	switch {
	case saved == id:
		say("nothing to do: %s has this DUID already", s.dir)
		return nil
	case saved != "" && !force:
		return fmt.Errorf("%s has another DUID, %s, by which the provider may know this router; --force replaces it", s.dir, saved)
	case !s.dry:
		if err := s.d.SetDUID(id, force); err != nil {
			return err
		}
	}
	if saved != "" {
		say("%s: DUID in %s, in place of %s", s.verb, s.dir, saved)
	} else {
		say("%s: DUID in %s", s.verb, s.dir)
	}
	return nil
}

// takeOver makes what another client had on the interface of u known to that uplink, unless it knows better from a lease of its
// own.
func (s importState) takeOver(u config.Uplink, got found, force bool, say func(string, ...any)) error {
	var hints []netip.Prefix
	var ids store.IAIDs
	for _, h := range got.held {
		if h.Interface == u.Interface && !slices.Contains(hints, h.Prefix) {
			hints = append(hints, h.Prefix)
		}
		if h.Interface == u.Interface && !slices.Contains(ids.Prefixes, h.IAID) {
			ids.Prefixes = append(ids.Prefixes, h.IAID)
		}
	}
	for _, a := range got.leased {
		if a.Interface == u.Interface && ids.Address == nil {
			ids.Address = &a.IAID
		}
	}
	if len(hints) == 0 && ids.Address == nil {
		return nil
	}
	var l pd.Lease
	if s.d != nil {
		var err error
		if l, err = s.d.Lease(u.Name); err != nil {
			if !errors.Is(err, store.ErrCorrupt) {
				return err
			}
			say("%s", err)
		}
	}
	if l.Held() {
		say("left alone: uplink %s has a lease of its own", u.Name)
		return nil
	}
	if err := s.iaids(u, ids, force, say); err != nil || len(hints) == 0 {
		return err
	}
	return s.hint(u.Name, l, hints, force, say)
}

// iaids writes the IAIDs of an uplink.
func (s importState) iaids(u config.Uplink, ids store.IAIDs, force bool, say func(string, ...any)) error {
	var saved store.IAIDs
	if s.d != nil {
		var err error
		if saved, err = s.d.IAIDs(u.Name); err != nil {
			if !errors.Is(err, store.ErrCorrupt) {
				return err
			}
			say("%s", err)
		}
	}
	switch {
	case u.DHCPv6.DUID != "auto":
		say("left alone: %s, which does not belong to the DUID of uplink %s", joinIAIDs(ids), u.Name)
		return nil
	case reflect.DeepEqual(saved, ids):
		say("nothing to do: uplink %s has %s already", u.Name, joinIAIDs(ids))
		return nil
	case !reflect.DeepEqual(saved, store.IAIDs{}) && !force:
		say("left alone: uplink %s has %s, imported before; --force replaces that", u.Name, joinIAIDs(saved))
		return nil
	case !s.dry:
		if err := s.d.SaveIAIDs(u.Name, ids); err != nil {
			return err
		}
	}
	say("%s: uplink %s has %s", s.verb, u.Name, joinIAIDs(ids))
	if u.DHCPv6.IAID != nil {
		say("note: dhcpv6.iaid of uplink %s counts more than what is imported", u.Name)
	}
	return nil
}

// hint makes an uplink ask for these prefixes first. Its lease l is over.
func (s importState) hint(uplink string, l pd.Lease, prefixes []netip.Prefix, force bool, say func(string, ...any)) error {
	switch {
	case slices.Equal(l.Previous, prefixes):
		say("nothing to do: uplink %s asks first for %s already", uplink, joinPrefixes(prefixes))
		return nil
	case len(l.Previous) > 0 && !force:
		say("left alone: uplink %s asks first for %s, which it had last", uplink, joinPrefixes(l.Previous))
		return nil
	}
	l.Previous = prefixes
	if !s.dry {
		if err := s.d.SaveLease(uplink, l); err != nil {
			return err
		}
	}
	say("%s: uplink %s asks first for %s", s.verb, uplink, joinPrefixes(prefixes))
	return nil
}

// joinIAIDs is "IAID 0x00000101 for its prefix and 0x00000102 for its address".
func joinIAIDs(ids store.IAIDs) string {
	var parts []string
	if len(ids.Prefixes) > 0 {
		var numbers []string
		for _, id := range ids.Prefixes {
			numbers = append(numbers, fmt.Sprintf("0x%08x", id))
		}
		noun := "prefix"
		if len(numbers) > 1 {
			noun = "prefixes"
		}
		parts = append(parts, strings.Join(numbers, ", ")+" for its "+noun)
	}
	if ids.Address != nil {
		parts = append(parts, fmt.Sprintf("0x%08x for its address", *ids.Address))
	}
	return "IAID " + strings.Join(parts, " and ")
}

func joinPrefixes(ps []netip.Prefix) string {
	var texts []string
	for _, p := range ps {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ", ")
}
