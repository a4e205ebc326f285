package client

import (
	"log/slog"
	"time"

	"uplinkd/internal/bucket"
	"uplinkd/pd"
	"uplinkd/pd/wire"
)

// arrival is what the reader of a socket has to say: a message or the error that ended it.
type arrival struct {
	message pd.Message
	packet  // its data outlives the next Recv
	failed  error
}

// listener is an open socket with the goroutine that reads it.
type listener struct {
	conn
	awaited  *awaited
	log      *slog.Logger
	arrivals chan arrival // unbuffered: the queue is the kernel's, which is bounded and drops the newest
	stop     chan struct{}
	done     chan struct{}
}

func listen(c conn, w *awaited, log *slog.Logger) *listener {
	l := &listener{conn: c, awaited: w, log: log, arrivals: make(chan arrival), stop: make(chan struct{}), done: make(chan struct{})}
	go l.read()
	return l
}

func (l *listener) read() {
	defer close(l.done)
	decoding, reconfigures := bucket.New(decodeBurst, decodeSpacing), bucket.New(decodeBurst, decodeSpacing)
	var dropped drops
	for {
		var a arrival
		p, err := l.Recv()
		if err != nil {
			a.failed = err
		} else {
			if !l.awaited.by(p) {
				dropped.add(l.log, p.at)
				continue
			}
			if unasked(p) { // may be lost: it must not hold up answers
				if !reconfigures.Try(time.Now()) {
					dropped.add(l.log, p.at)
					continue
				}
			} else if !l.turn(&decoding) {
				return
			}
			a.packet = p
			if a.message, err = wire.Decode(p.data); err != nil {
				dropped.add(l.log, p.at)
				continue
			}
			a.data = a.message.Raw
		}
		select {
		case l.arrivals <- a:
		case <-l.stop:
			return
		}
		if a.failed != nil {
			return
		}
	}
}

// turn waits for a token. Meanwhile the queue in the kernel fills up and drops what is too much. It returns false when the
// listener is closed.
func (l *listener) turn(b *bucket.Bucket) bool {
	now := time.Now()
	wait := b.Wait(now)
	b.Take(now)
	if wait == 0 {
		return true
	}
	select {
	case <-time.After(wait):
		return true
	case <-l.stop:
		return false
	}
}

// close closes the socket and waits for the reader to end.
func (l *listener) close() error {
	close(l.stop)
	err := l.Close()
	<-l.done
	return err
}

const (
	logBurst    = 5
	logInterval = 10 * time.Second
)

// limiter bounds log lines.
type limiter struct {
	lines   bucket.Bucket
	dropped int
}

func newLimiter() limiter { return limiter{lines: bucket.New(logBurst, logInterval)} }

// log logs, or counts for the next line that it lets through.
func (l *limiter) log(to *slog.Logger, message string, args ...any) {
	if !l.lines.Try(time.Now()) {
		l.dropped++
		return
	}
	if l.dropped > 0 {
		args = append(args, "not_shown", l.dropped)
		l.dropped = 0
	}
	to.Warn(message, args...)
}
