package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"uplinkd/internal/ctl"
	"uplinkd/internal/kernel/rtnl"
)

// loanBits is the length that the inner router asks for.
const loanBits = 62

// plugInner makes the inner router and its host.
func (w *walk) plugInner() {
	w.t.Helper()
	s := &site{t: w.t, lab: w.lab, far: w.far, isp: w.router, router: w.lab.NS("inner"), host: w.lab.NS("leaf"), dir: filepath.Join(w.dir, "inner")}
	s.config = filepath.Join(s.dir, "uplinkd.toml")
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	s.router.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	w.lab.Veth(w.router, "lan2", s.router, "wan0", "02:00:00:00:06:01", "02:00:00:00:06:02")
	s.connectHost()
	w.router.LinkLocal("lan2")
	w.inner = s.router.LinkLocal("wan0")
	s.router.LinkLocal("lan0")
	if err := s.router.Do(func() (err error) { s.kernel, err = rtnl.Open(); return err }); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.kernel.Close)
	w.t.Cleanup(s.noRaces)
	rest, _, _ := strings.Cut(renumbered, "[downstream.guest]")
	s.configure(strings.Replace(rest, "wan0\"\n", fmt.Sprintf("wan0\"\ndhcpv6.length = %d\n", loanBits), 1))
	w.innerRouter = newWalkRouter(s, 1)
}

// startInner starts the inner router and learns its rows.
func (w *walk) startInner() {
	w.t.Helper()
	w.innerRouter.start()
	w.innerRouter.eventually("the first loans", func() (bool, string) {
		_, why := w.borrowed(w.settled())
		return why == "", why
	})
	w.innerRouter.awaitHealthy()
	held := w.settled()
	loans, _ := w.lent(held)
	w.noteHeld(held, loans, time.Now())
	for _, l := range loans {
		if w.ula.Overlaps(l) {
			w.ulaLoan = l
		}
	}
	list, _ := w.borrowed(held)
	w.innerRouter.learn([][]ctl.Delegation{list})
}

// lent is what the inner router is lent: a part of each delegation, which stays where it is, and of the ULA prefix. Of a
// deprecated delegation it keeps what it had.
func (w *walk) lent(held [][]ctl.Delegation) (loans []netip.Prefix, why string) {
	st, err := w.status()
	if err != nil {
		return nil, err.Error()
	}
	of := map[netip.Prefix]ctl.Loan{}
	for _, d := range st.Downstreams {
		for _, l := range d.Loans {
			if _, twice := of[l.Delegation]; twice || d.Name != "inner" || l.Prefix.Bits() != loanBits || l.Via != w.inner || l.Offered || !l.Delegation.Overlaps(l.Prefix) {
				return nil, fmt.Sprintf("%s has lent %+v", d.Name, d.Loans)
			}
			of[l.Delegation] = l
			loans = append(loans, l.Prefix)
		}
	}
	expect := func(whole netip.Prefix, state string, before netip.Prefix) {
		l, lent := of[whole]
		switch {
		case !lent && (state == "preferred" || before.IsValid()):
			why += fmt.Sprintf("nothing of %s (%s) is lent, before: %s\n", whole, state, before)
		case lent && (l.State != state || before.IsValid() && l.Prefix != before):
			why += fmt.Sprintf("%s of %s (%s) is lent as %s, before: %s\n", l.Prefix, whole, state, l.State, before)
		}
		delete(of, whole)
	}
	for i := range held {
		for _, g := range held[i] {
			var before netip.Prefix
			if x := w.past[i][g.Prefix]; x != nil {
				before = x.loan
			}
			expect(g.Prefix, g.State, before)
		}
	}
	expect(w.ula, "preferred", w.ulaLoan)
	for whole, l := range of {
		why += fmt.Sprintf("%s is lent of %s, which is not held\n", l.Prefix, whole)
	}
	return loans, why
}

// borrowed is what the inner router has: for new connections exactly what it is lent. Of what is deprecated it may not have
// taken all, and may have more: what has ended here it has until it hears of it, or for as long as it was told.
func (w *walk) borrowed(outer [][]ctl.Delegation) (held []ctl.Delegation, why string) {
	loans, why := w.lent(outer)
	if why != "" {
		return nil, why
	}
	st, err := w.innerRouter.status()
	if err != nil || len(st.Uplinks) != 1 || st.Waiting > 0 || st.Uplinks[0].Client.State != "bound" {
		return nil, fmt.Sprint("the inner router is not ready: ", st.Summary, err)
	}
	deprecated := func(p netip.Prefix) bool {
		for i := range w.past {
			for q, x := range w.past[i] {
				if q.Overlaps(p) {
					return !x.loan.IsValid() || x.loan == p && time.Now().Before(x.longest)
				}
			}
		}
		return false
	}
	held = preferredFirst(st.Uplinks[0].Delegations)
	var preferred, want []netip.Prefix
	for _, g := range held {
		switch {
		case g.State == "preferred":
			preferred = append(preferred, g.Prefix)
		case !deprecated(g.Prefix):
			return nil, fmt.Sprintf("the inner router has %s, which is of nothing that was held", g.Prefix)
		}
	}
	for _, l := range loans {
		if w.ula.Overlaps(l) || slices.ContainsFunc(outer, func(list []ctl.Delegation) bool { return list[0].Prefix.Overlaps(l) }) {
			want = append(want, l)
		}
	}
	if !samePrefixes(preferred, want) {
		return nil, fmt.Sprintf("the inner router prefers %v, and is lent %v", preferred, want)
	}
	return held, ""
}

// innerDiffers says how the inner router differs from what it is lent.
func (w *walk) innerDiffers() string {
	w.t.Helper()
	outer := w.settled()
	now := time.Now()
	list, why := w.borrowed(outer)
	if why != "" {
		return why
	}
	held := [][]ctl.Delegation{list}
	w.pass()
	w.innerRouter.noteGone(held, time.Now())
	if why = w.innerRouter.differs(held, nil); why == "" {
		w.innerRouter.noteHeld(held, nil, now)
	}
	return why
}

// pass tells the model of the inner router what it may have had between two looks: a part of what the outer one had.
func (w *walk) pass() {
	w.t.Helper()
	lines := w.innerRouter.lines()
	for i := range w.past {
		for p, x := range w.past[i] {
			if !x.news {
				continue
			}
			for _, line := range lines {
				_, _ = eachAddress(line, func(field string, a netip.Prefix) string {
					if p.Contains(a.Addr()) && !x.loan.IsValid() {
						x.loan = netip.PrefixFrom(a.Addr(), loanBits).Masked()
					}
					return field
				})
			}
			if x.loan.IsValid() {
				w.innerRouter.mayKnow(x.loan, *x)
			}
		}
	}
}

// mayKnow notes that a router may have been told of a part of somebody else's delegation what that one was told.
func (r *walkRouter) mayKnow(part netip.Prefix, whole promise) {
	x := r.past[0][part]
	if x == nil {
		x = &promise{least: whole.least}
		r.past[0][part] = x
	}
	x.gone = time.Time{} // it may have come back
	x.least, x.most, x.longest = earlier(x.least, whole.least), later(x.most, whole.most), later(x.longest, whole.longest)
}

// checkInner waits until the inner router has what it is lent, and the rows that follow from that. It is killed if it has
// not: it listens to the outer router only once in 10 s. Sometimes it has the time that it takes.
func (w *walk) checkInner(what string) {
	w.t.Helper()
	why := w.innerDiffers()
	for range 10 {
		if why == "" {
			break
		}
		time.Sleep(20 * time.Millisecond)
		why = w.innerDiffers()
	}
	if why != "" && w.rounds%walkPatience != 0 {
		w.innerRouter.kill()
		w.innerKills++
	}
	w.innerRouter.eventually("the rows of a new inner router after "+what, func() (bool, string) {
		why := w.innerDiffers()
		return why == "", why
	})
	for i := range w.past {
		for _, x := range w.past[i] {
			x.news = false
		}
	}
}

func (r *walkRouter) kill() {
	r.t.Helper()
	r.end(syscall.SIGKILL)
	r.start()
}
