package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"uplinkd/internal/netlab"
)

// memory is what the processes of a namespace hold, in kB.
type memory struct {
	rss, pss, processes float64
}

// memoryOf sums over all processes that live in ns: some clients are five.
func memoryOf(ns *netlab.NS) (m memory, err error) {
	want, err := os.Readlink(ns.Path())
	if err != nil {
		return m, err
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return m, err
	}
	for _, link := range links {
		if got, err := os.Readlink(link); err != nil || got != want {
			continue // another's, or ended meanwhile
		}
		b, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(link)), "smaps_rollup"))
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
