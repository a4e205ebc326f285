package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// client is a DHCPv6 client that gets a prefix on wan0 and puts the first address of its first /64 on lan0.
type client struct {
	name    string
	files   map[string]string // configuration, by name in the directory of the race
	command []string          // DIR stands for that directory
	state   []string          // what it remembers a lease in, removed before every start
	clean   []string          // takes away what it leaves in the kernel
	status  []string          // prints the daemon's own account of its work; uplinkd only
}

func clients(uplinkd string) []client {
	ours := func(name, uplink string) client {
		config := "--config=DIR/" + name + ".toml"
		return client{
			name:    name,
			files:   map[string]string{name + ".toml": "state_dir = \"DIR/" + name + "\"\nrun_dir = \"DIR/" + name + ".run\"\n" + strings.Replace(smallest, "\"wan0\"\n", "\"wan0\"\n"+uplink, 1)},
			command: []string{uplinkd, "run", config},
			state:   []string{"DIR/" + name},
			clean:   []string{uplinkd, "clean", config},
			status:  []string{uplinkd, "status", "--json", config},
		}
	}
	return []client{
		ours("uplinkd", ""),
		ours("uplinkd delay=false", "dhcpv6.delay = false\n"),
		{
			name: "dhclient",
			files: map[string]string{"dhclient.conf": "", "dhclient-script": `#!/bin/sh
[ "$new_ip6_prefix" ] && exec ip -6 address replace "${new_ip6_prefix%::/*}::1/64" dev lan0
exit 0
`},
			command: []string{"dhclient", "-6", "-P", "-d", "-cf", "DIR/dhclient.conf", "-lf", "DIR/dhclient.leases", "-pf", "DIR/dhclient.pid",
				"-sf", "DIR/dhclient-script", "wan0"},
			state: []string{"DIR/dhclient.leases", "DIR/dhclient.pid"},
		}, {
			name: "dhcpcd",
			files: map[string]string{"dhcpcd.conf": `duid
ipv6only
noipv6rs
script /bin/true
interface wan0
  ia_pd 1 lan0/0/64
`},
			command: []string{"dhcpcd", "-B", "-f", "DIR/dhcpcd.conf", "wan0"},
			state:   []string{"/var/lib/dhcpcd/*", "/run/dhcpcd/*"},
		}, {
			name: "wide-dhcpv6",
			files: map[string]string{"dhcp6c.conf": `interface wan0 { send ia-pd 0; };
id-assoc pd 0 { prefix-interface lan0 { sla-id 0; sla-len 8; ifid 1; }; };
`},
			command: []string{"dhcp6c", "-f", "-c", "DIR/dhcp6c.conf", "-p", "DIR/dhcp6c.pid", "wan0"},
			state:   []string{"DIR/dhcp6c.pid"},
		},
	}
}

// prepare writes the client's files into dir and puts dir into its command lines.
func (c *client) prepare(dir string) error {
	fill := func(words []string) []string {
		filled := make([]string, len(words))
		for i, w := range words {
			filled[i] = strings.ReplaceAll(w, "DIR", dir)
		}
		return filled
	}
	c.command, c.state, c.clean, c.status = fill(c.command), fill(c.state), fill(c.clean), fill(c.status)
	for name, text := range c.files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", dir)), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// forget makes the next start one without a lease from before.
func (c *client) forget() error {
	for _, pattern := range c.state {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("state of %s: %w", c.name, err)
		}
		for _, name := range names {
			if err := os.RemoveAll(name); err != nil {
				return fmt.Errorf("state of %s: %w", c.name, err)
			}
		}
	}
	return nil
}
