package wire

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"uplinkd/pd"
)

// messages generates messages that survive Decode unchanged.
func messages() *rapid.Generator[pd.Message] {
	duid := rapid.Custom(func(t *rapid.T) pd.DUID {
		return pd.DUID(rapid.SliceOfN(rapid.Byte(), 3, 130).Draw(t, "duid"))
	})
	status := rapid.Custom(func(t *rapid.T) pd.Status {
		return pd.Status{
			Code: pd.StatusCode(rapid.Uint16().Draw(t, "code")),
			Text: rapid.StringMatching(`([a-z0-9äß]([a-z ,.]{0,60}[a-z])?)?`).Draw(t, "text"),
		}
	})
	iapd := rapid.Custom(func(t *rapid.T) pd.IAPD {
		t2 := rapid.Uint32().Draw(t, "T2")
		ia := pd.IAPD{IAID: rapid.Uint32().Draw(t, "IAID"), T2: t2, Status: status.Draw(t, "status")}
		if t2 > 0 {
			ia.T1 = rapid.Uint32Range(0, t2).Draw(t, "T1")
		}
		for range rapid.IntRange(0, 4).Draw(t, "prefixes") {
			addr := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"))
			addr[0], addr[1] = 0x20|addr[0]&0x1f, addr[1]|4 // global, not 6to4
			valid := rapid.Uint32().Draw(t, "valid")
			p := pd.IAPrefix{
				Prefix:    netip.PrefixFrom(netip.AddrFrom16(addr), rapid.IntRange(29, 128).Draw(t, "bits")).Masked(),
				Preferred: rapid.Uint32Range(0, valid).Draw(t, "preferred"),
				Valid:     valid,
				Status:    status.Draw(t, "status"),
			}
			if bits := p.Prefix.Bits(); bits < 128 && rapid.Bool().Draw(t, "exclude") {
				p.Exclude = netip.PrefixFrom(netip.AddrFrom16(addr), rapid.IntRange(bits+1, 128).Draw(t, "excluded bits")).Masked()
			}
			ia.Prefixes = append(ia.Prefixes, p)
		}
		return ia
	})
	iana := rapid.Custom(func(t *rapid.T) pd.IANA {
		ia := pd.IANA{IAID: rapid.Uint32().Draw(t, "IAID"), T1: rapid.Uint32().Draw(t, "T1"), Status: status.Draw(t, "status")}
		for range rapid.IntRange(0, 4).Draw(t, "addresses") {
			addr := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"))
			addr[0], addr[1] = 0x20|addr[0]&0x1f, addr[1]|4 // global, not 6to4
			valid := rapid.Uint32().Draw(t, "valid")
			ia.Addresses = append(ia.Addresses, pd.IAAddress{
				Address:   netip.AddrFrom16(addr),
				Preferred: rapid.Uint32Range(0, valid).Draw(t, "preferred"),
				Valid:     valid,
				Status:    status.Draw(t, "status"),
			})
		}
		return ia
	})
	octets := rapid.SliceOfN(rapid.Byte(), 0, 40)
	option := func(codes ...uint16) *rapid.Generator[pd.Option] {
		return rapid.Custom(func(t *rapid.T) pd.Option {
			return pd.Option{Code: rapid.SampledFrom(codes).Draw(t, "code"), Data: octets.Draw(t, "data")}
		})
	}
	hosts := rapid.StringMatching(`[a-z0-9_]{1,20}(\.[A-Za-z]([a-z-]{0,30}[0-9])?){0,3}`)
	servers := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) netip.Addr {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: rapid.Byte().Draw(t, "server")})
	}), 0, 4, rapid.ID)
	maxRT := rapid.OneOf(rapid.Just(uint32(0)), rapid.Uint32Range(60, 86400))
	return rapid.Custom(func(t *rapid.T) pd.Message {
		m := pd.Message{
			Type:         pd.MessageType(rapid.IntRange(1, 11).Draw(t, "type")),
			XID:          rapid.Uint32Range(0, 0xffffff).Draw(t, "xid"),
			ClientID:     duid.Draw(t, "client"),
			ServerID:     duid.Draw(t, "server"),
			Elapsed:      time.Duration(rapid.Uint16().Draw(t, "elapsed")) * 10 * time.Millisecond,
			Preference:   rapid.Byte().Draw(t, "preference"),
			RapidCommit:  rapid.Bool().Draw(t, "rapid"),
			Status:       status.Draw(t, "status"),
			IAPDs:        rapid.SliceOfN(iapd, 0, 4).Draw(t, "iapds"),
			ORO:          rapid.SliceOfN(rapid.Uint16(), 0, 8).Draw(t, "oro"),
			SolMaxRT:     maxRT.Draw(t, "sol"),
			InfMaxRT:     maxRT.Draw(t, "inf"),
			IANAs:        rapid.SliceOfN(iana, 0, 3).Draw(t, "ianas"),
			InfoRefresh:  rapid.Uint32().Draw(t, "refresh"),
			ReconfAccept: rapid.Bool().Draw(t, "accept"),
			ReconfMsg:    rapid.SampledFrom([]pd.MessageType{0, pd.Renew, pd.Rebind, pd.InformationRequest}).Draw(t, "reconfigure"),
			Info: pd.Info{
				DNS:           servers.Draw(t, "dns"),
				DomainSearch:  rapid.SliceOfN(hosts, 0, 4).Draw(t, "search"),
				NTP:           servers.Draw(t, "ntp"),
				NTPNames:      rapid.SliceOfNDistinct(hosts, 0, 4, rapid.ID).Draw(t, "ntp names"),
				SNTP:          servers.Draw(t, "sntp"),
				AFTR:          rapid.OneOf(rapid.Just(""), hosts).Draw(t, "aftr"),
				CaptivePortal: rapid.StringMatching(`(https?://[a-z]{1,9}(:[1-9]{1,4})?(/[!#-;=?-Z_a-z~]{0,9})?)?`).Draw(t, "portal"),
				Resolvers: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) pd.Resolver {
					r := pd.Resolver{Priority: rapid.Uint16Range(1, 9).Draw(t, "priority"), Name: hosts.Draw(t, "resolver"), Addresses: servers.Draw(t, "resolvers")}
					if len(r.Addresses) > 0 && rapid.Bool().Draw(t, "params") {
						r.Params = []byte{0, 1, 0, 1, rapid.Byte().Draw(t, "alpn")}
					}
					return r
				}), 0, 4).Draw(t, "encrypted"),
				S46:     rapid.SliceOfN(option(pd.OptS46MapE, pd.OptS46MapT, pd.OptS46LW), 0, 4).Draw(t, "s46"),
				Unknown: rapid.SliceOfN(option(4, 12, 17, 99, 65535), 0, 8).Draw(t, "unknown"),
			},
		}
		if rapid.Bool().Draw(t, "authenticated") {
			m.Auth = &pd.Auth{Protocol: rapid.Byte().Draw(t, "protocol"), Algorithm: rapid.Byte().Draw(t, "algorithm"),
				RDM: rapid.Byte().Draw(t, "rdm"), Replay: rapid.Uint64().Draw(t, "replay"), Info: octets.Draw(t, "info")}
		}
		if fromClient(m.Type) {
			m.UserClass = rapid.SliceOfN(octets, 0, 4).Draw(t, "user class")
			for range rapid.IntRange(0, 2).Draw(t, "vendor classes") {
				m.VendorClass = append(m.VendorClass, pd.VendorClass{Enterprise: rapid.Uint32().Draw(t, "enterprise"),
					Data: rapid.SliceOfN(octets, 0, 4).Draw(t, "vendor class")})
			}
		}
		if fromClient(m.Type) && rapid.Bool().Draw(t, "hint") {
			hint := pd.IAPrefix{HintLen: rapid.Uint8Range(1, 128).Draw(t, "length")}
			m.IAPDs = append(m.IAPDs, pd.IAPD{IAID: 1, Prefixes: []pd.IAPrefix{hint}})
		}
		return m
	})
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := messages().Draw(t, "message")
		b, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(m, got, equate, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
}
