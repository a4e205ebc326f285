package rtnl

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
	"uplinkd/internal/lifetime"
)

// found is a row as a dump shows it: the device still as an index, and whose it is.
type found[R any] struct {
	row   R
	index uint32 // device; 0 for none
	proto uint8  // mark of the owner
}

// ifaProto is IFA_PROTO of linux/if_addr.h (Linux 5.18).
const ifaProto = 11

// decodeRoute reads an RTM_NEWROUTE of a dump. Not shown are copies in the cache (RTM_F_CLONED), routes with a source
// prefix or a TOS (uplinkd writes none, and kernel.Route could not tell them from routes without), and other families.
func decodeRoute(b []byte) (f found[kernel.Route], ok bool, err error) {
	if len(b) < unix.SizeofRtMsg {
		return f, false, fmt.Errorf("%w: route of %d bytes", errMalformed, len(b))
	}
	family, dstLen, srcLen, tos := b[0], int(b[1]), b[2], b[3]
	if flags := native.Uint32(b[8:]); flags&unix.RTM_F_CLONED != 0 || srcLen != 0 || tos != 0 {
		return f, false, nil
	}
	dst, ok := anyAddr(family)
	if !ok {
		return f, false, nil
	}
	r := &f.row
	f.proto, r.Table, r.Type = b[5], uint32(b[4]), kernel.RouteType(b[7])
	err = eachAttr(b[unix.SizeofRtMsg:], func(typ uint16, data []byte) (err error) {
		switch typ {
		case unix.RTA_DST:
			dst, err = attrAddr(data)
		case unix.RTA_TABLE:
			r.Table, err = attrUint32(data)
		case unix.RTA_PRIORITY:
			r.Metric, err = attrUint32(data)
		case unix.RTA_MULTIPATH:
			err = decodeNextHop(data, &f)
		default:
			err = decodeHop(typ, data, &f)
		}
		return err
	})
	if err != nil {
		return f, false, err
	}
	if r.Dst, err = dst.Prefix(dstLen); err != nil {
		return f, false, fmt.Errorf("%w: %w", errMalformed, err)
	}
	if r.Type != kernel.Unicast && r.Type != kernel.Local {
		f.index, r.Gateway = 0, netip.Addr{} // IPv6 shows lo for the types that have no next hop
	}
	return f, true, nil
}

// decodeHop reads the attributes that a next hop and a route with only one share.
func decodeHop(typ uint16, data []byte, f *found[kernel.Route]) (err error) {
	switch typ {
	case unix.RTA_OIF:
		f.index, err = attrUint32(data)
	case unix.RTA_GATEWAY:
		f.row.Gateway, err = attrAddr(data)
	case unix.RTA_VIA: // IPv4 over an IPv6 next hop: family, then the address
		if len(data) < 2 {
			return fmt.Errorf("%w: next hop of %d bytes", errMalformed, len(data))
		}
		f.row.Gateway, err = attrAddr(data[2:])
	}
	return err
}

// decodeNextHop reads the first next hop of a multipath route: uplinkd writes none, so any difference will do.
func decodeNextHop(b []byte, f *found[kernel.Route]) error {
	if len(b) < unix.SizeofRtNexthop {
		return fmt.Errorf("%w: next hop of %d bytes", errMalformed, len(b))
	}
	n := int(native.Uint16(b))
	if n < unix.SizeofRtNexthop || n > len(b) {
		return fmt.Errorf("%w: next hop of length %d in %d bytes", errMalformed, n, len(b))
	}
	f.index = native.Uint32(b[4:])
	return eachAttr(b[unix.SizeofRtNexthop:n], func(typ uint16, data []byte) error { return decodeHop(typ, data, f) })
}

// decodeRule reads an RTM_NEWRULE of a dump. Rules with selectors that kernel.Rule does not have are not shown: they are
// not uplinkd's, whatever their mark.
func decodeRule(b []byte) (f found[kernel.Rule], ok bool, err error) {
	const size = 12 // struct fib_rule_hdr
	if len(b) < size {
		return f, false, fmt.Errorf("%w: rule of %d bytes", errMalformed, len(b))
	}
	dst, ok := anyAddr(b[0])
	if !ok {
		return f, false, nil // multicast routing has rules too
	}
	const invert = 2 // FIB_RULE_INVERT
	src, r := dst, &f.row
	known := b[3] == 0 && native.Uint32(b[8:])&invert == 0
	r.Family, r.Table, r.Action = kernel.IPv6, uint32(b[4]), ruleAction(b[7])
	if dst.Is4() {
		r.Family = kernel.IPv4
	}
	err = eachAttr(b[size:], func(typ uint16, data []byte) (err error) {
		var n uint32
		switch typ {
		case nl.FRA_DST:
			dst, err = attrAddr(data)
		case nl.FRA_SRC:
			src, err = attrAddr(data)
		case nl.FRA_IIFNAME:
			r.IIF = attrString(data)
		case nl.FRA_OIFNAME:
			r.OIF = attrString(data)
		case nl.FRA_PRIORITY:
			r.Priority, err = attrUint32(data)
		case nl.FRA_FWMARK:
			r.Mark, err = attrUint32(data)
		case nl.FRA_FWMASK:
			r.Mask, err = attrUint32(data)
		case nl.FRA_TABLE:
			r.Table, err = attrUint32(data)
		case nl.FRA_PROTOCOL:
			f.proto, err = attrUint8(data)
		case nl.FRA_SUPPRESS_PREFIXLEN:
			n, err = attrUint32(data)
			r.SuppressPrefix = n == 0
			known = known && (n == 0 || n == ^uint32(0))
		case nl.FRA_L3MDEV:
			n, err := attrUint8(data)
			known = known && n == 0
			return err
		case nl.FRA_PAD:
		default:
			known = false
		}
		return err
	})
	if err != nil || !known || r.Action == 0 {
		return f, false, err
	}
	if r.Action != kernel.Unicast {
		r.Table = 0
	}
	if r.To, err = selector(dst, b[1]); err != nil {
		return f, false, err
	}
	r.From, err = selector(src, b[2])
	return f, err == nil, err
}

// ruleAction is the route type with the effect of FR_ACT_*; 0 for actions uplinkd does not use.
func ruleAction(a uint8) kernel.RouteType {
	switch a {
	case nl.FR_ACT_TO_TBL:
		return kernel.Unicast
	case nl.FR_ACT_BLACKHOLE:
		return kernel.Blackhole
	case nl.FR_ACT_UNREACHABLE:
		return kernel.Unreachable
	case nl.FR_ACT_PROHIBIT:
		return kernel.Prohibit
	}
	return 0
}

func selector(a netip.Addr, bits uint8) (netip.Prefix, error) {
	if bits == 0 {
		return netip.Prefix{}, nil
	}
	p, err := a.Prefix(int(bits))
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return p, nil
}

// address is a decoded interface address with what only Links asks for.
type address struct {
	found[kernel.Address]
	flags uint32 // IFA_F_*
	scope uint8  // RT_SCOPE_*
}

// decodeAddress returns the reader of RTM_NEWADDR messages of a dump made at now.
func decodeAddress(now time.Time) func([]byte) (address, bool, error) {
	return func(b []byte) (a address, ok bool, err error) {
		if len(b) < unix.SizeofIfAddrmsg {
			return a, false, fmt.Errorf("%w: address of %d bytes", errMalformed, len(b))
		}
		if _, ok := anyAddr(b[0]); !ok {
			return a, false, nil
		}
		bits := int(b[1])
		a.flags, a.scope, a.index = uint32(b[2]), b[3], native.Uint32(b[4:])
		a.row.PreferredUntil, a.row.ValidUntil = lifetime.Forever(), lifetime.Forever() // IPv4 before 3.9 has no IFA_CACHEINFO
		var local, remote netip.Addr
		err = eachAttr(b[unix.SizeofIfAddrmsg:], func(typ uint16, data []byte) (err error) {
			switch typ {
			case unix.IFA_LOCAL:
				local, err = attrAddr(data)
			case unix.IFA_ADDRESS:
				remote, err = attrAddr(data)
			case unix.IFA_FLAGS:
				a.flags, err = attrUint32(data)
			case ifaProto:
				a.proto, err = attrUint8(data)
			case unix.IFA_CACHEINFO:
				if len(data) < 8 {
					return fmt.Errorf("%w: lifetimes of %d bytes", errMalformed, len(data))
				}
				a.row.PreferredUntil = lifetime.After(now, native.Uint32(data))
				a.row.ValidUntil = lifetime.After(now, native.Uint32(data[4:]))
				if len(data) >= unix.SizeofIfaCacheinfo {
					a.row.Born = native.Uint32(data[8:])
				}
			}
			return err
		})
		if err != nil {
			return a, false, err
		}
		if !local.IsValid() { // without a peer, IPv6 has only IFA_ADDRESS
			local = remote
		}
		if a.row.Prefix = netip.PrefixFrom(local, bits); !a.row.Prefix.IsValid() {
			return a, false, fmt.Errorf("%w: address %s of length %d", errMalformed, local, bits)
		}
		return a, true, nil
	}
}

// decodeLink reads an RTM_NEWLINK of a dump.
func decodeLink(b []byte) (l kernel.Link, ok bool, err error) {
	if len(b) < unix.SizeofIfInfomsg {
		return l, false, fmt.Errorf("%w: link of %d bytes", errMalformed, len(b))
	}
	flags := native.Uint32(b[8:])
	l.Index, l.Up, l.Carrier = int(int32(native.Uint32(b[4:]))), flags&unix.IFF_UP != 0, flags&unix.IFF_LOWER_UP != 0
	err = eachAttr(b[unix.SizeofIfInfomsg:], func(typ uint16, data []byte) (err error) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.Name = attrString(data)
		case unix.IFLA_MTU:
			var n uint32
			n, err = attrUint32(data)
			l.MTU = int(n)
		case unix.IFLA_ADDRESS:
			l.MAC = mac(data)
		case unix.IFLA_LINKINFO:
			l.VLAN, err = vlanID(data)
		}
		return err
	})
	return l, err == nil && l.Name != "", err
}

// vlanID reads the 802.1Q id out of IFLA_LINKINFO; 0 for links of other kinds. IFLA_INFO_KIND comes before IFLA_INFO_DATA,
// whose attributes have another meaning for each kind.
func vlanID(b []byte) (id uint16, err error) {
	kind := ""
	err = eachAttr(b, func(typ uint16, data []byte) error {
		switch {
		case typ == unix.IFLA_INFO_KIND:
			kind = attrString(data)
		case typ == unix.IFLA_INFO_DATA && kind == "vlan":
			return eachAttr(data, func(typ uint16, data []byte) error {
				if typ == unix.IFLA_VLAN_ID && len(data) >= 2 {
					id = native.Uint16(data)
				}
				return nil
			})
		}
		return nil
	})
	return id, err
}

// mac is a 48-bit address as text. Tunnels show an IP address in its place, lo six zeros: both have none.
func mac(b []byte) string {
	if len(b) != 6 || [6]byte(b) == [6]byte{} {
		return ""
	}
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5])
}

// anyAddr is the unspecified address of an AF_*; false for families uplinkd does not use.
func anyAddr(family uint8) (netip.Addr, bool) {
	switch family {
	case unix.AF_INET:
		return netip.IPv4Unspecified(), true
	case unix.AF_INET6:
		return netip.IPv6Unspecified(), true
	}
	return netip.Addr{}, false
}
