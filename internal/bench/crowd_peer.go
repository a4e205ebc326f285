package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"uplinkd/internal/isp"
	"uplinkd/internal/netlab"
)

// crowdsOfDhcpcd measures dhcpcd with 1 and 16 uplinks. With 256, dhcpcd 9.4 had bound 73 after a minute: its route socket
// overflows, it reads all addresses again, and so on.
func crowdsOfDhcpcd(ctx context.Context, w io.Writer) error {
	rows := [][]string{{"uplinks of dhcpcd", "all bound s", "processes", "RSS MiB", "PSS MiB", "per uplink kB, PSS"}}
	var one crowd
	for _, n := range []int{1, 16} {
		c, err := crowdOfDhcpcd(ctx, n)
		if err != nil {
			return fmt.Errorf("%d uplinks: %w", n, err)
		}
		per := "-"
		if n == 1 {
			one = c
		} else {
			per = fmt.Sprintf("%.0f", (c.memory.pss-one.memory.pss)/float64(n-1))
		}
		rows = append(rows, []string{strconv.Itoa(n), seconds(c.bound), fmt.Sprint(c.memory.processes), fmt.Sprintf("%.1f", c.memory.rss/1024),
			fmt.Sprintf("%.1f", c.memory.pss/1024), per})
	}
	fmt.Fprintln(w)
	table(w, rows...)
	return nil
}

// crowdOfDhcpcd is what dhcpcd does with n uplinks: the one peer here that has many of them in one program. It is looked at
// as uplinkd is, but its time ends with the last binding at the providers.
func crowdOfDhcpcd(ctx context.Context, n int) (c crowd, err error) {
	lab, err := netlab.Open()
	if err != nil {
		return c, err
	}
	defer lab.Close()
	router, providers, err := connectCrowd(ctx, lab, n, isp.Config{RA: isp.RA{Interval: crowdRA}})
	if err != nil {
		return c, err
	}
	var running errgroup.Group
	ctx, stop := context.WithCancel(ctx)
	for _, p := range providers {
		running.Go(func() error { return p.Run(ctx) })
	}
	defer func() { stop(); err = errors.Join(err, running.Wait()) }()
	peer := dhcpcdCrowd(n)
	if err := peer.prepare(lab.Dir()); err != nil {
		return c, err
	}
	if err := peer.forget(); err != nil {
		return c, err
	}
	began := time.Now()
	p := router.Start(router.Command(ctx, peer.command[0], peer.command[1:]...))
	if err := lab.Err(); err != nil {
		return c, err
	}
	for bound := 0; bound < n; {
		select {
		case <-p.Done():
			return c, fmt.Errorf("dhcpcd ended: %v\n%s", p.Err(), p.Output())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Since(began) > time.Minute {
			return c, fmt.Errorf("dhcpcd: %d of %d uplinks are bound; it said:\n%s", bound, n, p.Output())
		}
		bound = 0
		for _, v := range providers {
			bound += len(v.Bindings())
		}
	}
	c.bound = time.Since(began)
	time.Sleep(settling)
	c.memory, err = memoryOf(router)
	return c, errors.Join(err, peer.forget())
}

func dhcpcdCrowd(n int) client {
	config := "duid\nipv6only\nnoipv6rs\nnodev\nscript /bin/true\n"
	command := []string{"dhcpcd", "-B", "-f", "DIR/dhcpcd.conf"}
	for i := range n {
		config += fmt.Sprintf("interface w%d\n  ia_pd 1 lan0/0/64\n", i+1)
		command = append(command, fmt.Sprintf("w%d", i+1))
	}
	return client{name: "dhcpcd", files: map[string]string{"dhcpcd.conf": config}, command: command,
		state: []string{"/var/lib/dhcpcd/*", "/run/dhcpcd/*"}}
}
