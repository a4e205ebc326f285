#!/usr/bin/env bash
# test.sh - the unit file under a real systemd: process 1 of a container, on this machine's kernel.
#
#   usage: contrib/systemd/test.sh [IMAGE ...]         as root; build/uplinkd must have been built
#
# An IMAGE is a directory with a Debian root file system that has systemd, iproute2, iputils-ping, procps,
# kea-dhcp6-server, radvd and nftables, or a directory with such a rootfs/ in it. It is not changed: the container works on a
# temporary overlay, in an empty network of its own. Without arguments two images are used, and made if need be
# (debootstrap, a minute each) in UPLINKD_IMAGES (/var/tmp/uplinkd-images): Debian 12 with systemd 252, for which
# "make install" adds a drop-in, and Debian 13 with systemd 257, for the unit as it stands.
#
# The files come from "make install", so that this is tested as well. inside.sh is what runs in the container.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
images=${UPLINKD_IMAGES:-/var/tmp/uplinkd-images}
packages=systemd,systemd-sysv,iproute2,iputils-ping,procps,kea-dhcp6-server,radvd,nftables

die() { echo "test.sh: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "must be root, for systemd-nspawn"
"$top/.ci/need" systemd
[ -x "$top/build/uplinkd" ] || die "build/uplinkd is missing: run make build"

# image SUITE: makes the image of a Debian release once; a half-made one does not count, nor one of an older test, without nft.
image() {
  local dir=$images/$1
  if [ ! -x "$dir/usr/sbin/nft" ]; then
    mkdir -p "$images"
    echo "making an image of Debian $1 in $dir (log: $dir.log)" >&2
    rm -rf --one-file-system "$dir.new" "$dir"
    debootstrap --variant=minbase --include=$packages "$1" "$dir.new" >"$dir.log" 2>&1 </dev/null ||
      { tail -n 20 "$dir.log" >&2; die "debootstrap $1 failed"; }
    mv "$dir.new" "$dir"
  fi
}
if [ $# = 0 ]; then
  image bookworm
  image trixie
  set -- "$images/bookworm" "$images/trixie"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # the unit's user has to reach the hook

# run ROOT: boots a container on ROOT, runs inside.sh in it, shows what it says, and returns its status.
run() {
  local root=$1 job=$work/job version
  [ -d "$root/rootfs" ] && root=$root/rootfs
  [ -x "$root/usr/lib/systemd/systemd" ] || die "$1 is no image: it has no systemd"
  version=$(chroot "$root" /usr/lib/systemd/systemd --version | awk 'NR == 1 { print $2 }')
  echo "systemd $version ($root)"
  rm -rf "$job"
  mkdir -p "$job"
  make -s -C "$top" install DESTDIR="$job/files" PREFIX=/usr SYSTEMD_VERSION="$version"
  cp "$here/inside.sh" "$here/hooks-as-root.conf" "$job"
  printf '#!/bin/bash\ncd /job; bash inside.sh >/job/log 2>&1 </dev/null; echo $? >/job/status\n' >"$job/start"
  chmod -R u=rwX,go=rX "$job"
  chmod 755 "$job/start"
  # Without systemd on this machine there is nobody to ask for a scope. script(1) is a terminal for nspawn, which hides
  # the console without one.
  local keep=--keep-unit
  [ ! -d /run/systemd/system ] || keep=
  SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout --foreground -k 5 150 script -qec "systemd-nspawn -q -M uplinkd-test-$$ -D '$root' \
    --volatile=overlay --boot --register=no $keep --private-network --bind='$job:/job' systemd.mask=kea-dhcp6-server.service \
    systemd.mask=radvd.service systemd.mask=systemd-networkd.service systemd.mask=lab-run.service systemd.run=/job/start \
    systemd.run_success_action=exit systemd.run_failure_action=exit" "$job/console" </dev/null >/dev/null 2>&1 || true
  if [ -e "$job/log" ]; then cat "$job/log"; else tail -n 40 "$job/console"; fi
  [ -e "$job/status" ] || { echo "the container did not finish"; return 1; }
  return "$(cat "$job/status")"
}
status=0
for root in "$@"; do run "$root" || status=1; done
exit $status
