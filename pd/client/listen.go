package client

import (
	"bytes"
	"log/slog"
	"time"

	"uplinkd/pd"
	"uplinkd/pd/wire"
)

// arrival is what the reader of a socket has to say: a message, a packet that is none, or the error that ended it.
type arrival struct {
	message   pd.Message
	packet    // its data outlives the next Recv
	malformed error
	failed    error
}

// listener is an open socket with the goroutine that reads it.
type listener struct {
	conn
	arrivals chan arrival // unbuffered: the queue is the kernel's, which is bounded and drops the newest
	stop     chan struct{}
	done     chan struct{}
}

func listen(c conn) *listener {
	l := &listener{conn: c, arrivals: make(chan arrival), stop: make(chan struct{}), done: make(chan struct{})}
	go l.read()
	return l
}

func (l *listener) read() {
	defer close(l.done)
	for {
		var a arrival
		p, err := l.Recv()
		if err != nil {
			a.failed = err
		} else {
			a.packet = p
			a.message, a.malformed = wire.Decode(p.data)
			a.data = a.message.Raw
			if a.malformed != nil {
				a.data = bytes.Clone(p.data)
			}
		}
		select {
		case l.arrivals <- a:
		case <-l.stop:
			return
		}
		if err != nil {
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
