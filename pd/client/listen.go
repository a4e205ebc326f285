package client

import (
	"log/slog"
	"time"

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
	var (
		decoding     pace
		reconfigures pace
		dropped      drops
	)
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
				if !reconfigures.take() {
					dropped.add(l.log, p.at)
					continue
				}
			} else if !decoding.wait(l.stop) {
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

// close closes the socket and waits for the reader to end.
func (l *listener) close() error {
	close(l.stop)
	err := l.Close()
	<-l.done
	return err
}

// limiter bounds log lines: logBurst at once, then one per logInterval. The zero value is ready.
type limiter struct {
	fullAt  time.Time // when all of the burst is available again
	dropped int
}

const (
	logBurst    = 5
	logInterval = 10 * time.Second
)

// log logs, or counts for the next line that it lets through.
func (l *limiter) log(to *slog.Logger, message string, args ...any) {
	now := time.Now()
	if l.fullAt.Before(now) {
		l.fullAt = now
	}
	if l.fullAt.Sub(now) > (logBurst-1)*logInterval {
		l.dropped++
		return
	}
	l.fullAt = l.fullAt.Add(logInterval)
	if l.dropped > 0 {
		args = append(args, "not_shown", l.dropped)
		l.dropped = 0
	}
	to.Warn(message, args...)
}
