package rtnl

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

var errUnsupported = errors.New("not something that rtnetlink can do")

// flags of a request that writes. Every one asks for an answer.
func verbFlags(v kernel.Verb) uint16 {
	switch v {
	case kernel.Add:
		return unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_EXCL
	case kernel.Replace:
		return unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	return unix.NLM_F_ACK
}

// route appends the request for a route. index is its device, 0 for none. A deletion names all that was found, also the
// next hop: without it the kernel would take the other hops of a multipath route along, which somebody else may have
// appended.
func (e *encoder) route(v kernel.Verb, r kernel.Route, index, seq uint32) {
	typ := uint16(unix.RTM_NEWROUTE)
	if v == kernel.Delete {
		typ = unix.RTM_DELROUTE
	}
	start, h := e.begin(typ, verbFlags(v), seq, unix.SizeofRtMsg)
	h[0], h[1], h[4], h[5], h[6], h[7] = family(r.Dst.Addr()), uint8(r.Dst.Bits()), table8(r.Table), kernel.Protocol, routeScope(v, r), uint8(r.Type)
	e.uint32(unix.RTA_TABLE, r.Table)
	if r.Dst.Bits() > 0 {
		e.addr(unix.RTA_DST, r.Dst.Masked().Addr())
	}
	e.uint32(unix.RTA_PRIORITY, r.Metric)
	if index != 0 {
		e.uint32(unix.RTA_OIF, index)
	}
	switch gw := r.Gateway.WithZone(""); {
	case !gw.IsValid():
	case gw.Is4() == r.Dst.Addr().Is4():
		e.addr(unix.RTA_GATEWAY, gw)
	default:
		e.attr(unix.RTA_VIA, append(native.AppendUint16(nil, uint16(family(gw))), gw.AsSlice()...))
	}
	e.end(start)
}

// routeScope is the scope that IPv4 insists on (IPv6 has none): a next hop must be nearer than the route.
func routeScope(v kernel.Verb, r kernel.Route) uint8 {
	switch {
	case v == kernel.Delete:
		return unix.RT_SCOPE_NOWHERE // any
	case r.Type == kernel.Local:
		return unix.RT_SCOPE_HOST
	case r.Type == kernel.Unicast && !r.Gateway.IsValid() && r.Dst.Addr().Is4():
		return unix.RT_SCOPE_LINK
	}
	return unix.RT_SCOPE_UNIVERSE
}

// rule appends the request for a rule. In a deletion the kernel takes a selector that is left out for any value, so of
// two rules with mark 200, one priority and one table, of which one has more selectors, it deletes the older. kernel.Rule
// has no two like that; the next read would show it.
func (e *encoder) rule(v kernel.Verb, r kernel.Rule, seq uint32) {
	typ := uint16(unix.RTM_NEWRULE)
	if v == kernel.Delete {
		typ = unix.RTM_DELRULE
	}
	start, h := e.begin(typ, verbFlags(v), seq, 12)
	h[0], h[1], h[2], h[4], h[7] = unix.AF_INET6, bits(r.To), bits(r.From), table8(r.Table), ruleActionCode(r.Action)
	if r.Family == kernel.IPv4 {
		h[0] = unix.AF_INET
	}
	e.uint32(nl.FRA_PRIORITY, r.Priority)
	e.attr(nl.FRA_PROTOCOL, []byte{kernel.Protocol})
	e.selector(nl.FRA_DST, r.To)
	e.selector(nl.FRA_SRC, r.From)
	if r.IIF != "" {
		e.string(nl.FRA_IIFNAME, r.IIF)
	}
	if r.OIF != "" {
		e.string(nl.FRA_OIFNAME, r.OIF)
	}
	if r.Mark != 0 || r.Mask != 0 {
		e.uint32(nl.FRA_FWMARK, r.Mark)
		e.uint32(nl.FRA_FWMASK, r.Mask)
	}
	if r.Action == kernel.Unicast {
		e.uint32(nl.FRA_TABLE, r.Table)
	}
	if r.SuppressPrefix {
		e.uint32(nl.FRA_SUPPRESS_PREFIXLEN, 0)
	}
	e.end(start)
}

// ruleActionCode is FR_ACT_* for a route type; FR_ACT_UNSPEC, which the kernel refuses, for types no rule can have.
func ruleActionCode(t kernel.RouteType) uint8 {
	for _, code := range []uint8{nl.FR_ACT_TO_TBL, nl.FR_ACT_BLACKHOLE, nl.FR_ACT_UNREACHABLE, nl.FR_ACT_PROHIBIT} {
		if ruleAction(code) == t {
			return code
		}
	}
	return nl.FR_ACT_UNSPEC
}

// newAddress appends the request that adds or changes an address. Lifetimes are those left now, since a plan may be
// seconds old. The kernel takes preferred and valid 0 for "for ever", so an address that is over is refused here.
// IFA_F_NOPREFIXROUTE goes with changes too: without it a change adds the on-link route.
func (e *encoder) newAddress(v kernel.Verb, a kernel.Address, index, seq uint32, mark bool, now time.Time) error {
	valid := a.ValidUntil.Seconds(now)
	if valid == 0 {
		return errors.New("its valid lifetime is over")
	}
	preferred := min(a.PreferredUntil.Seconds(now), valid) // the kernel refuses preferred > valid
	start := e.address(unix.RTM_NEWADDR, verbFlags(v), a.Prefix, index, seq)
	e.uint32(unix.IFA_FLAGS, unix.IFA_F_NOPREFIXROUTE)
	var info [unix.SizeofIfaCacheinfo]byte
	native.PutUint32(info[0:], preferred)
	native.PutUint32(info[4:], valid)
	e.attr(unix.IFA_CACHEINFO, info[:])
	if mark {
		e.attr(ifaProto, []byte{kernel.Protocol})
	}
	e.end(start)
	return nil
}

// delAddress appends the request that deletes an address.
func (e *encoder) delAddress(p netip.Prefix, index, seq uint32) {
	e.end(e.address(unix.RTM_DELADDR, unix.NLM_F_ACK, p, index, seq))
}

func (e *encoder) address(typ, flags uint16, p netip.Prefix, index, seq uint32) (start int) {
	start, h := e.begin(typ, flags, seq, unix.SizeofIfAddrmsg)
	h[0], h[1] = family(p.Addr()), uint8(p.Bits())
	native.PutUint32(h[4:], index)
	e.addr(unix.IFA_LOCAL, p.Addr())
	return start
}

func (e *encoder) selector(typ uint16, p netip.Prefix) {
	if bits(p) > 0 {
		e.addr(typ, p.Masked().Addr())
	}
}

// bits is the length of a selector, 0 for all.
func bits(p netip.Prefix) uint8 {
	if !p.IsValid() {
		return 0
	}
	return uint8(p.Bits())
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// table8 is a table number for the 8-bit field of headers; larger ones are only in the attribute.
func table8(t uint32) uint8 {
	if t > 255 {
		return unix.RT_TABLE_UNSPEC
	}
	return uint8(t)
}

// check refuses rows whose values would be written as something else.
func check(op kernel.Op) error {
	switch r := op.Row.(type) {
	case kernel.Route:
		if !r.Dst.IsValid() || r.Dst.Addr().Is4In6() {
			return fmt.Errorf("%w: destination %s", errUnsupported, r.Dst)
		}
	case kernel.Rule:
		if op.Verb == kernel.Replace {
			return fmt.Errorf("%w: a rule has no attribute that could be replaced", errUnsupported)
		}
		for _, p := range []netip.Prefix{r.From, r.To} {
			if p.IsValid() && p.Addr().Is4() != (r.Family == kernel.IPv4) {
				return fmt.Errorf("%w: selector %s in a rule of IPv%d", errUnsupported, p, r.Family)
			}
		}
		if len(r.IIF) >= unix.IFNAMSIZ || len(r.OIF) >= unix.IFNAMSIZ {
			return fmt.Errorf("%w: a device name of more than %d characters", errUnsupported, unix.IFNAMSIZ-1)
		}
	case kernel.Address:
		if !r.Prefix.IsValid() || r.Prefix.Addr().Is4In6() {
			return fmt.Errorf("%w: address %s", errUnsupported, r.Prefix)
		}
	}
	return nil
}
