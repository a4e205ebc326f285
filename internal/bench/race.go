package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"uplinkd/internal/netlab"
)

const (
	idleRounds = 3               // the last ones, in which memory is looked at
	idle       = 2 * time.Second // from the address to looking
	patience   = 30 * time.Second
)

// track is where the race is run: a provider, and a router with a LAN port.
type track struct {
	lab         *netlab.Lab
	isp, router *netlab.NS
	wire        *wire
	arrivals    <-chan arrival
	floor       sample
}

// result is what came of all starts of one client.
type result struct {
	toSolicit, toAddress, replyToAddress sample // ms
	cpu                                  sample // ms, from the start to the end of the process
	rss, pss, processes                  sample // kB
	step, read, apply                    sample // ms, uplinkd's own account of the step that wrote the address
}

// race starts every client in turn, again and again, and prints how they did.
func race(ctx context.Context, w io.Writer, o options) error {
	t, err := newTrack(ctx)
	if err != nil {
		return err
	}
	defer t.lab.Close()
	field := clients(o.uplinkd)
	results := make([]result, len(field))
	for i := range field {
		if err := field[i].prepare(t.lab.Dir()); err != nil {
			return err
		}
	}
	for round := range o.rounds {
		for i := range field {
			if err := t.start(ctx, field[i], &results[i], o.rounds-round <= idleRounds); err != nil {
				return fmt.Errorf("%s, round %d: %w", field[i].name, round+1, err)
			}
		}
	}
	return t.report(w, o, field, results)
}

func newTrack(ctx context.Context) (*track, error) {
	lab, err := netlab.Open()
	if err != nil {
		return nil, err
	}
	t := &track{lab: lab, isp: lab.NS("isp"), router: lab.NS("router")}
	for _, n := range []*netlab.NS{t.isp, t.router} {
		n.Sysctl("net.ipv6.conf.default.accept_dad", "0") // or all clients wait two seconds for a link-local address
		n.Sysctl("net.ipv6.conf.all.forwarding", "1")
	}
	lab.Veth(t.isp, "up0", t.router, "wan0", "", "02:00:00:00:01:01")
	lab.Veth(t.router, "lan0", t.router, "lan0-end")
	t.isp.IP("-6 address add 2001:db8:1:1::1/64 dev up0 nodad")
	if err = lab.Err(); err == nil {
		err = t.router.Do(func() (err error) {
			if t.wire, err = openWire("wan0"); err != nil {
				return err
			}
			if t.arrivals, err = watchAddresses("lan0"); err != nil {
				return err
			}
			t.floor, err = floor("lan0", t.arrivals, 200)
			return err
		})
	}
	if err == nil {
		err = startProvider(ctx, lab, t.isp)
	}
	if err != nil {
		lab.Close()
		return nil, err
	}
	return t, nil
}

// start runs a client from its start until it has written the address.
func (t *track) start(ctx context.Context, c client, r *result, look bool) error {
	if err := c.forget(); err != nil {
		return err
	}
	t.router.IP("-6 address flush dev lan0 scope global")
	t.wire.drain()
	forgetArrivals(t.arrivals)
	cmd := t.router.Command(ctx, c.command[0], c.command[1:]...)
	began := time.Now()
	p := t.router.Start(cmd)
	got, err := t.finish(ctx, p)
	if err != nil {
		return fmt.Errorf("%w; it said:\n%s", err, p.Output())
	}
	if err := r.timed(t.wire.drain(), began, got); err != nil {
		return err
	}
	if look {
		time.Sleep(idle)
		m, err := memoryOf(t.router)
		if err != nil {
			return err
		}
		r.rss.add(m.rss)
		r.pss.add(m.pss)
		r.processes.add(m.processes)
	}
	if len(c.status) > 0 {
		if err := r.account(t.router.Run(c.status[0], c.status[1:]...)); err != nil {
			return err
		}
	}
	_ = p.Stop() // some end with another status than 0
	r.cpu.addTime(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime())
	if err := deserted(ctx, t.router); err != nil {
		return fmt.Errorf("%w; it said:\n%s", err, p.Output())
	}
	if len(c.clean) > 0 {
		t.router.Run(c.clean[0], c.clean[1:]...)
	}
	return t.lab.Err()
}

// finish waits for the address from the pool.
func (t *track) finish(ctx context.Context, p *netlab.Process) (time.Time, error) {
	limit := time.After(patience)
	for {
		select {
		case a := <-t.arrivals:
			if netip.MustParsePrefix(pool).Contains(a.addr) {
				return a.at, nil
			}
		case <-p.Done():
			return time.Time{}, fmt.Errorf("it ended before it wrote an address: %v", p.Err())
		case <-limit:
			return time.Time{}, fmt.Errorf("no address from %s on lan0 within %s", pool, patience)
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}

// timed files the times of one start. The kernel's times of packets are on the wall clock.
func (r *result) timed(messages []seen, began, got time.Time) error {
	asked, ok := first(messages, solicit)
	answered, ok2 := first(messages, reply)
	if !ok || !ok2 {
		return fmt.Errorf("no Solicit or no Reply was seen on wan0: %v", messages)
	}
	r.toSolicit.addTime(asked.Sub(began.Round(0)))
	r.toAddress.addTime(got.Sub(began))
	r.replyToAddress.addTime(got.Round(0).Sub(answered))
	return nil
}

// account files what uplinkd says about the last reconcile that changed something.
func (r *result) account(status string) error {
	var s struct {
		Counters struct {
			LastChange struct {
				Seconds      float64 `json:"seconds"`
				ReadSeconds  float64 `json:"read_seconds"`
				ApplySeconds float64 `json:"apply_seconds"`
			} `json:"last_change"`
		} `json:"counters"`
	}
	if err := json.Unmarshal([]byte(status), &s); err != nil {
		return fmt.Errorf("status --json: %w", err)
	}
	last := s.Counters.LastChange
	r.step.add(last.Seconds * 1000)
	r.read.add(last.ReadSeconds * 1000)
	r.apply.add(last.ApplySeconds * 1000)
	return nil
}

func (t *track) report(w io.Writer, o options, field []client, results []result) error {
	title(w, "From the Reply on the wire to the address in the kernel (ms, n = %d; kernel time stamp to rtnetlink notification)", o.rounds)
	ours := results[0]
	netlink := make(sample, len(ours.read))
	for i := range netlink {
		netlink[i] = ours.read[i] + ours.apply[i]
	}
	table(w, []string{"part", "median [min..max]"},
		[]string{"floor: a bare RTM_NEWADDR, to its notification (n = 200)", t.floor.text(3)},
		[]string{"uplinkd, Reply to address (aim <= 0.4)", ours.replyToAddress.text(2)},
		[]string{"of its reconcile: in netlink, reading and all writing", netlink.text(2)},
		[]string{"                  reading what is there", ours.read.text(2)},
		[]string{"                  writing all rows", ours.apply.text(2)},
		[]string{"                  all of it", ours.step.text(2)})

	title(w, "Side by side against Kea, four messages, in turns (n = %d, medians [min..max]; memory after %s idle, n = %d)", o.rounds, idle, len(ours.rss))
	quickest := results[0].replyToAddress.median()
	for i, r := range results {
		if len(field[i].status) == 0 && (len(field[i-1].status) > 0 || r.replyToAddress.median() < quickest) {
			quickest = r.replyToAddress.median()
		}
	}
	rows := [][]string{{"client", "start to Solicit ms", "start to address ms", "Reply to address ms", "to the quickest peer", "RSS kB", "PSS kB", "processes", "CPU ms"}}
	for i, r := range results {
		rows = append(rows, []string{field[i].name, r.toSolicit.text(0), r.toAddress.text(0), r.replyToAddress.text(2),
			fmt.Sprintf("%.2f", r.replyToAddress.median()/quickest), r.rss.average(0), r.pss.average(0), r.processes.average(0), r.cpu.average(1)})
	}
	table(w, rows...)

	info, err := os.Stat(o.uplinkd)
	if err != nil {
		return err
	}
	title(w, "Size")
	table(w, []string{"", "is", "aim"},
		[]string{"binary", fmt.Sprintf("%.1f MiB (%d bytes)", float64(info.Size())/(1<<20), info.Size()), "<= 9 MB"},
		[]string{"idle RSS", fmt.Sprintf("%.1f MiB", ours.rss.median()/1024), "<= 16 MB"},
		[]string{"idle PSS", fmt.Sprintf("%.1f MiB", ours.pss.median()/1024), ""})
	shaky(w, field, results)
	return nil
}

// shaky tells when the machine was too busy for the figures to mean much.
func shaky(w io.Writer, field []client, results []result) {
	var names []string
	for i, r := range results {
		if r.replyToAddress.quantile(0.75) > 2*r.replyToAddress.median() {
			names = append(names, field[i].name)
		}
	}
	if len(names) > 0 {
		fmt.Fprintf(w, "\nA quarter of the times from Reply to address of %s is more than twice the median: was the machine busy?\n", strings.Join(names, ", "))
	}
}
