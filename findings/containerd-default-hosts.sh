#!/bin/sh
# containerd 2.4.2 (1.6 to 2.4 alike). `_default/hosts.toml` is meant for registries without a folder of their own. It applies to
# 127.0.0.1:PORT and localhost too (hostPaths in core/remotes/docker/config/config_unix.go), so an image that is named by a registry on
# this machine is asked from that mirror, and with a `server` line never from the machine itself.
# Seen: a pull of 127.0.0.1:1/library/demo asks the mirror of _default; with 127.0.0.1_1_/hosts.toml it no longer does.
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

# A server that answers every request with 404 and writes down what it was asked.
cat >"$folder/server.py" <<'PY'
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        with open(sys.argv[1], 'a') as log:
            log.write(f'{self.command} {self.path}\n')
        self.send_response(404)
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

mkdir -p "$folder/hosts/_default"
printf 'server = "http://127.0.0.1:%s"\n[host."http://127.0.0.1:%s"]\n' "$port" "$port" >"$folder/hosts/_default/hosts.toml"
ctr content fetch --hosts-dir "$folder/hosts" 127.0.0.1:1/library/demo:1 >/dev/null 2>&1 || true
with=$(requests)
mkdir "$folder/hosts/127.0.0.1_1_"
printf 'server = "http://127.0.0.1:1"\n' >"$folder/hosts/127.0.0.1_1_/hosts.toml"
ctr content fetch --hosts-dir "$folder/hosts" 127.0.0.1:1/library/demo:1 >/dev/null 2>&1 || true
own=$(($(requests) - with))
echo "_default alone: its mirror was asked $with times for 127.0.0.1:1; with a folder for that address: $own times"
[ "$with" -gt 0 ] && [ "$own" -eq 0 ]
