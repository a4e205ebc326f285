package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uplinkd/internal/netlab"
)

// offer is what a provider delegates and leases.
type offer struct {
	pool                     string // a /40; none if empty
	preferred, valid, t1, t2 int    // seconds
	addresses                bool   // lease those from leasedFirst to leasedLast
}

// brief is a whole life of a lease in a quarter of a minute.
var brief = offer{pool: pool, preferred: 9, valid: 15, t1: 3, t2: 6}

// The addresses that a provider leases to routers.
const (
	leased      = "2001:db8:1:1::5:0/112"
	leasedFirst = "2001:db8:1:1::5:1"
	leasedLast  = "2001:db8:1:1::5:ff"
)

// server is somebody else's DHCPv6 server. It keeps no leases over a restart.
type server struct {
	name, program, debianPackage string
	start                        func(s *site, o offer) *netlab.Process
}

var servers = []server{
	{"Kea", "kea-dhcp6", "kea-dhcp6-server", startKea},
	{"ISCdhcpd", "dhcpd", "isc-dhcp-server", startDhcpd},
}

// forServers runs a test against each server; radvd sends the router advertisements.
func forServers(t *testing.T, test func(t *testing.T, v server)) {
	for _, v := range servers {
		t.Run(v.name, func(t *testing.T) {
			netlab.NeedProgram(t, v.program, v.debianPackage)
			netlab.NeedProgram(t, "radvd", "radvd")
			netlab.NeedProgram(t, "ss", "iproute2")
			t.Parallel()
			test(t, v)
		})
	}
}

// route leads a whole pool to the router: no DHCPv6 server here installs routes for what it delegates.
func (s *site) route(pool string) {
	s.t.Helper()
	s.isp.IP("-6 route replace %s via %s dev up0", pool, routerLL)
}

func (s *site) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return path
}

const keaConfig = `{ "Dhcp6": {
  "interfaces-config": { "interfaces": [ "up0" ], "service-sockets-max-retries": 20, "service-sockets-retry-wait-time": 250 },
  "lease-database": { "type": "memfile", "persist": false },
  "server-id": { "type": "EN", "enterprise-id": 32473, "identifier": "00000001", "persist": false },
  "preferred-lifetime": %d, "valid-lifetime": %d, "renew-timer": %d, "rebind-timer": %d,
  "option-data": [ { "name": "dns-servers", "data": "2001:db8:ffff::53" } ],
  "subnet6": [ { "id": 1, "subnet": "2001:db8:1:1::/64", "interface": "up0", "pools": [ %s ], "pd-pools": [ %s ] } ],
  "loggers": [ { "name": "kea-dhcp6", "severity": "INFO", "output_options": [ { "output": "stdout", "flush": true } ] } ]
} }
`

func startKea(s *site, o offer) *netlab.Process {
	s.t.Helper()
	var addresses, prefixes string
	if o.addresses {
		addresses = fmt.Sprintf(`{ "pool": "%s-%s" }`, leasedFirst, leasedLast)
	}
	if o.pool != "" {
		prefixes = fmt.Sprintf(`{ "prefix": "%s", "prefix-len": 40, "delegated-len": 56 }`, strings.TrimSuffix(o.pool, "/40"))
	}
	path := s.write("kea.json", fmt.Sprintf(keaConfig, o.preferred, o.valid, o.t1, o.t2, addresses, prefixes))
	cmd := s.isp.Command(s.t.Context(), "kea-dhcp6", "-c", path)
	cmd.Env = append(os.Environ(), "KEA_PIDFILE_DIR="+s.dir, "KEA_LOCKFILE_DIR=none", "KEA_LOGGER_DESTINATION="+filepath.Join(s.dir, "kea-early.log"))
	p := s.isp.Start(cmd)
	// "DHCP6_STARTED" in Kea's log comes before it can hear: it retries to bind until the address is not tentative.
	s.listening(p, "[ff02::1:2]")
	return p
}

const dhcpdConfig = `authoritative;
default-lease-time %d; preferred-lifetime %d;
option dhcp-renewal-time %d; option dhcp-rebinding-time %d;
option dhcp6.name-servers 2001:db8:ffff::53;
server-duid en 32473 "isp1";
subnet6 2001:db8:1:1::/64 { %s }
`

func startDhcpd(s *site, o offer) *netlab.Process {
	s.t.Helper()
	var ranges string
	if o.addresses {
		ranges = fmt.Sprintf("range6 %s %s;", leasedFirst, leasedLast)
	}
	if base := strings.TrimSuffix(o.pool, "/40"); base != "" {
		ranges += fmt.Sprintf(" prefix6 %s %s /56;", base, strings.Replace(base, "00::", "ff:ff00::", 1))
	}
	path := s.write("dhcpd6.conf", fmt.Sprintf(dhcpdConfig, o.valid, o.preferred, o.t1, o.t2, ranges))
	leases := s.write("leases6", "") // it has to exist
	p := s.isp.Start(s.isp.Command(s.t.Context(), "dhcpd", "-6", "-f", "-d", "-cf", path, "-lf", leases, "-pf", filepath.Join(s.dir, "dhcpd.pid"), "up0"))
	s.listening(p, "*")
	return p
}

// listening waits until a server has its socket on port 547.
func (s *site) listening(p *netlab.Process, address string) {
	s.t.Helper()
	netlab.Eventually(s.t, limit, "the DHCPv6 server to listen", func() (bool, string) {
		if p.Err() != nil {
			s.t.Fatalf("the DHCPv6 server ended: %v", p.Err())
		}
		out := s.isp.Run("ss", "-Huln", "sport = :547")
		return strings.Contains(strings.ReplaceAll(out, "%up0", ""), address+":547"), out
	})
}

const radvdConfig = `interface up0 {
  AdvSendAdvert on; AdvManagedFlag on; AdvOtherConfigFlag on;
  MinRtrAdvInterval 3; MaxRtrAdvInterval 10; AdvDefaultLifetime 60;
  prefix 2001:db8:1:1::/64 { AdvOnLink on; AdvAutonomous off; };
};
`

// startRadvd makes the provider a default router.
func (s *site) startRadvd() *netlab.Process {
	s.t.Helper()
	path := s.write("radvd.conf", radvdConfig)
	return s.isp.Start(s.isp.Command(s.t.Context(), "radvd", "-n", "-C", path, "-p", filepath.Join(s.dir, "radvd.pid"), "-m", "stderr"))
}
