package rtnl

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"uplinkd/internal/kernel"
	"uplinkd/internal/netlab"
)

// An address that turns out to be a duplicate is told by Links: once when the kernel has removed it, because its lifetime
// ends, and for as long as it is there when the kernel has kept it.
func TestDuplicates(t *testing.T) {
	k := lab(t, options{})
	settled(t, k, 0)
	h := newHints()
	watching(t, k, h.hint)
	h.next(t, "the watch stands")
	dad(t, "v0", "1")
	found := func() []netip.Addr {
		t.Helper()
		links, err := k.Links(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(links, func(l kernel.Link) bool { return l.Name == "v0" })
		return links[i].Duplicates
	}
	for lifetimes, stays := range map[string]bool{"": true, "valid_lft 400 preferred_lft 300": false} {
		a := netip.MustParseAddr("2001:db8:5::1")
		ip(t, "-6 address add "+a.String()+"/128 dev v1 nodad")
		ip(t, "-6 address add "+a.String()+"/128 dev v0 "+lifetimes)
		netlab.Eventually(t, 10*time.Second, "the duplicate", func() (bool, string) {
			list := found()
			return slices.Equal(list, []netip.Addr{a}), fmt.Sprint(list)
		})
		if again := found(); slices.Contains(again, a) != stays {
			t.Errorf("%q: duplicates when asked again: %v, want the address: %v", lifetimes, again, stays)
		}
		ip(t, "-6 address flush dev v0 scope global")
		ip(t, "-6 address flush dev v1 scope global")
		if left := found(); len(left) > 0 {
			t.Errorf("%q: duplicates after they were removed: %v", lifetimes, left)
		}
	}
}

// What the network of others can bring about is bounded, and so is what a notification may look like.
func TestDuplicatesAreBounded(t *testing.T) {
	var d duplicates
	notification := func(i byte, flags byte) []byte {
		b := make([]byte, 16+8+20+20)
		native.PutUint32(b, uint32(len(b)))
		native.PutUint16(b[4:], 21) // RTM_DELADDR
		b[16], b[17], b[18], b[20] = 10, 128, flags, 7
		native.PutUint16(b[24:], 20)
		native.PutUint16(b[26:], 1) // IFA_ADDRESS
		copy(b[28:], netip.MustParseAddr("2001:db8::").AsSlice())
		b[43] = i
		native.PutUint16(b[44:], 20)
		native.PutUint16(b[46:], 6) // IFA_CACHEINFO: lifetimes of 0
		return b
	}
	d.note(notification(1, 0x40)) // only tentative
	full := notification(1, 0x48)
	for n := range full {
		d.note(full[:n])
	}
	if len(d.list()) > 0 {
		t.Fatalf("noted: %v", d.list())
	}
	for i := range 200 {
		d.note(notification(byte(i), 0x48))
	}
	list := d.list()
	if len(list) != maxDuplicates || list[1] != (duplicate{7, netip.MustParseAddr("2001:db8::1")}) {
		t.Errorf("noted %d: %v", len(list), list)
	}
	d.forget(list[1:])
	if left := d.list(); !slices.Equal(left, list[:1]) {
		t.Errorf("left: %v", left)
	}
}
