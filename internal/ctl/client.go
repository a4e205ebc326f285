package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotRunning is what errors.Is finds when no daemon answers on the socket: there is none, or nobody listens on it.
var ErrNotRunning = errors.New("no uplinkd answers")

// ErrGone is the end of a stream because the daemon went away.
var ErrGone = errors.New("the daemon went away")

// maxAnswer bounds what a client reads: far more than the rows of the largest site.
const maxAnswer = 64 << 20

// maxLine bounds one line of a stream.
const maxLine = 1 << 20

// Client asks the daemon. It connects when a method is called.
type Client struct {
	socket string
	http   *http.Client
}

// Dial returns a client of the daemon on the given socket.
func Dial(socket string) *Client {
	var d net.Dialer
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

// Version asks who answers.
func (c *Client) Version(ctx context.Context) (v Version, err error) {
	return v, c.get(ctx, "/v1/version", nil, &v)
}

// Status asks for the state of the site.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.get(ctx, "/v1/status", nil, &s)
}

// Plan asks for what the daemon keeps in the kernel.
func (c *Client) Plan(ctx context.Context) (p Plan, err error) {
	return p, c.get(ctx, "/v1/plan", nil, &p)
}

// Explain asks what the daemon has to do with an address or a prefix.
func (c *Client) Explain(ctx context.Context, what fmt.Stringer) (x Explanation, err error) {
	return x, c.get(ctx, "/v1/explain", url.Values{"addr": {what.String()}}, &x)
}

// Renew asks to extend the lease of an uplink now; "" means all.
func (c *Client) Renew(ctx context.Context, uplink string) error {
	return c.post(ctx, "/v1/renew", uplink)
}

// Release asks to give the lease of an uplink back.
func (c *Client) Release(ctx context.Context, uplink string) error {
	return c.post(ctx, "/v1/release", uplink)
}

// Reload asks to read the config again.
func (c *Client) Reload(ctx context.Context) error { return c.post(ctx, "/v1/reload", "") }

// Events calls started once events are followed, then each for every event until ctx ends (then it returns nil), each
// fails, or the stream ends (then the error is, or wraps, ErrGone).
func (c *Client) Events(ctx context.Context, started func(), each func(EventRecord) error) error {
	return follow(ctx, c, "/v1/events", nil, func() error { started(); return nil }, each)
}

func (c *Client) get(ctx context.Context, path string, query url.Values, v any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return c.decode(ctx, http.MethodGet, path, query, v)
}

func (c *Client) post(ctx context.Context, path, uplink string) error {
	ctx, cancel := context.WithTimeout(ctx, actionTimeout+answerTimeout)
	defer cancel()
	query := url.Values{}
	if uplink != "" {
		query.Set("uplink", uplink)
	}
	return c.decode(ctx, http.MethodPost, path, query, &struct{}{})
}

func (c *Client) decode(ctx context.Context, method, path string, query url.Values, v any) error {
	body, err := c.do(ctx, method, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(v); err != nil {
		return fmt.Errorf("%s: the answer to %s cannot be read: %w; is another version of uplinkd running?", c.socket, path, err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values) (io.ReadCloser, error) {
	u := url.URL{Scheme: "http", Host: "uplinkd", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var f failure
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxLine)).Decode(&f); err != nil || f.Error == "" {
		return nil, fmt.Errorf("%s: %s %s: %s; is another version of uplinkd running?", c.socket, method, path, resp.Status)
	}
	return nil, errors.New(f.Error)
}

// notRunning is an error that reads as one sentence and is ErrNotRunning.
type notRunning struct {
	text  string
	cause error
}

func (e *notRunning) Error() string   { return e.text }
func (e *notRunning) Unwrap() []error { return []error{ErrNotRunning, e.cause} }

// unreachable says why the daemon was not reached, and what to do.
func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &notRunning{fmt.Sprintf("no uplinkd answers on %s: is it running? systemctl status uplinkd", c.socket), err}
	case errors.Is(err, unix.ECONNREFUSED):
		return &notRunning{fmt.Sprintf("no uplinkd answers on %s: the socket is there, but its daemon is gone: systemctl status uplinkd", c.socket), err}
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("may not open %s: only root and the group of that file may; try it with sudo", c.socket)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("uplinkd does not answer on %s in time; see: journalctl -u uplinkd", c.socket)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("ask uplinkd on %s: %w", c.socket, err)
}
