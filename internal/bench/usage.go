package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"uplinkd/internal/netlab"
)

// memory is what the processes of a namespace hold, in kB.
type memory struct {
	rss, pss, processes float64
}

// processesOf returns the directories in /proc of all processes that live in ns.
func processesOf(ns *netlab.NS) (dirs []string, err error) {
	want, err := os.Readlink(ns.Path())
	if err != nil {
		return nil, err
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		if got, err := os.Readlink(link); err == nil && got == want { // else another's, or ended meanwhile
			dirs = append(dirs, filepath.Dir(filepath.Dir(link)))
		}
	}
	return dirs, nil
}

// deserted waits until no process lives in ns. A client of several processes may leave some behind for a moment, which
// still hold port 546.
func deserted(ctx context.Context, ns *netlab.NS) error {
	limit := time.After(patience)
	for {
		left, err := processesOf(ns)
		if err != nil || len(left) == 0 {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-limit:
			return fmt.Errorf("processes are left in namespace %s: %v", ns.Name, left)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// memoryOf sums over all processes that live in ns: some clients are five.
func memoryOf(ns *netlab.NS) (m memory, err error) {
	dirs, err := processesOf(ns)
	if err != nil {
		return m, err
	}
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
		if err != nil {
			continue
		}
		m.processes++
		for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) != 3 {
				continue
			}
			kB, _ := strconv.ParseFloat(fields[1], 64)
			switch fields[0] {
			case "Rss:":
				m.rss += kB
			case "Pss:":
				m.pss += kB
			}
		}
	}
	if m.processes == 0 {
		return m, fmt.Errorf("no process lives in namespace %s", ns.Name)
	}
	return m, nil
}
