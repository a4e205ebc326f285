package ctl

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// lines writes an answer of JSON documents, one a line (NDJSON).
type lines struct {
	rc  *http.ResponseController
	out *json.Encoder
}

func newLines(w http.ResponseWriter) lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	l := lines{http.NewResponseController(w), json.NewEncoder(w)}
	_ = l.rc.SetReadDeadline(time.Time{}) // the client says nothing more, for hours
	return l
}

// put writes a line, sooner or later.
func (l lines) put(v any) error {
	_ = l.rc.SetWriteDeadline(time.Now().Add(answerTimeout))
	return l.out.Encode(v)
}

// flush has the client get the lines so far, or the header of an answer without any yet.
func (l lines) flush() error {
	_ = l.rc.SetWriteDeadline(time.Now().Add(answerTimeout))
	return l.rc.Flush()
}

// send writes a line now.
func (l lines) send(v any) error {
	if err := l.put(v); err != nil {
		return err
	}
	return l.flush()
}

// watcher makes room for one more client that follows something. If there is none it refuses, and ok is false.
func (s *Server) watcher(w http.ResponseWriter) (leave func(), ok bool) {
	leave = func() { s.watchers.Add(-1) }
	if s.watchers.Add(1) > maxWatchers {
		leave()
		refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("%d clients follow events or messages already", maxWatchers))
		return nil, false
	}
	return leave, true
}

// follow calls started once the stream at path has begun, then each for every line of it until ctx ends (then it returns
// nil), started or each fails, or the stream ends (then the error is, or wraps, ErrGone).
func follow[T interface{ ended() string }](ctx context.Context, c *Client, path string, query url.Values, started func() error,
	each func(T) error) error {
	body, err := c.do(ctx, http.MethodGet, path, query)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer body.Close()
	if err := started(); err != nil {
		return err
	}
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return fmt.Errorf("%s: a line of %s that cannot be read: %w", c.socket, path, err)
		}
		if why := v.ended(); why != "" {
			return fmt.Errorf("%w: %s", ErrGone, why)
		}
		if err := each(v); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(lines.Err(), bufio.ErrTooLong):
		return fmt.Errorf("%s: a line of %s with more than %d bytes", c.socket, path, maxLine)
	}
	return ErrGone
}
