package pd

import "hash/fnv"

// IAIDFor is the IAID of the uplink called name: the same after every restart (RFC 9915 §12, RFC 9096 WPD-10), whatever
// happens to the interface, and never 0.
func IAIDFor(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return max(1, h.Sum32())
}
