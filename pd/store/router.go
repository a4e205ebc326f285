package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
)

// What this router has made for itself once: both are random, and both must outlive everything, since hosts and the
// firewall rules of people have addresses with them.
const (
	ulaName       = "ula.json"
	ulaVersion    = 1
	secretName    = "secret.json"
	secretVersion = 1
	secretLen     = 32
)

// ULA returns the /48 of unique local addresses that is on disk, or one that is made now and is then on disk. Its Global
// ID is 40 random bits from the kernel, which RFC 4193 §3.2.1 asks for; the hash of time and MAC address in §3.2.2 is for
// hosts that have nothing better. If the file was of no use, the error is ErrCorrupt and the prefix with it a new one. After
// any other error there is none.
func (d *Dir) ULA() (netip.Prefix, error) {
	return kept(d, ulaName, ulaVersion, func() netip.Prefix {
		a := [16]byte{0xfd}
		rand.Read(a[1:6]) // never fails
		return netip.PrefixFrom(netip.AddrFrom16(a), 48)
	}, func(p netip.Prefix) error {
		if !p.IsValid() || !p.Addr().Is6() || p.Bits() != 48 || p != p.Masked() || p.Addr().As16()[0] != 0xfd {
			return fmt.Errorf("prefix %s: want a /48 of fd00::/8", p)
		}
		return nil
	})
}

// Secret returns what is on disk for hosts parts that nobody can guess (RFC 7217): 32 random octets, made at the first
// call. Errors are those of ULA.
func (d *Dir) Secret() ([]byte, error) {
	text, err := kept(d, secretName, secretVersion, func() string {
		b := make([]byte, secretLen)
		rand.Read(b)
		return hex.EncodeToString(b)
	}, func(text string) error {
		if b, err := hex.DecodeString(text); err != nil || len(b) != secretLen {
			return fmt.Errorf("want %d octets in hexadecimal", secretLen) // not which: it is a secret
		}
		return nil
	})
	b, _ := hex.DecodeString(text) // it was checked or made just now
	if len(b) == 0 {
		b = nil
	}
	return b, err
}

// kept is the value of a file, or the one that create makes, which is then in it.
func kept[T any](d *Dir, name string, version int, create func() T, check func(T) error) (v T, err error) {
	var none T
	if err = d.ReadJSON(name, version, &v); err == nil {
		if err = check(v); err == nil {
			return v, nil
		}
		err = d.corrupt(name, err)
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrCorrupt) {
		return none, err
	}
	v = create()
	if werr := d.WriteJSON(name, version, v); werr != nil {
		return none, werr
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return v, err
}

// ReadOptional is ReadJSON for a file that need not be there: then v stays as it is.
func (d *Dir) ReadOptional(name string, version int, v any) error {
	if err := d.ReadJSON(name, version, v); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// FileFor is the name of the file for a kind of thing that there is one of for every uplink or interface.
func FileFor(kind, name string) string { return uplinkFile(kind, name) }
