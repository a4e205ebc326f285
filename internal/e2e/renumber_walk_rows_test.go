package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"uplinkd/internal/ctl"
)

// walkRouter is a router with the model of what its kernel has: rows that are always there, rows of every delegation that it
// holds, and for a while some rows of those that it has held.
type walkRouter struct {
	*site
	common []string
	rows   map[rowsOf][]string // of a new daemon's delegation, relative to it
	past   []map[netip.Prefix]*promise
	inner  netip.Addr           // whom it lends to; zero: to nobody
	late   time.Duration        // how long after its end a row was seen
	missed map[string]time.Time // rows of the past that were not there at the last look, and until when they have to be
}

// rowsOf are an uplink and the length of a delegation.
type rowsOf struct{ uplink, bits int }

// promise is what is known of a delegation of the past: until when the lease said that it is valid, as the router was told
// last. All of it that came since the last look may have been lost, so there are two ends.
type promise struct {
	least, most time.Time
	longest     time.Time    // of all that it was ever told
	held        time.Time    // when it was last seen there; zero: it may never have been
	gone        time.Time    // when it was first seen to have gone; zero: it has not
	loan        netip.Prefix // out of it, to the inner router
	news        bool         // the inner router's model does not know of it
}

func newWalkRouter(s *site, uplinks int) *walkRouter {
	r := &walkRouter{site: s, rows: map[rowsOf][]string{}, past: make([]map[netip.Prefix]*promise, uplinks)}
	r.forgetPast()
	return r
}

func (r *walkRouter) forgetPast() {
	for i := range r.past {
		r.past[i] = map[netip.Prefix]*promise{}
	}
}

// relative is a row with the distance from a prefix's first address in the place of each address that lies in it.
func relative(row string, p netip.Prefix) (text string, found bool) {
	return eachAddress(row, func(field string, a netip.Prefix) string {
		if !p.Contains(a.Addr()) {
			return field
		}
		b := a.Addr().As16()
		for i := range p.Bits() {
			b[i/8] &^= 0x80 >> (i % 8)
		}
		return "+" + netip.PrefixFrom(netip.AddrFrom16(b), a.Bits()).String()
	})
}

// absolute is relative taken back, for another prefix.
func absolute(row string, p netip.Prefix) string {
	text, _ := eachAddress(row, func(field string, a netip.Prefix) string {
		if field[0] != '+' {
			return field
		}
		b, base := a.Addr().As16(), p.Addr().As16()
		for i := range b {
			b[i] |= base[i]
		}
		return netip.PrefixFrom(netip.AddrFrom16(b), a.Bits()).String()
	})
	return text
}

func eachAddress(row string, change func(field string, a netip.Prefix) string) (text string, changed bool) {
	fields := strings.Split(row, " ")
	for i, f := range fields {
		if p, err := netip.ParsePrefix(strings.TrimPrefix(f, "+")); err == nil {
			fields[i] = change(f, p)
			changed = changed || fields[i] != f
		}
	}
	return strings.Join(fields, " "), changed
}

var countingDown = regexp.MustCompile(`_lft [1-9][0-9]*`)

// lines are the rows in the kernel without lifetimes that are running, sorted.
func (r *walkRouter) lines() []string {
	r.t.Helper()
	lines := strings.Split(strings.TrimSpace(countingDown.ReplaceAllString(r.kernelText(), "_lft N")), "\n")
	slices.Sort(lines)
	return lines
}

// learn takes the rows of a daemon that has only just started and holds these delegations, and no other.
func (r *walkRouter) learn(held [][]ctl.Delegation) {
	r.t.Helper()
	lines := r.lines()
	common := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return strings.Contains(line, r.via()) })
	for i := range held {
		for _, g := range held[i] {
			var rows []string
			for _, line := range lines {
				if text, found := relative(line, g.Prefix); found {
					rows = append(rows, text)
					common = slices.DeleteFunc(common, func(c string) bool { return c == line })
				}
			}
			slices.Sort(rows)
			key := rowsOf{i, g.Prefix.Bits()}
			if other, known := r.rows[key]; len(rows) == 0 || known && !slices.Equal(other, rows) {
				r.t.Fatalf("rows of %s:\n%s\nof another /%d:\n%s", g.Prefix, strings.Join(rows, "\n"), key.bits, strings.Join(other, "\n"))
			}
			r.rows[key] = rows
		}
	}
	if r.common != nil && !slices.Equal(r.common, common) {
		r.t.Fatalf("rows that do not depend on delegations: got\n%s\nwant\n%s", strings.Join(common, "\n"), strings.Join(r.common, "\n"))
	}
	r.common = common
}

// via is in the routes to what is lent.
func (r *walkRouter) via() string {
	if !r.inner.IsValid() {
		return "via nobody"
	}
	return "via " + r.inner.String() + " dev lan2"
}

func (r *walkRouter) loanRoute(p netip.Prefix) string {
	return fmt.Sprintf("route %s %s metric 255 proto 200", p, r.via())
}

// want are the rows of a new daemon that holds these delegations, and lends this.
func (r *walkRouter) want(held [][]ctl.Delegation, loans []netip.Prefix) []string {
	lines := slices.Clone(r.common)
	for i := range held {
		for _, g := range held[i] {
			for _, row := range r.rows[rowsOf{i, g.Prefix.Bits()}] {
				if g.State != "preferred" {
					row = strings.Replace(row, " preferred_lft N", " preferred_lft 0", 1)
				}
				lines = append(lines, absolute(row, g.Prefix))
			}
		}
	}
	for _, p := range loans {
		lines = append(lines, r.loanRoute(p))
	}
	slices.Sort(lines)
	return lines
}

// said notes that the provider has told the router at a moment that a delegation is valid for some seconds.
func (r *walkRouter) said(uplink int, p netip.Prefix, at time.Time, valid uint32) {
	if valid == 0 {
		return
	}
	end := at.Add(time.Duration(valid) * time.Second)
	x := r.past[uplink][p]
	if x == nil {
		x = &promise{least: end}
		r.past[uplink][p] = x
	}
	x.gone, x.news = time.Time{}, true
	x.least, x.most, x.longest = earlier(x.least, end), later(x.most, end), later(x.longest, end)
}

// noteGone notes what is not held any more.
func (r *walkRouter) noteGone(held [][]ctl.Delegation, now time.Time) {
	for i := range r.past {
		for p, x := range r.past[i] {
			if x.gone.IsZero() && !holds(held[i], p) {
				x.gone = now
			}
		}
	}
}

// noteHeld notes what is held by a daemon that has nothing left to do: its ledger has it.
func (r *walkRouter) noteHeld(held [][]ctl.Delegation, loans []netip.Prefix, now time.Time) {
	for i := range held {
		for _, g := range held[i] {
			end := now.Add(time.Duration(g.Valid.Seconds) * time.Second)
			r.said(i, g.Prefix, now, g.Valid.Seconds+1)
			x := r.past[i][g.Prefix]
			x.held, x.least, x.most = now, end.Add(-time.Second), end.Add(time.Second) // what is left is in whole seconds
			if n := slices.IndexFunc(loans, func(l netip.Prefix) bool { return g.Prefix.Overlaps(l) }); n >= 0 {
				x.loan = loans[n]
			}
		}
	}
}

func holds(list []ctl.Delegation, p netip.Prefix) bool {
	return slices.ContainsFunc(list, func(g ctl.Delegation) bool { return g.Prefix == p })
}

// claim are rows of a delegation of the past, all of them there or none. They have to be there until the end of must, unless
// there are too many of their group that end no sooner; and may be there until the end of may.
type claim struct {
	group     string
	rows      []string
	must, may time.Time
}

// toldFor is how long hosts may believe in a prefix that they are told no more of, by the config.
const toldFor = 20 * time.Second

// crowded reports whether a bound may have left c out: there are some for what is kept of withdrawn delegations on an uplink,
// and of what hosts of a downstream and inner routers are told. What is held now may have been gone for a moment.
func (c claim) crowded(all []claim, held [][]ctl.Delegation) bool {
	bound := map[bool]int{true: 64, false: 16}[c.group == "loans"]
	n := len(slices.Concat(held...))
	for _, o := range all {
		if o.group == c.group && !o.may.Before(c.must) {
			n++
		}
	}
	return n > bound
}

var onLink = regexp.MustCompile(`^route \S+/64 dev (\S+) metric 255 proto 200$`)

// claims are the rows that delegations of the past may have, and no others. What was withdrawn before its time must not loop
// until then, and who still sends from it has to be told.
func (r *walkRouter) claims(held [][]ctl.Delegation) (list []claim) {
	for i := range r.past {
		for p, x := range r.past[i] {
			if holds(held[i], p) {
				continue
			}
			end := x.longest
			if !x.gone.IsZero() {
				end = earlier(end, x.gone.Add(toldFor))
			}
			add := func(group string, must, may time.Time, rows ...string) {
				if x.held.IsZero() {
					must = time.Time{}
				}
				list = append(list, claim{group, rows, must, may})
			}
			add(fmt.Sprintf("withdrawn on %d", i), x.least, x.most,
				fmt.Sprintf("route unreachable %s table %d metric 2147483647 proto 200", p, 1001+i),
				fmt.Sprintf("rule pref %d from %s unreachable protocol 200", 12001+i, p))
			for _, row := range r.rows[rowsOf{i, p.Bits()}] {
				if m := onLink.FindStringSubmatch(row); m != nil {
					add("told on "+m[1], earlier(x.least, x.held.Add(toldFor)), end, absolute(row, p))
				}
			}
			if x.loan.IsValid() {
				add("loans", x.least, x.longest, r.loanRoute(x.loan))
			}
		}
	}
	return list
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// differs says how the kernel differs from the model. What it says may be over at the next look, but for rows of the past that
// are missing: they have to come before they would have ended.
func (r *walkRouter) differs(held [][]ctl.Delegation, loans []netip.Prefix) string {
	r.t.Helper()
	got, want, now := r.lines(), r.want(held, loans), time.Now()
	r.findLoans(got, held)
	claims := r.claims(held)
	var why []string
	say := func(what string, lines ...string) { why = append(why, what+": "+strings.Join(lines, "; ")) }
	there := func(line string) bool { return slices.Contains(got, line) }
	explained := map[string]bool{}
	for _, line := range want {
		explained[line] = true
		if !there(line) {
			say("missing", line)
		}
	}
	missed := map[string]time.Time{}
	for _, c := range claims {
		n := len(slices.DeleteFunc(slices.Clone(c.rows), there))
		for _, line := range c.rows {
			explained[line] = true
		}
		switch {
		case n == 0 && now.After(c.may):
			r.late = max(r.late, now.Sub(c.may))
			say(fmt.Sprintf("there for %s too long", now.Sub(c.may)), c.rows...)
		case n > 0 && n < len(c.rows):
			say("not all of", c.rows...)
		case n > 0 && now.Before(c.must) && !c.crowded(claims, held):
			say("of the past, missing", c.rows...)
			missed[c.rows[0]] = c.must
		case n > 0 && !r.missed[c.rows[0]].IsZero() && !c.crowded(claims, held):
			r.t.Errorf("missing until %s, when it would have ended: %s", r.missed[c.rows[0]], strings.Join(c.rows, "; "))
		}
	}
	r.missed = missed
	table := false
	var dead []netip.Prefix
	for _, line := range got {
		switch {
		case deadTable.MatchString(line):
			table = true
		case !explained[line]:
			say("nobody's", line)
		case !slices.Contains(want, line) && !strings.HasPrefix(line, "route unreachable ") && strings.HasPrefix(line, "route "):
			dead = append(dead, netip.MustParsePrefix(strings.Fields(line)[1]))
		}
	}
	if set := r.deadSet(table); !samePrefixes(set, dead) {
		say("nft", fmt.Sprintf("dead sources %v, want %v", set, dead))
	}
	return strings.Join(why, "\n")
}

// findLoans looks for routes to what was lent out of delegations that came and went since the last look: at most one of each.
func (r *walkRouter) findLoans(lines []string, held [][]ctl.Delegation) {
	for _, line := range lines {
		if !strings.HasSuffix(line, " "+r.via()+" metric 255 proto 200") {
			continue
		}
		to := netip.MustParsePrefix(strings.Fields(line)[1])
		for i := range r.past {
			for p, x := range r.past[i] {
				if p.Contains(to.Addr()) && to.Bits() == loanBits && !holds(held[i], p) && !x.loan.IsValid() {
					x.loan = to
				}
			}
		}
	}
}

// deadSet is what the nft table of the router, if it is there, knows of dead sources.
func (r *walkRouter) deadSet(there bool) (list []netip.Prefix) {
	if !there {
		return nil
	}
	_, elements, _ := strings.Cut(output(r.router, "nft", "list", "set", "ip6", "uplinkd", "dead"), "elements = {")
	for _, f := range strings.FieldsFunc(elements, func(c rune) bool { return strings.ContainsRune(" ,\n\t}", c) }) {
		p, err := netip.ParsePrefix(f)
		if err != nil {
			p = netip.Prefix{} // not one of those wanted
		}
		list = append(list, p)
	}
	return list
}

func samePrefixes(a, b []netip.Prefix) bool {
	return slices.Equal(slices.SortedFunc(slices.Values(a), netip.Prefix.Compare), slices.SortedFunc(slices.Values(b), netip.Prefix.Compare))
}
