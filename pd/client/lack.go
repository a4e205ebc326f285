package client

import (
	"slices"

	"uplinkd/pd"
)

// noteLack keeps why l lacks something that is asked for: what the machine said with this lease, or with an earlier one,
// since it does not repeat itself. A lease that has nothing is no partial grant; why there is none is the failure.
func (r *run) noteLack(l pd.Lease, said string) {
	if !l.Held() {
		clear(r.noted)
	}
	switch {
	case !l.Held() || r.complete(l):
		r.note = ""
	case said != "":
		r.note = said
	}
}

// isNews reports whether a note is not in the log yet, as long as there is a lease. Many providers have no address to give,
// and say so at every Renew in the same words.
func (r *run) isNews(note string) bool {
	const most = 64 // the words are the server's
	if r.noted[note] {
		return false
	}
	if r.noted == nil || len(r.noted) == most {
		r.noted = map[string]bool{}
	}
	r.noted[note] = true
	return true
}

// complete reports whether l has something for each IA that is asked for.
func (r *run) complete(l pd.Lease) bool {
	m := r.cfg.Machine
	lacks := slices.ContainsFunc(m.PDs, func(c pd.PDConfig) bool {
		return !slices.ContainsFunc(l.Prefixes, func(p pd.LeasedPrefix) bool { return p.IAID == c.IAID })
	})
	return !lacks && (m.NA == nil || len(l.Addresses) > 0)
}
