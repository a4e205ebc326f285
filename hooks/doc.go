// Package hooks runs the user's programs for events of the site and puts events into words for them.
//
// The contract of the native dialect, "uplinkd":
//
//   - One call per event and hook. The arguments are those of the configuration, then the name of the event. No shell.
//   - The environment holds PATH, HOME and LANG with fixed values and the variables UPLINKD_*, all of them always set and
//     empty where they do not apply; nothing of the daemon's own environment. See Native for the list.
//     UPLINKD_TEST is "1" when the event is invented ("uplinkd hooks test"): a program should then only say what it would do.
//   - Standard input is one JSON object: "version" (1), "seq", "time", the fields of policy.Event, and "site", the whole
//     plan after the event.
//   - Standard output and error go to the daemon's log, the last 8 kB of them. The working directory is "/".
//   - Exit status 0 is success. A call that fails is repeated after 1, 2, 4 and 8 seconds; then the event is given up.
//   - Calls of one hook never overlap and keep the order of events, so an event waits while an earlier one is repeated.
//     At most 64 events wait per hook; after that the oldest waiting one is dropped. Lifetimes are those at "time".
//   - A program still running after its timeout gets SIGTERM together with its process group, and SIGKILL when its first
//     process has ended or 2 seconds later. Children that it leaves behind after a normal end are left alone. When the
//     daemon stops, a running program has 5 seconds to finish before the same happens; waiting events are dropped.
//   - A program may call "uplinkd status" and every other verb: the daemon does not wait for hooks.
//
// The package does not decide what is an event, keeps nothing on disk, and does not know what a hook is for.
package hooks
