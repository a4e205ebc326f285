package main

import (
	"uplinkd/internal/config"
	"uplinkd/internal/engine"
	"uplinkd/internal/radv"
	"uplinkd/pd"
	"uplinkd/pd/client"
)

// observer tells e what a client says.
func observer(e informed, uplink string) func(client.Update) {
	granted := false // a client calls from one goroutine
	return func(up client.Update) {
		// After a reboot the stored lease counts only from the server's word on, or from when it stayed silent.
		changed := up.Cause != "" && (granted || up.Cause != pd.CauseNoted) || up.Reported && !granted
		granted = granted || changed
		if up.Cause == pd.CauseNoted && !changed {
			e.Keep(uplink, up.Lease)
		}
		e.Client(uplink, engine.ClientStatus{State: up.State, Failure: up.Failure, Note: up.Note, Reported: up.Reported, Lease: up.Lease,
			Cause: up.Cause}, changed)
	}
}

// informed is what an observer needs of the engine.
type informed interface {
	Client(uplink string, s engine.ClientStatus, hasLease bool)
	Keep(uplink string, l pd.Lease)
}

// waitsFor is what a client that starts in that mode waits for, in words.
func waitsFor(mode config.StartMode) string {
	switch mode {
	case config.StartRA:
		return "waiting for a router advertisement"
	case config.StartRAMO:
		return "waiting for a router advertisement with the M or O flag"
	}
	return ""
}

// begins reports whether what routers have said is what waitsFor waits for.
func begins(mode config.StartMode, i radv.Invitation) bool {
	return i == radv.DHCPv6Served || i == radv.Advertised && mode != config.StartRAMO
}
