package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// maxPorts bounds anyip.ports.
const maxPorts = 64

// readAnyIP reads the keys anyip.* of a service. What a mode has no use for is refused.
func readAnyIP(s *section) AnyIP {
	a := AnyIP{
		Mode:     get(s, "anyip.mode", AnyIPSubnet, anyIPMode),
		Nonlocal: get(s, "anyip.nonlocal_bind", false, boolean),
	}
	if a.Mode == AnyIPMark || a.Mode == "" {
		a.Mark = get(s, "anyip.mark", 0x40, mark)
		a.Ports = get(s, "anyip.ports", nil, upTo(maxPorts, port, samePort))
	} else {
		for _, key := range []string{"anyip.mark", "anyip.ports"} {
			s.refuse(key, `is only for anyip.mode = "mark", and the mode is %q; remove it or set another mode`, a.Mode)
		}
	}
	if a.Mode == AnyIPInterface || a.Mode == "" {
		a.Unfiltered = get(s, "anyip.unfiltered", false, boolean)
	} else {
		s.refuse("anyip.unfiltered", `is only for anyip.mode = "interface", which takes more than a subnet or what is marked; remove it`)
	}
	return a
}

// mark accepts an fwmark; a wrong one, once reported, is 0, which is compared with no other.
func mark(v value) (uint32, bool) {
	n, _ := integer[uint32](1, math.MaxUint32)(v)
	return n, true
}

// anyIPMode: an unknown mode, once reported, is "", which has all keys.
func anyIPMode(v value) (AnyIPMode, bool) {
	mode, _ := oneOf(AnyIPSubnet, AnyIPInterface, AnyIPMark)(v)
	return mode, true
}

// readServiceInterface reads the interface of a service, where packets are told by the one on which they arrive.
func readServiceInterface(s *section, a AnyIP) string {
	ports := s.find("anyip.ports")
	none := ports == nil || ports.kind == kindList && len(ports.items) == 0
	switch {
	case a.Mode == AnyIPInterface, a.Mode == AnyIPMark && !none:
		return required(s, "interface", `"wan0"`, interfaceName)
	case a.Mode == AnyIPMark:
		s.refuse("interface", "is only for anyip.ports, and there are none: what has the mark is for the service, wherever it comes from; remove it or set anyip.ports")
	case a.Mode == AnyIPSubnet:
		s.refuse("interface", `is only for anyip.mode = "interface" or "mark": what is sent to the subnet is for the service, wherever it comes from; remove it or set another mode`)
	default:
		return get(s, "interface", "", interfaceName)
	}
	return ""
}

// port accepts "tcp/80".
func port(v value) (Port, bool) {
	s, ok := text(v)
	if !ok {
		return Port{}, false
	}
	protocol, number, _ := strings.Cut(s, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 || !slices.Contains([]string{"tcp", "udp"}, protocol) {
		return Port{}, v.bad(`%s is not a port; write a protocol, tcp or udp, and a number of 1 to 65535, such as "tcp/80"`, quote(s))
	}
	return Port{protocol, uint16(n)}, true
}

func samePort(a, b Port) string {
	if a != b {
		return ""
	}
	return fmt.Sprintf("%v stands twice in the list", a)
}
