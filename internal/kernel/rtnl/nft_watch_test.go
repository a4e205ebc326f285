package rtnl

import (
	"testing"

	"uplinkd/internal/kernel"
)

// A change of uplinkd's tables by anybody is seen from the first table on; others' tables are no business of ours.
func TestWatchTables(t *testing.T) {
	k := nftLab(t, options{})
	settled(t, k, 0)
	h := newHints()
	watching(t, k, h.hint)
	h.next(t, "the watch stands")
	apply(t, k, kernel.State{}, tablesOf(everyKind()))
	h.next(t, "the table")
	for _, change := range []string{"flush chain ip6 uplinkd pre", "delete element ip6 uplinkd lans { v1 }", "add rule ip6 uplinkd pre accept", "flush ruleset"} {
		h.quiet()
		nft(t, change)
		h.next(t, change)
	}
	h.quiet()
	before := h.n.Load()
	nft(t, "table ip6 theirs { set uplinkd { type ipv6_addr; elements = { 2001:db8::1 }; }; chain uplinkd { counter; }; }")
	nft(t, "delete table ip6 theirs")
	h.quiet()
	if n := h.n.Load() - before; n != 0 {
		t.Errorf("%d hints at changes of another table", n)
	}
	nft(t, "table inet uplinkd { }")
	h.next(t, "a table of another family")
}

func TestAboutTables(t *testing.T) {
	message := func(typ uint16, table string) []byte {
		var e encoder
		start, _ := e.begin(typ, 0, 0, nfgenmsg)
		e.string(1, table)
		e.end(start)
		return e.buf
	}
	theirs, ours := message(nftType(6), "theirs"), message(nftType(6), kernel.TableName)
	for name, c := range map[string]struct {
		b    []byte
		want bool
	}{
		"theirs": {theirs, false}, "ours": {ours, true}, "ours behind": {append(append([]byte{}, theirs...), ours...), true}, "cut off": {ours[:len(ours)-4], true},
		"another subsystem": {message(0x106, kernel.TableName), false}, "generation": {message(nftType(15), kernel.TableName), false}, "empty": {nil, false},
		"no header": {func() []byte { var e encoder; s, _ := e.begin(nftType(6), 0, 0, 0); e.end(s); return e.buf }(), true},
	} {
		if got := aboutTables(c.b); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
