package isp_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"testing"

	"uplinkd/internal/isp"
	"uplinkd/pd"
	"uplinkd/pd/wire"
)

// TestReconfigure checks on the wire what RFC 9915 §20.4 says of the digest and §20.3 of the replay value.
func TestReconfigure(t *testing.T) {
	l := setup(t, isp.Config{RapidCommit: true})
	if n, err := l.provider.Reconfigure(pd.Renew); n != 0 || err != nil {
		t.Errorf("without clients: %d, %v", n, err)
	}
	accepting := solicit
	accepting.RapidCommit, accepting.ReconfAccept = true, true
	reply := l.exchange(accepting)
	if reply.Auth == nil {
		t.Fatalf("no key in %+v", reply)
	}
	key, last := reply.Auth.Info[1:], reply.Auth.Replay
	for _, f := range []isp.Forgery{isp.WrongDigest, isp.Replayed, isp.Unauthenticated, isp.Genuine, isp.WrongDigest, isp.Replayed, isp.Genuine} {
		if n, err := l.provider.Forge(pd.Rebind, f); n != 1 || err != nil {
			t.Fatalf("forgery %d: %d, %v", f, n, err)
		}
		raw := l.receive()
		m, err := wire.Decode(raw)
		if err != nil || m.Type != pd.Reconfigure || m.XID != 0 || m.ReconfMsg != pd.Rebind || m.ClientID != clientID || m.ServerID != reply.ServerID {
			t.Fatalf("forgery %d: %+v, %v", f, m, err)
		}
		if f == isp.Unauthenticated {
			if m.Auth != nil {
				t.Errorf("authenticated: %+v", m.Auth)
			}
			continue
		}
		digest := m.Auth.Info[1:]
		mac := hmac.New(md5.New, key)
		mac.Write(bytes.Replace(raw, digest, make([]byte, len(digest)), 1))
		if right := hmac.Equal(mac.Sum(nil), digest); right != (f != isp.WrongDigest) {
			t.Errorf("forgery %d: the digest is right: %v", f, right)
		}
		if fresh := m.Auth.Replay > last; fresh != (f != isp.Replayed) {
			t.Errorf("forgery %d: replay value %d after %d", f, m.Auth.Replay, last)
		}
		if f == isp.Genuine {
			last = m.Auth.Replay
		}
	}
	if n := l.provider.Counts().Sent[pd.Reconfigure]; n != 7 {
		t.Errorf("%d Reconfigures counted, want 7", n)
	}
}
