#!/usr/bin/env bash
# Starts or stops s3s-fs, an S3 server whose objects are files, on 127.0.0.1.   usage: s3s.sh DIR PORT start|stop
# The time of an object is the time of its file, so that tests can make objects of any age. It does not support conditional requests.
# Needs cargo. Builds s3s-fs from crates.io into DIR when it is started for the first time (five minutes). Buckets are the folders
# below DIR/data.
set -euo pipefail
version=0.14.1
dir=$1 port=$2 command=$3
mkdir -p "$dir/data/biscuit-test"
if [ "$command" = stop ]; then
  if [ -f "$dir/pid" ]; then kill "$(cat "$dir/pid")" 2>/dev/null || true; rm -f "$dir/pid"; fi
  exit 0
fi
server=$dir/bin/s3s-fs
if [ ! -x "$server" ]; then
  cargo install "s3s-fs@$version" --features binary --locked --quiet --root "$dir" --target-dir "$dir/target"
  rm -rf "$dir/target"
fi
"$server" "$dir/data" --host 127.0.0.1 --port "$port" --access-key test --secret-key test >"$dir/log" 2>&1 &
echo $! >"$dir/pid"
for _ in $(seq 400); do
  if curl -s -o /dev/null "http://127.0.0.1:$port/"; then exit 0; fi
  kill -0 "$(cat "$dir/pid")" || break
  sleep 0.05
done
echo "s3s-fs did not answer; its log is $dir/log" >&2
exit 1
