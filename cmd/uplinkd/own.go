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
		stable := slices.ContainsFunc(cfg.Downstreams, func(d config.Downstream) bool { return d.Host == config.HostStable })
		if o.secret == nil && stable {
			return own{}, err
		}
		log.Error("addresses with address = \"stable\" are others from now on", "err", err)
	}
	return o, nil
}
