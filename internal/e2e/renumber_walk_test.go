package e2e

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/ctl"
	"uplinkd/internal/isp"
	"uplinkd/internal/netlab"
	"uplinkd/pd"
)

const (
	walkUplinks    = 3
	walkRenumbered = 200 // times at least that a provider takes a prefix away
	walkStateLimit = 128 << 10
)

// walk is a site with several uplinks whose providers renumber at random, while the daemon is killed at random.
type walk struct {
	*site
	random  *rand.Rand
	uplinks []*walkUplink
	common  []string // rows that do not depend on prefixes, normalized
	asked   bool     // the daemon has been told to renew: it would not do so again for 10 s
	count   int      // of renumberings
	kills   int
	done    map[string]int // renumberings by mode
}

type walkUplink struct {
	name   string
	dev    string
	ns     *netlab.NS
	v      *isp.Provider
	number int      // delegates from 2001:db8:NN00::/40
	rows   []string // of a delegation, normalized: P0 is the prefix
}

// walkPools are how many pools each provider has: it returns to prefixes that are not forgotten yet.
const walkPools = 16

func (w *walkUplink) pool(n int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x00::/40", n))
}

func walkConfig() string {
	var b strings.Builder
	for i := range walkUplinks {
		fmt.Fprintf(&b, "[uplink.u%d]\ninterface = \"wan%d\"\ndhcpv6 = { delay = false, address = \"never\", report_after = \"2s\" }\n", i, i)
	}
	_, lans, _ := strings.Cut(renumbered, "[downstream.lan]")
	return b.String() + "[downstream.lan]" + lans
}

// walkLease is renewed in every round by what happens in it, and never for the reason that time has passed. Within
// its lifetime everything that a provider has forgotten without a word is over.
var walkLease = offer{preferred: 25, valid: 30, t1: 1000, t2: 1000}

func newWalk(t *testing.T) *walk {
	t.Helper()
	w := &walk{site: newSite(t, false), random: seeded(t), done: map[string]int{}}
	w.isp.IP("link del up0")
	guest := w.lab.NS("guest")
	w.lab.Veth(w.router, "lan1", guest, "eth0")
	for i := range walkUplinks {
		u := &walkUplink{name: fmt.Sprintf("u%d", i), dev: fmt.Sprintf("wan%d", i), ns: w.lab.NS(fmt.Sprintf("isp%d", i)), number: walkPools * (i + 1)}
		u.ns.Sysctl("net.ipv6.conf.default.accept_dad", "0")
		mac := func(end int) string { return fmt.Sprintf("02:00:00:01:%02x:%02x", i, end) }
		w.lab.Veth(u.ns, "up0", w.router, u.dev, mac(1), mac(2))
		w.router.LinkLocal(u.dev)
		u.ns.LinkLocal("up0")
		cfg := walkLease.simulated()
		cfg.Interface, cfg.Pool, cfg.Length, cfg.RapidCommit, cfg.RA.Interval = "up0", u.pool(u.number), 48, true, 4*time.Second
		p, err := isp.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		u.v = p
		serve(t, u.ns, p)
		w.uplinks = append(w.uplinks, u)
	}
	w.configure(walkConfig())
	w.start()
	w.awaitHealthy()
	w.learn()
	return w
}

// learn takes the rows of a daemon that has only just started, with one delegation per uplink, for the model of all.
func (w *walk) learn() {
	w.t.Helper()
	held := w.settled()
	lines := w.lines()
	for i, u := range w.uplinks {
		name := text48(held[i][0])
		for _, line := range lines {
			if strings.Contains(line, name) {
				u.rows = append(u.rows, strings.ReplaceAll(line, name, "P0:"))
			}
		}
		if len(u.rows) == 0 {
			w.t.Fatalf("no rows of %s in\n%s", held[i][0], strings.Join(lines, "\n"))
		}
	}
	for _, line := range lines {
		if !strings.Contains(line, "2001:db8:") {
			w.common = append(w.common, line)
		}
	}
}

// text48 is what all addresses of a /48 begin with.
func text48(p netip.Prefix) string { return strings.TrimSuffix(p.Addr().String(), ":") }

var (
	anyLifetime = regexp.MustCompile(`_lft ([0-9]+|forever)`)
	anyTable    = regexp.MustCompile(`(?m)^.* uplinkd # as written, .*\n`) // for dead sources: not there in the end
)

// lines are the rows in the kernel without lifetimes, sorted.
func (w *walk) lines() []string {
	w.t.Helper()
	text := anyTable.ReplaceAllString(anyLifetime.ReplaceAllString(w.kernelText(), "_lft N"), "")
	lines := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(lines)
	return lines
}

// want are the rows of a new daemon that holds these delegations.
func (w *walk) want(held [][]netip.Prefix) []string {
	lines := slices.Clone(w.common)
	for i, u := range w.uplinks {
		for _, p := range held[i] {
			for _, row := range u.rows {
				lines = append(lines, strings.ReplaceAll(row, "P0:", text48(p)))
			}
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// settled waits until the daemon and every provider agree on the one preferred prefix of each uplink, and the daemon has
// nothing left to do. It returns all delegations of each uplink, the preferred one first.
func (w *walk) settled() [][]netip.Prefix {
	w.t.Helper()
	held := make([][]netip.Prefix, len(w.uplinks))
	w.eventually("one preferred prefix per uplink, that of its provider", func() (bool, string) {
		st, err := w.status()
		if err != nil || st.Waiting > 0 || len(st.Uplinks) != len(w.uplinks) {
			return false, fmt.Sprint(st.Waiting, err)
		}
		for i, u := range w.uplinks {
			held[i] = nil
			var others []netip.Prefix
			for _, g := range st.Uplinks[i].Delegations {
				if g.State == "preferred" {
					held[i] = append(held[i], g.Prefix)
				} else {
					others = append(others, g.Prefix)
				}
			}
			var bound []netip.Prefix
			for _, b := range u.v.Bindings() {
				bound = append(bound, b.Prefix)
			}
			if !slices.Equal(held[i], bound) || st.Uplinks[i].Client.State != "bound" {
				return false, fmt.Sprintf("uplink %s has %v, preferred %v, client %s; its provider has delegated %v", u.name, st.Uplinks[i].Delegations, held[i],
					st.Uplinks[i].Client.State, bound)
			}
			held[i] = append(held[i], others...)
		}
		return true, ""
	})
	return held
}

// check settles and compares the kernel with a new daemon's rows. What ends meanwhile is given another look.
func (w *walk) check(what string) {
	w.t.Helper()
	w.eventually("the rows of a new daemon after "+what, func() (bool, string) {
		held := w.settled()
		got, want := w.lines(), w.want(held)
		rest := slices.DeleteFunc(slices.Clone(got), func(line string) bool { return forTheDead(line, slices.Concat(held...)) })
		return slices.Equal(rest, want), fmt.Sprintf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	})
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

// renumber changes what a provider delegates, in a random way. It reports whether the client has noticed by itself.
func (w *walk) renumber(u *walkUplink) (mode string, noticed bool) {
	w.t.Helper()
	choice := w.random.IntN(6)
	if choice == 5 {
		w.link(u, false)
		w.link(u, true)
		return "return", true
	}
	base := u.number - u.number%walkPools
	u.number = base + (u.number-base+1+w.random.IntN(walkPools-1))%walkPools
	pool := u.pool(u.number)
	move := func(how func() error) {
		if err := how(); err != nil {
			w.t.Fatal(err)
		}
		w.count++
	}
	switch choice {
	case 0:
		move(func() error { return u.v.Renumber(pool, uint32(1+w.random.IntN(5))) })
		return "graceful", false
	case 1:
		move(func() error { u.v.Forget(); return u.v.Renumber(pool, 0) })
		return "NoBinding", false
	case 2, 3:
		w.link(u, false)
		move(func() error {
			if w.random.IntN(2) == 0 {
				u.v.Forget()
			}
			return u.v.Renumber(pool, 0)
		})
		w.link(u, true)
		return "flash", true
	}
	move(func() error { return u.v.Abandon(pool) })
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
			w.end(syscall.SIGKILL)
			w.kills++
			w.start()
		}
		w.asked = false
		list = append(list, "killed")
	}
	return strings.Join(list, ", ")
}

// TestRenumberWalk renumbers 200 times at random on three uplinks, in every way and several at once, and kills the daemon in
// between. There is one preferred prefix per uplink after each, and in the end no trace of any other.
func TestRenumberWalk(t *testing.T) {
	t.Parallel()
	w := newWalk(t)
	var sizes, memory []int
	for w.count < walkRenumbered {
		what := w.round()
		w.check(what)
		sizes, memory = append(sizes, w.stateSize()), append(memory, w.memory())
	}
	half := len(sizes) / 2
	t.Logf("%d renumberings in %d rounds: %v, %d kills; state %d octets in the first half, %d in the second; memory %d and %d kB", w.count, len(sizes), w.done,
		w.kills, slices.Max(sizes[:half]), slices.Max(sizes[half:]), slices.Max(memory[:half]), slices.Max(memory[half:]))
	if most := slices.Max(sizes); most > walkStateLimit {
		t.Errorf("the state directory has grown to %d octets: %v", most, sizes)
	}
	if before, after := slices.Max(memory[:half]), slices.Max(memory[half:]); after > before*3/2 {
		t.Errorf("memory has grown from %d to %d kB", before, after)
	}
	w.undisturbed()
}

// undisturbed waits for the end of everything old, and then starts a daemon that knows nothing.
func (w *walk) undisturbed() {
	w.t.Helper()
	for _, u := range w.uplinks {
		u.v.SetLifetimes(1000, 1000, 900, 950)
	}
	w.end(syscall.SIGKILL)
	w.start()
	alone := func() (held [][]netip.Prefix) {
		netlab.Eventually(w.t, over, "one delegation per uplink", func() (bool, string) {
			held = w.settled()
			return !slices.ContainsFunc(held, func(list []netip.Prefix) bool { return len(list) != 1 }), fmt.Sprint(held)
		})
		return held
	}
	w.compare("when all is over", alone())
	netlab.Eventually(w.t, over, "the nft table to be gone", func() (bool, string) {
		text := w.kernelText()
		return !anyTable.MatchString(text), text
	})
	w.end(syscall.SIGTERM)
	if _, errs, status := w.run("clean"); status != 0 {
		w.t.Fatalf("clean: %s", errs)
	}
	for _, name := range []string{"ledger.json", "site.json"} {
		if err := os.Remove(filepath.Join(w.dir, "state", name)); err != nil {
			w.t.Error(err)
		}
	}
	w.start()
	w.compare("of a daemon that remembers nothing", alone())
}

func (w *walk) compare(when string, held [][]netip.Prefix) {
	w.t.Helper()
	w.eventually("the rows "+when, func() (bool, string) {
		got, want := w.lines(), w.want(held)
		return slices.Equal(got, want), fmt.Sprintf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	})
}

// stateSize is how much the daemon has on disk.
func (w *walk) stateSize() (total int) {
	w.t.Helper()
	err := filepath.WalkDir(filepath.Join(w.dir, "state"), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			total += int(info.Size())
		}
		return nil // a file that is renamed meanwhile
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return total
}

// memory is the resident set of the daemon in kB.
func (w *walk) memory() int {
	w.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.daemon.PID()))
	if err != nil {
		w.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		w.t.Fatalf("VmRSS in %s: %v", text, err)
	}
	return kb
}
