package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"uplinkd/internal/ctl"
)

var watchVerb = verb{
	name: "watch", summary: "events as they happen",
	about: "Prints a line for every change of the site: the time, the event (prefix.new, prefix.changed, prefix.deprecated, prefix.lost, " +
		"prefix.restored, subnet.new, subnet.lost, uplink.up, uplink.informed, uplink.down), the uplink, the prefix and who has which subnet of it. Ends with Ctrl-C (status 0) " +
		"or when the daemon goes away (status 1).",
	failed:   "the daemon cannot be asked, or went away",
	examples: []string{"uplinkd watch", "uplinkd watch --json | jq -r 'select(.event == \"prefix.new\").prefix'"},
	run:      cmdWatch,
}

func cmdWatch(env *environment, args []string) int {
	fs := env.flags("watch")
	env.askFlags(fs)
	env.jsonFlag(fs)
	if _, status, ok := env.parse(fs, args, 0, 0); !ok {
		return status
	}
	p := env.page()
	err := env.client().Events(env.ctx, func() { fmt.Fprintln(env.stderr, "uplinkd: following events; end with Ctrl-C") },
		func(e ctl.EventRecord) error {
			if env.json {
				b, err := json.Marshal(e)
				if err == nil {
					_, err = fmt.Fprintf(env.stdout, "%s\n", safeJSON(b))
				}
				return err
			}
			p.put(plain, e.Time.Local().Format("2006-01-02 15:04:05")+"  "+e.Text())
			_, err := fmt.Fprintln(env.stdout)
			return err
		})
	switch {
	case errors.Is(err, ctl.ErrGone):
		return env.fail(fmt.Errorf("%w; see: systemctl status uplinkd", err))
	case err != nil:
		return env.fail(err)
	}
	return exitOK
}
