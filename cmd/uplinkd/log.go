package main

import (
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/coreos/go-systemd/v22/journal"
)

// newLog logs to stderr: for the journal with its level prefix (sd-daemon(3)) and without time, else as text with time.
func newLog(debug bool) *slog.Logger {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	if ok, err := journal.StderrIsJournalStream(); ok && err == nil {
		return slog.New(newJournalHandler(os.Stderr, level))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// journalHandler is a text handler per syslog priority, each with the prefix that the journal reads off the line.
type journalHandler [4]slog.Handler // debug, info, warning, error

func newJournalHandler(w io.Writer, level slog.Level) journalHandler {
	var h journalHandler
	options := slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}}
	for i, prefix := range []string{"<7>", "<6>", "<4>", "<3>"} {
		h[i] = slog.NewTextHandler(prefixed{w, prefix}, &options)
	}
	return h
}

func (h journalHandler) of(l slog.Level) slog.Handler {
	switch {
	case l < slog.LevelInfo:
		return h[0]
	case l < slog.LevelWarn:
		return h[1]
	case l < slog.LevelError:
		return h[2]
	}
	return h[3]
}

func (h journalHandler) Enabled(ctx context.Context, l slog.Level) bool { return h[0].Enabled(ctx, l) }

func (h journalHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.of(r.Level).Handle(ctx, r)
}

func (h journalHandler) WithAttrs(as []slog.Attr) slog.Handler {
	for i := range h {
		h[i] = h[i].WithAttrs(as)
	}
	return h
}

func (h journalHandler) WithGroup(name string) slog.Handler {
	for i := range h {
		h[i] = h[i].WithGroup(name)
	}
	return h
}

// prefixed writes a prefix before each write: a text handler writes one line at a time.
type prefixed struct {
	w      io.Writer
	prefix string
}

func (p prefixed) Write(b []byte) (int, error) {
	if _, err := p.w.Write(append([]byte(p.prefix), b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}
