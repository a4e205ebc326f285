package store

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestMadeOnce(t *testing.T) {
	d := open(t, t.TempDir())
	ula, err := d.ULA()
	if err != nil || ula.Bits() != 48 || ula != ula.Masked() || ula.Addr().As16()[0] != 0xfd {
		t.Fatalf("ULA %s, %v", ula, err)
	}
	secret, err := d.Secret()
	if err != nil || len(secret) != secretLen {
		t.Fatalf("secret of %d octets, %v", len(secret), err)
	}
	d = reopen(t, d)
	if again, err := d.ULA(); err != nil || again != ula {
		t.Errorf("ULA after a restart %s, %v; was %s", again, err, ula)
	}
	if again, err := d.Secret(); err != nil || !bytes.Equal(again, secret) {
		t.Errorf("another secret after a restart, %v", err)
	}
	for _, name := range []string{ulaName, secretName} {
		if !d.private(name) {
			t.Errorf("others can read %s", name)
		}
	}
	other := open(t, t.TempDir())
	if p, err := other.ULA(); err != nil || p == ula {
		t.Errorf("another router has the same ULA prefix %s, %v", p, err)
	}
	if s, err := other.Secret(); err != nil || bytes.Equal(s, secret) {
		t.Errorf("another router has the same secret, %v", err)
	}
}

func TestDamagedULA(t *testing.T) {
	for content, cause := range map[string]string{
		`"fd00::/8"`:             "want a /48 of fd00::/8",
		`"2001:db8::/48"`:        "want a /48 of fd00::/8",
		`"fd12:3456:789a::1/48"`: "want a /48 of fd00::/8",
		`"fd12:3456:789a::/64"`:  "want a /48 of fd00::/8",
		`"\u001b[2J"`:            "unusable",
		`7`:                      "unusable",
	} {
		d := open(t, t.TempDir())
		put(t, d, ulaName, `{"version": 1, "data": `+content+`}`)
		p, err := d.ULA()
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), cause) || !p.IsValid() {
			t.Errorf("%s: %s, %v; want %s", content, p, err, cause)
		}
		if again, err := d.ULA(); err != nil || again != p {
			t.Errorf("%s: the new one is %s, and then %s, %v", content, p, again, err)
		}
	}
}

func TestDamagedSecret(t *testing.T) {
	const half = "c0ffee"
	d := open(t, t.TempDir())
	put(t, d, secretName, `{"version": 1, "data": "`+half+`"}`)
	secret, err := d.Secret()
	if !errors.Is(err, ErrCorrupt) || len(secret) != secretLen {
		t.Errorf("secret of %d octets, %v", len(secret), err)
	}
	if strings.Contains(err.Error(), half) {
		t.Errorf("the message shows it: %v", err)
	}
	if again, err := d.Secret(); err != nil || !bytes.Equal(again, secret) {
		t.Errorf("another one after that, %v", err)
	}
}

// A read-only directory has no ULA prefix to give if there is none on disk.
func TestNoULAWithoutDisk(t *testing.T) {
	dir := t.TempDir()
	d, err := ReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if p, err := d.ULA(); err == nil || p != (netip.Prefix{}) {
		t.Errorf("%s, %v", p, err)
	}
}
