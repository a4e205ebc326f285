package lifetime

import "fmt"

// Span writes seconds the way people read them: 45s, 5m30s, 52m, 1h12m, 3d4h, for ever.
func Span(seconds uint32) string {
	s := seconds
	switch {
	case s == Infinity:
		return "for ever"
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 600 && s%60 != 0:
		return fmt.Sprintf("%dm%ds", s/60, s%60)
	case s < 3600:
		return fmt.Sprintf("%dm", s/60)
	case s < 86400:
		return twoUnits(s/3600, "h", s%3600/60, "m")
	}
	return twoUnits(s/86400, "d", s%86400/3600, "h")
}

func twoUnits(a uint32, unitA string, b uint32, unitB string) string {
	if b == 0 {
		return fmt.Sprintf("%d%s", a, unitA)
	}
	return fmt.Sprintf("%d%s%d%s", a, unitA, b, unitB)
}
