package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/internal/netlab"
	"uplinkd/pd"
)

// oddity is a Renew that goes wrong.
type oddity struct {
	odd      func(v *simulated) // what the provider does from the Renew on
	failure  string             // what status shows then; "" if the client gets over it without a word
	repeated bool               // the lease stands; once the provider is itself again, a repetition of the Renew is answered
	most     int                // messages of the client in all
}

var oddities = map[string]oddity{
	"no binding": {
		odd:  func(v *simulated) { v.Forget() },
		most: 3, // Solicit, Renew, Request
	},
	"Reply without our IAs": {
		odd: changeRenew(func(reply *pd.Message) { reply.IANAs, reply.IAPDs = nil, nil }), failure: "without", repeated: true, most: 4,
	},
	"Reply without the IA_NA": {
		odd: changeRenew(func(reply *pd.Message) { reply.IANAs = nil }), most: 3,
	},
	"NoPrefixAvail inside a prefix": {
		odd: changeRenew(func(reply *pd.Message) {
			reply.IANAs = nil
			for i := range reply.IAPDs[0].Prefixes {
				reply.IAPDs[0].Prefixes[i].Status = pd.Status{Code: pd.NoPrefixAvail, Text: "no"}
			}
		}), failure: "NoPrefixAvail", repeated: true, most: 4,
	},
	"UnspecFail": {
		odd: changeRenew(func(reply *pd.Message) {
			reply.Status, reply.IANAs, reply.IAPDs = pd.Status{Code: pd.UnspecFail, Text: "not today"}, nil, nil
		}), failure: "not today", repeated: true, most: 4,
	},
	"T1 and T2 of a second": {
		odd: changeRenew(func(reply *pd.Message) {
			reply.IANAs[0].T1, reply.IANAs[0].T2, reply.IAPDs[0].T1, reply.IAPDs[0].T2 = 1, 1, 1, 1
		}), most: 3,
	},
	"T1 after T2": {
		odd: changeRenew(func(reply *pd.Message) {
			reply.IANAs, reply.IAPDs[0].T1, reply.IAPDs[0].T2 = nil, 900, 100
		}), failure: "without IA_PD", repeated: true, most: 4,
	},
}

// changeRenew changes Replies to Renews.
func changeRenew(change func(reply *pd.Message)) func(v *simulated) {
	return func(v *simulated) {
		v.Intercept(func(req pd.Message, reply *pd.Message) bool {
			if req.Type == pd.Renew {
				change(reply)
			}
			return true
		})
	}
}

// TestOddRenew has the provider answer a Renew in ways that have cost other clients their lease. Here nothing in the kernel
// ever goes away.
func TestOddRenew(t *testing.T) {
	t.Parallel()
	for name, o := range oddities {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, v := bound(t, withAddresses(isp.Config{}), prompt)
			addresses, delegations := s.held()
			h := onLAN(addresses, delegations...)
			s.holds(h)
			log := subscribe(t, s.router)
			o.odd(v)
			s.renew()
			s.awaitSeen(v, pd.Renew, 1)
			s.eventually("status to show "+o.failure, func() (bool, string) {
				got := s.uplink().Client.Failure
				return strings.Contains(got, o.failure) && (o.failure != "" || got == ""), got
			})
			s.holds(h)
			v.Intercept(nil)
			if o.repeated {
				s.awaitSeen(v, pd.Renew, 2)
			}
			s.eventually("a client that is bound", func() (bool, string) {
				c := s.uplink().Client
				return c.State == "bound" && c.Failure == "", fmt.Sprint(c.State, " ", c.Failure)
			})
			if renew := s.uplink().Client.Renew; renew == nil || renew.Seconds < 5 {
				t.Errorf("the next Renew comes in %+v, which is no pause", renew)
			}
			s.awaitHealthy()
			s.holds(h)
			for _, g := range gone(log.take()) {
				t.Errorf("while the provider was odd: %s", g.Text)
			}
			v.noStorm(t, o.most)
		})
	}
}

// TestOnlyNewPrefix answers a Renew with a new prefix and no word about the old one, which stays until its lifetime is over
// (RFC 9915 §18.2.10.1). But nobody begins anything from it any more.
func TestOnlyNewPrefix(t *testing.T) {
	t.Parallel()
	s, v := bound(t, offer{preferred: 9, valid: 15, t1: 100, t2: 100}.simulated(), prompt)
	_, old := s.held()
	if err := v.Renumber(netip.MustParsePrefix(newPool), 0); err != nil {
		t.Fatal(err)
	}
	v.Intercept(func(_ pd.Message, reply *pd.Message) bool {
		for i := range reply.IAPDs {
			reply.IAPDs[i].Prefixes = slices.DeleteFunc(reply.IAPDs[i].Prefixes, func(p pd.IAPrefix) bool { return p.Valid == 0 })
		}
		return true
	})
	v.SetLifetimes(300, 400, 100, 200)
	s.renew()
	s.awaitSeen(v, pd.Renew, 1)
	_, both := s.awaitHeld(0, 2)
	s.hostAddress(old[0].String(), "deprecated", deprecated)
	for _, p := range both {
		if rows := s.rowsOf(p); !strings.Contains(rows, "pref 10001 from "+p.String()) {
			t.Errorf("the kernel has of %s\n%s", p, rows)
		}
	}
	_, left := s.awaitHeld(0, 1)
	if slices.Contains(left, old[0]) {
		t.Errorf("left: %v, the old one was %v", left, old)
	}
	s.holds(onLAN(nil, left...))
	s.hostAddress(newPool, "preferred", preferred)
	s.reach()
	v.noStorm(t, 4)
}

// fourMessages is prompt without Rapid Commit, and with a Release at the end.
var fourMessages = strings.Replace(prompt, "wan0\"\n", "wan0\"\ndhcpv6.rapid_commit = false\ndhcpv6.release = true\n", 1)

// TestSilenceAtEachStage has the provider ignore the first message of each exchange.
func TestSilenceAtEachStage(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	// Renew after 6 s, Rebind after 9 s, Rebind again after about 19 s, over after 40 s.
	cfg := withAddresses(isp.Config{Preferred: 35, Valid: 40, T1: 6, T2: 9})
	v := s.simulate(cfg)
	var mu sync.Mutex
	seen := map[pd.MessageType]int{}
	v.Intercept(func(req pd.Message, _ *pd.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		seen[req.Type]++
		return seen[req.Type] > 1
	})
	s.configure(fourMessages)
	s.start()
	addresses, delegations := s.awaitHeld(1, 1)
	h := onLAN(addresses, delegations...)
	s.holds(h)
	log := subscribe(t, s.router)
	s.awaitSeen(v, pd.Renew, 1)
	s.holds(h)
	v.SetLifetimes(300, 400, 100, 200)
	s.awaitSeen(v, pd.Rebind, 2)
	s.awaitHealthy()
	s.holds(h)
	for _, g := range gone(log.take()) {
		t.Errorf("while the provider was silent: %s", g.Text)
	}
	s.end(syscall.SIGTERM)
	if left := append(v.Bindings(), v.Leases()...); len(left) > 0 {
		t.Errorf("still bound after the Release: %v", left)
	}
	want := map[pd.MessageType]int{pd.Solicit: 2, pd.Request: 2, pd.Renew: 1, pd.Rebind: 2, pd.Release: 2}
	now := v.Counts().Seen
	delete(now, pd.InformationRequest) // it may or may not ask for that much while it waits for the prefix
	if fmt.Sprint(now) != fmt.Sprint(want) {
		t.Errorf("the client has sent %v, want %v", now, want)
	}
}

// TestDuplicatesAndReordering sends everything three times, and everything that was said before again: after the new
// message, before it, or both.
func TestDuplicatesAndReordering(t *testing.T) {
	t.Parallel()
	orders := map[string]func(old [][]byte, reply []byte) [][]byte{
		"duplicates": func(_ [][]byte, reply []byte) [][]byte { return [][]byte{reply, reply, reply} },
		"old ones last": func(old [][]byte, reply []byte) [][]byte {
			old = slices.Clone(old)
			slices.Reverse(old)
			return append([][]byte{reply}, old...)
		},
		"old ones first": func(old [][]byte, reply []byte) [][]byte { return append(slices.Clone(old), reply) },
	}
	for name, order := range orders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, false)
			v := s.simulate(withAddresses(isp.Config{}))
			var old [][]byte // the provider has one goroutine that answers
			v.InterceptRaw(func(_ pd.Message, reply []byte) [][]byte {
				if reply == nil {
					return nil
				}
				all := order(old, reply)
				old = append(old, slices.Clone(reply))
				return all
			})
			s.configure(fourMessages)
			s.start()
			addresses, delegations := s.awaitHeld(1, 1)
			h := onLAN(addresses, delegations...)
			s.holds(h)
			log := subscribe(t, s.router)
			s.renew()
			s.awaitSeen(v, pd.Renew, 1)
			s.awaitHealthy()
			s.holds(h)
			if lost := gone(log.take()); len(lost) > 0 {
				t.Errorf("by a Renew:\n%s", show(lost))
			}

			if err := v.Renumber(netip.MustParsePrefix(newPool), 0); err != nil {
				t.Fatal(err)
			}
			s.renew() // 10 s after the one before
			s.delegation(newPool)
			_, renumbered := s.awaitHeld(1, 1)
			h = onLAN(addresses, renumbered...)
			s.holds(h)
			s.awaitHealthy()
			s.reach()
			s.holds(h)
			want := map[pd.MessageType]int{pd.Solicit: 1, pd.Request: 1, pd.Renew: 2}
			if now := v.Counts().Seen; fmt.Sprint(now) != fmt.Sprint(want) {
				t.Errorf("the client has sent %v, want %v", now, want)
			}
		})
	}
}

// TestTwoServersDisagree puts another provider on the same link, which delegates from another pool and knows nothing of
// what the first one has delegated.
func TestTwoServersDisagree(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	// wan0 - br0 - up0 of either provider
	other, cable := s.lab.NS("other"), s.lab.NS("cable")
	for _, name := range []string{"net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.default.disable_ipv6"} {
		cable.Sysctl(name, "1")
	}
	other.Sysctl("net.ipv6.conf.all.accept_dad", "0")
	other.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	cable.IP("link add br0 type bridge")
	cable.IP("link set br0 up")
	s.isp.IP("link del up0")
	s.lab.Veth(s.isp, "up0", cable, "p0", "02:00:00:00:01:02")
	s.lab.Veth(other, "up0", cable, "p1", "02:00:00:00:01:03")
	s.lab.Veth(s.router, "wan0", cable, "p2", "02:00:00:00:01:01")
	for _, p := range []string{"p0", "p1", "p2"} {
		cable.IP("link set %s master br0", p)
	}
	s.isp.IP("-6 address add 2001:db8:1:1::1/64 dev up0 nodad")
	s.router.LinkLocal("wan0")

	v := s.simulate(withAddresses(isp.Config{Preference: 10}))
	rival, err := isp.New(isp.Config{Interface: "up0", ServerID: "\x00\x02\x00\x00\x7e\xd9\x00\x00\x00\x02", Preference: 5,
		Pool: netip.MustParsePrefix(newPool), RA: isp.RA{Interval: time.Hour, Unmanaged: true}})
	if err != nil {
		t.Fatal(err)
	}
	rival.StopRA()
	serve(t, other, rival)
	s.configure(strings.Replace(fourMessages, "release = true", "release = false", 1))
	s.start()
	addresses, delegations := s.awaitHeld(1, 1)
	if !inside(pool, delegations[0].Addr()) {
		t.Errorf("delegated %v, although that server has the lower preference", delegations)
	}
	h := onLAN(addresses, delegations...)
	s.holds(h)
	s.reach()
	log := subscribe(t, s.router)

	// After a restart any server may answer the Rebind: the rival with NoBinding.
	s.end(syscall.SIGKILL)
	s.start()
	s.awaitSeen(v, pd.Rebind, 1)
	s.awaitHealthy()
	s.eventually("the lease to be confirmed", func() (bool, string) {
		c := s.uplink().Client
		return c.State == "bound", c.State
	})
	s.holds(h)
	if lost := gone(log.take()); len(lost) > 0 {
		t.Errorf("because of the other server:\n%s", show(lost))
	}
	if left := rival.Bindings(); len(left) > 0 {
		t.Errorf("the server that was not chosen has bound %v", left)
	}

	// When the first one says nothing any more, the word of the other one counts: it has no binding, is asked for one, and
	// delegates a prefix instead of that of which it knows nothing. It has no addresses, so that the address stays.
	v.Silence(true)
	s.end(syscall.SIGTERM)
	s.start()
	s.delegation(newPool)
	s.awaitHealthy()
	kept, delegations := s.awaitHeld(1, 1)
	if kept[0] != addresses[0] || len(rival.Bindings()) != 1 || rival.Bindings()[0].Prefix != delegations[0] {
		t.Errorf("holds %v and %v, held %v; the server has bound %v", kept, delegations, addresses, rival.Bindings())
	}
	s.holds(onLAN(kept, delegations...))
	s.hostAddress(newPool, "preferred", preferred)
	s.reach()
	v.noStorm(t, 6)
}

// serve runs a provider in a namespace to the end of the test.
func serve(t *testing.T, ns *netlab.NS, p *isp.Provider) {
	t.Helper()
	if err := ns.Do(func() error { return p.Open(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("simulated provider: %v", err)
		}
	})
}
