#!/usr/bin/env bash
# Starts or stops moto, an in-memory server with the APIs of AWS, on 127.0.0.1.   usage: moto.sh DIR PORT install|start|stop
# Needs python3 with venv. Installs moto[server] from PyPI into DIR/venv when it is started for the first time. The version is fixed,
# because other versions give other answers.
set -euo pipefail
version=5.2.5
dir=$1 port=$2 command=$3
mkdir -p "$dir"
if [ "$command" = stop ]; then
  if [ -f "$dir/pid" ]; then kill "$(cat "$dir/pid")" 2>/dev/null || true; rm -f "$dir/pid"; fi
  exit 0
fi
server=$dir/venv/bin/moto_server
if [ ! -x "$server" ]; then
  python3 -m venv "$dir/venv"
  "$dir/venv/bin/pip" install -q "moto[server]==$version"
fi
if [ "$command" = install ]; then exit 0; fi
"$server" -H 127.0.0.1 -p "$port" >"$dir/log" 2>&1 &
echo $! >"$dir/pid"
for _ in $(seq 400); do
  if curl -s -o /dev/null "http://127.0.0.1:$port/moto-api/data.json"; then exit 0; fi
  kill -0 "$(cat "$dir/pid")" || break
  sleep 0.05
done
echo "moto did not answer; its log is $dir/log" >&2
exit 1
