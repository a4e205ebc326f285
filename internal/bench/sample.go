package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// sample is a set of measurements of one thing.
type sample []float64

func (s *sample) add(v float64)            { *s = append(*s, v) }
func (s *sample) addTime(d time.Duration)  { s.add(float64(d) / float64(time.Millisecond)) }
func (s sample) median() float64           { return s.quantile(0.5) }
func (s sample) text(digits int) string    { return s.format(digits, true) }
func (s sample) average(digits int) string { return s.format(digits, false) }

// quantile is the value below which the part q lies; NaN of nothing.
func (s sample) quantile(q float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// format writes the median, with range the smallest and the largest too.
func (s sample) format(digits int, ends bool) string {
	if len(s) == 0 {
		return "-"
	}
	if !ends {
		return fmt.Sprintf("%.*f", digits, s.median())
	}
	return fmt.Sprintf("%.*f [%.*f..%.*f]", digits, s.median(), digits, slices.Min(s), digits, slices.Max(s))
}

// table prints aligned columns; the first row is the head.
func table(w io.Writer, rows ...[]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, row := range rows {
		fmt.Fprintln(t, "  "+strings.Join(row, "\t"))
		if i == 0 {
			rules := make([]string, len(row))
			for j, cell := range row {
				rules[j] = strings.Repeat("-", len(cell))
			}
			fmt.Fprintln(t, "  "+strings.Join(rules, "\t"))
		}
	}
	t.Flush()
}

func title(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, "\n%s\n\n", fmt.Sprintf(format, args...))
}
