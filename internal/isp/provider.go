package isp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/ndp"

	"uplinkd/internal/lifetime"
	"uplinkd/pd"
)

// Provider is a simulated provider. Its methods are safe for concurrent use and may be called at any time, before Open
// and after Run, too: bindings and orders outlive the sockets.
type Provider struct {
	mu           sync.Mutex
	server       server
	silent       bool
	mute         bool // no RAs
	nextRA       time.Time
	intercept    func(req pd.Message, reply *pd.Message) bool
	interceptRaw func(req pd.Message, reply []byte) [][]byte
	interceptRA  func(ra *ndp.RouterAdvertisement) bool
	counts       Counts
	exchanges    []Exchange
	sockets      *sockets // nil unless open

	changed chan struct{} // nextRA or bindings: the timer of Run has to be set again
}

// New returns a provider that is not yet open.
func New(cfg Config) (*Provider, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Provider{
		server:  newServer(cfg),
		counts:  Counts{Seen: map[pd.MessageType]int{}, Sent: map[pd.MessageType]int{}},
		changed: make(chan struct{}, 1),
	}, nil
}

// Renumber delegates from newPool from now on. Clients learn at their next Request, Renew or Rebind: the Reply has the new
// prefix and the old one, with preferred lifetime 0 and what is left of oldValid seconds. 0 takes the old one away at
// once. The new prefixes have the length that SetLength said last.
func (p *Provider) Renumber(newPool netip.Prefix, oldValid uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := checkPool(newPool, p.server.cfg.Length); err != nil {
		return err
	}
	now := time.Now()
	p.log("renumbering to %s, old prefixes valid for %d s", newPool, oldValid)
	p.route(p.server.prefixes.renumber(newPool.Masked(), p.server.cfg.Length, lifetime.After(now, oldValid), now))
	p.kick()
	return nil
}

// Abandon is Renumber by a provider that tells nobody: what was delegated is not routed from now on, and no Reply mentions
// it again.
func (p *Provider) Abandon(newPool netip.Prefix) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := checkPool(newPool, p.server.cfg.Length); err != nil {
		return err
	}
	p.log("from now on %s; old prefixes are neither routed nor mentioned", newPool)
	p.route(p.server.prefixes.abandon(newPool.Masked(), p.server.cfg.Length))
	p.kick()
	return nil
}

// SetLength changes the length of prefixes delegated from the next Renumber or Abandon on.
func (p *Provider) SetLength(bits int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server.cfg.Length = bits // checked with the pool
}

// SetLifetimes changes the lifetimes of what is delegated or extended from now on.
func (p *Provider) SetLifetimes(preferred, valid, t1, t2 uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &p.server.cfg
	c.Preferred, c.Valid, c.T1, c.T2 = preferred, valid, t1, t2
}

// Silence makes the provider ignore every DHCPv6 message, or answer again. RAs go on.
func (p *Provider) Silence(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = on
	p.log("silent: %v", on)
}

// Forget loses all bindings, their routes and the keys for Reconfigure: Renew and Rebind are answered with NoBinding.
func (p *Provider) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log("all bindings forgotten")
	p.route(p.server.forget())
}

// Intercept calls f for every request that is not ignored, before the reply is encoded; f may change the reply and says
// whether it is sent. Its Type is 0 where a well-behaved provider keeps quiet. nil ends the interception.
func (p *Provider) Intercept(f func(req pd.Message, reply *pd.Message) (send bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.intercept = f
}

// InterceptRaw calls f for every request that is not ignored, with the encoded reply or nil; the datagrams that f returns
// are sent instead. f may take its time: that delays this and all later replies. nil ends the interception.
func (p *Provider) InterceptRaw(f func(req pd.Message, reply []byte) [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.interceptRaw = f
}

// InterceptRA calls f for every Router Advertisement; f may change it and says whether it is sent. It is called while the
// Provider is locked and must not call it. nil ends the interception.
func (p *Provider) InterceptRA(f func(ra *ndp.RouterAdvertisement) (send bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.interceptRA = f
}

// SetRA changes what RAs say and sends one.
func (p *Provider) SetRA(ra RA) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server.cfg.RA = ra.withDefaults()
	p.nextRA = time.Time{}
	p.kick()
}

// StopRA sends a last RA, with a router lifetime of 0, and no more: an orderly retreat as a router. For a sudden one, see
// InterceptRA.
func (p *Provider) StopRA() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sendRA(true, allNodes)
	p.mute = true
}

// StartRA takes StopRA back and sends an RA.
func (p *Provider) StartRA() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = false
	p.nextRA = time.Time{}
	p.kick()
}

// Counts are the messages seen and sent since New.
type Counts struct {
	Seen, Sent map[pd.MessageType]int // DHCPv6
	Malformed  int                    // DHCPv6, not decodable
	RS, RA     int
}

// Counts returns a copy.
func (p *Provider) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.counts
	c.Seen, c.Sent = maps.Clone(c.Seen), maps.Clone(c.Sent)
	return c
}

// Exchange is a request and what became of it.
type Exchange struct {
	At      time.Time
	From    netip.Addr
	Request pd.Message
	Reply   pd.Message // before InterceptRaw; Type is 0 if there was none
	Sent    int        // datagrams
	SentAt  time.Time  // the first of them
}

// maxExchanges bounds the memory of a provider that runs for long.
const maxExchanges = 256

// Exchanges returns the latest exchanges, oldest first, at most 256.
func (p *Provider) Exchanges() []Exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.exchanges)
}

// Bindings returns what is delegated now, sorted by prefix.
func (p *Provider) Bindings() []Binding {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.route(p.server.expire(time.Now()))
	return p.server.prefixes.list()
}

// Leases returns the addresses that are leased now, sorted.
func (p *Provider) Leases() []Binding {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.route(p.server.expire(time.Now()))
	return p.server.addresses.list()
}

// note keeps an exchange.
func (p *Provider) note(e Exchange) {
	if len(p.exchanges) == maxExchanges {
		p.exchanges = p.exchanges[1:]
	}
	p.exchanges = append(p.exchanges, e)
	reply := "no reply"
	if e.Reply.Type != 0 {
		reply = fmt.Sprintf("%s %s", e.Reply.Type, prefixes(e.Reply))
	}
	p.log("%s from %s: %s, sent %d", e.Request.Type, e.From, reply, e.Sent)
}

// prefixes are those of m, addresses as /128.
func prefixes(m pd.Message) (all []netip.Prefix) {
	for _, ia := range m.IANAs {
		for _, a := range ia.Addresses {
			all = append(all, netip.PrefixFrom(a.Address, 128))
		}
	}
	for _, ia := range m.IAPDs {
		for _, p := range ia.Prefixes {
			all = append(all, p.Prefix)
		}
	}
	return all
}

// route carries out changes. A failure is logged only: the provider's clients would not learn of it either.
func (p *Provider) route(changes []route) {
	for _, r := range changes {
		verb := "del"
		if r.add {
			verb = "replace"
		}
		if err := p.server.cfg.Route(r.prefix, r.via, r.add); err != nil {
			p.log("ip -6 route %s %s via %s dev %s: %v", verb, r.prefix, r.via, p.server.cfg.Interface, err)
		}
	}
}

func (p *Provider) kick() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *Provider) log(format string, args ...any) {
	p.server.cfg.Log("provider on %s: "+format, append([]any{p.server.cfg.Interface}, args...)...)
}
