package main

import (
	"math"
	"testing"
)

func TestSample(t *testing.T) {
	for _, c := range []struct {
		of   sample
		want string
	}{
		{nil, "-"},
		{sample{3}, "3.0 [3.0..3.0]"},
		{sample{9, 1, 2}, "2.0 [1.0..9.0]"},
		{sample{4, 1, 2, 9}, "3.0 [1.0..9.0]"},
	} {
		if got := c.of.text(1); got != c.want {
			t.Errorf("%v is %q, want %q", []float64(c.of), got, c.want)
		}
	}
	if got := (sample{0, 1, 2, 3, 4}).quantile(0.75); math.Abs(got-3) > 1e-9 {
		t.Errorf("upper quartile %v, want 3", got)
	}
}

func TestParseBenchmarks(t *testing.T) {
	names, results := parseBenchmarks([]byte(`goos: linux
BenchmarkApply/routes/1000-2   1   3.0 add-ms   0.40 add-ratio
BenchmarkApply/rules/1000-2    1   9.3 add-ms   0.74 add-ratio
BenchmarkApply/routes/1000-2   1   5.0 add-ms   0.60 add-ratio
PASS
`))
	if len(names) != 2 || names[0] != "BenchmarkApply/routes/1000" {
		t.Fatalf("names %q", names)
	}
	if got := results[names[0]]["add-ratio"].text(2); got != "0.50 [0.40..0.60]" {
		t.Errorf("add-ratio of routes is %q", got)
	}
}
