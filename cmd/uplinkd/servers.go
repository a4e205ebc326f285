package main

import (
	"cmp"
	"context"
	"maps"
	"reflect"
	"slices"
	"time"

	"uplinkd/internal/config"
	"uplinkd/internal/engine"
	"uplinkd/internal/lifetime"
	"uplinkd/pd"
	"uplinkd/pd/server"
	"uplinkd/policy"
)

// serverTask is the DHCPv6 server on one interface, for all the downstreams that are there.
type serverTask struct {
	downstream string // from which inner routers borrow; its messages are about this one
	server     *server.Server
	set        server.Service // last
	until      time.Time      // the config has it no more, and it goes on until then for those who have borrowed; zero: the config has it
	failure    string         // why it cannot serve
	running
}

// lastWord is for how long a server goes on for those who have borrowed: who takes no Reconfigure message asks after 120 s at
// the latest, and hears then that it is over.
const lastWord = 150 * time.Second

// dismissServers gives the servers that cfg has no more a last word, where something is lent. It comes before the engine
// follows cfg and forgets who has borrowed. Where the downstream itself is gone, inner routers hear of that by router
// advertisements. The caller holds t.mu.
func (t *tasks) dismissServers(cfg *config.Config) {
	wanted := lenders(cfg)
	for iface, s := range t.servers {
		there := slices.ContainsFunc(cfg.Downstreams, func(d config.Downstream) bool { return d.Name == s.downstream && d.Interface == iface })
		switch {
		case wanted[iface] != "":
			s.until = time.Time{}
		case there && len(loansByIA(t.site.Downstream(s.downstream))) > 0:
			s.until = time.Now().Add(lastWord)
		}
	}
}

// followServers makes the running servers those of cfg. The caller holds t.mu and calls the result without it.
func (t *tasks) followServers(cfg *config.Config) (stops []running) {
	wanted := lenders(cfg)
	for iface, s := range t.servers {
		if wanted[iface] != s.downstream && (wanted[iface] != "" || !time.Now().Before(s.until)) {
			delete(t.servers, iface)
			stops = append(stops, s.running)
			t.inherits[iface] = wanted[iface] != ""
		}
	}
	t.config = cfg
	return stops
}

// keys are those that the last run has kept, and where to keep others.
type keys struct {
	*keeper
	before []server.Client
}

// keysFor are the keys for the servers that cfg needs and that do not run. They are on disk: the caller does not hold t.mu.
func (t *tasks) keysFor(cfg *config.Config) map[string]keys {
	missing := lenders(cfg)
	t.mu.Lock()
	for iface := range t.servers {
		delete(missing, iface)
	}
	t.mu.Unlock()
	all := map[string]keys{}
	for iface := range missing {
		k := newKeeper(t.log, t.store, iface)
		all[iface] = keys{k, k.saved()}
	}
	return all
}

// startServers starts those that are missing, and has all of them serve what the config and the site say. The caller holds t.mu.
func (t *tasks) startServers(keys map[string]keys) {
	for iface, downstream := range lenders(t.config) {
		if t.servers[iface] == nil {
			t.servers[iface] = t.startServer(iface, downstream, keys[iface])
			if t.inherits[iface] { // what was lent on another downstream, by a name that the engine does not know any more
				t.servers[iface].server.Changed()
			}
		}
	}
	clear(t.inherits)
	t.setServices()
}

// lenders are the interfaces with a DHCPv6 server, each with the downstream from which inner routers borrow there. A transit
// has a subnet for them; else an access network lends what is left over.
func lenders(cfg *config.Config) map[string]string {
	best := map[string]config.Downstream{}
	rank := func(d config.Downstream) int {
		switch {
		case !d.DHCPv6.Delegate:
			return 2
		case d.Kind != config.Transit:
			return 1
		}
		return 0
	}
	for _, d := range cfg.Downstreams {
		if known, ok := best[d.Interface]; d.DHCPv6.Enabled && (!ok || rank(d) < rank(known)) {
			best[d.Interface] = d
		}
	}
	names := map[string]string{}
	for iface, d := range best {
		names[iface] = d.Name
	}
	return names
}

func (t *tasks) startServer(iface, downstream string, keys keys) *serverTask {
	task := &serverTask{downstream: downstream}
	task.server = server.New(server.Config{Downstream: downstream, ServerID: t.duid, Lender: lender{t.engine}, Saved: keys.before, Keep: keys.keep,
		Observe: func(failure string) { t.serverFails(task, failure) }, Logger: t.log})
	task.server.SetLink(t.link(iface))
	task.running = t.run("downstream."+downstream, task.server.Run, keys.run)
	return task
}

func (t *tasks) serverFails(task *serverTask, failure string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	task.failure = failure
}

// serverProblems are the servers that cannot serve.
func (t *tasks) serverProblems() (ps []policy.Problem) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, iface := range slices.Sorted(maps.Keys(t.servers)) {
		if s := t.servers[iface]; s.failure != "" {
			ps = append(ps, policy.Problem{Path: "downstream." + s.downstream, Code: "dhcpv6-server", Message: s.failure})
		}
	}
	return ps
}

// serve has the servers follow the site. The engine calls it; it does not block.
func (t *tasks) serve(site policy.Site) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.site
	t.site = site
	t.setServices()
	for _, s := range t.servers {
		if relent(was.Downstream(s.downstream), site.Downstream(s.downstream), site.Now) {
			s.server.Changed()
		}
	}
}

func (t *tasks) setServices() {
	for iface, s := range t.servers {
		service := serviceOn(t.config, t.site, iface)
		if service.Mode == server.Off && time.Now().Before(s.until) {
			service.Mode = server.Stateless
		}
		if !reflect.DeepEqual(service, s.set) {
			s.set = service
			s.server.Set(service)
		}
	}
}

// serviceOn is what the server on an interface offers: what the providers tell from whose prefixes somebody there has addresses.
func serviceOn(cfg *config.Config, site policy.Site, iface string) server.Service {
	s := server.Service{MaxValid: uint32(engine.MaxLoan / time.Second)}
	draws := map[string]bool{} // uplinks
	var dns []pd.Info          // that the config wants instead
	for _, c := range cfg.Downstreams {
		if c.Interface != iface || !c.DHCPv6.Enabled {
			continue
		}
		s.Mode = max(s.Mode, server.Stateless)
		if c.DHCPv6.Delegate {
			s.Mode = server.Delegating
		}
		dns = append(dns, pd.Info{DNS: c.RA.DNS})
		d := site.Downstream(c.Name)
		for _, n := range d.Subnets {
			draws[n.Uplink] = true
		}
		for _, l := range d.Loans {
			draws[l.Uplink] = true
		}
	}
	for _, i := range dns {
		merge(&s.Info, i)
	}
	configured := len(s.DNS) > 0
	for _, u := range site.Uplinks {
		if !draws[u.Name] {
			continue
		}
		told := u.Told.Info
		if configured {
			told.DNS, told.Resolvers = nil, nil
		}
		merge(&s.Info, told)
	}
	return s
}

// mostTold bounds a list that is told: what several providers tell has to fit into one message of 1280 octets.
const (
	mostTold      = 8
	mostResolvers = 2 // with encrypted protocols: one can take 300 octets
)

// merge adds to in what of more a server passes on.
func merge(in *pd.Info, more pd.Info) {
	in.DNS = union(in.DNS, more.DNS)
	in.DomainSearch = union(in.DomainSearch, more.DomainSearch)
	in.NTP = union(in.NTP, more.NTP)
	in.NTPNames = union(in.NTPNames, more.NTPNames)
	in.SNTP = union(in.SNTP, more.SNTP)
	in.CaptivePortal = cmp.Or(in.CaptivePortal, more.CaptivePortal)
	for _, r := range more.Resolvers {
		if len(in.Resolvers) < mostResolvers && !slices.ContainsFunc(in.Resolvers, r.Equal) {
			in.Resolvers = append(in.Resolvers[:len(in.Resolvers):len(in.Resolvers)], r)
		}
	}
}

// union makes a new list: those of the site are not ours to append to.
func union[T comparable](list, more []T) (all []T) {
	for _, x := range slices.Concat(list, more) {
		if !slices.Contains(all, x) && len(all) < mostTold {
			all = append(all, x)
		}
	}
	return all
}

// relent reports whether an inner router has to hear that what it holds has become another: a prefix has come or gone, or is
// preferred no more, or ends earlier than it was told. Who has only just come, or has gone, need not be told. When all have
// gone at once, the downstream has ceased to lend; of the last one that leaves by itself the server has no key any more.
func relent(was, is policy.Downstream, now time.Time) bool {
	before, after := loansByIA(was), loansByIA(is)
	if len(before) > 0 && len(after) == 0 {
		return true
	}
	for _, r := range is.StaleLoans {
		id := ia{r.Client, r.IAID}
		if _, known := before[id]; known && after[id] == nil {
			after[id] = map[string]policy.Loan{}
		}
	}
	for id, b := range before {
		a, still := after[id]
		if still && !maps.EqualFunc(b, a, func(x, y policy.Loan) bool { return x.State == y.State && !shortened(x, y, now) }) {
			return true
		}
	}
	return false
}

// ia is an IA_PD of an inner router.
type ia struct {
	client pd.DUID
	iaid   uint32
}

// loansByIA are the loans of each IA, by prefix.
func loansByIA(d policy.Downstream) map[ia]map[string]policy.Loan {
	all := map[ia]map[string]policy.Loan{}
	for _, l := range d.Loans {
		if l.Offered {
			continue
		}
		id := ia{l.Client, l.IAID}
		if all[id] == nil {
			all[id] = map[string]policy.Loan{}
		}
		all[id][l.Prefix.String()] = l
	}
	return all
}

// shortened reports whether a loan ends earlier than an inner router may believe. Providers count down in whole seconds, and
// some of them slowly; a minute is no news.
func shortened(was, is policy.Loan, now time.Time) bool {
	told := lifetime.Min(was.ValidUntil, lifetime.Until(now.Add(engine.MaxLoan)))
	return is.ValidUntil.Compare(told) < 0 && !is.ValidUntil.Within(told, time.Minute, now)
}

// lender puts the questions of inner routers to the engine.
type lender struct{ engine *engine.Engine }

var lendVerbs = map[server.Verb]engine.LendVerb{server.Offer: engine.LendOffer, server.Bind: engine.LendBind, server.Extend: engine.LendExtend,
	server.Rebind: engine.LendRebind, server.Release: engine.LendRelease}

func (l lender) Lend(ctx context.Context, a server.Ask) ([]server.Loan, error) {
	ask := engine.Ask{Downstream: a.Downstream, Client: a.Client, Via: a.Via, Verb: lendVerbs[a.Verb]}
	for _, ia := range a.IAs {
		ask.IAs = append(ask.IAs, engine.AskedIA(ia))
	}
	lent, err := l.engine.Lend(ctx, ask)
	var loans []server.Loan
	for _, x := range lent {
		loans = append(loans, server.Loan(x))
	}
	return loans, err
}
