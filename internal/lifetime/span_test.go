package lifetime

import "testing"

func TestSpan(t *testing.T) {
	for s, want := range map[uint32]string{0: "0s", 59: "59s", 60: "1m", 330: "5m30s", 3120: "52m", 3599: "59m", 3600: "1h", 4320: "1h12m",
		86400: "1d", 273600: "3d4h", Infinity - 1: "49710d6h", Infinity: "for ever"} {
		if got := Span(s); got != want {
			t.Errorf("Span(%d) = %s, want %s", s, got, want)
		}
	}
}
