package lifetime

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestSeconds(t *testing.T) {
	tests := []struct {
		d    Deadline
		want uint32
	}{
		{Deadline{}, 0},
		{Forever(), Infinity},
		{After(now, 0), 0},
		{After(now, 1), 1},
		{After(now, Infinity), Infinity},
		{After(now, Infinity-1), Infinity - 1},
		{Until(now), 0},
		{Until(now.Add(-time.Hour)), 0},
		{Until(now.Add(time.Millisecond)), 1}, // not over yet: 0 would mean "for ever" to some
		{Until(now.Add(1499 * time.Millisecond)), 1},
		{Until(now.Add(1501 * time.Millisecond)), 2},
		{Until(now.Add(200 * 365 * 24 * time.Hour)), Infinity - 1},
	}
	for _, tt := range tests {
		if got := tt.d.Seconds(now); got != tt.want {
			t.Errorf("%s: %d s left, want %d", tt.d, got, tt.want)
		}
	}
}

func TestWithin(t *testing.T) {
	tests := []struct {
		a, b Deadline
		want bool
	}{
		{Forever(), Forever(), true},
		{Forever(), After(now, Infinity-1), false},
		{After(now, 100), After(now, 102), true},
		{After(now, 100), After(now, 103), false},
		{Deadline{}, Until(now.Add(-time.Hour)), true},
		{Deadline{}, After(now, 1), false}, // over is over: one second left is a difference
	}
	for _, tt := range tests {
		if tt.a.Within(tt.b, 2*time.Second, now) != tt.want || tt.b.Within(tt.a, 2*time.Second, now) != tt.want {
			t.Errorf("%s within 2 s of %s: want %v both ways", tt.a, tt.b, tt.want)
		}
	}
}

func anyDeadline(t *rapid.T, name string) Deadline {
	switch rapid.IntRange(0, 3).Draw(t, name+" kind") {
	case 0:
		return Forever()
	case 1:
		return Deadline{}
	}
	return Until(now.Add(time.Duration(rapid.Int64Range(-1e15, 1e17).Draw(t, name))))
}

func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyDeadline(t, "a"), anyDeadline(t, "b")
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var back Deadline
		if err := json.Unmarshal(text, &back); err != nil || back.Compare(a) != 0 || back.IsForever() != a.IsForever() {
			t.Fatalf("%s became %s: %v", text, back, err)
		}
		if a.Compare(b) != -b.Compare(a) {
			t.Fatalf("Compare of %s and %s is not antisymmetric", a, b)
		}
		if Min(a, b).Compare(Max(a, b)) > 0 {
			t.Fatalf("Min of %s and %s is after Max", a, b)
		}
		if a.Over(now) != (a.Seconds(now) == 0) {
			t.Fatalf("%s: over %v with %d s left", a, a.Over(now), a.Seconds(now))
		}
	})
}
