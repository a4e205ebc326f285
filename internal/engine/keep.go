package engine

import "uplinkd/pd"

// Keep has on disk what a client has learned before its server has confirmed or refused the stored lease. Nothing follows
// from it now, and the lease is no more confirmed than it was.
func (e *Engine) Keep(uplink string, l pd.Lease) {
	e.send(func(e *Engine) bool {
		if !e.has(uplink) {
			return false
		}
		if known := e.clients[uplink].Lease; !l.Held() && known.Held() { // salvaged: the client's own was damaged
			known.SolMaxRT, known.InfMaxRT = l.SolMaxRT, l.InfMaxRT
			l = known
		}
		e.unsaved = append(e.unsaved, job{lease: &l, uplink: uplink})
		e.saveLeases()
		return false
	})
}
