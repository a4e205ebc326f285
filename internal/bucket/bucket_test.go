package bucket

import (
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	begin := time.Now()
	b := New(3, time.Second)
	for range 3 {
		if !b.Try(begin) {
			t.Fatal("not full at the start")
		}
	}
	if b.IsFull(begin) || b.Try(begin) || b.Wait(begin) != time.Second {
		t.Errorf("empty: wait %s", b.Wait(begin))
	}
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{time.Second, 1}, {time.Hour, 3}} {
		got := 0
		for b.Try(begin.Add(c.after)) {
			got++
		}
		if got != c.want {
			t.Errorf("%d tokens after %s, want %d", got, c.after, c.want)
		}
	}
	at := begin.Add(2 * time.Hour)
	for range 5 {
		b.Take(at)
	}
	if got := b.Wait(at); got != 3*time.Second {
		t.Errorf("wait %s after five of three tokens were taken", got)
	}
	if at = at.Add(5 * time.Second); !b.IsFull(at) {
		t.Error("not full again")
	}
}
