package client

import (
	"encoding/binary"
	"log/slog"
	"sync/atomic"
	"time"

	"uplinkd/pd"
)

// Bounds of the work that anybody on the link can make for us by sending packets.
const (
	minAnswer     = 18 // octets: a header and two identifiers, without which no answer counts (RFC 9915 §16.3, §16.10)
	decodeBurst   = 50 // messages decoded without a pause
	decodeSpacing = 20 * time.Millisecond

	dropsToTell  = 50 // in dropInterval: late answers are no news
	dropInterval = time.Minute
)

// awaited is the transaction id that answers must carry. The goroutine that owns the machine sets it and the reader of the
// socket, which has to drop most of a flood without decoding it, looks at it. The machine checks again.
type awaited struct{ xid atomic.Uint32 } // 24 bits, and running if an exchange is running

const running = 1 << 24

func (w *awaited) set(xid uint32, ok bool) {
	if ok {
		xid |= running
	} else {
		xid = 0
	}
	w.xid.Store(xid)
}

// by reports whether b can be an answer to what is running. Reconfigure, which needs no exchange, is not supported.
func (w *awaited) by(b []byte) bool {
	if len(b) < minAnswer {
		return false
	}
	switch pd.MessageType(b[0]) {
	case pd.Advertise, pd.Reply:
		return binary.BigEndian.Uint32(b)&0xffffff|running == w.xid.Load()
	}
	return false
}

// pace spreads work: decodeBurst pieces at once, then one per decodeSpacing. The zero value is ready.
type pace struct{ fullAt time.Time } // when all of the burst is available again

// wait takes a turn. While it waits, the queue in the kernel fills up and drops what is too much. It returns false when
// stop is closed.
func (p *pace) wait(stop <-chan struct{}) bool {
	now := time.Now()
	if p.fullAt.Before(now) {
		p.fullAt = now
	}
	p.fullAt = p.fullAt.Add(decodeSpacing)
	over := p.fullAt.Sub(now) - decodeBurst*decodeSpacing
	if over <= 0 {
		return true
	}
	timer := time.NewTimer(over)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-stop:
		return false
	}
}

// drops counts packets that answer nothing, and logs when they are many, once per dropInterval.
type drops struct {
	since  time.Time // begin of the interval
	recent int       // in the interval
	untold int       // since the last line
}

func (d *drops) add(to *slog.Logger, now time.Time) {
	if now.Sub(d.since) >= dropInterval {
		d.since, d.recent = now, 0
	}
	d.recent++
	d.untold++
	if d.recent == dropsToTell {
		to.Warn("DHCPv6 packets dropped that answer nothing", "dropped", d.untold)
		d.untold = 0
	}
}
