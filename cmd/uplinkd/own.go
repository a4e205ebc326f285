package main

import (
	"log/slog"
	"net/netip"
	"slices"

	"uplinkd/internal/config"
	"uplinkd/pd/store"
)

// own is what this router has made for itself once.
type own struct {
	ula    netip.Prefix
	secret []byte // shown nowhere
}

// ownOf reads or makes it, whether cfg needs it now or not: a reload must not wait for the disk. It is an error only if cfg
// needs what the disk does not take.
func ownOf(state *store.Dir, cfg *config.Config, log *slog.Logger) (o own, err error) {
	if o.ula, err = state.ULA(); err != nil {
		if !o.ula.IsValid() && cfg.ULA.Auto {
			return own{}, err
		}
		log.Error("the ULA prefix of this router is a new one, or there is none to be had", "ula", o.ula, "err", err)
	}
	if o.secret, err = state.Secret(); err != nil {
		if o.secret == nil && stableHosts(cfg) {
			return own{}, err
		}
		log.Error("addresses with address = \"stable\" are others from now on", "err", err)
	}
	return o, nil
}

// savedOwn is what a daemon with cfg would use, as far as cfg needs it. Where it cannot be read, or is not there yet, something
// stands in for it.
func savedOwn(cfg *config.Config) (o own, standIn bool) {
	if d, err := store.ReadOnly(cfg.StateDir); err == nil {
		o.ula, _ = d.ULA() // there is none if it cannot be read
		o.secret, _ = d.Secret()
		d.Close()
	}
	if !o.ula.IsValid() {
		o.ula, standIn = netip.MustParsePrefix("fd00:db8::/48"), cfg.ULA.Auto
	}
	return o, standIn || o.secret == nil && stableHosts(cfg)
}

// stableHosts reports whether cfg needs the secret.
func stableHosts(cfg *config.Config) bool {
	return slices.ContainsFunc(cfg.Downstreams, func(d config.Downstream) bool { return d.Host == config.HostStable })
}
