package wire

import (
	"crypto/hmac"
	"crypto/md5"
	"fmt"

	"uplinkd/pd"
)

// The Reconfigure Key Authentication Protocol (RFC 9915 §20.4), as servers speak it. The client's side, which verifies, is
// part of pd.Machine.
const (
	rkapProtocol  = 3
	rkapAlgorithm = 1 // HMAC-MD5
	rkapKey       = 1 // type of the information in a Reply
	rkapDigest    = 2 // and in a Reconfigure
	rkapLen       = 16
)

// ReconfigureKey is the Authentication option of the Reply in which a server gives a client the key of 16 octets that it
// will authenticate its Reconfigure messages with.
func ReconfigureKey(replay uint64, key []byte) *pd.Auth { return rkap(replay, rkapKey, key) }

func rkap(replay uint64, typ byte, information []byte) *pd.Auth {
	return &pd.Auth{Protocol: rkapProtocol, Algorithm: rkapAlgorithm, Replay: replay, Info: append([]byte{typ}, information...)}
}

// EncodeReconfigure is Encode for a Reconfigure that is authenticated with key: what is signed is the message with a digest
// of zeros. The client drops it unless replay is greater than any that it has seen from this server (§20.3).
func EncodeReconfigure(m pd.Message, replay uint64, key []byte) ([]byte, error) {
	if m.Type != pd.Reconfigure {
		return nil, fmt.Errorf("encode %s: only a Reconfigure is authenticated", m.Type)
	}
	m.Auth = rkap(replay, rkapDigest, make([]byte, rkapLen))
	b, err := Encode(m)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(md5.New, key)
	mac.Write(b)
	m.Auth = rkap(replay, rkapDigest, mac.Sum(nil))
	return Encode(m)
}
