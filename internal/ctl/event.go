package ctl

import (
	"net/netip"
	"strings"
	"time"

	"uplinkd/internal/engine"
	"uplinkd/policy"
)

// EventRecord is one line of GET /v1/events: a semantic change of the site. The last line of a stream that the server
// ends carries only End.
type EventRecord struct {
	SchemaVersion int           `json:"schema_version,omitempty"` // absent inside another document
	Seq           uint64        `json:"seq,omitempty"`            // since the start of the daemon; a gap means that events were missed
	Time          time.Time     `json:"time,omitzero"`
	Event         string        `json:"event,omitempty"`
	Uplink        string        `json:"uplink,omitempty"`
	Interface     string        `json:"interface,omitempty"`
	Prefix        netip.Prefix  `json:"prefix,omitzero"`
	OldPrefix     netip.Prefix  `json:"old_prefix,omitzero"`
	Preferred     uint32        `json:"preferred,omitempty"` // seconds left, 4294967295: for ever
	Valid         uint32        `json:"valid,omitempty"`
	Gateway       netip.Addr    `json:"gateway,omitzero"`
	Subnets       []EventSubnet `json:"subnets,omitempty"`
	Told          *policy.Told  `json:"told,omitempty"` // what the uplink's provider tells besides prefixes; absent when the uplink is gone
	End           string        `json:"end,omitempty"`  // why the server ends the stream
}

func (r EventRecord) ended() string { return r.End }

// EventSubnet is what one downstream has of the event's prefix.
type EventSubnet struct {
	Downstream string       `json:"downstream"`
	Interface  string       `json:"interface"`
	ID         uint64       `json:"id"`
	Prefix     netip.Prefix `json:"prefix"`
	Address    netip.Prefix `json:"address,omitzero"`
	Kind       string       `json:"kind,omitempty"` // absent for access
}

// itemRecord describes an event of the engine.
func itemRecord(i engine.Item) EventRecord {
	r := recordOf(i.Event)
	r.SchemaVersion, r.Seq, r.Time = SchemaVersion, i.Seq, second(i.Time)
	return r
}

// recordsOf describes events that have no place in a stream.
func recordsOf(events []policy.Event) (out []EventRecord) {
	for _, e := range events {
		out = append(out, recordOf(e))
	}
	return out
}

func recordOf(e policy.Event) EventRecord {
	r := EventRecord{Event: e.Kind, Uplink: e.Uplink, Interface: e.Interface, Prefix: e.Prefix, OldPrefix: e.OldPrefix,
		Preferred: e.Preferred, Valid: e.Valid, Gateway: e.Gateway, Told: e.Told}
	for _, n := range e.Subnets {
		r.Subnets = append(r.Subnets, EventSubnet{Downstream: n.Downstream, Interface: n.Interface, ID: n.ID, Prefix: n.Prefix, Address: n.Address, Kind: n.Kind})
	}
	return r
}

// Text is the event in one line for people, without its time: kind, uplink, prefix, and who has which subnet of it.
func (r EventRecord) Text() string {
	var b strings.Builder
	b.WriteString(r.Event)
	b.WriteString(strings.Repeat(" ", max(1, 18-len(r.Event))))
	b.WriteString(r.Uplink)
	if r.OldPrefix.IsValid() {
		b.WriteString("  " + r.OldPrefix.String() + " ->")
	}
	if r.Prefix.IsValid() {
		b.WriteString("  " + r.Prefix.String())
	}
	if r.Gateway.IsValid() && r.Event == policy.UplinkUp {
		b.WriteString("  via " + r.Gateway.String())
	}
	if r.Told != nil && r.Event == policy.UplinkInformed {
		b.WriteString("  " + r.Told.Text())
	}
	for _, n := range r.Subnets {
		b.WriteString("  " + n.Downstream + "=" + n.Prefix.String())
	}
	return b.String()
}
