package wire

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"uplinkd/pd"
)

// Encode returns m as octets. The order of options is fixed, so equal messages have equal octets. It refuses only what
// the format cannot hold.
func Encode(m pd.Message) ([]byte, error) {
	if !known(m.Type) {
		return nil, fmt.Errorf("encode message: type %d is not a message between client and server", m.Type)
	}
	options, err := encodeOptions(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.Type, err)
	}
	if m.XID > 0xffffff {
		return nil, fmt.Errorf("encode %s: transaction id %#x has more than 24 bits", m.Type, m.XID)
	}
	msg := dhcpv6.Message{
		MessageType:   dhcpv6.MessageType(m.Type),
		TransactionID: dhcpv6.TransactionID{byte(m.XID >> 16), byte(m.XID >> 8), byte(m.XID)},
		Options:       dhcpv6.MessageOptions{Options: options},
	}
	b := msg.ToBytes()
	if len(b) > maxMessage {
		return nil, fmt.Errorf("encode %s: %d octets, want at most %d", m.Type, len(b), maxMessage)
	}
	return b, nil
}

// encodeOptions returns the options of m in a fixed order: who and what, then what is asked and told, then the bindings.
func encodeOptions(m pd.Message) (o dhcpv6.Options, err error) {
	for _, id := range []struct {
		code dhcpv6.OptionCode
		duid pd.DUID
	}{{dhcpv6.OptionClientID, m.ClientID}, {dhcpv6.OptionServerID, m.ServerID}} {
		if id.duid == "" {
			continue
		}
		if !id.duid.Valid() {
			return nil, fmt.Errorf("%s of %d octets, want 3 to 130", name(id.code), len(id.duid))
		}
		o.Add(generic(id.code, []byte(id.duid)))
	}
	if m.Preference != 0 {
		o.Add(dhcpv6.OptPreference(m.Preference))
	}
	if m.RapidCommit {
		o.Add(generic(dhcpv6.OptionRapidCommit, nil))
	}
	addReconfigure(&o, m)
	if fromClient(m.Type) || m.Elapsed != 0 { // N-11: clients say it in every message
		o.Add(dhcpv6.OptElapsedTime(saturate(m.Elapsed)))
	}
	if len(m.ORO) > 0 {
		codes := make([]dhcpv6.OptionCode, len(m.ORO))
		for i, c := range m.ORO {
			codes[i] = dhcpv6.OptionCode(c)
		}
		o.Add(dhcpv6.OptRequestedOption(codes...))
	}
	for _, s := range []struct {
		code    dhcpv6.OptionCode
		seconds uint32
	}{{dhcpv6.OptionSolMaxRT, m.SolMaxRT}, {dhcpv6.OptionInfMaxRT, m.InfMaxRT}, {dhcpv6.OptionInformationRefreshTime, m.InfoRefresh}} {
		if s.seconds != 0 {
			o.Add(generic(s.code, binary.BigEndian.AppendUint32(nil, s.seconds)))
		}
	}
	addClasses(&o, m)
	if err := addInfo(&o, m.Info); err != nil {
		return nil, err
	}
	if err := addStatus(&o, m.Status); err != nil {
		return nil, err
	}
	if err := addIAs(&o, m); err != nil {
		return nil, err
	}
	for _, e := range m.Extra {
		o.Add(generic(dhcpv6.OptionCode(e.Code), e.Data))
	}
	return o, nil
}

// addReconfigure adds what has to do with Reconfigure and its authentication.
func addReconfigure(o *dhcpv6.Options, m pd.Message) {
	if m.ReconfMsg != 0 {
		o.Add(generic(dhcpv6.OptionReconfMessage, []byte{byte(m.ReconfMsg)}))
	}
	if m.ReconfAccept {
		o.Add(generic(dhcpv6.OptionReconfAccept, nil))
	}
	if a := m.Auth; a != nil {
		b := binary.BigEndian.AppendUint64([]byte{a.Protocol, a.Algorithm, a.RDM}, a.Replay)
		o.Add(generic(dhcpv6.OptionAuth, append(b, a.Info...)))
	}
}

func addClasses(o *dhcpv6.Options, m pd.Message) {
	if len(m.UserClass) > 0 {
		o.Add(generic(dhcpv6.OptionUserClass, appendClass(nil, m.UserClass)))
	}
	for _, c := range m.VendorClass {
		b := binary.BigEndian.AppendUint32(nil, c.Enterprise)
		o.Add(generic(dhcpv6.OptionVendorClass, appendClass(b, c.Data)))
	}
}

// appendClass appends values of a class option, each behind its length. A value that does not fit there does not fit into
// a message either, which Encode refuses.
func appendClass(b []byte, values [][]byte) []byte {
	for _, v := range values {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...)
	}
	return b
}

// addStatus adds s unless it is plain success, which an absent option means too (RFC 9915 §21.13).
func addStatus(o *dhcpv6.Options, s pd.Status) error {
	if s == (pd.Status{}) {
		return nil
	}
	if len(s.Text) > maxMessage/2 {
		return fmt.Errorf("status text of %d octets, want at most %d", len(s.Text), maxMessage/2)
	}
	o.Add(generic(dhcpv6.OptionStatusCode, append(binary.BigEndian.AppendUint16(nil, uint16(s.Code)), s.Text...)))
	return nil
}

func generic(code dhcpv6.OptionCode, data []byte) *dhcpv6.OptionGeneric {
	return &dhcpv6.OptionGeneric{OptionCode: code, OptionData: data}
}

func seconds(s uint32) time.Duration { return time.Duration(s) * time.Second }

// saturate bounds an elapsed time to what its field holds; the library would wrap around (RFC 9915 §21.9: 0xffff).
func saturate(d time.Duration) time.Duration {
	return min(max(d, 0), maxElapsed*10*time.Millisecond)
}
