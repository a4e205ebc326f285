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

// awaited is what the machine listens to. The goroutine that owns the machine sets it and the reader of the socket, which
// has to drop most of a flood without decoding it, looks at it. The machine checks again.
type awaited struct {
	xids        [2]atomic.Uint32 // 24 bits, and running if an exchange is running
	reconfigure atomic.Bool
}

const running = 1 << 24

func (w *awaited) set(xids []uint32, reconfigure bool) {
	for i := range w.xids {
		v := uint32(0)
		if i < len(xids) {
			v = xids[i] | running
		}
		w.xids[i].Store(v)
	}
	w.reconfigure.Store(reconfigure)
}

// by reports whether p can be an answer to what is running, or a Reconfigure, which must not have been sent to a group
// (RFC 9915 §16.11).
func (w *awaited) by(p packet) bool {
	if len(p.data) < minAnswer {
		return false
	}
	switch pd.MessageType(p.data[0]) {
	case pd.Advertise, pd.Reply:
		v := binary.BigEndian.Uint32(p.data)&0xffffff | running
		return v == w.xids[0].Load() || v == w.xids[1].Load()
	case pd.Reconfigure:
		return w.reconfigure.Load() && !p.to.IsMulticast()
	}
	return false
}

// unasked reports whether p, which is awaited, answers nothing: it needs no transaction id that only this link has seen,
// so anybody can send it, and its sender repeats it.
func unasked(p packet) bool { return pd.MessageType(p.data[0]) == pd.Reconfigure }

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
