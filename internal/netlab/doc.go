// Package netlab is a small network made of Linux network namespaces, as a value: tests and the demo build routers,
// providers and hosts from it without touching the machine they run on.
//
// A program first moves into its own network and mount namespaces (and, unless it is root, its own user namespace):
// TestMain does that for tests, Enter and Prepare for the demo. Inside, a Lab makes further anonymous namespaces (NS),
// connects them by veth pairs and runs programs and functions in them. Everything ends with the process: there are no
// named namespaces, no files outside a private tmpfs on /run, and no process is stopped that the lab did not start.
//
// It is not a container runtime: processes share the pid namespace and the root file system with the machine, /etc is
// merely read-only. It needs the programs ip (iproute2) and nsenter (util-linux).
package netlab
