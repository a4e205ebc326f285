package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"uplinkd/internal/ctl"
	"uplinkd/pd/trace"
)

var traceVerb = verb{
	name: "trace", args: "[UPLINK]", summary: "the DHCPv6 messages of an uplink",
	about: "Prints the latest messages that were sent and received on UPLINK (which may be left out if there is only one), a line each: " +
		"the time, the other end, and what the message says. The daemon keeps up to 256 of them. What it received and could not use is among " +
		"them too, with the fault.\n\n" +
		"-w writes them as they were on the wire, for tcpdump and Wireshark, instead of printing them; IPv6 and UDP headers are made up from " +
		"the addresses. The octets, which --json has too, may hold the key with which the server signs Reconfigure messages, so a new file is " +
		"readable for its owner only; the lines for people never show it. Needs root.",
	failed:   "the daemon cannot be asked, refused, or went away",
	examples: []string{"uplinkd trace", "uplinkd trace fiber -f", "uplinkd trace fiber -w fiber.pcapng", "ssh router sudo uplinkd trace -f -w - | wireshark -k -i -"},
	run:      cmdTrace,
}

func cmdTrace(env *environment, args []string) int {
	fs := env.flags("trace")
	env.askFlags(fs)
	env.jsonFlag(fs)
	out, _ := env.stdout.(*os.File)
	live := fs.Bool("f", false, "go on with new messages until Ctrl-C")
	file := fs.String("w", "", "write pcapng to `FILE`, replacing it; - for standard output")
	rest, status, ok := env.parse(fs, args, 0, 1)
	switch {
	case !ok:
		return status
	case *file != "" && env.json:
		return env.usage("trace", "-w writes pcapng and --json prints JSON: choose one")
	case *file == "-" && out != nil && isTerminal(out):
		return env.usage("trace", "standard output is a terminal, which pcapng would put into disorder; write to a file")
	}
	uplink := strings.Join(rest, "")
	sink, err := env.sink(*file, uplink)
	if err != nil {
		return env.fail(err)
	}
	if *live {
		err = env.followTrace(uplink, sink)
	} else {
		err = env.showTrace(uplink, sink)
	}
	if err = errors.Join(err, sink.end()); err != nil {
		return env.fail(err)
	}
	return exitOK
}

// showTrace hands the messages of an uplink to sink.
func (env *environment) showTrace(uplink string, sink traceSink) error {
	records, err := env.client().Trace(env.ctx, uplink)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		fmt.Fprintln(env.stderr, "uplinkd: no messages yet")
	}
	if err := sink.begin(); err != nil {
		return err
	}
	for _, r := range records {
		if err := sink.put(r); err != nil {
			return err
		}
	}
	return nil
}

// followTrace hands the messages of an uplink to sink as they come, and tells where some are missing.
func (env *environment) followTrace(uplink string, sink traceSink) error {
	var seen gaps
	err := env.client().FollowTrace(env.ctx, uplink, func() error {
		fmt.Fprintln(env.stderr, "uplinkd: following messages; end with Ctrl-C")
		return sink.begin()
	}, func(r ctl.TraceRecord) error {
		if missing := seen.before(r.Seq); missing != "" {
			fmt.Fprintf(env.stderr, "uplinkd: %s: more came at once than could be read\n", missing)
		}
		return sink.put(r)
	})
	if errors.Is(err, ctl.ErrGone) {
		err = fmt.Errorf("%w; see: systemctl status uplinkd", err)
	}
	return err
}

// gaps is the number of the last message seen.
type gaps uint64

// before says what is missing between the last message and the one numbered seq, or "".
func (g *gaps) before(seq uint64) (missing string) {
	if last := uint64(*g); last != 0 && seq > last+1 {
		missing = count(int(seq-last-1), "message") + " missing here"
	}
	*g = gaps(seq)
	return missing
}

// interfaceOf is the interface of an uplink, or of the only one; what does not exist is the daemon's to tell.
func (env *environment) interfaceOf(uplink string) (string, error) {
	s, err := env.client().Status(env.ctx)
	if err != nil {
		return "", err
	}
	for _, u := range s.Uplinks {
		if u.Name == uplink || uplink == "" {
			return u.Interface, nil
		}
	}
	return uplink, nil
}

// traceSink takes the messages of a trace.
type traceSink interface {
	begin() error // the daemon has answered
	put(ctl.TraceRecord) error
	end() error // also without begin
}

func (env *environment) sink(file, uplink string) (traceSink, error) {
	switch {
	case file != "":
		link, err := env.interfaceOf(uplink)
		return &capture{env: env, name: file, link: link}, err
	case env.json:
		return jsonLines{env}, nil
	}
	return textLines{env.page()}, nil
}

// textLines prints messages for people.
type textLines struct{ page page }

func (t textLines) begin() error { return nil }
func (t textLines) end() error   { return nil }

func (t textLines) put(r ctl.TraceRecord) error {
	t.page.put(plain, r.Time.Local().Format("2006-01-02 15:04:05.000")+"  "+r.Text)
	_, err := io.WriteString(t.page.w, "\n")
	return err
}

// jsonLines prints messages for programs.
type jsonLines struct{ env *environment }

func (j jsonLines) begin() error { return nil }
func (j jsonLines) end() error   { return nil }

func (j jsonLines) put(r ctl.TraceRecord) error {
	b, err := json.Marshal(r)
	if err == nil {
		_, err = fmt.Fprintf(j.env.stdout, "%s\n", safeJSON(b))
	}
	return err
}

// capture writes messages to a pcapng file, which is made, or emptied, only when the daemon has answered.
type capture struct {
	env     *environment
	name    string // "-" for standard output
	link    string // interface
	file    *os.File
	packets *trace.Writer
	written int
}

func (c *capture) begin() (err error) {
	w := c.env.stdout
	if c.name != "-" {
		// 0600: octets from the wire may hold a Reconfigure key.
		if c.file, err = os.OpenFile(c.name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
			return fmt.Errorf("write the messages: %w", err)
		}
		w = c.file
	}
	c.packets, err = trace.NewWriter(w, c.link)
	return err
}

func (c *capture) put(r ctl.TraceRecord) error {
	err := c.packets.Write(r.Packet())
	if err == nil {
		c.written++
	}
	return err
}

func (c *capture) end() error {
	if c.packets != nil {
		to := c.name
		if to == "-" {
			to = "standard output"
		}
		fmt.Fprintf(c.env.stderr, "uplinkd: %s written to %s\n", count(c.written, "message"), printable(to))
	}
	if c.file == nil {
		return nil
	}
	return c.file.Close()
}
