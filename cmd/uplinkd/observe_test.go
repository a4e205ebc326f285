package main

import (
	"fmt"
	"slices"
	"testing"

	"uplinkd/internal/config"
	"uplinkd/internal/engine"
	"uplinkd/internal/radv"
	"uplinkd/pd"
	"uplinkd/pd/client"
)

// heard is what an engine was told.
type heard []string

func (h *heard) Client(uplink string, s engine.ClientStatus, hasLease bool) {
	*h = append(*h, fmt.Sprintf("%s %s lease %t", uplink, s.State, hasLease))
}

func (h *heard) Keep(uplink string, l pd.Lease) {
	*h = append(*h, fmt.Sprintf("%s keep %d", uplink, l.SolMaxRT))
}

// TestObserver: what is learned before the first grant goes to the disk and nowhere else.
func TestObserver(t *testing.T) {
	noted := client.Update{State: "soliciting", Cause: pd.CauseNoted, Lease: pd.Lease{SolMaxRT: 120}}
	for _, c := range []struct {
		name    string
		updates []client.Update
		want    heard
	}{
		{"noted first", []client.Update{{State: "soliciting"}, noted, {State: "bound", Cause: pd.CauseBound, Reported: true}}, heard{
			"wan soliciting lease false", "wan keep 120", "wan soliciting lease false", "wan bound lease true"}},
		{"noted after a grant", []client.Update{{State: "bound", Cause: pd.CauseBound, Reported: true}, noted}, heard{
			"wan bound lease true", "wan soliciting lease true"}},
		{"noted when time is up", []client.Update{{State: "soliciting", Reported: true}, noted}, heard{
			"wan soliciting lease true", "wan soliciting lease true"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got heard
			observe := observer(&got, "wan")
			for _, u := range c.updates {
				observe(u)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("told %q, want %q", got, c.want)
			}
		})
	}
}

func TestStartModes(t *testing.T) {
	for _, c := range []struct {
		mode  config.StartMode
		waits bool
		begin radv.Invitation // the weakest that suffices
	}{
		{"", false, radv.Advertised},
		{config.StartLink, false, radv.Advertised},
		{config.StartRA, true, radv.Advertised},
		{config.StartRAMO, true, radv.DHCPv6Served},
	} {
		if got := waitsFor(c.mode) != ""; got != c.waits {
			t.Errorf("%q waits: %t", c.mode, got)
		}
		for _, i := range []radv.Invitation{radv.Silence, radv.Advertised, radv.DHCPv6Served} {
			if got := begins(c.mode, i); got != (i >= c.begin) {
				t.Errorf("%q begins after %d: %t", c.mode, i, got)
			}
		}
	}
}
