package wire

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"strings"
	"testing"

	"uplinkd/pd"
)

// TestEncodeReconfigure computes the digest a second time, from the octets (RFC 9915 §20.4.2).
func TestEncodeReconfigure(t *testing.T) {
	key := []byte("0123456789abcdef")
	b, err := EncodeReconfigure(pd.Message{Type: pd.Reconfigure, ClientID: "client", ServerID: "server", ReconfMsg: pd.Renew}, 7, key)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Decode(b)
	if err != nil || len(m.Faults) > 0 {
		t.Fatalf("%v, faults %q", err, m.Faults)
	}
	a := m.Auth
	if a == nil || a.Protocol != 3 || a.Algorithm != 1 || a.RDM != 0 || a.Replay != 7 || len(a.Info) != 17 || a.Info[0] != 2 {
		t.Fatalf("authentication %+v", a)
	}
	if m.ReconfMsg != pd.Renew || m.XID != 0 {
		t.Errorf("%s", Text(m))
	}
	unsigned := bytes.Replace(b, a.Info[1:], make([]byte, 16), 1)
	mac := hmac.New(md5.New, key)
	mac.Write(unsigned)
	if !bytes.Equal(mac.Sum(nil), a.Info[1:]) {
		t.Errorf("digest %x, want %x", a.Info[1:], mac.Sum(nil))
	}
}

func TestReconfigureKey(t *testing.T) {
	key := []byte("0123456789abcdef")
	b, err := Encode(pd.Message{Type: pd.Reply, ServerID: "server", Auth: ReconfigureKey(9, key)})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Decode(b)
	if err != nil || m.Auth == nil || m.Auth.Replay != 9 || string(m.Auth.Info) != "\x01"+string(key) {
		t.Fatalf("%+v, %v", m.Auth, err)
	}
	if text := Text(m); strings.Contains(text, string(key)) {
		t.Errorf("the text shows the key: %s", text)
	}
}

func TestEncodeReconfigureRefuses(t *testing.T) {
	for _, m := range []pd.Message{{Type: pd.Reply}, {Type: pd.Reconfigure, ClientID: "x"}} {
		if b, err := EncodeReconfigure(m, 1, nil); err == nil {
			t.Errorf("%+v became %x", m, b)
		}
	}
}
