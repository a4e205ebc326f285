package main

import (
	"context"
	"fmt"

	"uplinkd/internal/ctl"
	"uplinkd/pd"
)

var renewVerb = verb{
	name: "renew", args: "[UPLINK]", summary: "ask the provider now to extend the leases",
	about: "Has the DHCPv6 client of UPLINK (of all uplinks without one) ask its server now, instead of at the time that the lease says: " +
		"Renew with a lease, Solicit without. It returns at once; status and watch show what came of it. Needs root.",
	failed:   "the daemon cannot be asked or refused",
	examples: []string{"uplinkd renew", "uplinkd renew fiber && uplinkd watch"},
	run:      cmdRenew,
}

var releaseVerb = verb{
	name: "release", args: "UPLINK", summary: "give the leases of an uplink back to the provider",
	about: "Stops using the prefixes of UPLINK in the order that keeps hosts working as long as possible, then tells the server that they are free. " +
		"The provider may give another prefix next time; one is asked for by `uplinkd renew UPLINK`, or when uplinkd is restarted. Needs root.",
	failed:   "the daemon cannot be asked or refused",
	examples: []string{"uplinkd release fiber"},
	run:      cmdRelease,
}

func cmdRenew(env *environment, args []string) int {
	fs := env.flags("renew")
	env.askFlags(fs)
	rest, status, ok := env.parse(fs, args, 0, 1)
	if !ok {
		return status
	}
	uplink := ""
	if len(rest) == 1 {
		uplink = rest[0]
	}
	client := env.client()
	before, err := client.Status(env.ctx)
	if err == nil {
		err = client.Renew(env.ctx, uplink)
	}
	if err != nil {
		return env.fail(err)
	}
	for _, u := range before.Uplinks {
		if uplink == "" || u.Name == uplink {
			fmt.Fprintln(env.stdout, printable(renewText(u)))
		}
	}
	fmt.Fprintln(env.stdout, "what comes of it: uplinkd status")
	return exitOK
}

// renewText says what renew means for an uplink as it was before.
func renewText(u ctl.Uplink) string {
	switch {
	case u.Client.State == pd.StateNoLink:
		return u.Name + ": " + u.Interface + " has no link now, the provider is asked as soon as it has"
	case u.Client.Received == nil:
		return u.Name + ": has no lease, the provider is asked for one"
	}
	return u.Name + ": the provider is asked to extend the lease"
}

func cmdRelease(env *environment, args []string) int {
	fs := env.flags("release")
	env.askFlags(fs)
	rest, status, ok := env.parse(fs, args, 1, 1)
	if !ok {
		return status
	}
	return env.act(func(ctx context.Context) error { return env.client().Release(ctx, rest[0]) }, "released; see: uplinkd status")
}

func (env *environment) act(do func(context.Context) error, done string) int {
	if err := do(env.ctx); err != nil {
		return env.fail(err)
	}
	fmt.Fprintln(env.stdout, done)
	return exitOK
}
