#!/usr/bin/env bash
# inside.sh - the part of test.sh that runs in the container, where systemd is process 1. It changes addresses, routes,
# files and services without asking: it refuses to run anywhere else.
#
#     provider ── wan0 [container, uplinkd.service] lan0 ── host        the provider (Kea, radvd) and the host are namespaces
#
# Prints a line for each thing seen, or what was seen instead, and exits 1 if anything was not as it should be.
set -uo pipefail
systemd-detect-virt -cq || { echo "not in a container" >&2; exit 2; }
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
config=/etc/uplinkd/uplinkd.toml
drop=/run/systemd/system/uplinkd.service.d
server=2001:db8:ffff::1
failures=0

pass() { printf '  ok    %s\n' "$1"; }
fail() { printf '  FAIL  %s\n' "$1"; failures=$((failures + 1)); sed 's/^/        | /'; }
# expect WHAT COMMAND...: the command succeeds. Its output is shown when it does not.
expect() { local what=$1 out; shift; if out=$("$@" 2>&1); then pass "$what"; else fail "$what" <<<"$out"; fi; }
# refuse WHAT COMMAND...: the command fails.
refuse() { local what=$1 out; shift; if out=$("$@" 2>&1); then fail "$what" <<<"$out"; else pass "$what"; fi; }
# await WHAT SECONDS COMMAND...: the command succeeds within that time.
await() {
  local what=$1 end=$((SECONDS + $2)) out
  shift 2
  until out=$("$@" 2>&1); do
    [ $SECONDS -lt $end ] || { fail "$what" < <(echo "$out"; journalctl -u uplinkd -o cat -n 15); return; }
    sleep 0.1
  done
  pass "$what"
}
property() { systemctl show -p "$1" --value uplinkd; }
is() { [ "$(property "$1")" = "$2" ] || { echo "$1=$(property "$1"), wanted $2"; return 1; }; }
unit() { mkdir -p $drop; printf '[Service]\n%s\n' "$@" >$drop/zz-test.conf; systemctl daemon-reload; }

# --- the network, and a provider that delegates 2001:db8:100::/40 in pieces of /56 ---------------------------------
network() {
  ip netns add provider && ip netns add host || return
  ip link add wan0 address 02:00:00:00:00:01 type veth peer name p0 netns provider
  ip link add lan0 type veth peer name h0 netns host
  ip link add lan1 type veth peer name h1 netns host
  ip -n provider link set lo up
  ip -n provider addr add $server/128 dev lo
  ip -n provider addr add fe80::1/64 dev p0 nodad
  ip -n provider addr add 2001:db8:ff::1/64 dev p0 nodad
  ip -n provider link set p0 up
  ip -n provider -6 route add 2001:db8:100::/40 via fe80::ff:fe00:1 dev p0
  ip netns exec provider sysctl -qw net.ipv6.conf.all.forwarding=1
  ip -n host link set h0 up
  for i in wan0 lan0 lan1; do ip link set $i up; done
}
provider() {
  mkdir -p /var/lib/kea /run/kea
  cat >/tmp/kea.json <<'K'
{"Dhcp6": {
  "interfaces-config": {"interfaces": ["p0"]},
  "lease-database": {"type": "memfile", "persist": false},
  "preferred-lifetime": 300, "valid-lifetime": 600, "renew-timer": 100, "rebind-timer": 200,
  "subnet6": [{"id": 1, "subnet": "2001:db8:ff::/64", "interface": "p0",
    "pd-pools": [{"prefix": "2001:db8:100::", "prefix-len": 40, "delegated-len": 56}]}]
}}
K
  cat >/tmp/radvd.conf <<'R'
interface p0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; AdvDefaultLifetime 1800; AdvManagedFlag off; };
R
  KEA_PIDFILE_DIR=/run/kea KEA_LOCKFILE_DIR=none ip netns exec provider kea-dhcp6 -c /tmp/kea.json >/tmp/kea.log 2>&1 &
  ip netns exec provider radvd -n -m stderr -C /tmp/radvd.conf -p /run/radvd-test.pid >/tmp/radvd.log 2>&1 &
}

# --- what is looked at -----------------------------------------------------------------------------------------------
address() { ip -6 -o addr show dev "$1" scope global | awk '{ print $4 }' | grep ^2001:db8:; }
no_address() { ! address "$1"; }
address_is() { local now; now=$(address lan0); [ "$now" = "$1" ] || { echo "lan0 has ${now:-none}, wanted $1"; return 1; }; }
host_address() { ip -n host -6 -o addr show dev h0 scope global -tentative | grep -o '2001:db8:[^/ ]*'; }
host_reaches() { ip netns exec host ping -n -c 3 -i 0.2 -W 2 $server; }
# Only what uplinkd programs, without the lifetimes, which count down.
programmed() { ip -6 -o addr show scope global | grep -o '^.*2001:db8:[^ ]*' || true; ip -6 rule; ip -6 route show table all proto 200 |
  sed 's/ expires [0-9]*sec//'; }
rules_and_forwarding() { ip -6 rule | grep -q "proto 200" || { ip -6 rule; return 1; }
  grep -x 1 /proc/sys/net/ipv6/conf/all/forwarding; }
# What the kernel reports as deleted while something else happens, of addresses, rules and the routes with protocol 200.
watch_deletions() { ip -6 monitor address rule route >/tmp/monitor & monitor=$!; sleep 0.2; }
no_deletions() { sleep 0.3; kill $monitor; wait $monitor 2>/dev/null
  ! grep '^Deleted' /tmp/monitor | grep -E '2001:db8|pref |lookup|proto 200' | grep -v 'proto kernel'; }
running_as() { awk '/^Uid:/ { uid = $2 } /^CapEff:/ { caps = $2 } /^NoNewPrivs:/ { nnp = $2 } END {
  print "uid", uid, "capabilities", caps, "NoNewPrivs", nnp; exit !(uid != 0 && caps ~ /^0*3400$/ && nnp == 1) }' \
  "/proc/$(property MainPID)/status"; }
has_status() { property StatusText | grep .; }
restarts_over() { local n; n=$(property NRestarts); [ "$n" -gt "$1" ] && is ActiveState active; }
serves_dhcpv6() { ss -Hulnp 'sport = 547' | grep '%lan0.*uplinkd' || { ss -ulnp; return 1; }; }
marks_packets() { nft list table ip6 uplinkd | grep 'iifname "wan0" tcp dport 80 meta mark set'; }
# journal_has PATTERN: the daemon that runs now has logged it.
journal_has() { local id; id=$(property InvocationID)
  journalctl _SYSTEMD_INVOCATION_ID="$id" -o cat | grep -iE "$1" || { journalctl -u uplinkd -o cat -n 5; return 1; }; }

# --- the tests ---------------------------------------------------------------------------------------------------------
cp -a files/. /
cat >$config <<'C'
[uplink.fiber]
interface = "wan0"
dhcpv6.delay = false

[downstream.lan]
interface = "lan0"

[downstream.web]
interface = "wan0"
kind = "service"
anyip = { mode = "mark", ports = ["tcp/80"] }

[hook.note]
run = "/etc/uplinkd/hooks/note"
on = ["prefix.new", "prefix.restored"]
C
mkdir -p /etc/uplinkd/hooks
cat >/etc/uplinkd/hooks/note <<'H'
#!/bin/sh
logger -t hook-note "$UPLINKD_EVENT $UPLINKD_PREFIX notify=${NOTIFY_SOCKET:-none} ping=$(ping -c 1 -W 1 ::1 >/dev/null && echo ok)"
H
chmod 755 /etc/uplinkd/hooks/note
cp $config /tmp/good.toml
network || { echo "cannot make the network"; exit 1; }
provider
systemctl daemon-reload

version=$(systemctl --version | awk 'NR == 1 { print $2 }')
if [ "$version" -ge 253 ]; then
  type=notify-reload
  expect "systemd-analyze finds nothing wrong with the unit" \
    bash -c 'out=$(systemd-analyze verify --man=no /usr/lib/systemd/system/uplinkd.service 2>&1); echo "$out"; [ -z "$out" ]'
else type=notify; fi
expect "the service type is $type" is Type $type

# A kernel that refuses everything delays READY for ten seconds; a start that may take only five fails before that.
unit TimeoutStartSec=5 Restart=no CapabilityBoundingSet= AmbientCapabilities=
refuse "no READY before a successful reconcile: a start without CAP_NET_ADMIN times out" systemctl start uplinkd
systemctl stop uplinkd
systemctl reset-failed uplinkd
unit WatchdogSec=2

expect "start: READY=1 arrives" timeout 20 systemctl start uplinkd
expect "READY means reconciled: rules and forwarding are there" rules_and_forwarding
expect "not root, three capabilities" running_as
await "a prefix arrives, lan0 has an address" 20 address lan0
await "the host numbers itself" 20 host_address
await "the host reaches a server behind the provider" 10 host_reaches
expect "it has the port of DHCPv6 servers on lan0" serves_dhcpv6
expect "it has written an nft table" marks_packets
await "the status text says something" 5 has_status
await "the hook ran in the sandbox, and can ping" 5 bash -c \
  "journalctl -o cat -t hook-note | grep -E 'prefix.new 2001:db8:1.*/56 notify=none ping=ok'"
expect "uplinkd status finds the daemon" uplinkd status
refuse "nothing was denied that the daemon needs" journal_has 'operation not permitted|permission denied|read-only file system'
first=$(address lan0)

sleep 5 # more than twice the watchdog's limit
expect "the engine feeds the watchdog" is NRestarts 0

pid=$(property MainPID)
before=$(programmed)
watch_deletions
expect "reload with nothing changed" timeout 10 systemctl reload uplinkd
await "still running after it" 5 is ActiveState active
expect "the same process" is MainPID "$pid"
expect "nothing was deleted" no_deletions
expect "and the kernel's state is the same" diff <(echo "$before") <(programmed)

watch_deletions
printf '\n[downstream.second]\ninterface = "lan1"\n' >>$config
expect "reload with a second downstream" timeout 10 systemctl reload uplinkd
await "lan1 has an address" 5 address lan1
expect "nothing of lan0 was touched" no_deletions
echo 'nonsense = [' >>$config
timeout 10 systemctl reload uplinkd 2>/dev/null # whether it fails depends on the service type
await "reload with a broken file is reported" 5 journal_has 'uplinkd.toml:[0-9]+'
expect "and changes nothing" address lan1
expect "the same process still" is MainPID "$pid"
cp /tmp/good.toml $config
watch_deletions
expect "reload with the first file again" timeout 10 systemctl reload uplinkd
await "removes what belonged to the second downstream" 5 no_address lan1
refuse "which this test sees as deletions" no_deletions

before=$(programmed)
watch_deletions
expect "stop" timeout 20 systemctl stop uplinkd
expect "a clean stop" is Result success
expect "the kernel's state stays" diff <(echo "$before") <(programmed)
await "the host still reaches the server" 5 host_reaches
expect "start again" timeout 20 systemctl start uplinkd
await "the same address" 10 address_is "$first"
expect "nothing was deleted by stop and start" no_deletions

watch_deletions
restarts=$(property NRestarts)
kill -KILL "$(property MainPID)"
await "SIGKILL: restarted by systemd" 10 restarts_over "$restarts"
expect "nothing was deleted by it" no_deletions
expect "the same address" address_is "$first"
await "the host reaches the server" 5 host_reaches

restarts=$(property NRestarts)
kill -STOP "$(property MainPID)"
await "a daemon that hangs is restarted by the watchdog" 15 restarts_over "$restarts"
await "the host reaches the server" 10 host_reaches

systemctl stop uplinkd
cp hooks-as-root.conf $drop/
systemctl daemon-reload
expect "with the drop-in hooks-as-root.conf it starts, too" timeout 20 systemctl start uplinkd
expect "as root" grep -q '^Uid:.0' "/proc/$(property MainPID)/status"
await "and has its state: the same address" 10 address_is "$first"

systemctl stop uplinkd
rm $drop/hooks-as-root.conf
systemctl daemon-reload
expect "and back as its own user" timeout 20 systemctl start uplinkd
await "with the same address" 10 address_is "$first"

systemctl stop uplinkd
expect "clean, by root" uplinkd clean
refuse "leaves nothing of uplinkd" bash -c 'ip -6 route show table all proto 200 | grep .; ip -6 rule | grep "proto 200"; nft list tables | grep uplinkd'
expect "what root has written to the state does not stop the next start" timeout 20 systemctl start uplinkd
await "which gets the same address" 10 address_is "$first"

if [ $failures -gt 0 ]; then
  echo "--- journal of uplinkd"; journalctl -u uplinkd -o short-precise -n 60 --no-pager
  echo "--- kea"; tail -n 5 /tmp/kea.log; echo "--- radvd"; tail -n 5 /tmp/radvd.log
fi
echo "systemd $version: $failures failed"
exit $((failures > 0))
