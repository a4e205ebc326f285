package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"uplinkd/pd/server"
	"uplinkd/pd/store"
)

const clientsVersion = 1

// keeper keeps the keys of inner routers on disk, for the DHCPv6 server of one interface: that one must not wait for the disk.
// A crash before the newest ones are written costs little: without its key an inner router cannot be told of a renumbering
// and hears of it when it renews.
type keeper struct {
	log   *slog.Logger
	store *store.Dir
	file  string
	wake  chan struct{} // size 1

	mu     sync.Mutex
	newest []server.Client
	unkept bool // newest is not on disk
}

func newKeeper(log *slog.Logger, s *store.Dir, iface string) *keeper {
	return &keeper{log: log.With("interface", iface), store: s, file: store.FileFor("clients", iface), wake: make(chan struct{}, 1)}
}

// saved is what the last run has kept.
func (k *keeper) saved() (list []server.Client) {
	if err := k.store.ReadOptional(k.file, clientsVersion, &list); err != nil {
		k.log.Error("keys of inner routers are of no use; they hear of a renumbering only when they renew", "err", err)
		return nil
	}
	return list
}

// keep takes over a new list. It does not block.
func (k *keeper) keep(list []server.Client) {
	k.mu.Lock()
	k.newest, k.unkept = list, true
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends, and then what is left.
func (k *keeper) run(ctx context.Context) error {
	var again <-chan time.Time
	pause := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			k.write()
			return nil
		case <-k.wake:
		case <-again:
		}
		again = nil
		if k.write() {
			pause = 0
			continue
		}
		pause = min(max(time.Second, 2*pause), time.Minute)
		again = time.After(pause)
	}
}

// write reports whether the disk has the newest list.
func (k *keeper) write() bool {
	k.mu.Lock()
	list, unkept := k.newest, k.unkept
	k.unkept = false
	k.mu.Unlock()
	if !unkept {
		return true
	}
	err := k.store.WriteJSON(k.file, clientsVersion, append([]server.Client{}, list...))
	if err == nil {
		return true
	}
	k.log.Error("keep the keys of inner routers", "err", err)
	k.mu.Lock()
	k.unkept = true
	k.mu.Unlock()
	return false
}
