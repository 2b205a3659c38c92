#!/usr/bin/env bash
# Starts or stops the object gateway of Ceph on one node: an S3 server that is durable and atomic, and carries out lifecycle rules.
# usage: rgw.sh DIR PORT start|stop
# Needs radosgw, ceph-mon and ceph-osd from the packages of Debian (apt-get install --no-install-recommends). Listens on 127.0.0.1,
# on PORT and PORT + 1. The access key is AKTEST, the secret SKTEST12345. The first start takes about 20 s. With LC_DEBUG=n, a day of
# lifecycle rules takes n seconds.
set -euo pipefail
dir=$1 port=$2 command=$3
export CEPH_CONF=$dir/ceph.conf
if [ "$command" = stop ]; then
  for daemon in rgw osd mon; do
    if [ -f "$dir/$daemon.pid" ]; then kill "$(cat "$dir/$daemon.pid")" 2>/dev/null || true; rm -f "$dir/$daemon.pid"; fi
  done
  exit 0
fi
new=0
if [ ! -f "$CEPH_CONF" ]; then
  new=1
  mkdir -p "$dir"/{mon,osd,rgw,log,run}
  fsid=$(cat /proc/sys/kernel/random/uuid)
  cat >"$CEPH_CONF" <<CONF
[global]
fsid = $fsid
mon_host = v1:127.0.0.1:$((port + 1))
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 1000
osd_crush_chooseleaf_type = 0
osd_objectstore = bluestore
bluestore_block_size = 8589934592
bluestore_block_db_create = false
osd_memory_target = 1073741824
bluestore_cache_autotune = false
bluestore_cache_size = 268435456
log_file = $dir/log/\$name.log
admin_socket = $dir/run/\$name.asok
run_dir = $dir/run
pid_file =
rgw_lc_debug_interval = ${LC_DEBUG:--1}
[mon.a]
mon_data = $dir/mon
mon_addr = 127.0.0.1:$((port + 1))
[osd.0]
osd_data = $dir/osd
[client.rgw.a]
rgw_data = $dir/rgw
rgw_frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw_thread_pool_size = 64
rgw_enable_usage_log = false
rgw_enable_ops_log = false
CONF
  monmaptool --create --clobber --fsid "$fsid" --addv a "[v1:127.0.0.1:$((port + 1))]" "$dir/monmap" >/dev/null
  ceph-mon -i a --mkfs --monmap "$dir/monmap"
fi
# Waits about two minutes until a command succeeds. Gives up if the monitor is dead.
await() {
  for _ in $(seq 300); do
    if "$@" >/dev/null 2>&1; then return; fi
    if ! kill -0 "$(cat "$dir/mon.pid")" 2>/dev/null; then break; fi
    sleep 0.3
  done
  echo "'$*' does not succeed; the logs are in $dir/log" >&2
  exit 1
}
# Starts a daemon unless it is running. A monitor that is still starting refuses requests ("wrong fsid", EPERM), so that daemons end
# and commands fail. The next attempt is late enough.
runs() {
  local daemon=$1
  shift
  if ! kill -0 "$(cat "$dir/$daemon.pid" 2>/dev/null)" 2>/dev/null; then
    "$@" >"$dir/log/$1.out" 2>&1 &
    echo $! >"$dir/$daemon.pid"
  fi
}
runs mon ceph-mon -i a -f
await timeout 5 ceph -s
if [ $new = 1 ]; then
  uuid=$(cat /proc/sys/kernel/random/uuid)
  await ceph osd new "$uuid"
  ceph-osd -i 0 --mkfs --osd-uuid "$uuid" >"$dir/log/mkfs.out" 2>&1
  await ceph osd set noscrub
  await ceph osd set nodeep-scrub
fi
osd() { runs osd ceph-osd -i 0 -f && ceph osd stat | grep -q '1 up'; }
await osd
gateway() { runs rgw radosgw -n client.rgw.a -f && curl -s -o /dev/null "http://127.0.0.1:$port/"; }
await gateway
if [ $new = 1 ]; then
  await radosgw-admin -n client.rgw.a user create --uid=test --display-name=test --access-key=AKTEST --secret-key=SKTEST12345
fi
