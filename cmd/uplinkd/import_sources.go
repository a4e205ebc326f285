package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"uplinkd/internal/config"
	"uplinkd/pd"
	"uplinkd/pd/identity"
)

// found is the identity of another client.
type found struct {
	duid     pd.DUID
	where    string
	held     []foundPrefix
	leased   []identity.Address // IA_NAs
	warnings []error            // what else was there and could not be read
}

// foundPrefix is a prefix that the other client had, and the file that says so.
type foundPrefix struct {
	identity.Delegation
	where string
}

// importSources finds the identity of each client that is known. The file is "" for the usual places.
var importSources = map[string]func(file string, uplinks []config.Uplink) (found, error){
	"dhclient": fromDhclient,
	"dhcpcd":   fromDhcpcd,
	"networkd": func(file string, _ []config.Uplink) (found, error) {
		return fromFile(identity.MachineID, file, "/etc/machine-id")
	},
	"wide": func(file string, _ []config.Uplink) (found, error) {
		return fromFile(identity.Wide, file, "/var/lib/dhcpv6/dhcp6c_duid", "/var/db/dhcp6c_duid")
	},
	"odhcp6c": fromHardware,
}

func fromDhclient(file string, uplinks []config.Uplink) (found, error) {
	var usual []string
	for _, u := range uplinks { // ifupdown has a file for each interface
		usual = append(usual, "/var/lib/dhcp/dhclient6."+u.Interface+".leases")
	}
	var id identity.Identity
	f, err := fromFile(func(b []byte) (_ pd.DUID, err error) {
		id, err = identity.Dhclient(b)
		return id.DUID, err
	}, file, append(usual, "/var/lib/dhcp/dhclient6.leases", "/var/lib/dhclient/dhclient6.leases")...)
	f.add(id, f.where)
	return f, err
}

// add adds what a file says besides the DUID.
func (f *found) add(id identity.Identity, where string) {
	for _, d := range id.Delegations {
		f.held = append(f.held, foundPrefix{d, where})
	}
	f.leased = append(f.leased, id.Addresses...)
}

// fromDhcpcd reads the DUID, and the leases that are beside it: a file for each interface, under the name of today or of
// dhcpcd up to 6.
func fromDhcpcd(file string, uplinks []config.Uplink) (found, error) {
	f, err := fromFile(identity.Text, file, "/var/lib/dhcpcd/duid", "/etc/dhcpcd.duid", "/var/db/dhcpcd/duid")
	if err != nil {
		return f, err
	}
	for _, u := range uplinks {
		for _, name := range []string{u.Interface + ".lease6", "dhcpcd-" + u.Interface + ".lease6"} {
			path := filepath.Join(filepath.Dir(f.where), name)
			b, err := readForeign(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			var id identity.Identity
			if err == nil {
				id, err = identity.DhcpcdLease(b)
			}
			if err != nil {
				f.warnings = append(f.warnings, fmt.Errorf("read %s: %w; going on without it", path, bareError(err)))
			}
			for i := range id.Delegations {
				id.Delegations[i].Interface = u.Interface
			}
			for i := range id.Addresses {
				id.Addresses[i].Interface = u.Interface
			}
			f.add(id, path)
		}
	}
	return f, nil
}

// fromHardware makes the DUID-LL of an uplink's interface.
func fromHardware(_ string, uplinks []config.Uplink) (found, error) {
	if len(uplinks) != 1 {
		return found{}, fmt.Errorf("the DUID of odhcp6c is the hardware address of an uplink's interface, and the configuration has %s: say --uplink",
			count(len(uplinks), "uplink"))
	}
	name := uplinks[0].Interface
	i, err := net.InterfaceByName(name)
	if err != nil {
		return found{}, fmt.Errorf("read the hardware address of %s: %w", name, err)
	}
	d, err := identity.LinkLayer(i.HardwareAddr)
	if err != nil {
		return found{}, fmt.Errorf("interface %s: %w; give the DUID with --duid", name, err)
	}
	return found{duid: d, where: "the hardware address of " + name}, nil
}

// fromFile reads a DUID from file or, if that is "", from the first of the usual files that exists.
func fromFile(read func([]byte) (pd.DUID, error), file string, usual ...string) (found, error) {
	if file != "" {
		usual = []string{file}
	}
	for _, path := range usual {
		b, err := readForeign(path)
		if errors.Is(err, fs.ErrNotExist) && file == "" {
			continue
		}
		var d pd.DUID
		if err == nil {
			d, err = read(b)
		}
		if err != nil {
			return found{}, fmt.Errorf("read %s: %w", path, bareError(err))
		}
		return found{duid: d, where: path}, nil
	}
	return found{}, fmt.Errorf("none of %s exists; name the file with --file", strings.Join(usual, ", "))
}

// readForeign reads a file, at most as much of it as the readers take. Opening a named pipe would wait for a writer.
func readForeign(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	return io.ReadAll(io.LimitReader(f, identity.MaxFile+1))
}

// bareError is err without the name of the file, which the message has already.
func bareError(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
