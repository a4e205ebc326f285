package main

import "errors"

var demoVerb = verb{
	name:    "demo",
	summary: "show the daemon at work in throw-away network namespaces",
	about: `Starts a simulated provider, a router with uplinkd, a LAN host and a server, each in
a network namespace of its own, and shows a prefix arriving, being used, surviving a
kill of the daemon, and being replaced by the provider. Needs no root where user
namespaces are allowed, takes less than half a minute and leaves nothing behind.`,
	failed:   "a step did not work, or namespaces cannot be made here",
	examples: []string{"uplinkd demo"},
}

func init() { demoVerb.run = cmdDemo }

func cmdDemo(env *environment, args []string) int {
	fs := bareFlags("demo")
	if _, status, ok := env.parse(fs, args, 0, 0); !ok {
		return status
	}
	switch err := runDemo(env.ctx, env.stdout, env.color); {
	case err == nil:
		return exitOK
	case errors.Is(err, errShown):
		return exitFailed
	default:
		return env.fail(err)
	}
}
