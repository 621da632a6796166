#!/bin/sh
# containerd 2.4.2 (the same code since 2.1). A registry folder "A:B" is documented as two folders, and the default of config_path since 2.2 is
# "/etc/containerd/certs.d:/etc/docker/certs.d". The transfer service, which pulls since 2.1, hands the whole value to
# HostDirFromRoot (core/transfer/registry/registry.go), which joins it with the host's name as one path: neither folder is read, and
# nothing is logged. Releases up to 2.0 split the value at colons.
# Seen: with one folder the mirror in hosts.toml is asked; with that folder and a second one it is not.
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

mkdir -p "$folder/hosts/registry.invalid" "$folder/second"
printf 'server = "http://127.0.0.1:%s"\n[host."http://127.0.0.1:%s"]\n' "$port" "$port" >"$folder/hosts/registry.invalid/hosts.toml"
ctr image pull --hosts-dir "$folder/hosts" registry.invalid/library/demo:1 >/dev/null 2>&1 || true
one=$(requests)
ctr image pull --hosts-dir "$folder/hosts:$folder/second" registry.invalid/library/demo:1 >/dev/null 2>&1 || true
two=$(($(requests) - one))
echo "one folder: the mirror was asked $one times; two folders: $two times"
[ "$one" -gt 0 ] && [ "$two" -eq 0 ]
