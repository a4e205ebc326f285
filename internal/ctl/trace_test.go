package ctl

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"uplinkd/internal/engine"
	"uplinkd/internal/netlab"
	"uplinkd/pd/trace"
)

// solicit and reply are the least of their kind; the reply hands out a Reconfigure key (RFC 9915 §20.4.2).
const (
	solicit = "\x01\x00\x00\x01\x00\x08\x00\x02\x00\x00"
	secret  = "SIXTEEN-OCTETS!!"
	reply   = "\x07\x00\x00\x01\x00\x0b\x00\x1c\x03\x01\x00\x00\x00\x00\x00\x00\x00\x00\x07\x01" + secret
)

func sent(data string) trace.Packet {
	return trace.Packet{At: time.Unix(1e9, 123456789), Sent: true, Local: netip.MustParseAddrPort("[fe80::1%wan0]:546"),
		Remote: netip.MustParseAddrPort("[ff02::1:2%wan0]:547"), Data: []byte(data)}
}

func received(data string) trace.Packet {
	p := sent(data)
	p.Sent, p.Remote = false, netip.MustParseAddrPort("[fe80::2%wan0]:547")
	return p
}

// tracing are the actions of a daemon with one uplink.
func tracing(ring *trace.Ring) Actions {
	return Actions{Trace: func(uplink string) (*trace.Ring, error) {
		if uplink != "" && uplink != "fiber" {
			return nil, fmt.Errorf("no uplink %q; there is: fiber", uplink)
		}
		return ring, nil
	}}
}

func TestTrace(t *testing.T) {
	var ring trace.Ring
	path := serve(t, &source{}, tracing(&ring))
	c := Dial(path)
	if got, err := c.Trace(t.Context(), "fiber"); err != nil || len(got) != 0 {
		t.Errorf("before any message: %+v, %v", got, err)
	}
	ring.Record(sent(solicit))
	ring.Record(received(reply))
	for _, uplink := range []string{"fiber", ""} {
		got, err := c.Trace(t.Context(), uplink)
		if err != nil || len(got) != 2 {
			t.Fatalf("uplink %q: %+v, %v", uplink, got, err)
		}
		for i, want := range ring.Packets() {
			want.At = want.At.UTC()
			if diff := cmp.Diff(want, got[i].Packet(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("message %d: -sent +got:\n%s", i, diff)
			}
			if got[i].Text != want.Text() || strings.Contains(got[i].Text, secret) {
				t.Errorf("message %d: %s", i, got[i].Text)
			}
		}
	}
	if _, err := c.Trace(t.Context(), "fibre"); err == nil || err.Error() != `no uplink "fibre"; there is: fiber` {
		t.Errorf("unknown uplink: %v", err)
	}
	err := c.FollowTrace(t.Context(), "fibre", func() error { t.Error("started"); return nil }, nil)
	if err == nil || err.Error() != `no uplink "fibre"; there is: fiber` {
		t.Errorf("follow an unknown uplink: %v", err)
	}
}

// TestTraceOnTheWire holds the document to what scripts read.
func TestTraceOnTheWire(t *testing.T) {
	var ring trace.Ring
	ring.Record(sent(solicit))
	conn, err := net.Dial("unix", serve(t, &source{}, tracing(&ring)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /v1/trace?uplink=fiber HTTP/1.0\r\n\r\n")
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	want := `{"schema_version":1,"seq":1,"time":"2001-09-09T01:46:40.123456789Z","sent":true,"local":"[fe80::1%wan0]:546",` +
		`"remote":"[ff02::1:2%wan0]:547","text":"` + sent(solicit).Text() + `","data":"AQAAAQAIAAIAAA=="}` + "\n"
	if !strings.Contains(head, "200 OK") || !strings.Contains(head, "Content-Type: application/x-ndjson") || body != want {
		t.Errorf("%s\n%s\nwant\n%s", head, body, want)
	}
}

func TestFollowTrace(t *testing.T) {
	var ring trace.Ring
	ring.Record(sent(solicit))
	c := Dial(serve(t, &source{}, tracing(&ring)))
	ctx, cancel := context.WithCancel(t.Context())
	var got []uint64
	started := 0
	err := c.FollowTrace(ctx, "", func() error { started++; return nil }, func(r TraceRecord) error {
		got = append(got, r.Seq)
		if len(got) < 4 {
			ring.Record(received(reply)) // comes only if the one before was sent at once
			return nil
		}
		cancel()
		return nil
	})
	if err != nil || started != 1 || fmt.Sprint(got) != "[1 2 3 4]" {
		t.Errorf("started %d times, messages %d, %v", started, got, err)
	}
	full := errors.New("no space left")
	if err := c.FollowTrace(t.Context(), "", func() error { return full }, nil); !errors.Is(err, full) {
		t.Errorf("a start that fails: %v", err)
	}
	err = c.FollowTrace(t.Context(), "", func() error { return nil }, func(TraceRecord) error { return full })
	if !errors.Is(err, full) {
		t.Errorf("a line that cannot be taken: %v", err)
	}
}

func TestFollowTraceEndsWithTheDaemon(t *testing.T) {
	l, err := Listen(t.TempDir() + "/" + SocketName)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	s := Server{Source: &source{}, Actions: tracing(new(trace.Ring)), Log: slog.New(slog.DiscardHandler)}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	err = Dial(l.Addr().String()).FollowTrace(t.Context(), "", func() error { stop(); return nil }, nil)
	if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "the daemon stops") {
		t.Errorf("stream: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestWatchersAreBounded has clients follow events and messages, which share the bound.
func TestWatchersAreBounded(t *testing.T) {
	path := serve(t, &source{events: make(chan engine.Item)}, tracing(new(trace.Ring)))
	ctx, cancel := context.WithCancel(t.Context())
	var streams, started sync.WaitGroup
	defer streams.Wait()
	defer cancel()
	started.Add(maxWatchers)
	for i := range maxWatchers {
		streams.Go(func() {
			c, err := Dial(path), error(nil)
			if i%2 == 0 {
				err = c.Events(ctx, started.Done, func(EventRecord) error { return nil })
			} else {
				err = c.FollowTrace(ctx, "", func() error { started.Done(); return nil }, func(TraceRecord) error { return nil })
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	started.Wait()
	for what, err := range map[string]error{
		"events":   Dial(path).Events(ctx, func() { t.Error("started") }, nil),
		"messages": Dial(path).FollowTrace(ctx, "", func() error { t.Error("started"); return nil }, nil),
	} {
		if err == nil || !strings.Contains(err.Error(), "32 clients follow events or messages already") {
			t.Errorf("one watcher of %s too many: %v", what, err)
		}
	}
	_, err := Dial(path).Status(ctx)
	_, terr := Dial(path).Trace(ctx, "")
	if err != nil || terr != nil {
		t.Errorf("beside many watchers: %v, %v", err, terr)
	}
}

// TestTraceIsForbidden asks as another user, over a real socket with SO_PEERCRED.
func TestTraceIsForbidden(t *testing.T) {
	netlab.NeedRoot(t, "connects as another user")
	var ring trace.Ring
	ring.Record(received(reply))
	path := serve(t, &source{}, tracing(&ring))
	for _, query := range []string{"", "?follow=1", "?uplink=nobody-has-this-name"} {
		out := askAsNobody(t, path, "GET /v1/trace"+query)
		if !strings.Contains(out, "403 Forbidden") || !strings.Contains(out, "only root") || strings.Contains(out, "data") || strings.Contains(out, "fiber") {
			t.Errorf("%s as nobody: %s", query, out)
		}
	}
}

// TestTraceCutShort has a daemon die in the middle of its answer.
func TestTraceCutShort(t *testing.T) {
	line, err := json.Marshal(traceRecord(sent(solicit)))
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []string{"", "5\r\n{\"seq"} {
		path := t.TempDir() + "/" + SocketName
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for range 2 {
				c, err := l.Accept()
				if err != nil {
					return
				}
				for in := bufio.NewScanner(c); in.Scan() && in.Text() != ""; {
				}
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\n\r\n%s", len(line)+1, line, end)
				c.Close()
			}
		}()
		if got, err := Dial(path).Trace(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "message 2 of the answer") {
			t.Errorf("end %q: %d messages, %v", end, len(got), err)
		}
		err = Dial(path).FollowTrace(t.Context(), "", func() error { return nil }, func(TraceRecord) error { return nil })
		if end == "" && !errors.Is(err, ErrGone) || err == nil {
			t.Errorf("follow, end %q: %v", end, err)
		}
	}
}
