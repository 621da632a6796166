#!/bin/sh
# containerd 2.4.2. A registry that answers 429 with Retry-After: 30 is asked for the same manifest again at once, several times, within
# a second or so; Retry-After is not read (core/remotes/docker/resolver.go, retryRequest). A cache that passes each request on
# therefore multiplies what its upstream has just asked it to reduce.
# Seen: the requests for one `ctr content fetch`, and the seconds they took.
set -eu
if [ "$(id -u)" != 0 ]; then echo "containerd needs root"; exit 2; fi
folder=$(mktemp -d)
containerd_pid='' server_pid=''
cleanup() {
  for pid in $containerd_pid $server_pid; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap cleanup EXIT
export GOBIN="$folder/bin"
go install github.com/containerd/containerd/v2/cmd/containerd@v2.4.2 github.com/containerd/containerd/v2/cmd/ctr@v2.4.2

# A server that answers every request with 429 and writes down what it was asked.
cat >"$folder/server.py" <<'PY'
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        with open(sys.argv[1], 'a') as log:
            log.write(f'{self.command} {self.path}\n')
        self.send_response(429)
        self.send_header('Retry-After', '30')
        self.send_header('Content-Length', '0')
        self.end_headers()
    do_GET = do_HEAD = answer
    def log_message(self, *_): pass
server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
PY
: >"$folder/asked"
python3 "$folder/server.py" "$folder/asked" >"$folder/port" &
server_pid=$!
while [ ! -s "$folder/port" ]; do sleep 0.1; done
port=$(cat "$folder/port")

cat >"$folder/config.toml" <<TOML
version = 3
root = "$folder/root"
state = "$folder/state"
[grpc]
  address = "$folder/containerd.sock"
[ttrpc]
  address = "$folder/ttrpc.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$folder/opt"
TOML
"$folder/bin/containerd" --config "$folder/config.toml" >"$folder/log" 2>&1 &
containerd_pid=$!
while [ ! -S "$folder/containerd.sock" ]; do sleep 0.1; done
sleep 1
ctr() { timeout 60 "$folder/bin/ctr" --address "$folder/containerd.sock" "$@"; }
requests() { grep -c . "$folder/asked" || true; }

started=$(date +%s)
ctr content fetch --plain-http "127.0.0.1:$port/library/demo:1" >/dev/null 2>&1 || true
took=$(($(date +%s) - started))
echo "one fetch: $(requests) requests within $took s"
cat "$folder/asked"
[ "$(requests)" -gt 2 ] && [ "$took" -lt 25 ]
