package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"uplinkd/internal/netlab"
)

const pool = "2001:db8:1100::/40"

// keaConfig makes Kea a provider that always takes four messages: Solicit, Advertise, Request, Reply.
const keaConfig = `{ "Dhcp6": {
  "interfaces-config": { "interfaces": [ "up0" ], "service-sockets-max-retries": 20, "service-sockets-retry-wait-time": 250 },
  "lease-database": { "type": "memfile", "persist": false },
  "server-id": { "type": "EN", "enterprise-id": 32473, "identifier": "00000001", "persist": false },
  "preferred-lifetime": 3000, "valid-lifetime": 4000, "renew-timer": 1000, "rebind-timer": 2000,
  "option-data": [ { "name": "dns-servers", "data": "2001:db8:f::53" } ],
  "subnet6": [ { "id": 1, "subnet": "2001:db8:1:1::/64", "interface": "up0", "rapid-commit": false,
    "pd-pools": [ { "prefix": "2001:db8:1100::", "prefix-len": 40, "delegated-len": 56 } ] } ],
  "loggers": [ { "name": "kea-dhcp6", "severity": "WARN", "output_options": [ { "output": "stderr" } ] } ] } }
`

const radvdConfig = `interface up0 {
  AdvSendAdvert on; AdvManagedFlag on; AdvOtherConfigFlag on;
  MinRtrAdvInterval 3; MaxRtrAdvInterval 10; AdvDefaultLifetime 60;
};
`

// startProvider starts Kea and radvd on up0 and waits until Kea listens. (Its log says "started" before that.)
func startProvider(ctx context.Context, lab *netlab.Lab, isp *netlab.NS) error {
	dir := lab.Dir()
	kea, radvd := filepath.Join(dir, "kea.json"), filepath.Join(dir, "radvd.conf")
	for name, text := range map[string]string{kea: keaConfig, radvd: radvdConfig} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	server := isp.Command(ctx, "kea-dhcp6", "-c", kea)
	server.Env = append(os.Environ(), "KEA_PIDFILE_DIR="+dir, "KEA_LOCKFILE_DIR=none", "KEA_LOGGER_DESTINATION="+filepath.Join(dir, "kea-early.log"))
	process := isp.Start(server)
	isp.Start(isp.Command(ctx, "radvd", "-n", "-C", radvd, "-p", filepath.Join(dir, "radvd.pid"), "-m", "stderr"))
	for range 100 {
		if strings.Contains(isp.Run("ss", "-Huln", "sport = :547"), "ff02::1:2") {
			return lab.Err()
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("kea does not listen; it said:\n%s", process.Output())
}
