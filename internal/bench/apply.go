package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
)

// applyRuns is how often BenchmarkApply runs; each run has ip -batch and uplinkd take turns.
const applyRuns = 5

// applyBesideIP runs the Go benchmark that writes rows next to ip -batch and prints medians.
func applyBesideIP(ctx context.Context, w io.Writer) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkApply$/./^1000", "-benchtime", "1x",
		"-count", strconv.Itoa(applyRuns), "./internal/kernel/rtnl")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			out = append(out, exit.Stderr...)
		}
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	names, results := parseBenchmarks(out)
	if len(names) == 0 {
		return fmt.Errorf("%s printed no benchmark:\n%s", cmd, out)
	}
	title(w, "Writing rows to the kernel, against ip -batch in turns (n = %d; ratio: median of ours/theirs, aim <= 1.5)", applyRuns)
	rows := [][]string{{"rows", "add ms", "ratio", "delete ms", "ratio"}}
	for _, name := range names {
		r := results[name]
		rows = append(rows, []string{strings.TrimPrefix(name, "BenchmarkApply/"), r["add-ms"].text(1), r["add-ratio"].text(2),
			r["del-ms"].text(1), r["del-ratio"].text(2)})
	}
	table(w, rows...)
	return nil
}

// parseBenchmarks collects the metrics of each benchmark over all of its runs: name-2  1  0.5 add-ms  0.4 add-ratio.
func parseBenchmarks(out []byte) (names []string, results map[string]map[string]sample) {
	results = map[string]map[string]sample{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := fields[0]
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			name = name[:i] // the number of CPUs
		}
		if results[name] == nil {
			names = append(names, name)
			results[name] = map[string]sample{}
		}
		for ; len(fields) >= 4; fields = fields[2:] {
			if v, err := strconv.ParseFloat(fields[2], 64); err == nil {
				results[name][fields[3]] = append(results[name][fields[3]], v)
			}
		}
	}
	return names, results
}
