package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"uplinkd/internal/engine"
	"uplinkd/pd/trace"
	"uplinkd/policy"
)

// Source is what the server reads.
type Source interface {
	Snapshot() *engine.Snapshot
	// Watch returns the events from now on; the channel is closed for a reader that is too slow.
	Watch() (items <-chan engine.Item, stop func())
}

// Actions is what privileged clients may ask for. An unknown uplink is an error that names the known ones.
type Actions struct {
	Renew   func(uplink string) error                      // extend the leases now; "" means all uplinks
	Release func(ctx context.Context, uplink string) error // give the lease back
	Reload  func(ctx context.Context) error                // read the config again
	Trace   func(uplink string) (*trace.Ring, error)       // the latest messages; "" means the only uplink
	Hooks   func() []HookStatus                            // how hooks fare; may be nil

	Problems func() []policy.Problem // what needs attention and the Source does not know; may be nil
}

// Bounds of the server. Watchers get less than all connections, so that they cannot shut out `uplinkd status`.
const (
	maxConnections = 64
	maxWatchers    = 32
	maxBody        = 4 << 10
	maxHeader      = 16 << 10
	answerTimeout  = 10 * time.Second // for a client to take an answer
	actionTimeout  = 30 * time.Second // for an action to be done
)

// Server answers on the control socket.
type Server struct {
	Source  Source
	Actions Actions
	Log     *slog.Logger
	Version string

	uid      int // whose requests count as the daemon's own
	watchers atomic.Int32
}

type peerKey struct{}

// Serve answers on l until ctx ends, then closes l and all connections and returns nil.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.uid = os.Geteuid()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       answerTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c.(*conn).peer)
		},
		ErrorLog: log.New(quiet{s.Log}, "", 0),
	}
	stopped := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(stopped)
		// Event streams end with ctx; the rest gets a moment to finish.
		late, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(late) != nil {
			server.Close()
		}
	})
	err := server.Serve(newBounded(l, maxConnections))
	cancel()
	<-stopped
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("control socket: %w", err)
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/version", s.version)
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/plan", s.plan)
	mux.HandleFunc("GET /v1/explain", s.explain)
	mux.HandleFunc("GET /v1/events", s.events)
	mux.HandleFunc("GET /v1/trace", s.trace)
	mux.HandleFunc("POST /v1/renew", s.act(func(_ context.Context, uplink string) error { return s.Actions.Renew(uplink) }))
	mux.HandleFunc("POST /v1/release", s.act(s.Actions.Release))
	mux.HandleFunc("POST /v1/reload", s.act(func(ctx context.Context, _ string) error { return s.Actions.Reload(ctx) }))
	return http.MaxBytesHandler(mux, maxBody)
}

// Version is the answer to GET /v1/version.
type Version struct {
	SchemaVersion int    `json:"schema_version"`
	Daemon        string `json:"daemon"`
	PID           int    `json:"pid"`
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, Version{SchemaVersion: SchemaVersion, Daemon: s.Version, PID: os.Getpid()})
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	var hooks []HookStatus
	if s.Actions.Hooks != nil {
		hooks = s.Actions.Hooks()
	}
	answer(w, http.StatusOK, StatusOf(s.snapshot(), hooks, time.Now()))
}

// snapshot is the newest one of the source with all problems.
func (s *Server) snapshot() *engine.Snapshot {
	snap := s.Source.Snapshot()
	if s.Actions.Problems == nil {
		return snap
	}
	all := *snap
	all.Problems = slices.Concat(snap.Problems, s.Actions.Problems())
	return &all
}

func (s *Server) plan(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, PlanOf(s.snapshot(), time.Now()))
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	text := r.URL.Query().Get("addr")
	if p, err := netip.ParsePrefix(text); err == nil {
		answer(w, http.StatusOK, ExplainPrefix(s.Source.Snapshot(), p, time.Now()))
		return
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("addr=%q is not an IP address or prefix", text))
		return
	}
	answer(w, http.StatusOK, Explain(s.Source.Snapshot(), addr, time.Now()))
}

// act wraps an action on ?uplink= that only root and the daemon's own user may ask for.
func (s *Server) act(do func(ctx context.Context, uplink string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, _ := r.Context().Value(peerKey{}).(peer)
		if !who.mayAct(s.uid) {
			refuse(w, http.StatusForbidden, "only root and the user that uplinkd runs as may change something; try: sudo uplinkd ...")
			return
		}
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Time{}) // else ReadTimeout would look like a client that left
		_ = rc.SetWriteDeadline(time.Now().Add(actionTimeout + answerTimeout))
		ctx, cancel := context.WithTimeout(r.Context(), actionTimeout)
		defer cancel()
		uplink := r.URL.Query().Get("uplink")
		s.Log.Info("control socket", "request", r.URL.Path, "uplink", uplink, "uid", who.uid)
		if err := do(ctx, uplink); err != nil {
			refuse(w, http.StatusConflict, err.Error())
			return
		}
		answer(w, http.StatusOK, struct{}{})
	}
}

// events streams what happens, a line each, until the client leaves, is too slow, or the daemon stops.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	leave, ok := s.watcher(w)
	if !ok {
		return
	}
	defer leave()
	items, stop := s.Source.Watch()
	defer stop()
	out := newLines(w)
	if out.flush() != nil { // the header tells the client that it misses nothing from here on
		return
	}
	for {
		select {
		case item, ok := <-items:
			if !ok {
				_ = out.send(EventRecord{SchemaVersion: SchemaVersion, End: "too slow: more than 64 events were not read"})
				return
			}
			if out.send(itemRecord(item)) != nil {
				return
			}
		case <-r.Context().Done():
			_ = out.send(EventRecord{SchemaVersion: SchemaVersion, End: "the daemon stops"})
			return
		}
	}
}

// failure is the body of an answer that is not 200.
type failure struct {
	Error string `json:"error"`
}

func refuse(w http.ResponseWriter, code int, text string) { answer(w, code, failure{text}) }

func answer(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // a client that is gone needs no answer
}

// quiet takes what net/http has to say of misbehaving clients: worth a line when one debugs.
type quiet struct{ log *slog.Logger }

func (q quiet) Write(b []byte) (int, error) {
	q.log.Debug("control socket", "http", string(b))
	return len(b), nil
}
