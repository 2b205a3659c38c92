#!/usr/bin/env bash
# Starts or stops dynalite, an in-memory server with the DynamoDB API, on 127.0.0.1.   usage: dynalite.sh DIR PORT install|start|stop
# Needs node with npm. Installs dynalite from npm into DIR when it is started for the first time.
set -euo pipefail
version=4.0.0
dir=$1 port=$2 command=$3
mkdir -p "$dir"
if [ "$command" = stop ]; then
  if [ -f "$dir/pid" ]; then kill "$(cat "$dir/pid")" 2>/dev/null || true; rm -f "$dir/pid"; fi
  exit 0
fi
if [ ! -d "$dir/node_modules/dynalite" ]; then
  npm install --silent --no-audit --no-fund --prefix "$dir" "dynalite@$version" >/dev/null
fi
if [ "$command" = install ]; then exit 0; fi
node "$dir/node_modules/dynalite/cli.js" --host 127.0.0.1 --port "$port" --createTableMs 20 >"$dir/log" 2>&1 &
echo $! >"$dir/pid"
for _ in $(seq 400); do
  # Any answer shows that the server is ready.
  if curl -s -o /dev/null "http://127.0.0.1:$port/"; then exit 0; fi
  kill -0 "$(cat "$dir/pid")" || break
  sleep 0.05
done
echo "dynalite did not answer; its log is $dir/log" >&2
exit 1
