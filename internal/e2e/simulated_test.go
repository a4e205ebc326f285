package e2e

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"uplinkd/internal/isp"
	"uplinkd/internal/lifetime"
)

// simulated is the provider of package isp on up0, which can be scripted and counted.
type simulated struct {
	*isp.Provider
	stop func() // ends it without a word, as a power failure does; open starts it again
	open func()
}

// forever are lifetimes with which no renewal ever has anything to change.
var forever = isp.Config{Preferred: lifetime.Infinity, Valid: lifetime.Infinity, T1: lifetime.Infinity, T2: lifetime.Infinity}

// simulate starts a provider. Where cfg says nothing it has what all these tests want.
func (s *site) simulate(cfg isp.Config) *simulated {
	s.t.Helper()
	cfg.Interface, cfg.Pool, cfg.RapidCommit = "up0", netip.MustParsePrefix(pool), true
	cfg.RA.Interval = 4 * time.Second
	s.route(pool)
	s.route(newPool)
	p, err := isp.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	v := &simulated{Provider: p, stop: func() {}}
	v.open = func() {
		s.t.Helper()
		ctx, cancel := context.WithCancel(context.Background())
		if err := s.isp.Do(func() error { return p.Open(ctx) }); err != nil {
			s.t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		v.stop = func() {
			cancel()
			if err := <-ended; err != nil {
				s.t.Errorf("simulated provider: %v", err)
			}
			v.stop = func() {}
		}
	}
	v.open()
	s.t.Cleanup(func() { v.stop() })
	return v
}

// bound is a site without duplicate address detection, with a healthy daemon and a host that reaches far.
func bound(t *testing.T, cfg isp.Config, config string) (*site, *simulated) {
	t.Helper()
	s := newSite(t, false)
	v := s.simulate(cfg)
	s.configure(config)
	s.start()
	s.awaitHealthy()
	if strings.Contains(config, "lan0") {
		s.hostAddress(pool, "preferred", preferred)
		s.reach()
	}
	return s, v
}

// simulated is o for the simulated provider.
func (o offer) simulated() isp.Config {
	return isp.Config{Preferred: uint32(o.preferred), Valid: uint32(o.valid), T1: uint32(o.t1), T2: uint32(o.t2)}
}
