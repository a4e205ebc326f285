package radv

import (
	"encoding/binary"
	"time"

	"github.com/mdlayher/ndp"

	"uplinkd/pd"
)

// optionEncryptedDNS is the Encrypted DNS option (RFC 9463 §6.1), which the ndp library does not know.
const optionEncryptedDNS = 144

// encryptedDNS is the option for r without type and length, and with lifetime 0. It is a string because these can be compared.
func encryptedDNS(r pd.Resolver) string {
	field := func(b, data []byte) []byte {
		return append(binary.BigEndian.AppendUint16(b, uint16(len(data))), data...)
	}
	name, addresses := r.Fields()
	b := binary.BigEndian.AppendUint16(nil, r.Priority)
	b = field(binary.BigEndian.AppendUint32(b, 0), name)
	if len(addresses) > 0 {
		b = field(field(b, addresses), r.Params)
	}
	for len(b)%8 != 6 {
		b = append(b, 0)
	}
	return string(b)
}

// encryptedDNSOf are the options for those of list that can stand in one.
func encryptedDNSOf(list []pd.Resolver) (options []string) {
	for _, r := range list {
		if r.Check() == nil {
			options = append(options, encryptedDNS(r))
		}
	}
	return options
}

// resolver adds an Encrypted DNS option.
func (d *draft) resolver(option string, life time.Duration, consider bool) {
	o := &ndp.RawOption{Type: optionEncryptedDNS, Length: uint8((len(option) + 2) / 8), Value: []byte(option)}
	setLifetime(o, life)
	d.add(len(option)+2, consider && len(option)+2 <= maxResolver, o, "encrypted DNS resolver")
}

// setLifetime and lifetimeOf are about the lifetime of an Encrypted DNS option: 4 octets behind the priority.
func setLifetime(o *ndp.RawOption, life time.Duration) {
	binary.BigEndian.PutUint32(o.Value[2:], uint32(life/time.Second))
}

func lifetimeOf(o *ndp.RawOption) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(o.Value[2:])) * time.Second
}

// sameResolver reports whether two Encrypted DNS options say the same.
func sameResolver(a, b *ndp.RawOption) bool {
	return string(a.Value[:2]) == string(b.Value[:2]) && string(a.Value[6:]) == string(b.Value[6:]) && sameLifetime(lifetimeOf(a), lifetimeOf(b))
}
