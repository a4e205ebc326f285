package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/ctl"
	"uplinkd/internal/netlab"
	"uplinkd/pd"
)

const (
	walkUplinks    = 3
	walkRenumbered = 200 // times at least that a provider takes a prefix away
	walkStateLimit = 256 << 10
	walkCalm       = 12 // times more that all of them do, and the daemon is not killed
	walkPatience   = 50 // rounds: in one of so many the inner router is left alone
)

// walkLengths are those of delegations: each renumbering may bring another one.
var walkLengths = []int{48, 52, 56, 60}

// walk is a site with several uplinks whose providers renumber at random, while its daemons are killed at random.
type walk struct {
	*walkRouter
	innerRouter *walkRouter
	random      *rand.Rand
	uplinks     []*walkUplink
	ula         netip.Prefix
	ulaLoan     netip.Prefix // out of it, to the inner router
	asked       bool         // the daemon has been told to renew: it would not do so again for 10 s
	rounds      int
	count       int // of renumberings
	kills       int
	innerKills  int
	done        map[string]int // renumberings by mode
}

// settled waits until the daemon and every provider agree on the one preferred prefix of each uplink, and the daemon has
// nothing left to do. It returns all delegations of each uplink, the preferred one first.
func (w *walk) settled() [][]ctl.Delegation {
	w.t.Helper()
	held := make([][]ctl.Delegation, len(w.uplinks))
	w.eventually("one preferred prefix per uplink, that of its provider", func() (bool, string) {
		w.listen()
		st, err := w.status()
		if err != nil || st.Waiting > 0 || len(st.Uplinks) != len(w.uplinks) {
			return false, fmt.Sprint(st.Waiting, err)
		}
		for i, u := range w.uplinks {
			var bound, preferred []netip.Prefix
			held[i] = preferredFirst(st.Uplinks[i].Delegations)
			for _, g := range held[i] {
				if g.State == "preferred" {
					preferred = append(preferred, g.Prefix)
				}
			}
			for _, b := range u.v.Bindings() {
				bound = append(bound, b.Prefix)
			}
			if !slices.Equal(preferred, bound) || st.Uplinks[i].Client.State != "bound" {
				return false, fmt.Sprintf("uplink %s has %v, client %s; its provider has delegated %v", u.name, held[i], st.Uplinks[i].Client.State, bound)
			}
		}
		return true, ""
	})
	w.noteGone(held, time.Now())
	return held
}

func preferredFirst(list []ctl.Delegation) []ctl.Delegation {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b ctl.Delegation) int { return strings.Compare(b.State, a.State) })
	return list
}

// listen notes what the providers have said since the last time.
func (w *walk) listen() {
	for i, u := range w.uplinks {
		for _, x := range u.v.Exchanges() {
			if x.Sent == 0 || x.Reply.Type != pd.Reply || !x.SentAt.After(u.heard) {
				continue
			}
			u.heard = x.SentAt
			for _, ia := range x.Reply.IAPDs {
				for _, p := range ia.Prefixes {
					w.said(i, p.Prefix, x.SentAt, p.Valid)
				}
			}
		}
	}
}

// check settles and compares the kernel with a new daemon's rows, and the same on the inner router.
func (w *walk) check(what string) {
	w.t.Helper()
	w.eventually("the rows of a new daemon after "+what, func() (bool, string) {
		held := w.settled()
		now := time.Now()
		loans, why := w.lent(held)
		if why == "" {
			why = w.differs(held, loans)
		}
		if why == "" {
			w.noteHeld(held, loans, now)
		}
		return why == "", fmt.Sprintf("%s\nheld %v", why, held)
	})
	w.checkInner(what)
}

// link takes an uplink's cable out or puts it in; the client has seen it when this returns.
func (w *walk) link(u *walkUplink, up bool) {
	w.t.Helper()
	u.ns.IP("link set up0 %s", map[bool]string{false: "down", true: "up"}[up])
	w.eventually(fmt.Sprintf("the client of %s to see its link up: %t", u.name, up), func() (bool, string) {
		st, err := w.status()
		i := slices.IndexFunc(st.Uplinks, func(x ctl.Uplink) bool { return x.Name == u.name })
		if err != nil || i < 0 {
			return false, fmt.Sprint(err)
		}
		c := st.Uplinks[i].Client
		return c.State != "" && (c.State != pd.StateNoLink) == up, c.State
	})
	if up {
		u.ns.LinkLocal("up0")
	}
}

// move makes a provider delegate from another pool, with any length.
func (w *walk) move(u *walkUplink, how func(pool netip.Prefix) error) {
	w.t.Helper()
	base := u.number - u.number%walkPools
	u.number = base + (u.number-base+1+w.random.IntN(walkPools-1))%walkPools
	bits := walkLengths[w.random.IntN(len(walkLengths))]
	u.v.SetLength(bits)
	if err := how(u.pool(bits)); err != nil {
		w.t.Fatal(err)
	}
	w.count++
}

// renumber changes what a provider delegates, in a random way. It reports whether the client has noticed by itself.
func (w *walk) renumber(u *walkUplink) (mode string, noticed bool) {
	w.t.Helper()
	flash := func(p netip.Prefix) error { return u.v.Renumber(p, 0) }
	switch w.random.IntN(6) {
	case 0:
		seconds := uint32(1 + w.random.IntN(5))
		w.move(u, func(p netip.Prefix) error { return u.v.Renumber(p, seconds) })
		return "graceful", false
	case 1:
		u.v.Forget()
		w.move(u, flash)
		return "NoBinding", false
	case 2, 3:
		w.link(u, false)
		if w.random.IntN(2) == 0 {
			u.v.Forget()
		}
		w.move(u, flash)
		w.link(u, true)
		return "flash", true
	case 4:
		w.link(u, false)
		w.link(u, true)
		return "return", true
	}
	w.move(u, u.v.Abandon)
	return "silent", false
}

// round renumbers some uplinks, some of them more than once, and makes the daemon ask or kills it.
func (w *walk) round() (what string) {
	w.t.Helper()
	ask := false
	var list []string
	for _, u := range w.uplinks {
		for n := w.random.IntN(3); n > 0; n-- {
			mode, noticed := w.renumber(u)
			ask = ask || !noticed
			w.done[mode]++
			list = append(list, u.name+" "+mode)
		}
	}
	if ask && !w.asked {
		w.renew()
		w.asked = true
		ask = false
	}
	if ask || w.random.IntN(3) == 0 {
		for range 1 + w.random.IntN(2) {
			time.Sleep(time.Duration(w.random.Int64N(int64(30 * time.Millisecond))))
			w.kill()
		}
		list = append(list, "killed")
	}
	w.rounds++
	return strings.Join(list, ", ")
}

func (w *walk) kill() {
	w.t.Helper()
	w.end(syscall.SIGKILL)
	w.kills++
	w.start()
	w.asked = false
}

// TestRenumberWalk renumbers 200 times at random on three uplinks, in every way and several at once, and kills the daemon in
// between. After each there is one preferred prefix per uplink, also behind an inner router, and nothing in the kernel but
// what follows from the delegations of now and from those that have not ended yet; in the end there is no trace of any
// other.
func TestRenumberWalk(t *testing.T) {
	t.Parallel()
	w := newWalk(t)
	small, before := w.stateSize()
	var sizes []int
	for w.count < walkRenumbered {
		w.check(w.round())
		size, _ := w.stateSize()
		sizes = append(sizes, size)
	}
	t.Logf("%d renumberings in %d rounds: %v, %d kills, %d of the inner router; rows stayed for at most %s and %s after their end", w.count,
		w.rounds, w.done, w.kills, w.innerKills, w.late, w.innerRouter.late)
	if most := slices.Max(sizes); most > walkStateLimit {
		t.Errorf("the state directory has grown to %d octets: %v", most, sizes)
	}
	w.calm()
	w.undisturbed()
	last, after := w.stateSize()
	t.Logf("state: %d octets before, at most %d, %d when all is over", small, slices.Max(sizes), last)
	if last > small*5/4 {
		t.Errorf("the state directory has grown from %d to %d octets: %v, then %v", small, last, before, after)
	}
	w.forgotten()
}

// calm renumbers on all uplinks at once, to see how much memory it takes of a daemon that is not killed.
func (w *walk) calm() {
	w.t.Helper()
	w.kill()
	var memory []int
	for range walkCalm {
		for _, u := range w.uplinks {
			w.link(u, false)
		}
		for _, u := range w.uplinks {
			w.move(u, func(p netip.Prefix) error { return u.v.Renumber(p, 0) })
			w.link(u, true)
		}
		w.settled()
		memory = append(memory, w.memory())
	}
	w.t.Logf("memory while all uplinks are renumbered %d times more: %v kB", walkCalm, memory)
	half := len(memory) / 2
	if before, after := slices.Max(memory[:half]), slices.Max(memory[half:]); after > before*5/4 {
		w.t.Errorf("memory has grown from %d to %d kB: %v", before, after, memory)
	}
}

// undisturbed waits for the end of everything old.
func (w *walk) undisturbed() {
	w.t.Helper()
	for _, u := range w.uplinks {
		u.v.SetLifetimes(1000, 1000, 900, 950)
	}
	w.kill()
	w.innerRouter.kill()
	w.alone("when all is over")
	w.link(w.uplinks[0], false) // an event, so that what was reported last is not from before the end
	w.link(w.uplinks[0], true)
	w.alone("after a last event")
}

// forgotten starts a daemon that knows nothing, except who it is.
func (w *walk) forgotten() {
	w.t.Helper()
	w.end(syscall.SIGTERM)
	w.forgetful("duid.json", "ula.json")
	w.start()
	w.innerRouter.kill()
	w.alone("of a daemon that remembers nothing")
}

// alone waits until there are the rows of one delegation per uplink and nothing of any other, and the same on the inner
// router.
func (w *walk) alone(when string) {
	w.t.Helper()
	netlab.Eventually(w.t, over, "the rows "+when, func() (bool, string) {
		held := w.settled()
		w.forgetPast()
		w.innerRouter.forgetPast()
		for _, list := range held {
			if len(list) != 1 {
				return false, fmt.Sprint(held)
			}
		}
		loans, why := w.lent(held)
		if why == "" {
			why = w.differs(held, loans)
		}
		return why == "", why
	})
	w.checkInner(when)
}

// stateSize is how much the daemon has on disk, and in which files.
func (w *walk) stateSize() (total int, files []string) {
	w.t.Helper()
	list, err := os.ReadDir(filepath.Join(w.dir, "state"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range list {
		if info, err := f.Info(); err == nil { // else one that is renamed meanwhile
			total += int(info.Size())
			files = append(files, fmt.Sprintf("%s %d", f.Name(), info.Size()))
		}
	}
	return total, files
}

// memory is the resident set of the daemon in kB, without what it shares with its file.
func (w *walk) memory() int {
	w.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.daemon.PID()))
	if err != nil {
		w.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "RssAnon:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		w.t.Fatalf("RssAnon in %s: %v", text, err)
	}
	return kb
}
