package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"uplinkd/pd/trace"
)

// TraceRecord is one line of GET /v1/trace: a DHCPv6 message of an uplink. The last line of a stream that the server ends
// carries only End.
type TraceRecord struct {
	SchemaVersion int            `json:"schema_version"`
	Seq           uint64         `json:"seq,omitempty"` // per uplink; a gap means that messages were missed
	Time          time.Time      `json:"time,omitzero"` // to the nanosecond, unlike other times
	Sent          bool           `json:"sent"`          // by uplinkd; else received
	Local         netip.AddrPort `json:"local,omitzero"`
	Remote        netip.AddrPort `json:"remote,omitzero"`
	Text          string         `json:"text,omitempty"` // the message in one line, without its keys
	Data          []byte         `json:"data,omitempty"` // as it was on the wire
	End           string         `json:"end,omitempty"`  // why the server ends the stream
}

func (r TraceRecord) ended() string { return r.End }

func traceRecord(p trace.Packet) TraceRecord {
	return TraceRecord{SchemaVersion: SchemaVersion, Seq: p.Seq, Time: p.At.UTC(), Sent: p.Sent, Local: p.Local, Remote: p.Remote,
		Text: p.Text(), Data: p.Data}
}

// Packet is the message as package trace has it.
func (r TraceRecord) Packet() trace.Packet {
	return trace.Packet{Seq: r.Seq, At: r.Time, Sent: r.Sent, Local: r.Local, Remote: r.Remote, Data: r.Data}
}

// trace answers with the latest messages of ?uplink=, a line each, and with ?follow=1 goes on with those that come. They may
// hold a Reconfigure key (RFC 9915 §20.4), with which anybody on the link could give the client orders.
func (s *Server) trace(w http.ResponseWriter, r *http.Request) {
	who, _ := r.Context().Value(peerKey{}).(peer)
	if !who.mayAct(s.uid) {
		refuse(w, http.StatusForbidden, "only root and the user that uplinkd runs as may see messages, which can hold keys; try: sudo uplinkd trace")
		return
	}
	query := r.URL.Query()
	ring, err := s.Actions.Trace(query.Get("uplink"))
	if err != nil {
		refuse(w, http.StatusNotFound, err.Error())
		return
	}
	if query.Get("follow") == "1" {
		s.followTrace(w, r, ring)
		return
	}
	out := newLines(w)
	for _, p := range ring.Packets() {
		if out.put(traceRecord(p)) != nil {
			return
		}
	}
}

// followTrace streams the messages of ring until the client leaves, does not read, or the daemon stops.
func (s *Server) followTrace(w http.ResponseWriter, r *http.Request, ring *trace.Ring) {
	leave, ok := s.watcher(w)
	if !ok {
		return
	}
	defer leave()
	past, live, stop := ring.Follow()
	defer stop()
	out := newLines(w)
	for _, p := range past {
		if out.put(traceRecord(p)) != nil {
			return
		}
	}
	if out.flush() != nil {
		return
	}
	for {
		select {
		case p := <-live:
			if out.send(traceRecord(p)) != nil {
				return
			}
		case <-r.Context().Done():
			_ = out.send(TraceRecord{SchemaVersion: SchemaVersion, End: "the daemon stops"})
			return
		}
	}
}

// Trace asks for the latest messages of an uplink, oldest first; "" means the only uplink.
func (c *Client) Trace(ctx context.Context, uplink string) (records []TraceRecord, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	body, err := c.do(ctx, http.MethodGet, "/v1/trace", url.Values{"uplink": {uplink}})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	lines := json.NewDecoder(io.LimitReader(body, maxAnswer))
	for {
		var r TraceRecord
		switch err := lines.Decode(&r); {
		case errors.Is(err, io.EOF):
			return records, nil
		case err != nil:
			return nil, fmt.Errorf("%s: message %d of the answer to /v1/trace cannot be read: %w", c.socket, len(records)+1, err)
		}
		records = append(records, r)
	}
}

// FollowTrace calls started once the messages of an uplink are followed, then each for the latest ones and for every one that
// comes, until ctx ends (then it returns nil), started or each fails, or the stream ends (then the error is, or wraps,
// ErrGone).
func (c *Client) FollowTrace(ctx context.Context, uplink string, started func() error, each func(TraceRecord) error) error {
	return follow(ctx, c, "/v1/trace", url.Values{"uplink": {uplink}, "follow": {"1"}}, started, each)
}
